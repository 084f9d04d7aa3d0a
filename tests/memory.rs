//! What programs rely on of their memory holds on Rouse: the cases are in `tests/programs/src/bin/memory.rs`, and pass on Linux.

use user_programs::protocol::End;
use xtask::guest::{Failure, Guest, Lost};
use xtask::machine::Options;
use xtask::testing::under_test;

/// A machine with the program.
fn machine(options: Options) -> Guest {
    let programs = xtask::programs::build("test-programs").expect("the test programs compile");
    let (_, memory) = programs.iter().find(|(name, _)| name == "memory").expect("it is one of them");
    let add = vec![format!("{}=/tests/memory", memory.display()).into()];
    Guest::start(&under_test(Options { add, ..options })).expect("a machine")
}

/// The kernel gives its CPU to others between two parts of a long call: here a nanosecond is an instruction.
#[test]
fn much_memory_is_filled_and_freed_in_polls_of_a_few_milliseconds() {
    let mut guest = machine(Options { icount: true, ..Options::default() });
    let output = guest.run(&["/tests/memory".to_owned(), "much".to_owned()]).expect("the machine lives on");
    guest.stop();
    let text = output.text();
    let line = text.lines().find(|line| line.ends_with(" memory")).unwrap_or_else(|| panic!("{text}"));
    let worst = line.split_whitespace().nth(7).and_then(|field| field.parse::<u64>().ok());
    assert!(worst.is_some_and(|worst| worst < 5_000_000), "{line}");
}

#[test]
fn memory_is_what_programs_take_it_for() {
    let mut guest = machine(Options::default());
    let output = guest.run(&["/tests/memory".to_owned()]).expect("the machine lives on");
    guest.stop();
    assert_eq!(output.end, End::Exited(0), "{}", output.text());
}

#[test]
fn a_fork_bomb_on_a_small_machine_harms_programs_not_the_kernel() {
    let options = Options { memory: "128M".into(), timeout: Some(60), ..Options::default() };
    let mut guest = Guest::start(&under_test(options)).expect("a machine");
    let script =
        "(sleep 8; : > /tmp/stop) & s=$!; b() { [ -e /tmp/stop ] || { b | b & b; }; }; b >/dev/null 2>&1 & wait $s";
    // What becomes of the programs is chance: any of them may be killed for want of memory, the one that stops the others, too.
    match guest.run(&["sh", "-c", script]) {
        Ok(_) => guest.stop(),
        Err(error) => {
            let lost = error.downcast_ref::<Lost>().unwrap_or_else(|| panic!("{error:#}"));
            assert_eq!(lost.failure, Failure::TimedOut, "{lost}");
        }
    }
}
