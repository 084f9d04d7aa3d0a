//! What programs rely on of splice, tee and vmsplice: bytes go from and to pipes, in order, and none is lost.
//!
//! Each case is a function; the program runs them all, says which have failed, and exits with their number. It passes on Linux.
#![allow(unsafe_code, reason = "std has no safe form of splice")]

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::{ptr, thread};

use test_programs::children::{child, in_child, status_of};
use test_programs::{Case, Outcome, ensure, errno};

const PAGE: usize = 4096;
const NONBLOCK: u32 = libc::SPLICE_F_NONBLOCK;

/// What a call answers: how many bytes, or the number of the error.
type Moved = Result<usize, i32>;

fn moved(answer: isize) -> Moved {
    usize::try_from(answer).map_err(|_| errno())
}

fn pipe() -> Result<(File, File), String> {
    let mut fds = [0; 2];
    // SAFETY: room for two descriptors, which nobody else owns.
    unsafe {
        ensure!(libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) == 0);
        Ok((File::from_raw_fd(fds[0]), File::from_raw_fd(fds[1])))
    }
}

/// A file without a name with this content.
fn file(content: &[u8]) -> Result<File, String> {
    // SAFETY: the name outlives the call, and nobody else owns the descriptor.
    let mut file = unsafe { File::from_raw_fd(libc::memfd_create(c"spliced".as_ptr(), 0)) };
    file.write_all(content).and_then(|()| file.rewind()).map_err(|error| error.to_string())?;
    Ok(file)
}

fn splice_at(from: RawFd, at: Option<&mut i64>, to: RawFd, to_at: Option<&mut i64>, len: usize, flags: u32) -> Moved {
    let pointer = |at: Option<&mut i64>| at.map_or(ptr::null_mut(), ptr::from_mut);
    // SAFETY: the offsets outlive the call.
    moved(unsafe { libc::splice(from, pointer(at), to, pointer(to_at), len, flags) })
}

fn splice(from: &impl AsRawFd, to: &impl AsRawFd, len: usize, flags: u32) -> Moved {
    splice_at(from.as_raw_fd(), None, to.as_raw_fd(), None, len, flags)
}

fn tee(from: &File, to: &File, len: usize, flags: u32) -> Moved {
    // SAFETY: plain numbers.
    moved(unsafe { libc::tee(from.as_raw_fd(), to.as_raw_fd(), len, flags) })
}

fn vmsplice(fd: &impl AsRawFd, parts: &mut [&mut [u8]], flags: u32) -> Moved {
    let vectors: Vec<libc::iovec> =
        parts.iter_mut().map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() }).collect();
    // SAFETY: the parts outlive the call.
    moved(unsafe { libc::vmsplice(fd.as_raw_fd(), vectors.as_ptr(), vectors.len(), flags) })
}

/// What is in a pipe, without waiting.
fn rest(pipe: &File) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    // SAFETY: plain numbers, and a buffer of that length.
    let len = unsafe {
        let flags = libc::fcntl(pipe.as_raw_fd(), libc::F_GETFL);
        libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK);
        let len = libc::read(pipe.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len());
        libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, flags);
        len
    };
    bytes.truncate(usize::try_from(len).unwrap_or(0));
    bytes
}

/// Bytes of which no two pages are alike.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index / PAGE * 31 + index) as u8).collect()
}

fn said(error: std::io::Error) -> String {
    error.to_string()
}

fn a_file_goes_through_a_pipe_to_another() -> Outcome {
    let content = pattern(10 * PAGE + 123);
    let (mut from, mut to) = (file(&content)?, file(b"")?);
    let (reader, writer) = pipe()?;
    ensure!(splice(&from, &writer, 2 * PAGE + 5, 0) == Ok(2 * PAGE + 5));
    ensure!(from.stream_position().map_err(said)? == 2 * PAGE as u64 + 5, "the cursor moves");
    ensure!(splice(&reader, &to, PAGE + 1, 0) == Ok(PAGE + 1) && splice(&reader, &to, 1 << 20, 0) == Ok(PAGE + 4));
    let mut at = 2 * PAGE as i64 + 5;
    let moved = splice_at(from.as_raw_fd(), Some(&mut at), writer.as_raw_fd(), None, 1 << 20, 0);
    ensure!(moved == Ok(8 * PAGE + 118) && at == content.len() as i64, "{moved:?} {at}");
    ensure!(from.stream_position().map_err(said)? == 2 * PAGE as u64 + 5, "the cursor stays");
    let mut to_at = 2 * PAGE as i64 + 5;
    let moved = splice_at(reader.as_raw_fd(), None, to.as_raw_fd(), Some(&mut to_at), 1 << 20, 0);
    ensure!(moved == Ok(8 * PAGE + 118) && to_at == content.len() as i64, "{moved:?} {to_at}");
    let mut copied = Vec::new();
    to.rewind().and_then(|()| to.read_to_end(&mut copied)).map_err(said)?;
    ensure!(copied == content);
    from.seek(SeekFrom::End(0)).map_err(said)?;
    ensure!(splice(&from, &writer, 10, 0) == Ok(0), "the end of the file");
    drop(writer);
    ensure!(splice(&reader, &to, 10, 0) == Ok(0), "nobody writes any more");
    Ok(())
}

