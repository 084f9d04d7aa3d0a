//! What programs rely on of AF_UNIX sockets: streams and datagrams, names, waiting, ends and time limits.
//!
//! Each case is a function; the program runs them all, says which have failed, and exits with their number. It passes on Linux.

use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

type Outcome = Result<(), String>;

macro_rules! ensure {
    ($condition:expr) => {
        if !$condition {
            return Err(format!("line {}: {}", line!(), stringify!($condition)));
        }
    };
}

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

fn main() {
    let cases: &[(&str, fn() -> Outcome)] = &[
        ("a megabyte goes through a pair in order", a_megabyte_goes_through_a_pair_in_order),
        ("clients are answered at a path", clients_are_answered_at_a_path),
        ("an abstract name is free again after the close", an_abstract_name_is_free_again_after_the_close),
        ("a write to nobody is a broken pipe", a_write_to_nobody_is_a_broken_pipe),
        ("half of a connection can be ended", half_of_a_connection_can_be_ended),
        ("who does not want to wait does not", who_does_not_want_to_wait_does_not),
        ("a read ends when its time is up", a_read_ends_when_its_time_is_up),
        ("datagrams keep their bounds and say where from", datagrams_keep_their_bounds_and_say_where_from),
    ];
    let mut failed = 0;
    for (name, case) in cases {
        if let Err(why) = case() {
            println!("FAILED {name}: {why}");
            failed += 1;
        }
    }
    println!("{} cases, {failed} failed", cases.len());
    std::process::exit(failed);
}
