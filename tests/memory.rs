//! What programs rely on of their memory holds on Rouse: the cases are in `tests/programs/src/bin/memory.rs`, and pass on Linux.

use user_programs::protocol::End;
use xtask::guest::Guest;
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
    let options = Options { memory: "128M".into(), timeout: Some(120), ..Options::default() };
    let mut guest = Guest::start(&under_test(options)).expect("a machine");
    // `wait` takes no process of its own: by then none is to be had.
    let script = "sleep 12 & s=$!; b() { b | b & b; }; b >/dev/null 2>&1 & wait $s; echo alive";
    let output = guest.run(&["sh", "-c", script]).expect("the machine lives on");
    // The shell itself may be among those that are killed for want of memory.
    const SIGKILL: u8 = 9;
    assert!(output.text().contains("alive") || output.end == End::Killed(SIGKILL), "{output:?}");
    guest.stop();
}
