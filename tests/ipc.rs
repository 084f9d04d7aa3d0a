//! AF_UNIX sockets, spliced pipes, System V objects and POSIX message queues on Rouse are what programs take them for: the cases are in
//! `tests/programs/src/bin/{sockets,semaphores,messages,segments,queues,splices,several}.rs`, and pass on Linux.

use user_programs::protocol::End;
use xtask::guest::Guest;
use xtask::machine::Options;
use xtask::testing::under_test;

#[test]
fn sockets_pipes_queues_and_system_v_objects_are_what_programs_take_them_for() {
    const WANTED: [&str; 7] = ["sockets", "semaphores", "messages", "segments", "queues", "splices", "several"];
    let programs = xtask::programs::build("test-programs").expect("the test programs compile");
    let wanted = programs.iter().filter(|(name, _)| WANTED.contains(&name.as_str()));
    let add: Vec<_> = wanted.map(|(name, path)| format!("{}=/tests/{name}", path.display()).into()).collect();
    assert_eq!(add.len(), WANTED.len(), "all are among the test programs");
    let mut guest = Guest::start(&under_test(Options { add, smp: 2, ..Options::default() })).expect("a machine");
    let outcomes = WANTED.map(|name| (name, guest.run(&[format!("/tests/{name}")]).expect("the machine lives on")));
    guest.stop();
    for (name, output) in outcomes {
        assert_eq!(output.end, End::Exited(0), "{name}: {}", output.text());
    }
}
