//! Sessions, the foreground group, and what becomes of the others.

use super::*;

#[test]
fn a_sessions_leader_gets_the_first_free_terminal_it_opens() {
    let world = world();
    world.jobs.call_as(100, 100, 100);
    let ask = |device| world.terminals.open(device, OpenFlags::RDWR);
    assert_eq!(ask(CONTROLLING).err(), Some(Errno::ENXIO));
    ask(CONSOLE).expect("the console");
    assert!(world.terminals.controlling(100).is_none(), "the console controls nobody");
    let file = world.log_in();
    assert_eq!((asked(&*file, TIOCGSID), asked(&*file, TIOCGPGRP)), (Ok(100), Ok(100)));
    assert!(world.terminals.controlling(100).is_some());
    ask(CONTROLLING).expect("there is one now");
    // Somebody else's leader gets nothing, and is told so.
    world.jobs.call_as(200, 200, 200);
    let other = world.terminals.open(SERIAL, OpenFlags::RDWR).expect("opening is allowed");
    assert_eq!(asked(&*other, TIOCGPGRP), errno(Errno::ENOTTY));
    assert_eq!(ioctl(&*other, TIOCSCTTY, &mut Memory::value(0)), errno(Errno::EPERM));
    assert_eq!(ioctl(&*other, TIOCSCTTY, &mut Memory::value(1)), errno(Errno::EPERM));
}

#[test]
fn signals_from_the_keyboard_go_to_the_foreground_group() {
    let world = world();
    let file = world.log_in();
    assert_eq!(ioctl(&*file, TIOCSPGRP, &mut Memory::int(150)), Ok(0));
    world.types(b"\x03");
    assert_eq!(world.jobs.take_signals(), [(-150, SIGINT)]);
    assert_eq!(world.line.take(), b"^C");
}

#[test]
fn the_foreground_group_must_be_of_the_same_session() {
    let world = world();
    let file = world.log_in();
    for (group, expected) in
        [(250, errno(Errno::EPERM)), (999, errno(Errno::ESRCH)), (-1, errno(Errno::EINVAL)), (150, Ok(0))]
    {
        assert_eq!(ioctl(&*file, TIOCSPGRP, &mut Memory::int(group)), expected, "for group {group}");
    }
}

#[test]
fn a_background_group_is_stopped_when_it_reads() {
    let world = world();
    let file = world.log_in();
    world.types(b"x\n");
    world.jobs.call_as(151, 150, 100);
    assert_eq!(read(&*file, 10), errno(Errno::ERESTARTSYS));
    assert_eq!(world.jobs.take_signals(), [(-150, SIGTTIN)]);
    world.jobs.ignores.store(1 << SIGTTIN, Ordering::Relaxed);
    assert_eq!(read(&*file, 10), errno(Errno::EIO));
    world.jobs.ignores.store(0, Ordering::Relaxed);
    world.jobs.is_orphaned.store(true, Ordering::Relaxed);
    assert_eq!(read(&*file, 10), errno(Errno::EIO));
    assert_eq!(world.jobs.take_signals(), []);
    // A process of another session may read: only its own terminal stops it.
    world.jobs.call_as(250, 250, 200);
    assert_eq!(read(&*file, 10), Ok(b"x\n".to_vec()));
}

#[test]
fn a_background_group_may_write_unless_the_terminal_forbids_it() {
    let world = world();
    let file = world.log_in();
    world.jobs.call_as(151, 150, 100);
    assert_eq!(write(&*file, b"x"), Ok(1));
    world.jobs.call_as(100, 100, 100);
    world.set(&*file, |termios| termios.local |= TOSTOP);
    world.jobs.call_as(151, 150, 100);
    assert_eq!(write(&*file, b"x"), errno(Errno::ERESTARTSYS));
    assert_eq!(world.jobs.take_signals(), [(-150, SIGTTOU)]);
    world.jobs.ignores.store(1 << SIGTTOU, Ordering::Relaxed);
    assert_eq!(write(&*file, b"x"), Ok(1));
}

