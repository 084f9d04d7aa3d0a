//! What programs rely on of System V shared memory: keys, sharing, counted mappings, ends.
//!
//! Each case is a function; the program runs them all, says which have failed, and exits with their number. It passes on Linux, as root.
#![allow(unsafe_code, reason = "std has no safe form of shared segments")]

use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use test_programs::children::{becomes, drop_privileges, in_child};
use test_programs::{Case, Outcome, ensure, errno};

const PAGE: usize = 4096;
const SHM_DEST: u16 = 0o1000;
const SHM_LOCKED: u16 = 0o2000;
const SHM_STAT: i32 = 13;
const SHM_INFO: i32 = 14;

/// A segment that is removed when the case ends.
struct Segment(i32);

impl Segment {
    fn new(size: usize, mode: i32) -> Result<Segment, String> {
        let id = get(libc::IPC_PRIVATE, size, libc::IPC_CREAT | mode);
        ensure!(id >= 0, "errno {}", errno());
        Ok(Segment(id))
    }

    fn control<T>(&self, command: i32, argument: *mut T) -> i32 {
        // SAFETY: whoever passes an address passes one of room enough for the command.
        unsafe { libc::shmctl(self.0, command, argument.cast()) }
    }

    fn about(&self) -> Result<libc::shmid_ds, String> {
        let mut about = MaybeUninit::<libc::shmid_ds>::zeroed();
        ensure!(self.control(libc::IPC_STAT, about.as_mut_ptr()) == 0, "errno {}", errno());
        // SAFETY: all zeros is valid, and the kernel has filled it.
        Ok(unsafe { about.assume_init() })
    }

    fn attached(&self) -> u64 {
        self.about().map_or(u64::MAX, |about| about.shm_nattch)
    }

    /// Where it is attached, or the number of the error.
    fn attach_at(&self, address: usize, flags: i32) -> Result<usize, i32> {
        // SAFETY: a new mapping, or one in place of what the case has made itself.
        let at = unsafe { libc::shmat(self.0, ptr::without_provenance(address), flags) };
        if at.addr() == usize::MAX { Err(errno()) } else { Ok(at.expose_provenance()) }
    }

    fn attach(&self) -> Result<usize, String> {
        self.attach_at(0, 0).map_err(|errno| format!("errno {errno}"))
    }

    fn remove(&self) -> i32 {
        self.control::<u8>(libc::IPC_RMID, ptr::null_mut())
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.remove();
    }
}

fn get(key: i32, size: usize, flags: i32) -> i32 {
    // SAFETY: plain numbers.
    unsafe { libc::shmget(key, size, flags) }
}

fn detach(address: usize) -> i32 {
    // SAFETY: nobody uses what was attached there any more.
    if unsafe { libc::shmdt(ptr::without_provenance(address)) } == 0 { 0 } else { errno() }
}

/// A word of attached memory.
fn word(address: usize) -> &'static AtomicU32 {
    // SAFETY: the caller has attached a segment there that is longer, and uses the word only while it is.
    unsafe { AtomicU32::from_ptr(ptr::with_exposed_provenance_mut(address)) }
}

fn a_key_finds_its_segment_until_it_is_removed() -> Outcome {
    let key = 0x526f_0000 | std::process::id() as i32 & 0xffff;
    ensure!(get(key, PAGE, 0o600) == -1 && errno() == libc::ENOENT);
    ensure!(get(key, 0, libc::IPC_CREAT | 0o600) == -1 && errno() == libc::EINVAL);
    ensure!(get(key, usize::MAX, libc::IPC_CREAT | 0o600) == -1 && errno() == libc::EINVAL);
    ensure!(get(key, 1 << 46, libc::IPC_CREAT | 0o600) == -1 && errno() == libc::ENOMEM);
    let segment = Segment(get(key, 5000, libc::IPC_CREAT | 0o640));
    ensure!(segment.0 >= 0, "errno {}", errno());
    ensure!(get(key, 0, 0) == segment.0 && get(key, 5000, libc::IPC_CREAT) == segment.0);
    ensure!(get(key, 5001, 0) == -1 && errno() == libc::EINVAL);
    ensure!(get(key, PAGE, libc::IPC_CREAT | libc::IPC_EXCL) == -1 && errno() == libc::EEXIST);
    let stranger = in_child(|| {
        drop_privileges(1234, 1234);
        i32::from(!(get(key, 0, 0o400) == -1 && errno() == libc::EACCES && get(key, 0, 0) >= 0))
    });
    ensure!(stranger? == 0);
    let about = segment.about()?;
    ensure!(about.shm_segsz == 5000 && about.shm_nattch == 0 && about.shm_cpid == std::process::id() as i32);
    ensure!((about.shm_lpid, about.shm_atime, about.shm_dtime) == (0, 0, 0) && about.shm_ctime > 0);
    ensure!(segment.remove() == 0);
    ensure!(segment.remove() == -1 && errno() == libc::EINVAL);
    ensure!(segment.attach_at(0, 0) == Err(libc::EINVAL));
    ensure!(get(key, 0, 0) == -1 && errno() == libc::ENOENT);
    Ok(())
}

