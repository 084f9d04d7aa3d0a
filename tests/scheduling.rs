//! How threads share a CPU: the cases are in `tests/programs/src/bin/scheduling.rs`, and pass on Linux. Figures are taken on a machine that
//! counts instructions: there a nanosecond is one, and whatever else the host does changes nothing.

use user_programs::protocol::End;
use xtask::guest::Guest;
use xtask::machine::Options;
use xtask::testing::under_test;

const PROGRAM: &str = "/tests/scheduling";

/// A machine with the program.
fn machine(options: Options) -> Guest {
    let programs = xtask::programs::build("test-programs").expect("the test programs compile");
    let (_, program) = programs.iter().find(|(name, _)| name == "scheduling").expect("it is one of them");
    let add = vec![format!("{}={PROGRAM}", program.display()).into()];
    Guest::start(&under_test(Options { add, timeout: Some(300), ..options })).expect("a machine")
}

#[test]
fn policies_priorities_and_nice_values_are_what_programs_take_them_for() {
    let mut guest = machine(Options::default());
    let output = guest.run(&[PROGRAM]).expect("the machine lives on");
    guest.stop();
    assert_eq!(output.end, End::Exited(0), "{}", output.text());
}

/// Who is out of processes ends, and what has ended counts until its parent has waited for it: so a bomb with a limit burns out, if others
/// have their turn meanwhile.
#[test]
fn a_fork_bomb_with_a_limit_burns_out() {
    let mut guest = Guest::start(&under_test(Options { timeout: Some(300), ..Options::default() })).expect("a machine");
    let bomb = "ulimit -u 40; b() { b | b & b; }; b";
    let script = format!(
        "su nobody -s /bin/sh -c '{bomb}' > /tmp/said 2>&1 & sleep 1; sleep 1; echo awake; wait
        while [ $(ps -o user | grep -c nobody) != 0 ]; do sleep 1; done; grep -c 'Resource temporarily unavailable' /tmp/said"
    );
    let output = guest.shell(&script).expect("the machine lives on");
    guest.stop();
    assert_eq!(output.end, End::Exited(0), "{}", output.text());
    let text = output.text();
    let failed = text.strip_prefix("awake\n").and_then(|count| count.trim().parse::<u32>().ok());
    assert!(failed.is_some_and(|failed| failed > 0), "{text}");
}

#[test]
fn shares_follow_the_weights_and_who_wakes_among_a_hundred_runs_within_a_slice() {
    let mut guest = machine(Options { icount: true, ..Options::default() });
    let mut figures = |what: &str| {
        let output = guest.run(&[PROGRAM, what]).expect("the machine lives on");
        let text = output.text();
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [one, other] = numbers[..] else { panic!("{what}: {output:?}") };
        (one, other)
    };
    let (nice_0, nice_5) = figures("shares");
    let (slept, woken) = figures("latency");
    guest.stop();
    // sched(7), and the Linux kernel's table of weights.
    let ratio = nice_0 / nice_5 / (1024.0 / 335.0);
    assert!((0.98..=1.02).contains(&ratio), "nice 0 had {nice_0} ns, nice 5 had {nice_5}: {ratio:.4} of what is fair");
    const SLICE: f64 = 3e6;
    assert!(slept < SLICE && woken < SLICE, "{slept} ns late after a sleep, {woken} after a wake-up by another thread");
}
