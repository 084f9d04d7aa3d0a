//! Threads that wait for each other: futexes, locks, pipes.

use super::*;

fn futex(at: &AtomicU32, operation: i32, value: u32) -> i64 {
    // SAFETY: the word lives during the call.
    unsafe { libc::syscall(libc::SYS_futex, at.as_ptr(), operation | libc::FUTEX_PRIVATE_FLAG, value, 0usize) }
}

pub fn futex_players_never_wait_for_a_wake_that_was_lost(time: Duration) -> Outcome {
    let pairs = cpus().clamp(2, 4);
    let turns: Vec<AtomicU32> = (0..2 * pairs).map(|_| AtomicU32::new(0)).collect();
    let rounds = AtomicU64::new(0);
    let end = Instant::now() + time;
    let is_late = AtomicBool::new(false);
    let play = |number: usize, _: &AtomicBool| {
        let (turn, player) = (&turns[number / 2], number as u32 % 2);
        loop {
            let now = turn.load(Acquire);
            if now == u32::MAX {
                return Ok(());
            }
            if now % 2 != player {
                futex(turn, libc::FUTEX_WAIT, now);
                continue;
            }
            rounds.fetch_add(1, Relaxed);
            let next = if Instant::now() > end { u32::MAX } else { now + 1 };
            turn.store(next, Release);
            futex(turn, libc::FUTEX_WAKE, 1);
        }
    };
    while_others(2 * pairs, play, |_| {
        // The players end by themselves; a wake that is lost leaves two waiting, which the deadline shows.
        let deadline = end + PATIENCE;
        while turns[..pairs].iter().any(|turn| turn.load(Relaxed) != u32::MAX) {
            if Instant::now() > deadline {
                is_late.store(true, SeqCst);
                turns.iter().for_each(|turn| {
                    turn.store(u32::MAX, SeqCst);
                    futex(turn, libc::FUTEX_WAKE, 9);
                });
            }
            thread::sleep(Duration::from_millis(5));
        }
    })?;
    ensure!(!is_late.load(SeqCst), "after {} rounds", rounds.load(SeqCst));
    ensure!(rounds.load(SeqCst) > 20);
    Ok(())
}

pub fn a_lock_and_its_conditions_lose_nobody(time: Duration) -> Outcome {
    const ROOM: u64 = 3;
    /// What waits in the queue, what was taken out of it, and whether no more will come.
    type State = (u64, u64, bool);
    let (lock, has_some, has_room) = (Mutex::<State>::default(), Condvar::new(), Condvar::new());
    let (end, pairs) = (Instant::now() + time, cpus().clamp(2, 4));
    let give = || {
        while Instant::now() < end {
            let state = lock.lock().expect("nobody panics");
            let (mut state, late) =
                has_room.wait_timeout_while(state, PATIENCE, |state| state.0 >= ROOM).expect("as above");
            ensure!(!late.timed_out(), "who gives waits in vain");
            state.0 += 1;
            has_some.notify_one();
        }
        Ok(())
    };
    let take = || {
        loop {
            let state = lock.lock().expect("nobody panics");
            let waits = |state: &mut State| state.0 == 0 && !state.2;
            let (mut state, late) = has_some.wait_timeout_while(state, PATIENCE, waits).expect("as above");
            ensure!(!late.timed_out(), "who takes waits in vain");
            if state.0 == 0 {
                return Ok(());
            }
            *state = (state.0 - 1, state.1 + 1, state.2);
            has_room.notify_one();
        }
    };
    thread::scope(|scope| -> Outcome {
        let givers: Vec<_> = (0..pairs).map(|_| scope.spawn(give)).collect();
        let takers: Vec<_> = (0..pairs).map(|_| scope.spawn(take)).collect();
        let join =
            |one: thread::ScopedJoinHandle<'_, Outcome>| one.join().map_err(|_| "a thread panicked".to_owned())?;
        let given = givers.into_iter().try_for_each(join);
        lock.lock().expect("nobody panics").2 = true;
        has_some.notify_all();
        given.and(takers.into_iter().try_for_each(join))
    })?;
    let state = lock.into_inner().expect("nobody panics");
    ensure!(state.0 == 0 && state.1 > 3, "{state:?}");
    Ok(())
}

