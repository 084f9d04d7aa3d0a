//! What system calls cost: instructions counted by QEMU's `-icount`, where one takes a nanosecond, and allocations counted by the
//! kernel (`/proc/rouse/counters`).
//!
//! The limits are what was last measured and a few per cent, all of it below what Linux 6.1 takes for the same row of the same program
//! (`cargo run --release -- bench`). The kernel is the one that is shipped, compiled as a whole: the checked one does more.

use xtask::guest::Guest;
use xtask::machine::Options;

/// Rows that allocate nothing, with the most instructions that each may take.
const WITHOUT_MEMORY: &[(&str, f64)] = &[
    ("null-syscall", 150.0),
    ("read-1", 420.0),
    ("write-1", 395.0),
    ("lseek", 230.0),
    ("clock-gettime", 48.0),
    ("futex-wake", 240.0),
    ("fstat", 400.0),
    ("stat", 2_000.0),
    ("poll-1", 550.0),
    ("poll-100", 9_300.0),
    ("select-100", 8_000.0),
    ("signal-install", 360.0),
    ("signal-deliver", 2_200.0),
    ("pipe-round-trip", 6_650.0),
    ("switch-2", 3_350.0),
];

/// Rows that may allocate.
const OTHERS: &[(&str, f64)] = &[
    ("open-close", 3_900.0),
    ("protection-fault", 5_850.0),
    ("page-fault-anonymous", 2_100.0),
    ("unix-round-trip", 9_100.0),
    ("semaphore", 3_620.0),
    ("thread-create-join", 30_000.0),
    ("fork-exit", 76_000.0),
    ("fork-exec", 420_000.0),
];

const TIME_LIMIT_SECONDS: u64 = 600;
/// Kernel memory of a sleeping thread, in KiB.
const SLEEPER_KIB: f64 = 2.0;
/// The same with a stack of its own and what the standard library adds: four areas in the map of its process, and their page tables.
const SLEEPER_WITH_STACK_KIB: f64 = 2.6;
/// Kernel memory of a sleeping process, in KiB: nearly all of it page tables, ten to twelve, as chance lays its memory out.
const SLEEPING_PROCESS_KIB: f64 = 60.0;

#[test]
fn system_calls_take_no_more_instructions_than_on_linux_and_the_quick_ones_no_memory() {
    let options = Options { icount: true, optimized: true, timeout: Some(TIME_LIMIT_SECONDS), ..Options::default() };
    let mut guest = Guest::start(&options).expect("a machine");
    let mut complaints = Vec::new();
    let quick = WITHOUT_MEMORY.iter().map(|row| (row, true));
    for ((row, limit), is_quick) in quick.chain(OTHERS.iter().map(|row| (row, false))) {
        let output = guest.run(&["bench", row]).expect("the machine lives on");
        let text = output.text();
        let cost: Option<f64> = text.split_whitespace().next().and_then(|cost| cost.parse().ok());
        // Whole instructions: the loop around the call takes the rest.
        if cost.is_none_or(|cost| cost.floor() > *limit) {
            complaints.push(format!("{row}: more than {limit}: {text}"));
        }
        if is_quick && text.contains("heap_allocations") {
            complaints.push(format!("{row}: allocates: {text}"));
        }
    }
    guest.stop();
    assert!(complaints.is_empty(), "{}", complaints.concat());
}

#[test]
fn threads_and_processes_that_sleep_take_little_and_half_a_gibibyte_holds_a_hundred_thousand() {
    let options =
        Options { memory: "512M".into(), optimized: true, timeout: Some(TIME_LIMIT_SECONDS), ..Options::default() };
    let mut guest = Guest::start(&options).expect("a machine");
    // KiB for each: what is there once cancels out.
    let mut each = |kind: &str, few: &str, many: &str| {
        // (sleepers, memory that is free or the process's own, in KiB)
        let mut with = |count: &str| {
            let output = guest.run(&["bench", kind, count]).expect("the machine lives on");
            let text = output.text();
            let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let [sleepers, free, own] = numbers[..] else { panic!("{kind} {count}: {output:?}") };
            assert_eq!(sleepers.to_string(), count, "{kind}: there is no room for all");
            (sleepers, free + own)
        };
        let ((few, before), (many, after)) = (with(few), with(many));
        (before - after) / (many - few)
    };
    let figures = [
        ("--bare-threads", each("--bare-threads", "1000", "100000"), SLEEPER_KIB),
        ("--threads", each("--threads", "1000", "5000"), SLEEPER_WITH_STACK_KIB),
        ("--processes", each("--processes", "500", "2500"), SLEEPING_PROCESS_KIB),
    ];
    guest.stop();
    for (kind, each, limit) in figures {
        assert!((0.5..=limit).contains(&each), "{kind}: {each:.2} KiB for each");
    }
}

#[test]
fn sixteen_mebibytes_are_enough_for_a_shell() {
    let options =
        Options { memory: "16M".into(), optimized: true, timeout: Some(TIME_LIMIT_SECONDS), ..Options::default() };
    let mut guest = Guest::start(&options).expect("a machine");
    let output = guest.shell("echo up | cat").expect("the machine lives on");
    guest.stop();
    assert_eq!(output.text(), "up\n", "{output:?}");
}
