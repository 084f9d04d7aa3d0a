//! An exec that fails leaves everything as it was; and each failure has its own name.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::elf::{Code, Elf};
use crate::support::{
    Case, End, Execution, FOLDER, Outcome, SELF, c_string, case_in_child, ensure, errno, pointers, same, value, write,
};

pub const CASES: &[Case] = &[
    ("each error has its name", each_error_has_its_name),
    ("permissions are those of the caller", permissions),
    ("a file that is written is not executed, nor the other way round", text_busy),
    ("long strings and many are refused, shorter and fewer are passed on", bounds_of_strings),
    ("the stack's limit bounds the strings", the_stack_bounds_the_strings),
    ("bad pointers are found wherever they lie", bad_pointers),
    ("strings may lie across pages, and in pages still on disk", strings_across_pages),
    ("after a failure the old program goes on untouched", the_old_program_goes_on),
    ("a mount without exec refuses", a_mount_without_exec),
];

fn call(path: *const libc::c_char, arguments: usize, environment: usize) -> i32 {
    // SAFETY: the kernel checks the pointers; that is what is tried here.
    unsafe { libc::syscall(libc::SYS_execve, path, arguments, environment) };
    errno()
}

fn each_error_has_its_name() -> Outcome {
    std::os::unix::fs::symlink("loop-a", format!("{FOLDER}/loop-b")).map_err(|error| error.to_string())?;
    std::os::unix::fs::symlink("loop-b", format!("{FOLDER}/loop-a")).map_err(|error| error.to_string())?;
    std::os::unix::fs::symlink("nowhere", format!("{FOLDER}/dangling")).map_err(|error| error.to_string())?;
    write("plain", b"#!/tmp/exec-test/show\n", 0o644);
    write("empty", b"", 0o755);
    write("garbage", &[0x55; 5000], 0o755);
    let long = "x".repeat(256);
    let longer = "x/".repeat(2050);
    for (path, wanted) in [
        ("/tmp/exec-test/nowhere", libc::ENOENT),
        ("", libc::ENOENT),
        ("/tmp/exec-test/dangling", libc::ENOENT),
        ("/tmp/exec-test/nowhere/x", libc::ENOENT),
        ("/tmp/exec-test/self/x", libc::ENOTDIR),
        ("/tmp/exec-test/self/", libc::ENOTDIR),
        ("/tmp/exec-test", libc::EACCES),
        ("/", libc::EACCES),
        ("/tmp/exec-test/plain", libc::EACCES),
        ("/dev/null", libc::EACCES),
        ("/tmp/exec-test/loop-a", libc::ELOOP),
        ("/tmp/exec-test/empty", libc::ENOEXEC),
        ("/tmp/exec-test/garbage", libc::ENOEXEC),
        (&long, libc::ENAMETOOLONG),
        (&longer, libc::ENAMETOOLONG),
        // There is no search: that is the C library's work.
        ("sh", libc::ENOENT),
    ] {
        let end = Execution::of(path).arguments(["x"]).end();
        if end != End::Refused(wanted) {
            return Err(format!("{path:?}: {}", end.words()));
        }
    }
    Ok(())
}

fn become_nobody() {
    // SAFETY: the child gives its rights up.
    unsafe { (libc::setgroups(0, std::ptr::null()), libc::setgid(1000), libc::setuid(1000)) };
}

