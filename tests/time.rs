//! Time, and having the CPU taken away, as programs see them hold on Rouse: the cases are in `tests/programs/src/bin/`, and pass on Linux.

use user_programs::protocol::End;
use xtask::guest::Guest;
use xtask::machine::Options;
use xtask::testing::under_test;

#[test]
fn clocks_and_timers_are_what_programs_take_them_for() {
    let programs = xtask::programs::build("test-programs").expect("the test programs compile");
    let wanted: [(&str, &[&str]); 3] = [("vdso", &["set-clock"]), ("timers", &[]), ("rseq", &[])];
    let path = |name: &str| &programs.iter().find(|(found, _)| found == name).expect("it is one of them").1;
    let add = wanted.iter().map(|(name, _)| format!("{}=/tests/{name}", path(name).display()).into()).collect();
    let mut guest = Guest::start(&under_test(Options { add, ..Options::default() })).expect("a machine");
    for (name, arguments) in wanted {
        let mut command = vec![format!("/tests/{name}")];
        command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let output = guest.run(&command).expect("the machine lives on");
        assert_eq!(output.end, End::Exited(0), "{name}: {}", output.text());
    }
    guest.stop();
}
