//! What is measured: one row for each kind of work that programs ask of a kernel.

use crate::child::{CHUNK, LockChase, Peer, myself};
use crate::measure::{Figure, bandwidth, each, each_undone};
use crate::raw;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open, stat};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

/// One row of the table.
pub struct Row {
    /// Its name, for `--only`.
    pub name: &'static str,
    /// Takes the figure.
    pub measure: fn() -> io::Result<Figure>,
}

/// All rows, the cheapest first.
pub const ROWS: &[Row] = &[
    Row { name: "null-syscall", measure: null_syscall },
    Row { name: "read-1", measure: read_one },
    Row { name: "write-1", measure: write_one },
    Row { name: "lseek", measure: lseek },
    Row { name: "clock-gettime", measure: clock },
    Row { name: "futex-wake", measure: futex_wake },
    Row { name: "fstat", measure: fstat },
    Row { name: "stat", measure: stat_path },
    Row { name: "open-close", measure: open_close },
    Row { name: "poll-1", measure: || poll_files(1) },
    Row { name: "poll-100", measure: || poll_files(100) },
    Row { name: "select-100", measure: select_files },
    Row { name: "signal-install", measure: || each(raw::install_handler) },
    Row { name: "signal-deliver", measure: signal_deliver },
    Row { name: "protection-fault", measure: protection_fault },
    Row { name: "page-fault-anonymous", measure: page_fault },
    Row { name: "page-fault-file", measure: page_fault_file },
    Row { name: "mmap-8m", measure: || each(|| raw::map_and_touch(None, 8 << 20)) },
    Row { name: "pipe-round-trip", measure: pipe_round_trip },
    Row { name: "unix-round-trip", measure: unix_round_trip },
    Row { name: "fifo-round-trip", measure: fifo_round_trip },
    Row { name: "unix-connect", measure: unix_connect },
    Row { name: "fcntl-lock", measure: fcntl_lock },
    Row { name: "semaphore", measure: semaphore },
    Row { name: "switch-2", measure: || ring(2) },
    Row { name: "switch-16", measure: || ring(16) },
    Row { name: "pipe-bandwidth", measure: pipe_bandwidth },
    Row { name: "unix-bandwidth", measure: unix_bandwidth },
    Row { name: "file-reread", measure: file_reread },
    Row { name: "file-create", measure: create_files },
    Row { name: "file-delete", measure: delete_files },
    Row { name: "thread-create-join", measure: thread_create_join },
    Row { name: "fork-exit", measure: || each(raw::fork_and_exit) },
    Row { name: "fork-exec", measure: fork_exec },
    Row { name: "sh-c", measure: shell },
];

fn null_syscall() -> io::Result<Figure> {
    each(|| {
        let _ = rustix::process::getppid();
        Ok(())
    })
}

fn read_one() -> io::Result<Figure> {
    let zero = File::open("/dev/zero")?;
    each(|| Ok(rustix::io::read(&zero, &mut [0; 1]).map(drop)?))
}

fn write_one() -> io::Result<Figure> {
    let null = File::options().write(true).open("/dev/null")?;
    each(|| Ok(rustix::io::write(&null, &[0; 1]).map(drop)?))
}

fn lseek() -> io::Result<Figure> {
    let file = Temporary::new(4096)?;
    each(|| Ok(rustix::fs::seek(&file.file, rustix::fs::SeekFrom::Start(1)).map(drop)?))
}

fn clock() -> io::Result<Figure> {
    each(|| {
        let _ = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Ok(())
    })
}

fn futex_wake() -> io::Result<Figure> {
    let word = std::sync::atomic::AtomicU32::new(0);
    each(|| Ok(rustix::thread::futex::wake(&word, rustix::thread::futex::Flags::PRIVATE, 1).map(drop)?))
}

fn fstat() -> io::Result<Figure> {
    let file = Temporary::new(1)?;
    each(|| Ok(rustix::fs::fstat(&file.file).map(drop)?))
}

fn stat_path() -> io::Result<Figure> {
    let file = Temporary::new(1)?;
    let path = std::ffi::CString::new(file.path.clone())?;
    each(|| Ok(stat(&path).map(drop)?))
}

fn open_close() -> io::Result<Figure> {
    let file = Temporary::new(1)?;
    let path = std::ffi::CString::new(file.path.clone())?;
    each(|| Ok(open(&path, OFlags::RDONLY, Mode::empty()).map(drop)?))
}

