//! Whole programs, from their first step to their exit.

use core::time::Duration;

use super::world::{DATA, Notes, Program, advance, settle, start};
use crate::process::send;
use crate::process::{ExitStatus, Process, Signal, SignalInfo};
use crate::syscall::numbers::*;

const EINTR: i64 = -4;
const EAGAIN: i64 = -11;
/// Where programs keep a time: ten milliseconds.
const TIME: usize = DATA + 0x400;
const TEN_MILLISECONDS: [u64; 2] = [0, 10_000_000];
const SOON: Duration = Duration::from_millis(10);

fn noted(notes: &Notes) -> Vec<i64> {
    notes.borrow().clone()
}

fn ended(process: &Process) -> Option<ExitStatus> {
    *process.exit_status.lock()
}

#[test]
fn a_process_knows_its_number_and_exits() {
    let notes = Notes::default();
    let process = start(Program::default().call(GETPID, []).note(&notes).exit(3));
    assert_eq!(noted(&notes), [i64::from(process.pid)]);
    assert_eq!(ended(&process), Some(ExitStatus::Exited(3)));
}

#[test]
fn what_is_no_instruction_ends_the_program_by_a_signal() {
    let process = start(0x7000);
    assert_eq!(ended(&process), Some(ExitStatus::Dumped(Signal::SIGILL)));
}

/// Makes a pipe (descriptors 0 and 1) and a child that writes three bytes to it after ten milliseconds and exits with 7.
fn pipe_and_child() -> Program {
    let child = Program::default().call(NANOSLEEP, [TIME, 0]).call(WRITE, [1, DATA + 0x100, 3]).exit(7);
    Program::default()
        .write(TIME, TEN_MILLISECONDS)
        .write(DATA + 0x100, [0x63_6261])
        .call(PIPE2, [DATA, 0])
        .call(FORK, [])
        .if_zero(child)
}

#[test]
fn a_reader_of_an_empty_pipe_waits_for_the_child_that_writes_and_then_for_its_end() {
    let notes = Notes::default();
    let program = pipe_and_child()
        .note_number(&notes, 1)
        .call(READ, [0, DATA + 0x200, 16])
        .note(&notes)
        .note_memory(&notes, DATA + 0x200)
        .call(WAIT4, [usize::MAX, DATA + 0x300, 0, 0])
        .note_memory(&notes, DATA + 0x300)
        .call(CLOSE, [1])
        .call(READ, [0, DATA + 0x200, 16])
        .note(&notes)
        .exit(0);
    let process = start(program);
    assert_eq!(noted(&notes), [1], "it waits");
    advance(SOON - Duration::from_nanos(1));
    assert_eq!(noted(&notes), [1], "it still waits");
    advance(Duration::from_nanos(1));
    assert_eq!(noted(&notes), [1, 3, 0x63_6261, 0x700, 0]);
    assert_eq!(ended(&process), Some(ExitStatus::Exited(0)));
}

#[test]
fn a_futex_wait_ends_with_the_wake_of_another_thread() {
    const WAIT: usize = 128;
    const WAKE: usize = 129;
    const THREAD: usize = 0x5_0f00;
    let (notes, word) = (Notes::default(), DATA + 0x10);
    let other =
        Program::default().call(NANOSLEEP, [TIME, 0]).call(FUTEX, [word, WAKE, 5]).note(&notes).call(EXIT, [0]).entry();
    let program = Program::default()
        .write(TIME, TEN_MILLISECONDS)
        .write(word, [5])
        .call(CLONE, [THREAD, DATA + 0x8000, 0, 0, 0])
        .if_zero(other)
        .call(FUTEX, [word, WAIT, 4, 0])
        .note(&notes)
        .call(FUTEX, [word, WAIT, 5, 0])
        .note(&notes)
        .call(FUTEX, [word, WAIT, 5, TIME])
        .note(&notes)
        .exit(0);
    let process = start(program);
    assert_eq!(noted(&notes), [EAGAIN], "the word is not what was expected; then it waits");
    advance(SOON);
    let mut both = noted(&notes).split_off(1);
    both.sort();
    assert_eq!(both, [0, 1], "one was woken, and goes on");
    advance(SOON);
    assert_eq!(noted(&notes).last(), Some(&-110), "nobody wakes the third wait: ETIMEDOUT");
    assert_eq!(ended(&process), Some(ExitStatus::Exited(0)));
}

