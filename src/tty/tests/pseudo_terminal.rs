//! Masters and slaves.

use super::*;

#[test]
fn what_the_master_writes_is_typed_at_the_slave() {
    let world = world();
    let (master, slave) = pty(&world);
    assert_eq!(write(&*master, b"hi\r"), Ok(3));
    assert_eq!(read(&*master, 100), Ok(b"hi\r\n".to_vec()));
    assert_eq!(read(&*slave, 100), Ok(b"hi\n".to_vec()));
    assert_eq!(write(&*slave, b"out\n"), Ok(4));
    assert!(master.poll().contains(PollEvents::IN));
    assert_eq!(asked(&*master, TIOCINQ), Ok(5));
    assert_eq!(read(&*master, 3), Ok(b"out".to_vec()));
    assert_eq!(read(&*master, 100), Ok(b"\r\n".to_vec()));
    assert_eq!(read(&*master, 100), Err(Stop::WouldBlock));
}

#[test]
fn a_master_whose_slave_is_closed_reads_the_rest_and_then_an_error() {
    let world = world();
    let (master, slave) = pty(&world);
    write(&*slave, b"last").expect("room");
    close(&world, slave);
    assert!(master.poll().contains(PollEvents::HUP));
    assert_eq!(read(&*master, 100), Ok(b"last".to_vec()));
    assert_eq!(read(&*master, 100), errno(Errno::EIO));
}

#[test]
fn closing_the_master_hangs_the_slave_up_and_frees_the_number() {
    let world = world();
    world.jobs.call_as(100, 100, 100);
    let (master, slave) = pty(&world);
    assert_eq!(world.terminals.pty_indices(), [0]);
    assert_eq!(asked(&*slave, TIOCGSID), Ok(100));
    close(&world, master);
    assert_eq!(world.jobs.take_signals(), [(100, SIGHUP), (100, SIGCONT)]);
    assert_eq!(read(&*slave, 10), Ok(Vec::new()));
    assert_eq!(write(&*slave, b"x"), errno(Errno::EIO));
    assert_eq!(world.terminals.pty_indices(), []);
    let (second, _) = pty(&world);
    assert_eq!(asked(&*second, TIOCGPTN), Ok(0));
}

#[test]
fn many_pseudo_terminals_have_numbers_of_their_own() {
    let world = world();
    let masters: Vec<_> = (0..5).map(|_| pty(&world).0).collect();
    let numbers: Vec<_> = masters.iter().map(|master| asked(&**master, TIOCGPTN).expect("a number")).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    close(&world, masters[2].clone());
    assert_eq!(asked(&*pty(&world).0, TIOCGPTN), Ok(2));
}

#[test]
fn a_master_that_writes_too_much_waits_for_the_slave_to_read() {
    let world = world();
    let (master, slave) = pty(&world);
    let mut raw = Termios::initial();
    raw.local &= !(ICANON | ECHO);
    assert_eq!(ioctl(&*master, TCSETS, &mut Memory::of(&raw.to_bytes())), Ok(0));
    let text: Vec<u8> = (0..20_000u32).map(|number| b'a' + (number % 26) as u8).collect();
    let (mut sent, mut got) = (0, Vec::new());
    while got.len() < text.len() {
        if sent < text.len() {
            sent += write(&*master, &text[sent..]).unwrap_or(0);
        }
        got.extend(read(&*slave, 1000).expect("the master has written"));
    }
    assert!(got == text);
}

#[test]
fn packet_mode_tells_data_from_events() {
    let world = world();
    let (master, slave) = pty(&world);
    assert_eq!(ioctl(&*master, TIOCPKT, &mut Memory::int(1)), Ok(0));
    write(&*slave, b"abc").expect("room");
    assert_eq!(read(&*master, 10), Ok(b"\0abc".to_vec()));
    assert_eq!(ioctl(&*slave, TCFLSH, &mut Memory::value(TCIOFLUSH as usize)), Ok(0));
    assert!(master.poll().contains(PollEvents::PRI));
    assert_eq!(read(&*master, 10), Ok(vec![3]));
    assert_eq!(read(&*master, 10), Err(Stop::WouldBlock));
}

#[test]
fn a_master_can_signal_the_foreground() {
    let world = world();
    world.jobs.call_as(100, 100, 100);
    let (master, _slave) = pty(&world);
    assert_eq!(ioctl(&*master, TIOCSIG, &mut Memory::value(SIGINT as usize)), Ok(0));
    assert_eq!(world.jobs.take_signals(), [(-100, SIGINT)]);
    assert_eq!(ioctl(&*master, TIOCSIG, &mut Memory::value(SIGHUP as usize)), errno(Errno::EINVAL));
    assert_eq!(asked(&*master, TIOCGPGRP), Ok(100));
}
