//! What programs rely on of their memory: mmap and its kin, copy-on-write, faults and the signals they become.
//!
//! Each case is a function; the program runs them all, says which have failed, and exits with their number. It passes on Linux. With `much`
//! as its argument it does one thing instead.
#![allow(unsafe_code, reason = "a program that tries raw mappings has no safe form")]

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

use libc::{
    MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_NONE,
    PROT_READ, PROT_WRITE,
};
use test_programs::{Case, Outcome, ensure, errno};

const PAGE: usize = 4096;
const RW: i32 = PROT_READ | PROT_WRITE;

fn map(address: usize, pages: usize, rights: i32, flags: i32, file: i32) -> Result<*mut u8, i32> {
    // SAFETY: a fresh mapping, or one in place of memory that only the case itself uses.
    let at = unsafe { libc::mmap(address as *mut _, pages * PAGE, rights, flags, file, 0) };
    if at == MAP_FAILED { Err(errno()) } else { Ok(at.cast()) }
}

fn anonymous(pages: usize) -> *mut u8 {
    map(0, pages, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1).expect("memory")
}

fn get(at: *mut u8, offset: usize) -> u8 {
    // SAFETY: the cases look only at what they have mapped, or in a child that may die of it.
    unsafe { at.add(offset).read_volatile() }
}

fn put(at: *mut u8, offset: usize, value: u8) {
    // SAFETY: as in `get`.
    unsafe { at.add(offset).write_volatile(value) }
}

fn protect(at: *mut u8, pages: usize, rights: i32) -> bool {
    // SAFETY: the case's own memory.
    unsafe { libc::mprotect(at.cast(), pages * PAGE, rights) == 0 }
}

fn unmap(at: *mut u8, pages: usize) -> bool {
    // SAFETY: the case's own memory.
    unsafe { libc::munmap(at.cast(), pages * PAGE) == 0 }
}

/// Runs `work` in a child; the status of its end.
fn in_child(work: impl FnOnce() -> i32) -> i32 {
    // SAFETY: this program has one thread; the child ends without unwinding.
    unsafe {
        match libc::fork() {
            0 => libc::_exit(work()),
            child => {
                let mut status = 0;
                libc::waitpid(child, &raw mut status, 0);
                status
            }
        }
    }
}

static mut EXPECTED: usize = 0;

extern "C" fn report(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo; `_exit` may be called in a handler.
    unsafe {
        let is_address_right = (*info).si_addr() as usize == EXPECTED;
        libc::_exit(if is_address_right { signal * 4 + (*info).si_code } else { 1 });
    }
}

/// Touches memory in a child: `Some((signal, code))` if that ended in a signal with the right address.
fn touch(address: *mut u8, work: impl FnOnce(*mut u8)) -> Option<(i32, i32)> {
    let status = in_child(|| {
        // SAFETY: a handler that only exits; the child has one thread.
        unsafe {
            EXPECTED = address as usize;
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = report as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            for signal in [libc::SIGSEGV, libc::SIGBUS] {
                libc::sigaction(signal, &raw const action, null_mut());
            }
        }
        work(address);
        0
    });
    let code = libc::WEXITSTATUS(status);
    (libc::WIFEXITED(status) && code != 0).then_some((code / 4, code % 4))
}

const UNMAPPED: Option<(i32, i32)> = Some((libc::SIGSEGV, 1));
const REFUSED: Option<(i32, i32)> = Some((libc::SIGSEGV, 2));
const BEYOND: Option<(i32, i32)> = Some((libc::SIGBUS, 2));

fn read_it(at: *mut u8) {
    get(at, 0);
}

fn write_it(at: *mut u8) {
    put(at, 0, 1);
}

fn fresh_memory_is_zero_and_a_hole_in_it_faults() -> Outcome {
    let at = anonymous(5);
    ensure!((0..5 * PAGE).all(|offset| get(at, offset) == 0));
    put(at, 4 * PAGE, 9);
    ensure!(unmap(at.wrapping_add(2 * PAGE), 1));
    ensure!(touch(at.wrapping_add(2 * PAGE), read_it) == UNMAPPED);
    ensure!(get(at, 4 * PAGE) == 9 && unmap(at, 5));
    ensure!(touch(at, write_it) == UNMAPPED);
    Ok(())
}

fn rights_are_kept_and_content_survives_their_change() -> Outcome {
    let at = anonymous(3);
    put(at, PAGE, 5);
    let middle = at.wrapping_add(PAGE);
    ensure!(protect(middle, 1, PROT_READ));
    ensure!(touch(middle, write_it) == REFUSED && touch(at, write_it).is_none() && get(middle, 0) == 5);
    ensure!(protect(middle, 1, PROT_NONE) && touch(middle, read_it) == REFUSED);
    ensure!(protect(middle, 1, RW) && get(middle, 0) == 5);
    put(middle, 0, 6);
    ensure!(!protect(at.wrapping_add(3 * PAGE * 1000), 1, RW) && errno() == libc::ENOMEM);
    ensure!(unmap(at, 3));
    Ok(())
}