#[test]
fn a_background_group_is_stopped_when_it_changes_the_terminal() {
    let world = world();
    let file = world.log_in();
    world.jobs.call_as(151, 150, 100);
    let bytes = Termios::initial().to_bytes();
    for command in [TCSETS, TCFLSH, TCXONC, TIOCSPGRP] {
        assert_eq!(ioctl(&*file, command, &mut Memory::of(&bytes)), errno(Errno::ERESTARTSYS));
        assert_eq!(world.jobs.take_signals(), [(-150, SIGTTOU)]);
    }
    assert_eq!(ioctl(&*file, TCGETS, &mut Memory::of(&bytes)), Ok(0));
}

#[test]
fn a_lost_line_hangs_up_the_session_and_kills_open_files() {
    let world = world();
    let file = world.log_in();
    world.line.hang_up();
    world.bench.settle();
    assert_eq!(world.jobs.take_signals(), [(100, SIGHUP), (100, SIGCONT)]);
    assert_eq!(read(&*file, 10), Ok(Vec::new()));
    assert_eq!(write(&*file, b"x"), errno(Errno::EIO));
    assert!(file.poll().contains(PollEvents::HUP | PollEvents::IN));
    assert_eq!(asked(&*file, TIOCINQ), errno(Errno::EIO));
    // Who opens it afterwards has a new terminal.
    let fresh = world.open();
    assert_eq!(read(&*fresh, 10), Err(Stop::WouldBlock));
}

#[test]
fn the_end_of_a_sessions_leader_frees_its_terminal_and_tells_the_foreground() {
    let world = world();
    let file = world.log_in();
    assert_eq!(ioctl(&*file, TIOCSPGRP, &mut Memory::int(150)), Ok(0));
    world.terminals.session_ended(100);
    assert_eq!(world.jobs.take_signals(), [(-150, SIGHUP), (-150, SIGCONT)]);
    assert_eq!(read(&*file, 10), Ok(Vec::new()));
    world.jobs.call_as(200, 200, 200);
    world.terminals.open(SERIAL, OpenFlags::RDWR).expect("it is free");
    assert!(world.terminals.controlling(200).is_some());
    world.terminals.session_ended(100);
    assert!(world.terminals.controlling(200).is_some());
}

#[test]
fn a_leader_can_give_its_terminal_up() {
    let world = world();
    let file = world.log_in();
    assert_eq!(ioctl(&*file, TIOCNOTTY, &mut Memory::value(0)), Ok(0));
    assert!(world.terminals.controlling(100).is_none());
    assert_eq!(ioctl(&*file, TIOCNOTTY, &mut Memory::value(0)), errno(Errno::ENOTTY));
    assert_eq!(ioctl(&*file, TIOCSCTTY, &mut Memory::value(0)), Ok(0));
    assert!(world.terminals.controlling(100).is_some());
}

#[test]
fn the_command_line_chooses_the_console() {
    let world = world();
    let choose = |line: &[u8]| world.terminals.choose_console(line);
    assert_eq!(choose(b"quiet").as_deref(), Some("/dev/ttyS0"));
    let (screen, _run) = world.terminals.add((4, 1), "/dev/tty1", Termios::initial(), Line::new(100)).expect("memory");
    assert_eq!(choose(b"quiet").as_deref(), Some("/dev/tty1"));
    assert_eq!(choose(b"console=tty0 x console=ttyS0,115200n8").as_deref(), Some("/dev/ttyS0"));
    assert_eq!(choose(b"console=ttyS0 console=tty0 console=hvc7").as_deref(), Some("/dev/tty1"));
    let console = world.terminals.open(CONSOLE, OpenFlags::RDWR).expect("chosen");
    assert_eq!(console.name(), screen.name);
    assert!(world.terminals.open((4, 0), OpenFlags::RDWR).is_ok());
}