fn what_one_writes_the_other_reads() -> Outcome {
    let segment = Segment::new(3 * PAGE, 0o600)?;
    let (here, there) = (segment.attach()?, segment.attach()?);
    ensure!(here != there && word(here + 2 * PAGE).load(Ordering::SeqCst) == 0);
    word(here + 2 * PAGE).store(7, Ordering::SeqCst);
    ensure!(word(there + 2 * PAGE).load(Ordering::SeqCst) == 7);
    // A child inherits it; another finds it by its identifier.
    let ended = in_child(|| {
        word(here).store(8, Ordering::SeqCst);
        let Ok(own) = segment.attach() else { return 1 };
        word(own + PAGE).store(9, Ordering::SeqCst);
        i32::from(segment.attached() != 5)
    });
    ensure!(ended? == 0);
    ensure!(word(there).load(Ordering::SeqCst) == 8 && word(there + PAGE).load(Ordering::SeqCst) == 9);
    ensure!(detach(here) == 0 && detach(there) == 0 && detach(here) == libc::EINVAL);
    // Its content stays while nobody maps it.
    let again = segment.attach()?;
    ensure!(word(again + 2 * PAGE).load(Ordering::SeqCst) == 7);
    ensure!(detach(again) == 0);
    Ok(())
}

fn mappings_are_counted() -> Outcome {
    let segment = Segment::new(4 * PAGE, 0o600)?;
    let own = std::process::id() as i32;
    let first = segment.attach()?;
    let about = segment.about()?;
    ensure!(about.shm_nattch == 1 && about.shm_lpid == own && about.shm_atime > 0 && about.shm_dtime == 0);
    let second = segment.attach()?;
    ensure!(segment.attached() == 2);
    ensure!(in_child(|| i32::from(segment.attached() != 4))? == 0);
    ensure!(segment.attached() == 2);
    let about = segment.about()?;
    ensure!(about.shm_dtime > 0 && about.shm_lpid != own);
    ensure!(in_child(|| detach(first) + i32::from(segment.attached() != 3))? == 0);
    // What executes another program has nothing attached any more.
    let outcome = in_child(|| {
        let program = c"/proc/self/exe";
        let arguments = [program.as_ptr(), c"attached".as_ptr(), ptr::null()];
        // SAFETY: the names outlive the call; this ends with the program if it is there.
        unsafe {
            libc::setenv(
                c"SEGMENT".as_ptr(),
                std::ffi::CString::new(segment.0.to_string()).unwrap_or_default().as_ptr(),
                1,
            );
            libc::execv(program.as_ptr(), arguments.as_ptr());
        }
        99
    });
    ensure!(outcome? == 2);
    // munmap of a part, and of the rest.
    // SAFETY: the case's own mapping, which nobody uses.
    let unmap = |from: usize, len: usize| unsafe { libc::munmap(ptr::without_provenance_mut(from), len) };
    ensure!(unmap(first, PAGE) == 0 && segment.attached() == 2);
    ensure!(unmap(first + PAGE, 3 * PAGE) == 0 && segment.attached() == 1);
    // A hole in the middle: shmdt takes both sides.
    ensure!(unmap(second + PAGE, PAGE) == 0);
    ensure!(detach(second) == 0 && segment.attached() == 0);
    ensure!(detach(second) == libc::EINVAL && detach(second + 1) == libc::EINVAL);
    Ok(())
}

