//! What `cargo run -- exec` promises: bytes in and out unchanged, ends and breaks passed on, every end of a machine told apart.

use anyhow::Result;
use user_programs::protocol::End;
use xtask::guest::{Failure, Guest, Lost};
use xtask::machine::Options;
use xtask::testing::{Machine, under_test};

static ROUSE: Machine = Machine::rouse(Options::default);

/// Bytes that look random and are the same every time (xorshift).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}

#[test]
fn ten_megabytes_make_the_round_trip_unchanged() {
    let sent = noise(10_000_000);
    let output = ROUSE.with(|guest| guest.run_with_input(&["cat"], &sent));
    assert_eq!(output.end, End::Exited(0));
    assert!(output.stdout == sent, "{} bytes came back, and not the same", output.stdout.len());
}

#[test]
fn standard_output_and_error_are_kept_apart() {
    let output = ROUSE.with(|guest| guest.shell("echo out; echo err >&2; exit 3"));
    assert_eq!((output.end, &*output.stdout, &*output.stderr), (End::Exited(3), &b"out\n"[..], &b"err\n"[..]));
}

#[test]
fn a_program_ends_by_status_by_signal_or_does_not_start() {
    let ends = ROUSE.with(|guest| {
        ["exit 0", "exit 255", "kill -TERM $$", "kill -KILL $$", "exec /does/not/exist", "exec /etc"]
            .iter()
            .map(|script| Ok(guest.shell(script)?.end.shell_status()))
            .collect::<Result<Vec<_>>>()
    });
    assert_eq!(ends, [0, 255, 143, 137, 127, 126]);
    let (missing, folder) = ROUSE.with(|guest| Ok((guest.run(&["no-such-program"])?, guest.run(&["/etc"])?)));
    assert_eq!(missing.end.shell_status(), 127);
    assert_eq!(folder.end.shell_status(), 126);
}

#[test]
fn input_that_is_not_read_to_its_end_holds_nobody_up() {
    let sent = noise(3_000_000);
    let (first, next) = ROUSE.with(|guest| {
        let first = guest.run_with_input(&["head", "-c", "5"], &sent)?;
        Ok((first, guest.run_with_input(&["cat"], b"next")?))
    });
    assert_eq!(first.stdout, sent[..5]);
    assert_eq!(next.stdout, b"next");
}

#[test]
fn a_writer_sees_a_broken_pipe_when_its_reader_here_has_gone() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let end = ROUSE.with(|guest| {
        guest.feed(std::io::empty())?;
        let command = user_programs::protocol::Command { arguments: vec![b"yes".to_vec()], ..Default::default() };
        guest.carry(&command, &mut Closed, &mut Vec::new())
    });
    const SIGPIPE: u8 = 13;
    assert!(matches!(end, End::Killed(SIGPIPE) | End::Exited(1)), "{end:?}");
}

#[test]
fn a_background_process_does_not_hold_the_program_up() {
    let output = ROUSE.with(|guest| guest.shell("sleep 1000 & echo started"));
    assert_eq!(output.text(), "started\n");
    ROUSE.with(|guest| guest.shell("pkill sleep; killall sleep"));
}

fn failure_of(options: &Options, script: &str) -> Failure {
    let outcome = Guest::start(options).and_then(|mut guest| guest.shell(script));
    let error = outcome.expect_err("the machine ends before the script");
    error.downcast_ref::<Lost>().unwrap_or_else(|| panic!("{error:#}")).failure
}

#[test]
fn a_time_limit_and_a_switched_off_machine_are_told_apart() {
    let limited = under_test(Options { timeout: Some(20), ..Options::default() });
    assert_eq!(failure_of(&limited, "sleep 1000"), Failure::TimedOut);
    let options = under_test(Options { timeout: Some(120), ..Options::default() });
    assert_eq!(failure_of(&options, "poweroff -f; sleep 1000"), Failure::PoweredOff);
}