fn permissions() -> Outcome {
    let end = |mode: u32, is_root: bool| {
        let path = write("program", &Elf::fixed(Code::Exit).bytes(), mode);
        let execution = Execution::of(path);
        if is_root { execution.end() } else { execution.before(become_nobody).end() }
    };
    let (runs, refused) = (End::Exited(42), End::Refused(libc::EACCES));
    for (mode, by_root, by_others) in [
        (0o755, runs, runs),
        (0o711, runs, runs),
        (0o001, runs, runs),
        (0o100, runs, refused),
        (0o700, runs, refused),
        (0o644, refused, refused),
        (0o000, refused, refused),
    ] {
        same!((mode, end(mode, true)), (mode, by_root));
        same!((mode, end(mode, false)), (mode, by_others));
    }
    std::fs::create_dir_all(format!("{FOLDER}/closed")).map_err(|error| error.to_string())?;
    write("closed/program", &Elf::fixed(Code::Exit).bytes(), 0o755);
    std::fs::set_permissions(format!("{FOLDER}/closed"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .map_err(|error| error.to_string())?;
    same!(Execution::of(format!("{FOLDER}/closed/program")).before(become_nobody).end(), refused);
    same!(Execution::of(format!("{FOLDER}/closed/nowhere")).before(become_nobody).end(), refused);
    Ok(())
}

fn text_busy() -> Outcome {
    let path = write("busy", &Elf::fixed(Code::Exit).bytes(), 0o755);
    let open = |path: &std::path::Path| std::fs::OpenOptions::new().write(true).open(path);
    let busy =
        |outcome: std::io::Result<()>| outcome.err().and_then(|error| error.raw_os_error()) == Some(libc::ETXTBSY);
    let writer = open(&path).map_err(|error| error.to_string())?;
    same!(Execution::of(&path).end(), End::Refused(libc::ETXTBSY));
    drop(writer);
    same!(Execution::of(&path).end(), End::Exited(42));
    // While it runs, nobody opens it for writing or cuts it.
    let running = write("running", &std::fs::read(SELF).map_err(|error| error.to_string())?, 0o755);
    let (mut from, to) = crate::support::pipe();
    // SAFETY: this program has one thread; the child only executes.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: the child's own descriptors, and its end.
        unsafe { libc::dup2(to, 1) };
        Execution::of(&running).arguments(["running", "role", "pause"]).here();
        // SAFETY: as above.
        unsafe { libc::_exit(1) };
    }
    let mut byte = [0];
    std::io::Read::read_exact(&mut from, &mut byte).map_err(|error| error.to_string())?;
    ensure!(busy(open(&running).map(drop)));
    let name = c_string(running.as_os_str().as_encoded_bytes());
    // SAFETY: a path that ends with NUL.
    ensure!(unsafe { libc::truncate(name.as_ptr(), 0) } == -1 && errno() == libc::ETXTBSY);
    ensure!(std::fs::File::open(&running).is_ok());
    // It may be replaced and removed.
    std::fs::rename(&running, format!("{FOLDER}/moved")).map_err(|error| error.to_string())?;
    ensure!(busy(open(std::path::Path::new("/tmp/exec-test/moved")).map(drop)));
    // SAFETY: our own child.
    unsafe { libc::kill(child, libc::SIGKILL) };
    same!(crate::support::wait(child), End::Killed(libc::SIGKILL));
    ensure!(open(std::path::Path::new("/tmp/exec-test/moved")).is_ok());
    std::fs::remove_file(format!("{FOLDER}/moved")).map_err(|error| error.to_string())?;
    // A failed exec does not keep the file.
    let path = write("garbage", &[0x55; 5000], 0o755);
    same!(Execution::of(&path).end(), End::Refused(libc::ENOEXEC));
    ensure!(open(&path).is_ok());
    // A script may be written while it runs; what it names may not be busy.
    let script = write("script", b"#!/tmp/exec-test/busy\n", 0o755);
    let writer = open(std::path::Path::new("/tmp/exec-test/busy")).map_err(|error| error.to_string())?;
    same!(Execution::of(&script).end(), End::Refused(libc::ETXTBSY));
    drop(writer);
    same!(Execution::of(&script).end(), End::Exited(42));
    Ok(())
}

fn sum(list: &[Vec<u8>]) -> u64 {
    list.iter().flatten().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}

fn described(list: &[Vec<u8>]) -> String {
    let len: usize = list.iter().map(Vec::len).sum();
    format!("{} strings, {len} bytes, sum {:x}", list.len(), sum(list))
}

fn limit_stack(bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a valid limit.
    unsafe { libc::setrlimit(libc::RLIMIT_STACK, &raw const limit) };
}

fn role_with(extra: Vec<Vec<u8>>) -> (Execution, Vec<Vec<u8>>) {
    let mut all = vec![SELF.as_bytes().to_vec(), b"role".to_vec(), b"lengths".to_vec()];
    all.extend(extra);
    (Execution::of(SELF).arguments(all.clone()).before(|| limit_stack(8 << 20)), all)
}

fn bounds_of_strings() -> Outcome {
    const LONGEST: usize = 128 * 1024 - 1;
    for (len, is_passed) in [(LONGEST, true), (LONGEST + 1, false), (LONGEST + 70_000, false)] {
        let (execution, all) = role_with(vec![vec![b'a'; len]]);
        if is_passed {
            same!(value(&execution.text()?, "arguments")?.to_owned(), described(&all));
        } else {
            same!(execution.end(), End::Refused(libc::E2BIG));
        }
        let execution = Execution::role("lengths").environment([vec![b'a'; len]]).before(|| limit_stack(8 << 20));
        if is_passed {
            same!(value(&execution.text()?, "environment")?.to_owned(), described(&[vec![b'a'; len]]));
        } else {
            same!(execution.end(), End::Refused(libc::E2BIG));
        }
    }
    // Many short ones, with odd bytes in them.
    let many: Vec<Vec<u8>> = (0..30_000_u32).map(|index| format!("{index}\u{fe}").into_bytes()).collect();
    let (execution, all) = role_with(many);
    same!(value(&execution.text()?, "arguments")?.to_owned(), described(&all));
    Ok(())
}

/// Whether so many bytes in strings of 1000 are passed on.
fn passes(bytes: u64, stack: u64) -> Result<bool, String> {
    // Each string costs its bytes, its NUL and its pointer.
    let count = bytes / 1000;
    let strings = vec![vec![b'x'; 1000 - 9]; count as usize];
    let execution = Execution::role("lengths").environment(strings).before(move || limit_stack(stack));
    match execution.end() {
        End::Exited(0) => Ok(true),
        End::Refused(libc::E2BIG) => Ok(false),
        other => Err(other.words()),
    }
}

fn the_stack_bounds_the_strings() -> Outcome {
    const MIB: u64 = 1 << 20;
    for (stack, most) in [
        (8 * MIB, 2 * MIB),
        (4 * MIB, MIB),
        (512 << 10, 128 << 10),
        (64 * MIB, 6 * MIB),
        (libc::RLIM_INFINITY, 6 * MIB),
    ] {
        let (below, above) = (passes(most - most / 50 - 5000, stack)?, passes(most + most / 50, stack)?);
        if (below, above) != (true, false) {
            return Err(format!("a stack of {stack}: {below} below, {above} above"));
        }
    }
    Ok(())
}

fn bad_pointers() -> Outcome {
    const UNMAPPED: usize = 0x1000;
    const KERNEL: usize = 0xffff_8000_0000_0000;
    let path = c_string(SELF);
    let good = [c_string("self")];
    let good = pointers(&good);
    let list = good.as_ptr().addr();
    for bad in [UNMAPPED, KERNEL, usize::MAX, 1 << 63] {
        same!(call(bad as *const _, list, list), libc::EFAULT);
        same!(call(path.as_ptr(), bad, 0), libc::EFAULT);
        same!(call(path.as_ptr(), list, bad), libc::EFAULT);
        let strings = [good[0].addr(), bad, 0];
        same!(call(path.as_ptr(), strings.as_ptr().addr(), 0), libc::EFAULT);
        same!(call(path.as_ptr(), list, strings.as_ptr().addr()), libc::EFAULT);
    }
    // A list and a string that run into memory that is not there.
    // SAFETY: fresh memory; the second page of it is taken away again.
    let page = unsafe {
        let page = libc::mmap(std::ptr::null_mut(), 8192, 3, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
        libc::munmap(page.byte_add(4096), 4096);
        page.cast::<u8>()
    };
    // SAFETY: within the first page.
    unsafe {
        let last_word = page.add(4088).cast::<usize>();
        last_word.write(good[0].addr());
        same!(call(path.as_ptr(), last_word.addr(), 0), libc::EFAULT);
        page.add(4000).write_bytes(b'x', 96);
        let strings = [page.add(4000).addr(), 0];
        same!(call(path.as_ptr(), strings.as_ptr().addr(), 0), libc::EFAULT);
        same!(call(page.add(4000).cast(), list, 0), libc::EFAULT);
    }
    Ok(())
}

fn strings_across_pages() -> Outcome {
    // The strings lie in a file that is mapped, at every distance from a page's end.
    let mut content = vec![0; 3 * 4096];
    let mut starts = vec![];
    for distance in 1..40_usize {
        starts.push(4096 - distance);
        starts.push(8192 - distance);
    }
    content[4000..4200].fill(b'q');
    content[8000..8300].fill(b'r');
    let path = write("strings", &content, 0o644);
    let file = std::fs::File::open(&path).map_err(|error| error.to_string())?;
    // SAFETY: a fresh mapping, only read.
    let map = unsafe { libc::mmap(std::ptr::null_mut(), 3 * 4096, 1, libc::MAP_PRIVATE, file.as_raw_fd(), 0) }.addr();
    let mut all = vec![SELF.as_bytes().to_vec(), b"role".to_vec(), b"lengths".to_vec()];
    let heads: Vec<_> = all.iter().map(c_string).collect();
    let list: Vec<usize> = heads
        .iter()
        .map(|head| head.as_ptr().addr())
        .chain(starts.iter().map(|start| map + start))
        .chain([0])
        .collect();
    for start in starts {
        all.push(content[start..].split(|byte| *byte == 0).next().unwrap_or_default().to_vec());
    }
    let execution = Execution::of(SELF).by(move |_, _| {
        let _keep = &heads;
        call(c"/tmp/exec-test/self".as_ptr(), list.as_ptr().addr(), 0);
    });
    same!(value(&execution.text()?, "arguments")?.to_owned(), described(&all));
    Ok(())
}

static CAUGHT: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32) {
    CAUGHT.fetch_add(1, Ordering::Relaxed);
}

fn the_old_program_goes_on() -> Outcome {
    write("plain", b"x", 0o644);
    write("garbage", &[0x55; 5000], 0o755);
    write("bad-interpreter", &Elf::fixed(Code::Exit).interpreted_by(b"/tmp/exec-test/nowhere").bytes(), 0o755);
    write("wrong-class", &Elf::fixed(Code::Exit).interpreted_by(b"/tmp/exec-test/garbage").bytes(), 0o755);
    write("loop", b"#!/tmp/exec-test/loop\n", 0o755);
    case_in_child(|| {
        let file = std::fs::File::open(SELF).map_err(|error| error.to_string())?;
        let closing = file.as_raw_fd();
        // SAFETY: a handler that only counts; own descriptors and signals.
        unsafe {
            libc::signal(libc::SIGUSR1, count as *const () as usize);
            libc::fcntl(closing, libc::F_SETFD, libc::FD_CLOEXEC);
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&raw mut set, libc::SIGUSR2);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            libc::raise(libc::SIGUSR2);
        }
        let memory = vec![0x5a_u8; 1 << 20];
        let is_over = Arc::new(AtomicBool::new(false));
        let steps = Arc::new(AtomicU32::new(0));
        let other = std::thread::spawn({
            let (is_over, steps) = (is_over.clone(), steps.clone());
            move || {
                while !is_over.load(Ordering::Relaxed) {
                    steps.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            }
        });
        let long = [vec![b'x'; 200_000]];
        while steps.load(Ordering::Relaxed) < 10 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Execution::of("/tmp/exec-test/nowhere").arguments(&long).here(); // so that the allocator has what it wants
        let before = std::fs::read("/proc/self/maps").map_err(|error| error.to_string())?;
        for (path, arguments, wanted) in [
            ("/tmp/exec-test/nowhere", &[][..], libc::ENOENT),
            ("/tmp/exec-test/plain", &[], libc::EACCES),
            ("/tmp/exec-test/garbage", &[], libc::ENOEXEC),
            ("/tmp/exec-test/bad-interpreter", &[], libc::ENOENT),
            ("/tmp/exec-test/wrong-class", &[], libc::ELIBBAD),
            ("/tmp/exec-test/loop", &[], libc::ELOOP),
            (SELF, &long[..], libc::E2BIG),
        ] {
            same!(Execution::of(path).arguments(arguments).here(), wanted);
            same!(call(c_string(path).as_ptr(), 1, 1), libc::EFAULT);
        }
        let after = std::fs::read("/proc/self/maps").map_err(|error| error.to_string())?;
        let lines = |maps: &[u8]| maps.iter().filter(|byte| **byte == b'\n').count();
        same!(lines(&before), lines(&after));
        // SAFETY: own descriptors and signals.
        unsafe {
            ensure!(libc::fcntl(closing, libc::F_GETFD) == libc::FD_CLOEXEC);
            libc::raise(libc::SIGUSR1);
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigpending(&raw mut set);
            ensure!(libc::sigismember(&raw const set, libc::SIGUSR2) == 1);
        }
        same!(CAUGHT.load(Ordering::Relaxed), 1);
        ensure!(memory.iter().all(|byte| *byte == 0x5a));
        let seen = steps.load(Ordering::Relaxed);
        std::thread::sleep(std::time::Duration::from_millis(100));
        ensure!(steps.load(Ordering::Relaxed) > seen);
        is_over.store(true, Ordering::Relaxed);
        ensure!(other.join().is_ok());
        Ok(())
    })
}

fn a_mount_without_exec() -> Outcome {
    let folder = format!("{FOLDER}/mount");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let path = c_string(&folder);
    // SAFETY: strings that end with NUL.
    let mounted =
        unsafe { libc::mount(c"none".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), libc::MS_NOEXEC, std::ptr::null()) };
    same!(mounted, 0);
    write("mount/program", &Elf::fixed(Code::Exit).bytes(), 0o755);
    write("mount/script", b"#!/tmp/exec-test/show\n", 0o755);
    let ends = ["program", "script"].map(|name| Execution::of(format!("{folder}/{name}")).end());
    let by_script = {
        write("script", b"#!/tmp/exec-test/mount/program\n", 0o755);
        Execution::of(format!("{FOLDER}/script")).end()
    };
    // SAFETY: a string that ends with NUL.
    unsafe { libc::umount(path.as_ptr()) };
    same!(ends, [End::Refused(libc::EACCES); 2]);
    same!(by_script, End::Refused(libc::EACCES));
    Ok(())
}
