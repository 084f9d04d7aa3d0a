//! Busybox's own test suite passes on Rouse as it does on Linux.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use xtask::machine::Options;
use xtask::suite::Suite;
use xtask::testing::Machine;

/// Of the tests that pass on Linux, so many must pass here, in percent.
const DEMANDED: usize = 95;

/// A suite that shrinks unseen (an archive laid out anew, a part that cannot start) proves nothing.
const TESTS_AT_LEAST: usize = 500;

static SUITE: LazyLock<Suite> = LazyLock::new(|| Suite::get().unwrap_or_else(|error| panic!("{error:#}")));
static ROUSE: Machine = Machine::rouse(options);
static LINUX: Machine = Machine::linux(options);

fn options() -> Options {
    const TIME_LIMIT_SECONDS: u64 = 1800;
    Options { add: vec![SUITE.addition()], timeout: Some(TIME_LIMIT_SECONDS), ..Options::default() }
}

fn outcomes(machine: &Machine) -> BTreeMap<String, bool> {
    machine.with(|guest| {
        let mut outcomes = BTreeMap::new();
        for part in &SUITE.parts {
            outcomes.extend(part.run(guest)?.into_iter().map(|outcome| (outcome.test, outcome.has_passed)));
        }
        Ok(outcomes)
    })
}

#[test]
fn busyboxs_own_tests_pass_as_they_do_on_linux() {
    LazyLock::force(&SUITE);
    let (here, there) = std::thread::scope(|scope| {
        let there = scope.spawn(|| outcomes(&LINUX));
        let here = outcomes(&ROUSE);
        (here, there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let pass_there: Vec<&String> = there.iter().filter(|(_, passed)| **passed).map(|(test, _)| test).collect();
    let fail_here: Vec<&String> = pass_there.iter().copied().filter(|test| here.get(*test) != Some(&true)).collect();
    let only_here =
        here.iter().filter(|(test, passed)| **passed && there.get(*test) != Some(&true)).map(|(test, _)| test);
    let only_here: Vec<&String> = only_here.collect();
    let passed = pass_there.len() - fail_here.len();
    println!("{passed} of the {} tests that pass on Linux pass on Rouse, of {} in all", pass_there.len(), there.len());
    println!("only on Linux: {fail_here:#?}\nonly on Rouse: {only_here:#?}");
    assert!(pass_there.len() >= TESTS_AT_LEAST, "only {} tests pass on Linux", pass_there.len());
    assert!(passed * 100 >= pass_there.len() * DEMANDED, "only on Linux: {fail_here:#?}");
}