fn a_removed_segment_goes_with_its_last_mapping() -> Outcome {
    let segment = Segment::new(PAGE, 0o600)?;
    let at = segment.attach()?;
    word(at).store(5, Ordering::SeqCst);
    ensure!(segment.remove() == 0);
    let about = segment.about()?;
    ensure!(about.shm_perm.mode & SHM_DEST != 0 && about.shm_nattch == 1 && about.shm_perm.__key == libc::IPC_PRIVATE);
    // As long as it is there it can be attached (an extension of Linux).
    let again = segment.attach()?;
    ensure!(word(again).load(Ordering::SeqCst) == 5);
    ensure!(detach(at) == 0 && segment.attached() == 1);
    ensure!(in_child(|| i32::from(word(again).load(Ordering::SeqCst) != 5))? == 0);
    ensure!(detach(again) == 0 && segment.about().is_err());
    // Also if the last one just ends.
    let segment = Segment::new(PAGE, 0o600)?;
    ensure!(in_child(|| i32::from(segment.attach().is_err() || segment.remove() != 0))? == 0);
    ensure!(becomes(|| segment.about().is_err()));
    Ok(())
}

fn addresses_are_taken_rounded_or_refused() -> Outcome {
    let segment = Segment::new(2 * PAGE, 0o600)?;
    let free = segment.attach()?;
    ensure!(detach(free) == 0);
    ensure!(segment.attach_at(free + 1, 0) == Err(libc::EINVAL));
    ensure!(segment.attach_at(free + 100, libc::SHM_RND) == Ok(free));
    ensure!(segment.attach_at(free, 0) == Err(libc::EINVAL) && segment.attach_at(free + PAGE, 0) == Err(libc::EINVAL));
    ensure!(segment.attach_at(0, libc::SHM_REMAP) == Err(libc::EINVAL));
    ensure!(segment.attach_at(free, libc::SHM_REMAP) == Ok(free) && segment.attached() == 1);
    ensure!(detach(free) == 0 && segment.attached() == 0);
    Ok(())
}

fn rights_are_those_of_the_mode() -> Outcome {
    let segment = Segment::new(PAGE, 0o640)?;
    let at = segment.attach_at(0, libc::SHM_RDONLY).map_err(|errno| format!("errno {errno}"))?;
    let protect = |rights: i32| {
        // SAFETY: the case's own mapping.
        unsafe { libc::mprotect(ptr::without_provenance_mut(at), PAGE, rights) }
    };
    ensure!(protect(libc::PROT_READ | libc::PROT_WRITE) == -1 && errno() == libc::EACCES);
    let ended = in_child(|| {
        word(at).store(1, Ordering::SeqCst);
        0
    });
    ensure!(ended? == 1000 + libc::SIGSEGV);
    ensure!(detach(at) == 0);
    let as_stranger = |uid: u32, work: &dyn Fn() -> bool| {
        in_child(|| {
            drop_privileges(uid, 1234);
            i32::from(!work())
        })
    };
    ensure!(as_stranger(1234, &|| segment.attach_at(0, libc::SHM_RDONLY) == Err(libc::EACCES))? == 0);
    ensure!(as_stranger(1234, &|| segment.remove() == -1 && errno() == libc::EPERM)? == 0);
    ensure!(
        as_stranger(1234, &|| segment.control::<u8>(libc::SHM_LOCK, ptr::null_mut()) == -1 && errno() == libc::EPERM)?
            == 0
    );
    let mut about = segment.about()?;
    about.shm_perm.mode = 0o644;
    about.shm_perm.gid = 77;
    ensure!(segment.control(libc::IPC_SET, &raw mut about) == 0);
    let seen = segment.about()?.shm_perm;
    ensure!((seen.mode, seen.gid, seen.cgid == 77) == (0o644, 77, false));
    ensure!(
        as_stranger(1234, &|| segment.attach_at(0, libc::SHM_RDONLY).is_ok()
            && segment.attach_at(0, 0) == Err(libc::EACCES))?
            == 0
    );
    about.shm_perm.uid = 1234;
    ensure!(segment.control(libc::IPC_SET, &raw mut about) == 0);
    ensure!(segment.control::<u8>(libc::SHM_LOCK, ptr::null_mut()) == 0);
    ensure!(segment.about()?.shm_perm.mode == 0o644 | SHM_LOCKED);
    ensure!(segment.control::<u8>(libc::SHM_UNLOCK, ptr::null_mut()) == 0 && segment.about()?.shm_perm.mode == 0o644);
    ensure!(as_stranger(1234, &|| segment.attach_at(0, 0).is_ok() && segment.remove() == 0)? == 0);
    ensure!(becomes(|| segment.about().is_err()));
    Ok(())
}

