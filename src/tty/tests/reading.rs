//! Reading and writing, in lines and in raw mode.

use super::*;

#[test]
fn a_line_typed_is_echoed_and_read() {
    let world = world();
    let file = world.open();
    assert_eq!(read(&*file, 100), Err(Stop::WouldBlock));
    world.types(b"ls\r");
    assert_eq!(world.line.take(), b"ls\r\n");
    assert_eq!(asked(&*file, TIOCINQ), Ok(3));
    assert_eq!(read(&*file, 100), Ok(b"ls\n".to_vec()));
}

#[test]
fn a_waiting_reader_is_woken_by_the_line() {
    let world = world();
    let file = world.open();
    let reader = world.bench.start(async move {
        loop {
            let mut woken = core::pin::pin!(file.wait_queue().expect("a terminal has one").wait());
            // Registered by the first poll, which comes before the attempt.
            if futures_util::poll!(woken.as_mut()).is_pending()
                && let Ok(line) = read(&*file, 100)
            {
                return line;
            }
            woken.await;
        }
    });
    world.bench.settle();
    assert!(reader.try_take().is_none());
    world.types(b"hal");
    assert!(reader.try_take().is_none());
    world.types(b"lo\n");
    assert_eq!(reader.try_take(), Some(b"hallo\n".to_vec()));
}

#[test]
fn output_that_the_line_cannot_take_waits_and_then_holds_the_writer_back() {
    let world = world_with_room(64);
    let file = world.open();
    let mut written = 0;
    while let Ok(count) = write(&*file, &[b'x'; 1000]) {
        written += count;
        assert!(written < 100_000, "a line that takes nothing cannot take this much");
    }
    assert!(!file.poll().contains(PollEvents::OUT));
    assert_eq!(asked(&*file, TIOCOUTQ), Ok(written as i32));
    let mut sent = 0;
    while sent < written {
        sent += world.line.take().len();
        world.bench.settle();
    }
    assert!(file.poll().contains(PollEvents::OUT));
    assert_eq!(asked(&*file, TIOCOUTQ), Ok(0));
}

#[test]
fn input_that_nobody_reads_waits_in_the_line() {
    let world = world();
    let file = world.open();
    world.set(&*file, |termios| termios.local &= !(ICANON | ECHO));
    let text: Vec<u8> = (0..10_000u32).map(|number| b'a' + (number % 26) as u8).collect();
    world.types(&text);
    assert!(world.line.can_read());
    let mut got = Vec::new();
    while let Ok(bytes) = read(&*file, 700) {
        got.extend(bytes);
        world.bench.settle();
    }
    assert!(got == text);
}

#[test]
fn control_s_holds_writers_back_and_control_q_lets_them_go() {
    let world = world();
    let file = world.open();
    world.types(b"\x13");
    assert_eq!(write(&*file, b"x"), Err(Stop::WouldBlock));
    assert!(!file.poll().contains(PollEvents::OUT));
    world.types(b"\x11");
    assert_eq!(write(&*file, b"x"), Ok(1));
    assert_eq!(ioctl(&*file, TCXONC, &mut Memory::value(TCOOFF as usize)), Ok(0));
    assert_eq!(write(&*file, b"x"), Err(Stop::WouldBlock));
    assert_eq!(ioctl(&*file, TCXONC, &mut Memory::value(TCOON as usize)), Ok(0));
    assert_eq!(world.line.take(), b"x");
}

fn raw(world: &World, minimum: u8, tenths: u8) -> Arc<dyn FileOps> {
    let file = world.open();
    world.set(&*file, |termios| {
        termios.local &= !(ICANON | ECHO);
        (termios.characters[VMIN as usize], termios.characters[VTIME as usize]) = (minimum, tenths);
    });
    file
}

#[test]
fn a_raw_read_waits_for_its_minimum() {
    let world = world();
    let file = raw(&world, 3, 0);
    world.types(b"ab");
    assert_eq!(read(&*file, 10), Err(Stop::WouldBlock));
    assert!(!file.poll().contains(PollEvents::IN));
    // A reader with less room than the minimum is content with that.
    assert_eq!(read(&*file, 2), Ok(b"ab".to_vec()));
    world.types(b"cde");
    assert!(file.poll().contains(PollEvents::IN));
    assert_eq!(read(&*file, 10), Ok(b"cde".to_vec()));
}

#[test]
fn without_minimum_and_time_a_read_never_waits() {
    let world = world();
    let file = raw(&world, 0, 0);
    assert_eq!(read(&*file, 10), Ok(Vec::new()));
    world.types(b"a");
    assert_eq!(read(&*file, 10), Ok(b"a".to_vec()));
}

/// Starts a read that waits like read(2).
fn start_read(world: &World, file: &Arc<dyn FileOps>) -> executor::JoinHandle<Vec<u8>> {
    let file = file.clone();
    let handle = world.bench.start(async move {
        loop {
            let mut woken = core::pin::pin!(file.wait_queue().expect("a terminal has one").wait());
            let _ = futures_util::poll!(woken.as_mut());
            match read(&*file, 10) {
                Ok(bytes) => return bytes,
                Err(_) => woken.await,
            }
        }
    });
    world.bench.settle();
    handle
}

#[test]
fn without_a_minimum_a_read_ends_when_its_time_is_over() {
    let world = world();
    let file = raw(&world, 0, 5);
    for _ in 0..2 {
        let reader = start_read(&world, &file);
        world.bench.advance(Duration::from_millis(499));
        assert_eq!(reader.try_take(), None);
        world.bench.advance(Duration::from_millis(1));
        assert_eq!(reader.try_take(), Some(Vec::new()));
        world.bench.advance(Duration::from_millis(1500));
    }
    let reader = start_read(&world, &file);
    world.bench.advance(Duration::from_millis(400));
    world.types(b"x");
    assert_eq!(reader.try_take(), Some(b"x".to_vec()));
}

#[test]
fn with_a_minimum_the_time_runs_between_bytes_only() {
    let world = world();
    let file = raw(&world, 5, 2);
    let reader = start_read(&world, &file);
    world.bench.advance(Duration::from_secs(10));
    assert_eq!(reader.try_take(), None);
    for byte in [b"a", b"b"] {
        world.types(byte);
        world.bench.advance(Duration::from_millis(150));
        assert_eq!(reader.try_take(), None);
    }
    world.bench.advance(Duration::from_millis(60));
    assert_eq!(reader.try_take(), Some(b"ab".to_vec()));
}
