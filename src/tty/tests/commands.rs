//! The other commands of ioctl_tty(2).

use super::*;

#[test]
fn a_new_window_size_is_told_to_the_foreground_once() {
    let world = world();
    let file = world.log_in();
    let size = [50u8, 0, 132, 0, 0, 0, 0, 0];
    for expected in [vec![(-100, SIGWINCH)], vec![]] {
        assert_eq!(ioctl(&*file, TIOCSWINSZ, &mut Memory::of(&size)), Ok(0));
        assert_eq!(world.jobs.take_signals(), expected);
    }
    let mut memory = Memory::of(&[0; 8]);
    assert_eq!(ioctl(&*file, TIOCGWINSZ, &mut memory), Ok(0));
    assert_eq!(memory.bytes, size);
}

#[test]
fn flushing_forgets_what_was_not_read() {
    let world = world();
    let file = world.open();
    world.types(b"x\n");
    assert_eq!(ioctl(&*file, TCFLSH, &mut Memory::value(TCIFLUSH as usize)), Ok(0));
    assert_eq!(read(&*file, 10), Err(Stop::WouldBlock));
    assert_eq!(ioctl(&*file, TCFLSH, &mut Memory::value(TCIOFLUSH as usize + 1)), errno(Errno::EINVAL));
}

#[test]
fn settings_can_wait_for_output_to_be_sent() {
    let world = world();
    let file = world.open();
    write(&*file, b"text").expect("room");
    let bytes = Termios::initial().to_bytes()[..TERMIOS_SIZE].to_vec();
    assert_eq!(ioctl(&*file, TCSETSW, &mut Memory::of(&bytes)), Err(Stop::WouldBlock));
    world.line.take();
    assert_eq!(ioctl(&*file, TCSETSW, &mut Memory::of(&bytes)), Ok(0));
}

#[test]
fn a_terminal_can_be_had_for_oneself_until_it_is_closed() {
    let world = world();
    world.jobs.call_as(100, 100, 100);
    let file = world.open();
    assert_eq!(ioctl(&*file, TIOCEXCL, &mut Memory::value(0)), Ok(0));
    assert_eq!(world.terminals.open(SERIAL, OpenFlags::RDWR).err(), Some(Errno::EBUSY));
    world.bench.block_on(async move { file.release().await }).expect("closing cannot fail");
    world.terminals.open(SERIAL, OpenFlags::RDWR).expect("it was closed");
}

#[test]
fn unknown_and_refused_commands_have_their_errors() {
    let world = world();
    let file = world.open();
    assert_eq!(ioctl(&*file, 0x1234_5678, &mut Memory::value(0)), errno(Errno::ENOTTY));
    assert_eq!(ioctl(&*file, TIOCSTI, &mut Memory::value(0)), errno(Errno::EIO));
    assert_eq!(ioctl(&*file, TCSETS, &mut Memory::of(&[0; 4])), Err(Stop::Fault));
}
