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