fn code_runs_only_where_it_may() -> Outcome {
    let at = anonymous(1);
    // mov eax, 42; ret
    for (offset, byte) in [0xb8, 42, 0, 0, 0, 0xc3].into_iter().enumerate() {
        put(at, offset, byte);
    }
    // SAFETY: the bytes are a function of this signature.
    let run = |at: *mut u8| unsafe { std::mem::transmute::<*mut u8, extern "C" fn() -> i32>(at)() };
    ensure!(touch(at, |at| _ = run(at)) == REFUSED);
    ensure!(protect(at, 1, PROT_READ | PROT_EXEC) && run(at) == 42);
    ensure!(unmap(at, 1));
    Ok(())
}

fn fixed_addresses_replace_or_refuse() -> Outcome {
    let at = anonymous(3);
    put(at, PAGE, 5);
    let flags = MAP_PRIVATE | MAP_ANONYMOUS;
    let middle = at as usize + PAGE;
    ensure!(map(middle, 1, RW, flags | MAP_FIXED_NOREPLACE, -1) == Err(libc::EEXIST));
    ensure!(get(at, PAGE) == 5);
    ensure!(map(middle, 1, RW, flags | MAP_FIXED, -1) == Ok(at.wrapping_add(PAGE)));
    ensure!(get(at, PAGE) == 0);
    ensure!(map(middle + 1, 1, RW, flags | MAP_FIXED, -1) == Err(libc::EINVAL));
    ensure!(map(0, 0, RW, flags, -1) == Err(libc::EINVAL));
    ensure!(map(1 << 47, 1, RW, flags | MAP_FIXED, -1) == Err(libc::ENOMEM));
    ensure!(map(0, 1 << 40, RW, flags, -1).is_err());
    ensure!(unmap(at, 3));
    // SAFETY: an address that is no page's is refused.
    ensure!(unsafe { libc::munmap((middle + 1) as *mut _, PAGE) } == -1 && errno() == libc::EINVAL);
    Ok(())
}

fn a_mapping_grows_moves_and_shrinks_with_its_content() -> Outcome {
    let at = anonymous(600);
    put(at, 599 * PAGE, 7);
    // The page behind is taken, so that it must move.
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    ensure!(unmap(at.wrapping_add(599 * PAGE), 1));
    put(at, 598 * PAGE, 8);
    ensure!(map(at as usize + 599 * PAGE, 1, PROT_NONE, flags, -1).is_ok());
    // SAFETY: the case's own memory.
    let stuck = unsafe { libc::mremap(at.cast(), 599 * PAGE, 700 * PAGE, 0) };
    ensure!(stuck == MAP_FAILED && errno() == libc::ENOMEM);
    // SAFETY: the case's own memory, not used at its old place any more.
    let moved = unsafe { libc::mremap(at.cast(), 599 * PAGE, 700 * PAGE, libc::MREMAP_MAYMOVE) }.cast::<u8>();
    ensure!(moved != MAP_FAILED.cast() && get(moved, 598 * PAGE) == 8 && get(moved, 699 * PAGE) == 0);
    ensure!(touch(at, read_it) == UNMAPPED);
    // SAFETY: the case's own memory.
    let shrunk = unsafe { libc::mremap(moved.cast(), 700 * PAGE, PAGE, 0) }.cast::<u8>();
    ensure!(shrunk == moved && touch(moved.wrapping_add(PAGE), read_it) == UNMAPPED);
    ensure!(unmap(moved, 1) && unmap(at.wrapping_add(599 * PAGE), 1));
    Ok(())
}

fn a_child_has_copies_of_what_is_private_and_shares_the_rest() -> Outcome {
    let private = anonymous(2);
    let shared = map(0, 2, RW, MAP_SHARED | MAP_ANONYMOUS, -1).map_err(|errno| format!("errno {errno}"))?;
    put(private, 0, 1);
    let status = in_child(|| {
        let as_before = get(private, 0) == 1 && get(private, PAGE) == 0;
        put(private, 0, 2);
        put(private, PAGE, 2);
        put(shared, PAGE, 3);
        i32::from(!as_before || get(private, 0) != 2)
    });
    ensure!(status == 0);
    ensure!(get(private, 0) == 1 && get(private, PAGE) == 0 && get(shared, PAGE) == 3 && get(shared, 0) == 0);
    ensure!(unmap(private, 2) && unmap(shared, 2));
    Ok(())
}

