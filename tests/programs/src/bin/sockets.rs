//! What programs rely on of AF_UNIX sockets: streams and datagrams, names, waiting, ends and time limits.
//!
//! Each case is a function; the program runs them all, says which have failed, and exits with their number. It passes on Linux.
#![allow(unsafe_code, reason = "std has no safe form of what goes along with a message")]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use test_programs::{Case, Outcome, ensure};

fn text(error: std::io::Error) -> String {
    error.to_string()
}

/// A path that nothing has.
fn fresh(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("rouse-sockets-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

fn a_megabyte_goes_through_a_pair_in_order() -> Outcome {
    let (mut one, mut other) = UnixStream::pair().map_err(text)?;
    let bytes: Vec<u8> = (0..1 << 20).map(|byte: u32| (byte % 251) as u8).collect();
    let sent = bytes.clone();
    let writer = thread::spawn(move || one.write_all(&sent));
    let mut received = Vec::new();
    other.read_to_end(&mut received).map_err(text)?;
    ensure!(writer.join().is_ok_and(|written| written.is_ok()));
    ensure!(received == bytes);
    Ok(())
}

fn clients_are_answered_at_a_path() -> Outcome {
    let path = fresh("path");
    let listener = UnixListener::bind(&path).map_err(text)?;
    ensure!(UnixListener::bind(&path).is_err_and(|error| error.kind() == ErrorKind::AddrInUse));
    let server = thread::spawn(move || {
        for _ in 0..20 {
            let (mut stream, _) = listener.accept()?;
            let mut word = [0; 4];
            stream.read_exact(&mut word)?;
            stream.write_all(&word)?;
        }
        Ok::<_, std::io::Error>(())
    });
    for number in 0..20_u32 {
        let mut stream = UnixStream::connect(&path).map_err(text)?;
        ensure!(stream.peer_addr().map_err(text)?.as_pathname() == Some(&path));
        stream.write_all(&number.to_ne_bytes()).map_err(text)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(text)?;
        ensure!(answer == number.to_ne_bytes());
    }
    ensure!(server.join().is_ok_and(|served| served.is_ok()));
    ensure!(UnixStream::connect(&path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused));
    std::fs::remove_file(&path).map_err(text)?;
    ensure!(UnixStream::connect(&path).is_err_and(|error| error.kind() == ErrorKind::NotFound));
    Ok(())
}

fn an_abstract_name_is_free_again_after_the_close() -> Outcome {
    let name = format!("rouse-sockets-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).map_err(text)?;
    for _ in 0..2 {
        let listener = UnixListener::bind_addr(&address).map_err(text)?;
        let client = UnixStream::connect_addr(&address).map_err(text)?;
        let (server, from) = listener.accept().map_err(text)?;
        ensure!(from.is_unnamed());
        ensure!(server.local_addr().map_err(text)?.as_abstract_name() == Some(name.as_bytes()));
        drop((client, server));
    }
    ensure!(UnixStream::connect_addr(&address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused));
    Ok(())
}

fn a_write_to_nobody_is_a_broken_pipe() -> Outcome {
    let (mut one, other) = UnixStream::pair().map_err(text)?;
    drop(other);
    ensure!(one.write(b"x").is_err_and(|error| error.kind() == ErrorKind::BrokenPipe));
    ensure!(one.read(&mut [0; 4]).is_ok_and(|read| read == 0));
    Ok(())
}

fn half_of_a_connection_can_be_ended() -> Outcome {
    let (mut one, mut other) = UnixStream::pair().map_err(text)?;
    one.write_all(b"question").map_err(text)?;
    one.shutdown(std::net::Shutdown::Write).map_err(text)?;
    let mut question = String::new();
    other.read_to_string(&mut question).map_err(text)?;
    other.write_all(b"answer").map_err(text)?;
    drop(other);
    let mut answer = String::new();
    one.read_to_string(&mut answer).map_err(text)?;
    ensure!((&*question, &*answer) == ("question", "answer"));
    Ok(())
}

fn who_does_not_want_to_wait_does_not() -> Outcome {
    let (mut one, mut other) = UnixStream::pair().map_err(text)?;
    one.set_nonblocking(true).map_err(text)?;
    ensure!(one.read(&mut [0; 4]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    let mut sent = 0;
    while let Ok(written) = one.write(&[7; 5000]) {
        sent += written;
    }
    ensure!((50_000..2_000_000).contains(&sent));
    drop(one);
    let mut received = Vec::new();
    other.read_to_end(&mut received).map_err(text)?;
    ensure!(received.len() == sent);
    Ok(())
}

fn a_read_ends_when_its_time_is_up() -> Outcome {
    let (mut one, _other) = UnixStream::pair().map_err(text)?;
    one.set_read_timeout(Some(Duration::from_millis(50))).map_err(text)?;
    // Linux rounds up to its ticks.
    ensure!(one.read_timeout().map_err(text)?.is_some_and(|time| (50..=60).contains(&time.as_millis())));
    let begun = Instant::now();
    ensure!(one.read(&mut [0; 4]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    ensure!(begun.elapsed() >= Duration::from_millis(45));
    Ok(())
}

fn datagrams_keep_their_bounds_and_say_where_from() -> Outcome {
    let (here, there) = (fresh("here"), fresh("there"));
    let one = UnixDatagram::bind(&here).map_err(text)?;
    let other = UnixDatagram::bind(&there).map_err(text)?;
    one.send_to(b"first", &there).map_err(text)?;
    one.connect(&there).map_err(text)?;
    one.send(b"second").map_err(text)?;
    let mut bytes = [0; 100];
    let (len, from) = other.recv_from(&mut bytes).map_err(text)?;
    ensure!(&bytes[..len] == b"first" && from.as_pathname() == Some(&here));
    ensure!(other.recv(&mut bytes[..3]).is_ok_and(|len| len == 3));
    ensure!(&bytes[..3] == b"sec");
    drop(other);
    ensure!(one.send(b"x").is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused));
    std::fs::remove_file(&here).and_then(|()| std::fs::remove_file(&there)).map_err(text)
}

/// Room for a descriptor and for credentials, aligned as a header wants it.
type Control = [u64; 16];

/// Sends one byte, and a descriptor along with it.
fn send_with_descriptor(socket: &UnixStream, descriptor: i32) -> isize {
    let mut byte = *b"x";
    let mut vector = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control: Control = [0; 16];
    control[0] = 20;
    control[1] = libc::SOL_SOCKET as u64 | (libc::SCM_RIGHTS as u64) << 32;
    control[2] = descriptor as u64;
    // SAFETY: all zero is a message without anything.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut vector, 1);
    (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), 24);
    // SAFETY: all that the message points to lives as long as the call.
    unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) }
}

/// Receives up to four bytes; how many, with which flags, and what came along in how many bytes.
fn receive_with_control(socket: &UnixStream, room: usize) -> (isize, i32, Control, usize) {
    let mut bytes = [0_u8; 4];
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control: Control = [0; 16];
    // SAFETY: all zero is a message without anything.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut vector, 1);
    (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), room);
    // SAFETY: all that the message points to lives as long as the call, and `room` is within `control`.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    (received, message.msg_flags, control, message.msg_controllen)
}

fn a_descriptor_goes_to_another_program() -> Outcome {
    let (one, other) = UnixStream::pair().map_err(text)?;
    let (mut reader, writer) = std::io::pipe().map_err(text)?;
    ensure!(send_with_descriptor(&one, writer.as_raw_fd()) == 1);
    drop(writer);
    let (received, flags, control, len) = receive_with_control(&other, 128);
    ensure!((received, len) == (1, 24));
    ensure!(flags & libc::MSG_CTRUNC == 0);
    ensure!(control[0] == 20 && control[1] == libc::SOL_SOCKET as u64 | (libc::SCM_RIGHTS as u64) << 32);
    // SAFETY: the descriptor is this program's now, and nobody else knows it.
    let mut arrived = unsafe { File::from_raw_fd(control[2] as u32 as i32) };
    arrived.write_all(b"through").map_err(text)?;
    drop(arrived);
    let mut bytes = String::new();
    reader.read_to_string(&mut bytes).map_err(text)?;
    ensure!(bytes == "through");
    Ok(())
}

fn a_descriptor_without_room_is_closed() -> Outcome {
    let (one, other) = UnixStream::pair().map_err(text)?;
    let (mut reader, writer) = std::io::pipe().map_err(text)?;
    ensure!(send_with_descriptor(&one, writer.as_raw_fd()) == 1);
    ensure!(send_with_descriptor(&one, writer.as_raw_fd()) == 1);
    ensure!(send_with_descriptor(&one, -1) == -1);
    drop(writer);
    let (received, flags, _, _) = receive_with_control(&other, 0);
    ensure!(received == 1 && flags & libc::MSG_CTRUNC != 0);
    drop((one, other));
    // The end comes only when the pipe's other end is open nowhere, not even in a message.
    ensure!(reader.read(&mut [0; 4]).is_ok_and(|read| read == 0));
    Ok(())
}

fn credentials_say_who_sends_and_who_connected() -> Outcome {
    let (mut one, other) = UnixStream::pair().map_err(text)?;
    let on = 1_i32;
    // SAFETY: the option is a number of four bytes, which lives as long as the call.
    let set =
        unsafe { libc::setsockopt(other.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PASSCRED, (&raw const on).cast(), 4) };
    ensure!(set == 0);
    one.write_all(b"who").map_err(text)?;
    let (received, _, control, len) = receive_with_control(&other, 128);
    ensure!((received, len) == (3, 32));
    ensure!(control[0] == 28 && control[1] == libc::SOL_SOCKET as u64 | (libc::SCM_CREDENTIALS as u64) << 32);
    ensure!(control[2] as u32 == std::process::id());
    let (mut credentials, mut size) = ([0_u32; 3], 12_u32);
    // SAFETY: there is room for the twelve bytes that `size` says.
    let got = unsafe {
        libc::getsockopt(
            one.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            credentials.as_mut_ptr().cast(),
            &raw mut size,
        )
    };
    ensure!(got == 0 && size == 12 && credentials[0] == std::process::id());
    Ok(())
}

/// What poll(2) says of a descriptor within a time.
fn poll(descriptor: i32, events: i16, timeout_ms: i32) -> i16 {
    let mut entry = libc::pollfd { fd: descriptor, events, revents: 0 };
    // SAFETY: one entry, which lives as long as the call.
    unsafe { libc::poll(&raw mut entry, 1, timeout_ms) };
    entry.revents
}

fn poll_and_epoll_wake_when_something_comes() -> Outcome {
    let (mut one, other) = UnixStream::pair().map_err(text)?;
    ensure!(poll(other.as_raw_fd(), libc::POLLIN | libc::POLLOUT, 0) == libc::POLLOUT);
    // SAFETY: no memory is involved.
    let epoll = unsafe { libc::epoll_create1(0) };
    let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 77 };
    // SAFETY: the event lives as long as the call.
    ensure!(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, other.as_raw_fd(), &raw mut event) } == 0);
    let writer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        one.write_all(b"x").map(|()| one)
    });
    ensure!(poll(other.as_raw_fd(), libc::POLLIN, 5000) == libc::POLLIN);
    let mut found = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: room for one event, which lives as long as the call.
    ensure!(unsafe { libc::epoll_wait(epoll, &raw mut found, 1, 5000) } == 1);
    let (events, data) = (found.events, found.u64);
    ensure!(events == libc::EPOLLIN as u32 && data == 77);
    // SAFETY: as above.
    ensure!(unsafe { libc::epoll_wait(epoll, &raw mut found, 1, 0) } == 0);
    drop(writer.join());
    ensure!(poll(other.as_raw_fd(), libc::POLLRDHUP, 5000) == libc::POLLRDHUP | libc::POLLHUP);
    // SAFETY: nobody else uses it.
    unsafe { libc::close(epoll) };
    Ok(())
}

/// What must hold, and the function that tries it.
const CASES: &[Case] = &[
    ("a megabyte goes through a pair in order", a_megabyte_goes_through_a_pair_in_order),
    ("clients are answered at a path", clients_are_answered_at_a_path),
    ("an abstract name is free again after the close", an_abstract_name_is_free_again_after_the_close),
    ("a write to nobody is a broken pipe", a_write_to_nobody_is_a_broken_pipe),
    ("half of a connection can be ended", half_of_a_connection_can_be_ended),
    ("who does not want to wait does not", who_does_not_want_to_wait_does_not),
    ("a read ends when its time is up", a_read_ends_when_its_time_is_up),
    ("a descriptor goes to another program", a_descriptor_goes_to_another_program),
    ("a descriptor without room is closed", a_descriptor_without_room_is_closed),
    ("credentials say who sends and who connected", credentials_say_who_sends_and_who_connected),
    ("poll and epoll wake when something comes", poll_and_epoll_wake_when_something_comes),
    ("datagrams keep their bounds and say where from", datagrams_keep_their_bounds_and_say_where_from),
];

fn main() {
    std::process::exit(test_programs::run(CASES));
}