#[test]
fn poll_waits_for_its_time_and_not_longer() {
    let notes = Notes::default();
    let program = Program::default()
        .call(PIPE2, [DATA, 0])
        .write(DATA + 0x20, [1 << 32])
        .call(POLL, [DATA + 0x20, 1, 10])
        .note(&notes)
        .call(WRITE, [1, DATA, 1])
        .call(POLL, [DATA + 0x20, 1, 10])
        .note(&notes)
        .exit(0);
    start(program);
    advance(SOON - Duration::from_nanos(1));
    assert_eq!(noted(&notes), []);
    advance(Duration::from_nanos(1));
    assert_eq!(noted(&notes), [0, 1], "nothing was ready in time; then one is at once");
}

/// A reader of an empty pipe that has a handler for SIGUSR1, set with these flags.
fn interrupted_reader(notes: &Notes, flags: u64) -> std::sync::Arc<Process> {
    const SA_RESTORER: u64 = 0x0400_0000;
    let handler = Program::default().note_number(notes, 1000).return_from_handler().entry();
    let child = Program::default().call(NANOSLEEP, [TIME, 0]).call(WRITE, [1, DATA, 3]).exit(0);
    let program = Program::default()
        .write(TIME, TEN_MILLISECONDS)
        .write(DATA + 0x500, [handler, flags | SA_RESTORER, 0x1234, 0])
        .call(PIPE2, [DATA, 0])
        .call(RT_SIGACTION, [Signal::SIGUSR1.number(), DATA + 0x500, 0, 8])
        .note(notes)
        .call(FORK, [])
        .if_zero(child)
        .call(READ, [0, DATA + 0x200, 16])
        .note(notes)
        .exit(0);
    let process = start(program);
    assert_eq!(noted(notes), [0], "it waits");
    send::to_process(&process, SignalInfo::kernel(Signal::SIGUSR1)).expect("room");
    settle();
    process
}

#[test]
fn a_signal_interrupts_a_blocked_read() {
    let notes = Notes::default();
    let process = interrupted_reader(&notes, 0);
    assert_eq!(noted(&notes), [0, 1000, EINTR]);
    assert_eq!(ended(&process), Some(ExitStatus::Exited(0)));
    advance(SOON);
}

#[test]
fn a_read_is_made_again_after_a_handler_that_says_so() {
    const SA_RESTART: u64 = 0x1000_0000;
    let notes = Notes::default();
    let process = interrupted_reader(&notes, SA_RESTART);
    assert_eq!(noted(&notes), [0, 1000], "the handler has run, and the read waits on");
    assert_eq!(ended(&process), None);
    advance(SOON);
    assert_eq!(noted(&notes), [0, 1000, 3]);
    assert_eq!(ended(&process), Some(ExitStatus::Exited(0)));
}

#[test]
fn a_kill_ends_a_thread_that_waits() {
    let process = start(Program::default().call(PIPE2, [DATA, 0]).call(READ, [0, DATA + 0x200, 16]).exit(0));
    assert_eq!(ended(&process), None);
    send::to_process(&process, SignalInfo::kernel(Signal::SIGKILL)).expect("room");
    settle();
    assert_eq!(ended(&process), Some(ExitStatus::Killed(Signal::SIGKILL)));
}

#[test]
fn an_interval_timer_rings_by_the_clock_that_the_test_moves() {
    const SA_RESTORER: u64 = 0x0400_0000;
    let notes = Notes::default();
    let handler = Program::default().note_number(&notes, 1000).return_from_handler().entry();
    let program = Program::default()
        .write(DATA + 0x500, [handler, SA_RESTORER, 0x1234, 0])
        .write(DATA + 0x600, [0, 10_000, 0, 25_000])
        .call(RT_SIGACTION, [Signal::SIGALRM.number(), DATA + 0x500, 0, 8])
        .call(SETITIMER, [0, DATA + 0x600, 0])
        .call(PAUSE, [])
        .note(&notes)
        .call(PAUSE, [])
        .note(&notes)
        .exit(0);
    let process = start(program);
    advance(Duration::from_micros(24_999));
    assert_eq!(noted(&notes), []);
    advance(Duration::from_micros(1));
    assert_eq!(noted(&notes), [1000, EINTR]);
    advance(SOON);
    assert_eq!(noted(&notes), [1000, EINTR, 1000, EINTR]);
    assert_eq!(ended(&process), Some(ExitStatus::Exited(0)));
}