fn advice_throws_pages_away_and_shows_which_are_there() -> Outcome {
    let at = anonymous(4);
    put(at, 0, 1);
    put(at, 2 * PAGE, 1);
    let mut resident = [9_u8; 4];
    // SAFETY: the case's own memory, and a byte for each page.
    ensure!(unsafe { libc::mincore(at.cast(), 4 * PAGE, resident.as_mut_ptr()) } == 0);
    ensure!(resident.map(|byte| byte & 1) == [1, 0, 1, 0]);
    // SAFETY: the case's own memory.
    let advise = |advice| unsafe { libc::madvise(at.cast(), 4 * PAGE, advice) };
    ensure!(advise(libc::MADV_WILLNEED) == 0 && get(at, 0) == 1);
    ensure!(advise(libc::MADV_DONTNEED) == 0 && get(at, 0) == 0 && get(at, 2 * PAGE) == 0);
    ensure!(advise(12_345) == -1 && errno() == libc::EINVAL);
    ensure!(advise(libc::MADV_DONTFORK) == 0);
    ensure!(in_child(|| touch(at, read_it).map_or(1, |end| i32::from(Some(end) != UNMAPPED))) == 0);
    ensure!(unmap(at, 4));
    Ok(())
}

fn a_file_is_seen_through_its_mappings() -> Outcome {
    let path = "/tmp/memory-test";
    let mut options = std::fs::OpenOptions::new();
    let open = options.read(true).write(true).create(true).truncate(true).open(path);
    let mut file = open.map_err(|error| error.to_string())?;
    let content: Vec<u8> = (0..PAGE + 100).map(|index| index as u8).collect();
    file.write_all(&content).map_err(|error| error.to_string())?;
    let private = map(0, 3, RW, MAP_PRIVATE, file.as_raw_fd()).map_err(|errno| format!("errno {errno}"))?;
    let shared = map(0, 3, RW, MAP_SHARED, file.as_raw_fd()).map_err(|errno| format!("errno {errno}"))?;
    ensure!((0..PAGE + 100).all(|index| get(private, index) == index as u8 && get(shared, index) == index as u8));
    ensure!((PAGE + 100..2 * PAGE).all(|index| get(private, index) == 0));
    ensure!(touch(private.wrapping_add(2 * PAGE), read_it) == BEYOND);
    put(private, 5, 200);
    put(shared, 6, 201);
    let mut back = [0; 8];
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut back)).map_err(|error| error.to_string())?;
    ensure!(back == [0, 1, 2, 3, 4, 5, 201, 7] && get(private, 5) == 200);
    file.seek(SeekFrom::Start(PAGE as u64)).and_then(|_| file.write_all(&[99])).map_err(|error| error.to_string())?;
    ensure!(get(shared, PAGE) == 99);
    file.set_len(10).map_err(|error| error.to_string())?;
    ensure!(touch(shared.wrapping_add(PAGE), read_it) == BEYOND && get(shared, 9) == 9 && get(shared, 11) == 0);
    file.set_len(PAGE as u64 * 2).map_err(|error| error.to_string())?;
    ensure!(get(shared, PAGE) == 0 && get(shared, 11) == 0);
    let read_only = std::fs::File::open(path).map_err(|error| error.to_string())?;
    ensure!(map(0, 1, RW, MAP_SHARED, read_only.as_raw_fd()) == Err(libc::EACCES));
    let at = map(0, 1, PROT_READ, MAP_SHARED, read_only.as_raw_fd()).map_err(|errno| format!("errno {errno}"))?;
    ensure!(!protect(at, 1, RW) && errno() == libc::EACCES);
    ensure!(unmap(at, 1) && unmap(private, 3) && unmap(shared, 3));
    std::fs::remove_file(path).map_err(|error| error.to_string())
}

fn calls_with_bad_addresses_say_so() -> Outcome {
    let at = anonymous(2);
    ensure!(protect(at.wrapping_add(PAGE), 1, PROT_READ));
    let zero = std::fs::File::open("/dev/zero").map_err(|error| error.to_string())?;
    // SAFETY: what the kernel must not write, it is to refuse; the rest is the case's own memory.
    let read = |at: *mut u8, len| unsafe { libc::read(zero.as_raw_fd(), at.cast(), len) };
    ensure!(read(at.wrapping_add(PAGE), 10) == -1 && errno() == libc::EFAULT);
    ensure!(read(9 as *mut u8, 10) == -1 && errno() == libc::EFAULT);
    ensure!(read(0xffff_8000_0000_0000_usize as *mut u8, 10) == -1 && errno() == libc::EFAULT);
    put(at, PAGE - 1, 7);
    ensure!(read(at, PAGE) == PAGE as isize && get(at, PAGE - 1) == 0);
    // SAFETY: a path at an address that is not there is to be refused.
    ensure!(unsafe { libc::open(8 as *const _, libc::O_RDONLY) } == -1 && errno() == libc::EFAULT);
    ensure!(unmap(at, 2));
    Ok(())
}

