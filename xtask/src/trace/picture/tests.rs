//! Pictures of traces that are written by hand.

use super::super::check::{Slice, check};
use super::*;

/// A thread reads from a disk: the driver's interrupt wakes the driver, and that the thread.
const READ: &str = "\
# rouse-trace 1
# task 4 virtio-blk
# task 9 3/3 cat
# cpu 0 records 19 lost 0
1000 0 return 9 write 5
1100 0 call 9 read 0x3 0x7f00
1200 0 pending 9 fs/cache.rs:7
1300 0 poll 9
1400 0 pending 9 fs/cache.rs:7
2000 0 irq 0x31 device
2010 0 wake 4 irq:0x31 0
2020 0 irq-done 0x31
2100 0 poll 4
2150 0 wake 9 task:4 0
2200 0 pending 4 drivers/irq.rs:50
2300 0 poll 9
2400 0 return 9 read 4096
2500 0 requeue 9
2600 0 timers
2601 0 wake 9 timer 0
2602 0 timers-done
3000 0 call 9 exit_group 0x0 0x0
3100 0 ready 9
";

fn drawn(text: &str) -> Value {
    let picture = Picture::of(&Trace::parse(text).expect("a trace"));
    let mut bytes = Vec::new();
    picture.write(&mut bytes).expect("memory takes all");
    serde_json::from_slice(&bytes).expect("it is JSON")
}

fn slice(kind: &str, name: &str, begin: u64, end: u64) -> Slice {
    Slice { kind: kind.into(), name: name.into(), begin, end }
}

#[test]
fn a_read_from_a_disk_is_drawn_as_its_waits_polls_and_arrows() {
    let summary = check(&drawn(READ)).expect("it makes sense");
    let cpu = &summary.tracks[&(CPUS, 1)];
    let (irq, driver) = (slice("irq", "irq device", 2000, 2020), slice("poll", "virtio-blk", 2100, 2200));
    let thread = slice("poll", "3 cat", 2300, 3100);
    for expected in [&irq, &driver, &thread] {
        assert!(cpu.contains(expected), "{expected:?} in {cpu:#?}");
    }
    assert_eq!(summary.arrows[..2], [(irq, driver.clone()), (driver, thread)]);
    let own = &summary.tracks[&(3, 3)];
    assert_eq!(own[0], slice("call", "read", 1100, 2400), "the write began before the trace");
    assert!(own.contains(&slice("wait", "waits at fs/cache.rs:7", 1400, 2150)), "{own:#?}");
    assert!(own.contains(&slice("queued", "queued", 2150, 2300)), "{own:#?}");
    assert!(own.contains(&slice("call", "exit_group", 3000, 3100)), "it never returns: {own:#?}");
    let driver = &summary.tracks[&(KERNEL, 4)];
    assert!(driver.contains(&slice("poll", "poll", 2100, 2200)), "{driver:#?}");
    assert_eq!(summary.names[&(CPUS, 1)], "CPU 0");
    assert_eq!(summary.names[&(3, 3)], "3 cat");
}

#[test]
fn a_trace_that_begins_and_ends_in_the_midst_of_things_still_makes_sense() {
    let lines: Vec<&str> = READ.lines().collect();
    for first in 4..lines.len() {
        for last in first..lines.len() {
            let text = [&lines[..4], &lines[first..=last]].concat().join("\n");
            check(&drawn(&text)).unwrap_or_else(|error| panic!("{error:#} in\n{text}"));
        }
    }
}

#[test]
fn a_task_that_nobody_has_introduced_makes_no_mess() {
    let text = READ.replace("# task 9 3/3 cat\n", "");
    let summary = check(&drawn(&text)).expect("it makes sense");
    assert_eq!(summary.names[&(KERNEL, 9)], "task 9");
}

#[test]
fn slices_that_overlap_and_arrows_without_an_end_are_found() {
    let overlapping = json!({"traceEvents": [
        {"ph": "X", "cat": "a", "name": "a", "pid": 1, "tid": 1, "ts": 1.0, "dur": 2.0},
        {"ph": "X", "cat": "b", "name": "b", "pid": 1, "tid": 1, "ts": 2.0, "dur": 2.0},
    ]});
    assert!(format!("{:#}", check(&overlapping).expect_err("they overlap")).contains("reaches out"));
    let half = json!({"traceEvents": [
        {"ph": "X", "cat": "a", "name": "a", "pid": 1, "tid": 1, "ts": 1.0, "dur": 2.0},
        {"ph": "s", "cat": "wake", "name": "wake", "id": 1, "pid": 1, "tid": 1, "ts": 2.0},
    ]});
    assert!(format!("{:#}", check(&half).expect_err("half an arrow")).contains("lacks an end"));
    let back = json!({"traceEvents": [
        {"ph": "i", "s": "t", "name": "a", "pid": 1, "tid": 1, "ts": 2.0},
        {"ph": "i", "s": "t", "name": "b", "pid": 1, "tid": 1, "ts": 1.0},
    ]});
    assert!(format!("{:#}", check(&back).expect_err("time goes back")).contains("time goes back"));
}
