//! What programs rely on of their memory holds on Rouse: the cases are in `tests/programs/src/bin/memory.rs`, and pass on Linux.

use user_programs::protocol::End;
use xtask::guest::{Failure, Guest, Lost};
use xtask::machine::Options;
use xtask::testing::under_test;

#[test]
fn memory_is_what_programs_take_it_for() {
    let programs = xtask::programs::build("test-programs").expect("the test programs compile");
    let (_, memory) = programs.iter().find(|(name, _)| name == "memory").expect("it is one of them");
    let add = vec![format!("{}=/tests/memory", memory.display()).into()];
    let mut guest = Guest::start(&under_test(Options { add, ..Options::default() })).expect("a machine");
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
