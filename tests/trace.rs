//! What happens in the kernel can be seen: /proc/rouse/tasks, the trace and its picture, tasktop.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use serde_json::Value;
use xtask::guest::{Guest, Output};
use xtask::machine::Options;
use xtask::testing::{Machine, under_test};
use xtask::trace::check::{Slice, check};
use xtask::trace::picture::{CPUS, KERNEL, Picture};
use xtask::trace::{record, timeline};
use xtask::typist::at_the_console;
use xtask::{packages, paths};

static ROUSE: Machine = Machine::rouse(two_cpus);

fn two_cpus() -> Options {
    Options { smp: 2, ..Options::default() }
}

fn shell(script: &str) -> Output {
    ROUSE.with(|guest| guest.shell(script))
}

/// The lines of /proc/rouse/tasks, as words.
fn tasks(text: &str) -> Vec<Vec<&str>> {
    text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
}

/// A column's place; the last, `what`, has blanks in it.
const STATE: usize = 2;
const SINCE: usize = 4;
const WORST: usize = 7;
const BY: usize = 9;
const CALL: usize = 10;
const WAITS_AT: usize = 11;
const NUMBERS: usize = 12;
const NAME: usize = 13;

#[test]
fn each_task_is_listed_with_what_it_is_and_where_and_since_when_it_waits() {
    let script = "sleep 30 & sleeper=$!; (cat </dev/zero | sleep 31) & sleep 1; cat /proc/rouse/tasks; echo own $sleeper; \
                  kill %1 %2; killall sleep cat 2>/dev/null; true";
    let output = shell(script);
    let text = output.text();
    let (list, own) = text.split_once("own ").expect("the sleeper's number");
    let list = tasks(list);
    let number = format!("{0}/{0}", own.trim());
    let sleeper = list.iter().find(|task| task[NUMBERS] == number).unwrap_or_else(|| panic!("{text}"));
    assert_eq!((sleeper[NAME], sleeper[STATE], sleeper[CALL]), ("sleep", "waits", "CLOCK_NANOSLEEP"), "{text}");
    assert!(sleeper[WAITS_AT].starts_with("src/syscall/time.rs:"), "the caller's place: {sleeper:?}");
    let since: u64 = sleeper[SINCE].parse().expect("milliseconds");
    assert!((100..30_000).contains(&since), "it sleeps for about a second: {sleeper:?}");

    // cat fills the pipe, and waits for room.
    let writer = list.iter().find(|task| task.get(NAME) == Some(&"cat") && task[STATE] == "waits");
    let writer = writer.unwrap_or_else(|| panic!("{text}"));
    assert!(writer[WAITS_AT].starts_with("src/syscall/"), "{writer:?}");
    assert_ne!(writer[CALL], "-", "{writer:?}");

    let driver = list.iter().find(|task| task[NUMBERS] == "virtio-console").expect("init's channels");
    assert!(driver[BY].starts_with("irq:0x"), "{driver:?}");
    assert!(driver[WAITS_AT].starts_with("drivers/src/irq.rs:"), "{driver:?}");
    assert!(list.iter().any(|task| task[STATE] == "running"), "who reads it: {text}");
    assert!(list.iter().all(|task| task[WORST].parse::<u64>().is_ok()), "{text}");
}

/// How many long polls there were, on all CPUs.
fn long_polls(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("long_polls ")).expect("a counter of that name");
    line.parse().expect("a number")
}

#[test]
fn a_poll_that_keeps_its_cpu_for_too_long_is_counted_and_named() {
    // Other long polls may be told of instead, one in a second: it is tried until this one is.
    let output = shell(
        "cat /proc/rouse/counters; echo 30 > /proc/rouse/long-poll; cat /proc/rouse/counters; tries=0; \
         until dmesg | grep 'a poll of thread (task [0-9]*) took .* from src/.* to src/.*; thread [0-9]* sh, now in'; do \
         tries=$((tries + 1)); test $tries -lt 60 || break; sleep 1; echo 30 > /proc/rouse/long-poll; done; \
         cat /proc/rouse/tasks; echo 2000 > /proc/rouse/long-poll",
    );
    let text = output.text();
    let (before, after) = text.split_at(text.rfind("system_calls ").expect("counted twice"));
    assert!(long_polls(after) > long_polls(before), "{text}");
    assert!(text.contains("a poll of thread"), "{text}");
    let tasks = tasks(&text);
    let shell = tasks.iter().find(|task| task.get(NAME) == Some(&"sh")).unwrap_or_else(|| panic!("{text}"));
    let worst: u64 = shell[WORST].parse().expect("nanoseconds");
    assert!(worst >= 30_000_000, "{shell:?}");
    assert!(!output.is_success(), "nobody may keep a CPU for seconds");
}