fn the_heap_moves_up_and_down() -> Outcome {
    // SAFETY: nothing else of this program uses brk at the same time; what is given back was taken here.
    unsafe {
        let start = libc::sbrk(0).cast::<u8>();
        ensure!(libc::sbrk(10 * PAGE as isize).cast::<u8>() == start);
        put(start, 10 * PAGE - 1, 4);
        ensure!(libc::sbrk(-(10 * PAGE as isize)).cast::<u8>() == start.wrapping_add(10 * PAGE));
        ensure!(libc::sbrk(0).cast::<u8>() == start);
        ensure!(libc::sbrk(1 << 46) as isize == -1 && errno() == libc::ENOMEM);
    }
    Ok(())
}

#[inline(never)]
fn deep(bytes: usize) -> u8 {
    let frame = std::hint::black_box([1_u8; 1000]);
    if bytes < frame.len() { frame[0] } else { deep(bytes - frame.len()).wrapping_add(std::hint::black_box(&frame)[1]) }
}

fn the_stack_grows_to_its_limit() -> Outcome {
    ensure!(in_child(|| i32::from(deep(3 << 20) == 0)) == 0);
    let status = in_child(|| {
        // The standard library's handler would say "stack overflow" and abort.
        // SAFETY: the default action is always allowed.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        i32::from(deep(64 << 20) == 0)
    });
    ensure!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV);
    Ok(())
}

fn limits_are_kept() -> Outcome {
    ensure!(
        in_child(|| {
            let limit = libc::rlimit { rlim_cur: 1 << 30, rlim_max: 1 << 30 };
            // SAFETY: a valid limit.
            unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
            let is_refused = map(0, 1 << 19, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1) == Err(libc::ENOMEM);
            i32::from(!is_refused || map(0, 1 << 10, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1).is_err())
        }) == 0
    );
    Ok(())
}

fn maps_shows_what_is_mapped() -> Outcome {
    let at = anonymous(3);
    ensure!(protect(at, 3, PROT_READ));
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|error| error.to_string())?;
    let holds = |line: &&str| {
        let mut range = line.split([' ', '-']).map(|part| usize::from_str_radix(part, 16).unwrap_or(0));
        let (start, end) = (range.next().unwrap_or(0), range.next().unwrap_or(0));
        (start..end).contains(&(at as usize))
    };
    ensure!(maps.lines().find(holds).is_some_and(|line| line.contains(" r--p ")));
    ensure!(maps.lines().any(|line| line.ends_with("[stack]") && line.contains(" rw-p ")));
    ensure!(maps.lines().any(|line| line.contains(" r-xp ") && line.contains("/memory")));
    ensure!(unmap(at, 3));
    Ok(())
}

/// What must hold, and the function that tries it.
const CASES: &[Case] = &[
    ("fresh memory is zero and a hole in it faults", fresh_memory_is_zero_and_a_hole_in_it_faults),
    ("rights are kept and content survives their change", rights_are_kept_and_content_survives_their_change),
    ("code runs only where it may", code_runs_only_where_it_may),
    ("fixed addresses replace or refuse", fixed_addresses_replace_or_refuse),
    ("a mapping grows, moves and shrinks with its content", a_mapping_grows_moves_and_shrinks_with_its_content),
    (
        "a child has copies of what is private and shares the rest",
        a_child_has_copies_of_what_is_private_and_shares_the_rest,
    ),
    ("advice throws pages away and shows which are there", advice_throws_pages_away_and_shows_which_are_there),
    ("a file is seen through its mappings", a_file_is_seen_through_its_mappings),
    ("calls with bad addresses say so", calls_with_bad_addresses_say_so),
    ("the heap moves up and down", the_heap_moves_up_and_down),
    ("the stack grows to its limit", the_stack_grows_to_its_limit),
    ("limits are kept", limits_are_kept),
    ("maps shows what is mapped", maps_shows_what_is_mapped),
];

/// Fills a hundred mebibytes with one call and gives them back with another, then shows what Rouse says of its tasks.
fn move_much() -> std::io::Result<()> {
    const PAGES: usize = (100 << 20) / PAGE;
    let at = anonymous(PAGES);
    let zeros = std::fs::File::open("/dev/zero")?;
    // SAFETY: the memory is ours, and as long as that.
    let len = unsafe { libc::read(zeros.as_raw_fd(), at.cast(), PAGES * PAGE) };
    if len != (PAGES * PAGE) as isize || !unmap(at, PAGES) {
        return Err(std::io::Error::other(format!("read {len} bytes")));
    }
    print!("{}", std::fs::read_to_string("/proc/rouse/tasks")?);
    Ok(())
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("much") {
        return move_much().expect("it can be moved");
    }
    std::process::exit(test_programs::run(CASES));
}