pub fn what_goes_through_pipes_arrives_whole_and_in_order(time: Duration) -> Outcome {
    let rings = cpus().clamp(2, 4);
    let end = Instant::now() + time;
    thread::scope(|scope| {
        let players: Vec<_> = (0..rings)
            .map(|ring| {
                scope.spawn(move || -> Outcome {
                    let ((mut there, mut go), (mut back, mut come)) = (pipe(), pipe());
                    let echo = thread::spawn(move || {
                        let mut bytes = [0; 700];
                        while let Ok(len @ 1..) = there.read(&mut bytes) {
                            if come.write_all(&bytes[..len]).is_err() {
                                return;
                            }
                        }
                    });
                    let mut count = 0u64;
                    while Instant::now() < end || count == 0 {
                        let len = [1, 8, 700, 9000][count as usize % 4];
                        let sent: Vec<u8> =
                            (0..len).map(|index| (index as u64 * 31 + count + ring as u64) as u8).collect();
                        let mut got = vec![0; len];
                        thread::scope(|scope| {
                            let sent = &sent;
                            let go = &mut go;
                            if len > 4096 {
                                scope.spawn(move || go.write_all(sent));
                            } else {
                                go.write_all(sent).expect("the echo reads");
                            }
                            back.read_exact(&mut got)
                        })
                        .map_err(|error| error.to_string())?;
                        ensure!(sent == got, "message {count} of {len} bytes");
                        count += 1;
                    }
                    drop(go);
                    echo.join().map_err(|_| "the echo panicked".to_owned())?;
                    Ok(())
                })
            })
            .collect();
        players.into_iter().try_for_each(|player| player.join().map_err(|_| "a player panicked".to_owned())?)
    })
}

pub fn a_file_that_is_sent_through_a_full_pipe_arrives_whole(time: Duration) -> Outcome {
    const LEN: usize = 64 * PAGE;
    let end = Instant::now() + time;
    let bytes: Vec<u8> = (0..LEN).map(|index| (index / 7) as u8).collect();
    let path = format!("/tmp/sent.{}", std::process::id());
    std::fs::write(&path, &bytes).map_err(|error| error.to_string())?;
    let file = std::fs::File::open(&path).map_err(|error| error.to_string())?;
    std::fs::remove_file(&path).map_err(|error| error.to_string())?;
    let mut rounds = 0u64;
    while Instant::now() < end || rounds == 0 {
        let (mut there, here) = pipe();
        // With room for one page, each of the two waits for the other as often as can be.
        // SAFETY: plain calls on descriptors that live; the offset is a local.
        ensure!(unsafe { libc::fcntl(here.as_raw_fd(), libc::F_SETPIPE_SZ, PAGE) } >= PAGE as i32);
        let file = &file;
        let arrived = thread::scope(|scope| {
            let sender = scope.spawn(move || {
                let mut at = 0;
                while at < LEN as i64 {
                    // SAFETY: as above.
                    let sent = unsafe { libc::sendfile(here.as_raw_fd(), file.as_raw_fd(), &mut at, LEN) };
                    ensure!(sent > 0, "{sent}, errno {}", test_programs::errno());
                }
                Ok(())
            });
            let mut arrived = Vec::new();
            let mut some = [0; 3 * PAGE / 2];
            loop {
                let mut poll = libc::pollfd { fd: there.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                // SAFETY: one descriptor, that lives.
                if unsafe { libc::poll(&mut poll, 1, PATIENCE.as_millis() as i32) } != 1 {
                    drop(there);
                    return Err(format!("nothing came after {} bytes of round {rounds}", arrived.len()));
                }
                match there.read(&mut some).map_err(|error| error.to_string())? {
                    0 => break sender.join().map_err(|_| "the sender panicked".to_owned())?.map(|()| arrived),
                    len => arrived.extend_from_slice(&some[..len]),
                }
            }
        })?;
        ensure!(arrived == bytes, "{} bytes in round {rounds}", arrived.len());
        rounds += 1;
    }
    Ok(())
}

pub fn threads_come_and_go_by_the_hundred(time: Duration) -> Outcome {
    let end = Instant::now() + time;
    let mut rounds = 0u64;
    while Instant::now() < end || rounds == 0 {
        let sum = AtomicU64::new(0);
        thread::scope(|scope| {
            for number in 0..12 {
                let sum = &sum;
                scope.spawn(move || {
                    let memory = vec![number as u8; 3 * PAGE];
                    sum.fetch_add(memory.iter().map(|&byte| u64::from(byte)).sum::<u64>(), Relaxed);
                });
            }
        });
        ensure!(sum.load(SeqCst) == (0..12).sum::<u64>() * 3 * PAGE as u64);
        rounds += 1;
    }
    Ok(())
}