/// Polls so many pipes of which none is ready.
fn poll_files(count: usize) -> io::Result<Figure> {
    const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    let pipes: Vec<_> = (0..count).map(|_| io::pipe()).collect::<Result<_, _>>()?;
    let mut interests: Vec<_> = pipes.iter().map(|(reader, _)| PollFd::new(reader, PollFlags::IN)).collect();
    each(|| Ok(poll(&mut interests, Some(&AT_ONCE)).map(drop)?))
}

/// Looks at 100 files, of which the last is ready, with select(2).
fn select_files() -> io::Result<Figure> {
    let pipes: Vec<_> = (0..100).map(|_| io::pipe()).collect::<Result<_, _>>()?;
    if let Some((_, writer)) = pipes.last() {
        rustix::io::write(writer, &[0])?;
    }
    let readers: Vec<_> = pipes.iter().map(|(reader, _)| reader.as_fd()).collect();
    let readers = raw::DescriptorSet::of(&readers);
    each(|| readers.select())
}

fn signal_deliver() -> io::Result<Figure> {
    raw::install_handler()?;
    let myself = rustix::process::getpid();
    each(|| Ok(rustix::process::kill_process(myself, rustix::process::Signal::USR1)?))
}

fn protection_fault() -> io::Result<Figure> {
    let page = raw::GuardedPage::new()?;
    each(|| page.fault())
}

const FAULTS: usize = 256;

fn page_fault() -> io::Result<Figure> {
    Ok(each(|| raw::map_and_touch(None, FAULTS * 4096))?.divided_by(FAULTS))
}

fn page_fault_file() -> io::Result<Figure> {
    let file = Temporary::new(FAULTS * 4096)?;
    Ok(each(|| raw::map_and_touch(Some(&file.file), FAULTS * 4096))?.divided_by(FAULTS))
}

fn pipe_round_trip() -> io::Result<Figure> {
    let mut peer = Peer::start("echo")?;
    each(|| peer.ask(b"x"))
}

fn unix_round_trip() -> io::Result<Figure> {
    let (mut here, mut there) = UnixStream::pair()?;
    let echo = std::thread::spawn(move || {
        let mut byte = [0];
        while there.read_exact(&mut byte).and_then(|()| there.write_all(&byte)).is_ok() {}
    });
    let figure = each(|| {
        here.write_all(b"x")?;
        here.read_exact(&mut [0])
    });
    drop(here);
    let _ = echo.join();
    figure
}

/// A byte there and back between two processes, through two FIFOs.
fn fifo_round_trip() -> io::Result<Figure> {
    let (mut to, mut from) = (fifo("to")?, fifo("from")?);
    let mut peer = myself("echo").stdin(to.try_clone()?).stdout(from.try_clone()?).spawn()?;
    let figure = each(|| {
        to.write_all(b"x")?;
        from.read_exact(&mut [0])
    });
    // This process has both ends of the peer's input, and the peer too, so no end-of-file ends it.
    peer.kill()?;
    peer.wait()?;
    figure
}

/// Connects to a listener in another process, which accepts and closes, and closes.
fn unix_connect() -> io::Result<Figure> {
    let path = format!("/tmp/bench-{}.socket", std::process::id());
    let listener = UnixListener::bind(&path)?;
    let mut peer = myself("accept").stdin(OwnedFd::from(listener)).spawn()?;
    let figure = each(|| {
        let mut stream = UnixStream::connect(&path)?;
        // Its end: the connection has been accepted and closed.
        stream.read(&mut [0]).map(drop)
    });
    peer.kill()?;
    peer.wait()?;
    fs::remove_file(&path)?;
    figure
}

/// A step of each of two processes that chase each other around a file's record locks: two locks that are waited for, two unlocks.
fn fcntl_lock() -> io::Result<Figure> {
    let file = Temporary::new(4)?;
    let (mut chase, mut other) = LockChase::ahead(&file.file)?;
    let figure = each(|| chase.step());
    other.kill()?;
    other.wait()?;
    figure
}