fn what_there_is_can_be_looked_up() -> Outcome {
    let segment = Segment::new(3 * PAGE + 1, 0o600)?;
    let at = segment.attach()?;
    word(at).store(1, Ordering::SeqCst);
    let mut limits = [0_u64; 9];
    ensure!(segment.control(libc::IPC_INFO, limits.as_mut_ptr()) >= 0);
    let most = u64::MAX - (1 << 24);
    ensure!(limits[..5] == [most, 1, 4096, 4096, most], "{limits:?}");
    let mut used = [0_u64; 6];
    let largest = segment.control(SHM_INFO, used.as_mut_ptr());
    ensure!(largest >= 0 && used[0] as u32 >= 1 && used[1] >= 4 && used[2] >= 1, "{used:?}");
    let mut about = MaybeUninit::<libc::shmid_ds>::zeroed();
    let mut by_index = |index: i32| ManuallyDrop::new(Segment(index)).control(SHM_STAT, about.as_mut_ptr());
    ensure!((0..=largest).any(|index| by_index(index) == segment.0));
    ensure!(by_index(largest + 1) == -1 && errno() == libc::EINVAL);
    let read = |path: &str| std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    ensure!(
        read("/proc/sys/kernel/shmmax")? == format!("{most}\n")
            && read("/proc/sys/kernel/shmall")? == format!("{most}\n")
    );
    ensure!(read("/proc/sys/kernel/shmmni")? == "4096\n");
    let table = read("/proc/sysvipc/shm")?;
    let head = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap";
    ensure!(table.lines().next() == Some(head), "{table}");
    let id = segment.0.to_string();
    let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&id)).unwrap_or_default();
    let (own, words) = (std::process::id().to_string(), line.split_whitespace().collect::<Vec<_>>());
    ensure!(words.len() == 16 && words[2..7] == ["600", "12289", &own, &own, "1"] && words[14] == "4096", "{table}");
    ensure!(line.starts_with("         0 ") && line[21..].starts_with("   600                 12289 "), "{line}");
    let maps = read("/proc/self/maps")?;
    let line = maps.lines().find(|line| line.starts_with(&format!("{at:x}-"))).unwrap_or_default();
    ensure!(
        line.contains(&format!(" rw-s 00000000 00:01 {id} ")) && line.ends_with(" /SYSV00000000 (deleted)"),
        "{line}"
    );
    ensure!(detach(at) == 0);
    Ok(())
}

const CASES: &[Case] = &[
    ("a key finds its segment until it is removed", a_key_finds_its_segment_until_it_is_removed),
    ("what one writes the other reads", what_one_writes_the_other_reads),
    ("mappings are counted", mappings_are_counted),
    ("a removed segment goes with its last mapping", a_removed_segment_goes_with_its_last_mapping),
    ("addresses are taken, rounded or refused", addresses_are_taken_rounded_or_refused),
    ("rights are those of the mode", rights_are_those_of_the_mode),
    ("what there is can be looked up", what_there_is_can_be_looked_up),
];

fn main() {
    // Executed by a case: how many have the segment attached now.
    if let Some(id) = std::env::var("SEGMENT").ok().and_then(|id| id.parse().ok()) {
        std::process::exit(ManuallyDrop::new(Segment(id)).attached() as i32);
    }
    std::process::exit(test_programs::run(CASES));
}