#[test]
fn the_trace_is_switched_by_words_and_is_roots_alone() {
    let output = shell(
        "cd /proc/rouse; stat -c %a trace; echo nonsense > trace; echo $?; echo on 100 > trace; echo $?; echo on > trace; echo $?; \
         echo on 64 > trace; echo $?; grep -c xyz /proc/meminfo; echo off > trace; \
         grep -c 'call .* openat' trace > /tmp/calls; test $(cat /tmp/calls) -gt 0 && echo seen; \
         echo clear > trace; grep -c -v '^#' trace; grep '^# cpu' trace",
    );
    let text = output.text();
    let cleared = "# cpu 0 records 0 lost 0\n# cpu 1 records 0 lost 0\n";
    assert_eq!(text, format!("600\n1\n1\n0\n1\n0\nseen\n0\n{cleared}"), "{output:?}");
}

#[test]
fn tasktop_shows_what_is_busy_first() {
    let output = shell("while :; do :; done & sleep 1; tasktop -b -n 2 -d 1; kill $!");
    let text = output.text();
    let pictures: Vec<&str> = text.split(" tasks: ").collect();
    assert_eq!(pictures.len(), 3, "two pictures: {text}");
    for picture in &pictures[1..] {
        let lines: Vec<&str> = picture.lines().collect();
        let heading = lines.iter().position(|line| line.trim_start().starts_with("ID ")).expect("a heading");
        assert_eq!(lines[1].split_whitespace().next(), Some("cpu"), "{picture}");
        assert!(lines[2].trim_start().starts_with("0 ") && lines[3].trim_start().starts_with("1 "), "{picture}");
        let first: Vec<&str> = lines[heading + 1].split_whitespace().collect();
        assert!(first.contains(&"sh"), "the loop is the busiest: {picture}");
        let share: f64 = first[4].parse().expect("a share of a CPU");
        assert!((1.0..=100.0).contains(&share), "{picture}");
    }
    let refused = shell("tasktop -x; echo $?; tasktop -n; echo $?");
    assert_eq!(refused.text(), "1\n1\n");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("usage: tasktop"));
}

#[test]
fn tasktop_on_a_terminal_ends_at_q_and_leaves_it_as_it_was() {
    ROUSE.with(|guest| {
        let script =
            "stty -g > /tmp/before; tasktop -d 1; stty -g > /tmp/after; cmp /tmp/before /tmp/after && echo the same";
        let output = at_the_console(guest, &["sh", "-c", script], |person| {
            person.sees("\x1b[?1049h")?;
            person.sees("steals/s")?;
            // In a window this narrow the line that names the columns is cut off behind this one.
            person.resizes(10, 30)?;
            person.sees("STATE   CPU \x1b[K")?;
            person.types("q", "\x1b[?1049l")?;
            person.sees("the same")
        })?;
        assert!(output.is_success(), "{output:?}");
        Ok(())
    });
}

#[test]
fn a_program_that_reads_a_disk_is_seen_to_wait_for_it() {
    let mut guest = with_a_disk();
    let collected = Mutex::new(Vec::new());
    let command = ["cat", "/large"].map(|word| word.as_bytes().to_vec());
    guest.feed(std::io::empty()).expect("a port");
    let (end, trace) =
        record(&mut guest, &command, &mut *collected.lock().expect("ours"), &mut std::io::sink()).expect("a trace");
    guest.stop();
    assert_eq!((end.shell_status(), collected.lock().expect("ours").len()), (0, LARGE));
    assert_eq!(trace.lost, 0);

    let mut bytes = Vec::new();
    Picture::of(&trace).write(&mut bytes).expect("memory takes all");
    let document: Value = serde_json::from_slice(&bytes).expect("it is JSON");
    let summary = check(&document).unwrap_or_else(|error| panic!("{error:#}"));

    let (cat, _) = summary.names.iter().find(|(_, name)| name.ends_with(" cat")).expect("its track");
    let own = &summary.tracks[cat];
    let is_disk = |slice: &&Slice| slice.kind == "wait" && slice.name.contains("drivers/virtio/src/request_queue.rs");
    // Others are for the program itself: in execve, or in page faults.
    let reads = |slice: &&Slice| slice.kind == "call" && ["read", "sendfile"].contains(&slice.name.as_str());
    let is_read = |wait: &&Slice| own.iter().filter(reads).any(|call| call.begin <= wait.begin && wait.end <= call.end);
    let wait = own.iter().filter(is_disk).rfind(is_read).unwrap_or_else(|| panic!("cat waits for the disk: {own:#?}"));

    // While cat waits: an interrupt wakes the driver, and the driver's poll wakes cat.
    let driver = summary.names.iter().find(|((pid, _), name)| *pid == KERNEL && name.as_str() == "virtio-blk");
    assert!(driver.is_some(), "{:?}", summary.names);
    let during = |slice: &Slice| wait.begin <= slice.begin && slice.begin <= wait.end;
    let by_interrupt = summary.arrows.iter().any(|(from, to)| {
        from.kind == "irq" && from.name == "irq device" && to.name == "virtio-blk" && during(from) && during(to)
    });
    assert!(by_interrupt, "an interrupt in {wait:?} leads to the driver: {:#?}", summary.arrows);
    let by_driver = summary.arrows.iter().any(|(from, to)| {
        from.name == "virtio-blk" && to.name.ends_with(" cat") && from.begin <= wait.end && wait.end <= from.end
    });
    assert!(by_driver, "the driver ends {wait:?}: {:#?}", summary.arrows);
    assert!(summary.names.contains_key(&(CPUS, 2)), "a track for each CPU");
}