/// Two processes that wake each other through System V semaphores; the figure is for one hop.
fn semaphore() -> io::Result<Figure> {
    let set = raw::Semaphores::new(2)?;
    let mut peer = myself(&format!("semaphores:{}", set.0)).spawn()?;
    let figure = each(|| {
        set.add(0, 1)?;
        set.add(1, -1)
    });
    set.remove()?;
    peer.wait()?;
    Ok(figure?.divided_by(2))
}

/// A byte that goes around a ring of processes; the figure is for one hop.
fn ring(count: usize) -> io::Result<Figure> {
    let mut peers: Vec<_> = (1..count).map(|_| Peer::start("echo")).collect::<Result<_, _>>()?;
    let hops = peers.len() * 2;
    Ok(each(|| peers.iter_mut().try_for_each(|peer| peer.ask(b"x")))?.divided_by(hops))
}

fn pipe_bandwidth() -> io::Result<Figure> {
    let mut peer = Peer::start("drain")?;
    let chunk = vec![1; CHUNK];
    bandwidth(CHUNK, || peer.ask(&chunk))
}

fn unix_bandwidth() -> io::Result<Figure> {
    let (mut here, mut there) = UnixStream::pair()?;
    let drain = std::thread::spawn(move || {
        let mut chunk = vec![0; CHUNK];
        while there.read_exact(&mut chunk).and_then(|()| there.write_all(b"k")).is_ok() {}
    });
    let chunk = vec![1; CHUNK];
    let figure = bandwidth(CHUNK, || {
        here.write_all(&chunk)?;
        here.read_exact(&mut [0])
    });
    drop(here);
    let _ = drain.join();
    figure
}

fn file_reread() -> io::Result<Figure> {
    let file = Temporary::new(1 << 20)?;
    let mut chunk = vec![0; CHUNK];
    bandwidth(1 << 20, || {
        let mut offset = 0;
        while offset < 1 << 20 {
            offset += rustix::io::pread(&file.file, &mut chunk[..], offset)? as u64;
        }
        Ok(())
    })
}

/// Makes empty files; the figure is for one.
fn create_files() -> io::Result<Figure> {
    let files = EmptyFiles::new();
    Ok(each_undone(|| files.create(), || files.delete())?.divided_by(EmptyFiles::COUNT))
}

fn delete_files() -> io::Result<Figure> {
    let files = EmptyFiles::new();
    files.create()?;
    let figure = each_undone(|| files.delete(), || files.create())?;
    files.delete()?;
    Ok(figure.divided_by(EmptyFiles::COUNT))
}

fn thread_create_join() -> io::Result<Figure> {
    each(|| std::thread::spawn(|| ()).join().map_err(|_| io::Error::other("a thread panicked")))
}

fn fork_exec() -> io::Result<Figure> {
    each(|| succeed(&mut myself("exit")))
}

fn shell() -> io::Result<Figure> {
    each(|| succeed(Command::new("/bin/sh").args(["-c", "/bin/true"])))
}

fn succeed(command: &mut Command) -> io::Result<()> {
    if command.status()?.success() { Ok(()) } else { Err(io::Error::other("a child failed")) }
}

/// A file that is there while a row is measured.
struct Temporary {
    path: String,
    file: File,
}

impl Temporary {
    fn new(size: usize) -> io::Result<Self> {
        let path = format!("/tmp/bench-{}", std::process::id());
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        file.write_all(&vec![7; size])?;
        Ok(Self { path, file })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A FIFO open at both ends; its name is gone already.
fn fifo(name: &str) -> io::Result<File> {
    let path = format!("/tmp/bench-{}-{name}", std::process::id());
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    let file = File::options().read(true).write(true).open(&path);
    fs::remove_file(&path)?;
    file
}

/// Names of files that are made and removed in turn.
struct EmptyFiles {
    paths: Vec<std::ffi::CString>,
}

impl EmptyFiles {
    const COUNT: usize = 100;

    fn new() -> Self {
        let path = |number| std::ffi::CString::new(format!("/tmp/bench-empty-{number}"));
        Self { paths: (0..Self::COUNT).flat_map(path).collect() }
    }

    fn create(&self) -> io::Result<()> {
        let make = |path| Ok(open(path, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY, Mode::RUSR).map(drop)?);
        self.paths.iter().try_for_each(make)
    }

    fn delete(&self) -> io::Result<()> {
        self.paths.iter().try_for_each(|path| Ok(rustix::fs::unlink(path)?))
    }
}