fn a_full_pipe_takes_no_more() -> Outcome {
    let from = file(&pattern(100 * PAGE))?;
    let (mut reader, writer) = pipe()?;
    ensure!(splice(&from, &writer, 100 * PAGE, 0) == Ok(16 * PAGE));
    ensure!(splice(&from, &writer, 1, NONBLOCK) == Err(libc::EAGAIN));
    let pid = child(|| i32::from(splice(&from, &writer, PAGE, 0) != Ok(PAGE)))?;
    let mut bytes = vec![0; 17 * PAGE];
    reader.read_exact(&mut bytes).map_err(said)?;
    ensure!(status_of(pid) == 0 && bytes == pattern(17 * PAGE));
    ensure!(splice(&reader, &from, 1, NONBLOCK) == Err(libc::EAGAIN));
    Ok(())
}

fn what_is_written_afterwards_leaves_what_was_spliced() -> Outcome {
    // A page of a file in a pipe is not written to by who writes to the pipe.
    let mut from = file(b"file content")?;
    let (mut reader, mut writer) = pipe()?;
    ensure!(splice(&from, &writer, 4, 0) == Ok(4));
    writer.write_all(b"+pipe").map_err(said)?;
    ensure!(rest(&reader) == b"file+pipe");
    let mut content = String::new();
    from.rewind().and_then(|()| from.read_to_string(&mut content)).map_err(said)?;
    ensure!(content == "file content");
    // Nor is it kept for what is written next.
    writer.write_all(&[b'z'; PAGE]).map_err(said)?;
    reader.read_exact(&mut [0; PAGE]).map_err(said)?;
    content.clear();
    from.rewind().and_then(|()| from.read_to_string(&mut content)).map_err(said)?;
    ensure!(content == "file content");
    // Memory that was given may be written again when it has been read.
    let mut text = *b"given";
    ensure!(vmsplice(&writer, &mut [&mut text], 0) == Ok(5) && rest(&reader) == b"given");
    Ok(())
}

fn tee_copies_and_leaves() -> Outcome {
    let ((reader, mut writer), (second, second_writer)) = (pipe()?, pipe()?);
    writer.write_all(&pattern(PAGE + 10)).map_err(said)?;
    ensure!(tee(&reader, &second_writer, 5, 0) == Ok(5) && rest(&second) == pattern(5));
    ensure!(tee(&reader, &second_writer, 1 << 20, 0) == Ok(PAGE + 10));
    writer.write_all(b"more").map_err(said)?;
    ensure!(rest(&second) == pattern(PAGE + 10));
    let mut all = pattern(PAGE + 10);
    all.extend_from_slice(b"more");
    ensure!(rest(&reader) == all);
    ensure!(
        tee(&reader, &second_writer, 1, NONBLOCK) == Err(libc::EAGAIN) && tee(&reader, &second_writer, 0, 0) == Ok(0)
    );
    let pid = child(|| i32::from(tee(&reader, &second_writer, 10, 0) != Ok(3)))?;
    writer.write_all(b"now").map_err(said)?;
    ensure!(status_of(pid) == 0 && rest(&second) == b"now");
    drop(writer);
    ensure!(rest(&reader) == b"now" && tee(&reader, &second_writer, 10, 0) == Ok(0));
    Ok(())
}

fn pages_go_from_pipe_to_pipe() -> Outcome {
    let ((reader, mut writer), (second, mut second_writer)) = (pipe()?, pipe()?);
    writer.write_all(&pattern(3 * PAGE)).map_err(said)?;
    ensure!(splice(&reader, &second_writer, PAGE + 7, 0) == Ok(PAGE + 7));
    second_writer.write_all(b"+").map_err(said)?;
    ensure!(splice(&reader, &second_writer, 1 << 20, 0) == Ok(2 * PAGE - 7));
    let mut wanted = pattern(3 * PAGE);
    wanted.insert(PAGE + 7, b'+');
    ensure!(rest(&second) == wanted && rest(&reader).is_empty());
    // A long way, waiting at both ends.
    let content = pattern(300 * PAGE);
    thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&content));
        let mover = scope.spawn(|| {
            let mut done = 0;
            while let Ok(moved @ 1..) = splice(&reader, &second_writer, 300 * PAGE - done, 0) {
                done += moved;
            }
            done
        });
        let mut bytes = vec![0; 300 * PAGE];
        (&second).read_exact(&mut bytes).map_err(said)?;
        ensure!(mover.join().is_ok_and(|done| done == 300 * PAGE) && bytes == pattern(300 * PAGE));
        Ok(())
    })
}