static ONE_CPU: Machine = Machine::rouse(Options::default);

#[test]
fn the_timelines_of_async_md_that_need_no_more_than_one_cpu_come_about_again() {
    let documented = timelines(include_str!("../docs/async.md"));
    assert_eq!(documented.len(), 3, "{documented:#?}");
    for (command, expected) in &documented {
        let words = command.map(|word| word.as_bytes().to_vec());
        let (_, trace) = ONE_CPU.with(|guest| {
            guest.feed(std::io::empty())?;
            record(guest, &words, &mut std::io::sink(), &mut std::io::sink())
        });
        let mut printed = Vec::new();
        timeline::write(&trace, &mut printed).expect("memory takes all");
        let printed = String::from_utf8(printed).expect("it is text");
        let mut seen = printed.lines().map(shape);
        for line in expected {
            assert!(seen.any(|seen| seen == shape(line)), "{line:?}, after what stands before it, in\n{printed}");
        }
    }
}

/// The timelines of a document whose command is `cargo run -- trace --text -- sh -c '…'`: the command, and the lines.
fn timelines(document: &str) -> Vec<([&str; 3], Vec<&str>)> {
    let mut timelines = Vec::new();
    let mut script = None;
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("cargo run ") {
            let told = line.strip_prefix("cargo run -- trace --text -- sh -c '");
            script = told.map(|rest| rest.strip_suffix('\'').expect("a quoted script"));
        }
        if let Some(script) = script.filter(|_| line.ends_with("µs  CPU 0")) {
            let block = lines.by_ref().take_while(|line| *line != "```").filter(|line| !line.ends_with('…'));
            timelines.push((["sh", "-c", script], block.collect()));
        }
    }
    timelines
}

/// A line of a timeline without what differs from run to run: the time, what it is within, and numbers.
fn shape(line: &str) -> String {
    let said: String = line.chars().skip(12).collect();
    let said = said.trim_start_matches([' ', '│', '┌', '└']);
    let words = said.split_inclusive([' ', ',', '(', ')', ':', '-']);
    let plain =
        |word: &str| if word.starts_with(|first: char| first.is_ascii_digit()) { "#".into() } else { word.to_owned() };
    words.map(plain).collect()
}

const LARGE: usize = 1 << 20;

/// A machine whose root is on a disk, with a program and something to read.
fn with_a_disk() -> Guest {
    let folder = paths::made("roots").expect("target is ours").join("a-folder-to-trace");
    fs::create_dir_all(folder.join("bin")).expect("target is ours");
    let busybox = packages::unpacked("busybox-static").expect("apt");
    let busybox = ["bin/busybox", "usr/bin/busybox"].iter().map(|path| busybox.join(path)).find(|path| path.exists());
    fs::copy(busybox.expect("the package has it"), folder.join("bin/cat")).expect("target is ours");
    fs::set_permissions(folder.join("bin/cat"), fs::Permissions::from_mode(0o755)).expect("ours");
    fs::write(folder.join("large"), vec![b'x'; LARGE]).expect("target is ours");
    let root = folder.to_string_lossy().into_owned();
    let options = under_test(Options { root, smp: 2, ..Options::default() });
    Guest::start(&options).unwrap_or_else(|error| panic!("{error:#}"))
}
