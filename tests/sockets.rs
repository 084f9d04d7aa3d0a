//! AF_UNIX sockets on Rouse are what programs take them for: the cases are in `tests/programs/src/bin/sockets.rs`, and pass on Linux.

use user_programs::protocol::End;
use xtask::guest::Guest;
use xtask::machine::Options;
use xtask::testing::under_test;

#[test]
fn sockets_are_what_programs_take_them_for() {
    let programs = xtask::programs::build("test-programs").expect("the test programs compile");
    let (_, sockets) = programs.iter().find(|(name, _)| name == "sockets").expect("it is one of them");
    let add = vec![format!("{}=/tests/sockets", sockets.display()).into()];
    let mut guest = Guest::start(&under_test(Options { add, ..Options::default() })).expect("a machine");
    let output = guest.run(&["/tests/sockets".to_owned()]).expect("the machine lives on");
    guest.stop();
    assert_eq!(output.end, End::Exited(0), "{}", output.text());
}