fn memory_goes_in_and_out() -> Outcome {
    let (reader, writer) = pipe()?;
    let (mut first, mut second) = (pattern(10), pattern(2 * PAGE));
    ensure!(vmsplice(&writer, &mut [&mut first, &mut second], 0) == Ok(10 + 2 * PAGE));
    let (mut one, mut other) = (vec![0; 10], vec![0; 2 * PAGE]);
    ensure!(vmsplice(&reader, &mut [&mut one, &mut other], 0) == Ok(10 + 2 * PAGE));
    ensure!(one == first && other == second);
    ensure!(vmsplice(&reader, &mut [&mut one], NONBLOCK) == Err(libc::EAGAIN));
    let mut large = pattern(100 * PAGE);
    let filled = vmsplice(&writer, &mut [&mut large], 0);
    ensure!(matches!(filled, Ok(len) if (15 * PAGE..=16 * PAGE).contains(&len)), "{filled:?}");
    ensure!(vmsplice(&writer, &mut [&mut large], NONBLOCK) == Err(libc::EAGAIN));
    ensure!(rest(&reader) == large[..filled.unwrap_or(0)]);
    ensure!(vmsplice(&file(b"x")?, &mut [&mut one], 0) == Err(libc::EBADF));
    ensure!(vmsplice(&writer, &mut [&mut one], 16) == Err(libc::EINVAL) && vmsplice(&writer, &mut [], 0) == Ok(0));
    Ok(())
}

fn sockets_take_part() -> Outcome {
    let (mut here, there) = UnixStream::pair().map_err(said)?;
    let (reader, mut writer) = pipe()?;
    here.write_all(b"to the pipe").map_err(said)?;
    ensure!(splice(&there, &writer, 100, 0) == Ok(11) && rest(&reader) == b"to the pipe");
    writer.write_all(b"to the socket").map_err(said)?;
    ensure!(splice(&reader, &there, 100, 0) == Ok(13));
    let mut bytes = [0; 13];
    here.read_exact(&mut bytes).map_err(said)?;
    ensure!(&bytes == b"to the socket");
    let pid = child(|| i32::from(splice(&there, &writer, 100, 0) != Ok(4)))?;
    here.write_all(b"late").map_err(said)?;
    ensure!(status_of(pid) == 0 && rest(&reader) == b"late");
    Ok(())
}

fn what_makes_no_sense_is_refused() -> Outcome {
    let (reader, writer) = pipe()?;
    let (one, other) = (file(b"x")?, file(b"y")?);
    let mut offset = 0;
    ensure!(splice(&one, &other, 1, 0) == Err(libc::EINVAL), "no pipe");
    ensure!(splice(&reader, &writer, 1, 0) == Err(libc::EINVAL), "the same pipe");
    ensure!(tee(&reader, &writer, 1, 0) == Err(libc::EINVAL) && tee(&one, &writer, 1, 0) == Err(libc::EINVAL));
    ensure!(splice(&one, &reader, 1, 0) == Err(libc::EBADF) && splice(&writer, &one, 1, 0) == Err(libc::EBADF));
    ensure!(splice(&one, &writer, 1, 16) == Err(libc::EINVAL) && splice(&one, &writer, 0, 0) == Ok(0));
    let (file_fd, writer_fd, reader_fd) = (one.as_raw_fd(), writer.as_raw_fd(), reader.as_raw_fd());
    ensure!(splice_at(file_fd, None, writer_fd, Some(&mut offset), 1, 0) == Err(libc::ESPIPE));
    ensure!(splice_at(reader_fd, Some(&mut offset), file_fd, None, 1, 0) == Err(libc::ESPIPE));
    ensure!(splice_at(999, None, writer_fd, None, 1, 0) == Err(libc::EBADF));
    // SAFETY: plain numbers.
    unsafe { libc::fcntl(file_fd, libc::F_SETFL, libc::O_APPEND) };
    ensure!(splice(&reader, &one, 1, 0) == Err(libc::EINVAL), "one that appends");
    // Nobody reads: an error, and a signal.
    drop(reader);
    ensure!(splice(&other, &writer, 1, 0) == Err(libc::EPIPE), "Rust's programs ignore the signal");
    let broken = in_child(|| {
        // SAFETY: nobody else handles signals here.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        i32::from(splice(&other, &writer, 1, 0).is_ok())
    });
    ensure!(broken? == 1000 + libc::SIGPIPE);
    Ok(())
}

const CASES: &[Case] = &[
    ("a file goes through a pipe to another", a_file_goes_through_a_pipe_to_another),
    ("a full pipe takes no more", a_full_pipe_takes_no_more),
    ("what is written afterwards leaves what was spliced", what_is_written_afterwards_leaves_what_was_spliced),
    ("tee copies and leaves", tee_copies_and_leaves),
    ("pages go from pipe to pipe", pages_go_from_pipe_to_pipe),
    ("memory goes in and out", memory_goes_in_and_out),
    ("sockets take part", sockets_take_part),
    ("what makes no sense is refused", what_makes_no_sense_is_refused),
];

fn main() {
    std::process::exit(test_programs::run(CASES));
}
