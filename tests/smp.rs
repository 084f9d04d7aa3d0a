//! Rouse on several processors: all of them are started and used, and what programs rely on when their threads run at the same time
//! holds. The cases are in `tests/programs/src/bin/smp.rs`, and pass on Linux.

use user_programs::protocol::End;
use xtask::guest::Guest;
use xtask::machine::{Model, Options};
use xtask::testing::under_test;

fn run_cases(smp: u32) {
    let programs = xtask::programs::build("test-programs").expect("the test programs compile");
    let (_, program) = programs.iter().find(|(name, _)| name == "smp").expect("it is one of them");
    let add = vec![format!("{}=/tests/smp", program.display()).into()];
    let options = Options { add, smp, timeout: Some(300), ..Options::default() };
    let mut guest = Guest::start(&under_test(options)).expect("a machine");
    let output = guest.run(&["/tests/smp".to_owned(), "300".to_owned()]).expect("the machine lives on");
    guest.stop();
    assert_eq!(output.end, End::Exited(0), "{}", output.text());
}

#[test]
fn threads_share_two_processors() {
    run_cases(2);
}

#[test]
fn threads_share_four_processors() {
    run_cases(4);
}

/// What the machine says of its processors.
fn processors(options: Options) -> String {
    let options = under_test(Options { timeout: Some(240), ..options });
    let mut guest = Guest::start(&options).unwrap_or_else(|error| panic!("{options:?}: {error:#}"));
    let script =
        "nproc; cat /sys/devices/system/cpu/online; grep -c ^processor /proc/cpuinfo; grep -c '^cpu[0-9]' /proc/stat";
    let output = guest.shell(script).unwrap_or_else(|error| panic!("{options:?}: {error:#}"));
    guest.stop();
    output.text()
}

#[test]
fn sixty_four_processors_start() {
    assert_eq!(processors(Options { smp: 64, ..Options::default() }), "64\n0-63\n64\n64\n");
}

#[test]
fn the_command_line_limits_the_processors() {
    let options = Options { smp: 4, append: vec!["maxcpus=3".into()], ..Options::default() };
    assert_eq!(processors(options), "3\n0-2\n3\n3\n");
}

#[test]
fn a_microvm_has_several_processors() {
    assert_eq!(processors(Options { smp: 2, machine: Model::Microvm, ..Options::default() }), "2\n0-1\n2\n2\n");
}
