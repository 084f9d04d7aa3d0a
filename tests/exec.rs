//! Programs are executed on Rouse as on Linux: the cases are in `tests/programs/src/bin/exec`, run on both, and print the same.
//!
//! What only Rouse has (its record of what ran, disks that are slow or fail on demand) is asked of it alone.

use user_programs::protocol::End;
use xtask::guest::{Guest, Output};
use xtask::machine::Options;
use xtask::testing::under_test;

/// A machine with the cases, and with a dynamic program that they execute, its libraries beside it.
fn with_cases(options: Options) -> Options {
    let programs = xtask::programs::build("test-programs").expect("the test programs compile");
    let (_, exec) = programs.iter().find(|(name, _)| name == "exec").expect("it is one of them");
    let add = vec![format!("{}=/tests/exec", exec.display()).into(), "/usr/bin/printenv=/tests/dynamic".into()];
    under_test(Options { add, ..options })
}

fn run_cases(options: &Options) -> Output {
    let mut guest = Guest::start(options).expect("a machine");
    let output = guest.run(&["/tests/exec"]).expect("the machine lives on");
    guest.stop();
    output
}

#[test]
fn a_program_starts_fails_and_inherits_as_on_linux() {
    let (here, there) = std::thread::scope(|scope| {
        let there = scope.spawn(|| run_cases(&with_cases(Options::default().on_linux())));
        (run_cases(&with_cases(Options::default())), there.join().expect("Linux runs them"))
    });
    assert_eq!(there.end, End::Exited(0), "on Linux: {}", there.text());
    assert_eq!(here.end, End::Exited(0), "{}", here.text());
    assert_eq!(here.text(), there.text());
    assert!(here.text().lines().filter(|line| line.ends_with(": holds")).count() > 60, "{}", here.text());
}

#[test]
fn what_runs_is_recorded_when_the_command_line_asks_for_it() {
    let mut guest =
        Guest::start(&under_test(Options { append: vec!["audit=1".into()], ..Options::default() })).expect("a machine");
    let script = "/bin/true one; /nowhere/x 2>/dev/null; /etc 2>/dev/null; printf garbage > /tmp/g; chmod +x /tmp/g; ( exec /tmp/g ) 2>/dev/null; \
                  exec 3>&1; dmesg | grep -E ' (exec|fork|spawn) '";
    let text = guest.shell(script).expect("the machine lives on").text();
    for record in [
        "spawn pid=1 uid=0 program=\"/init\" result=ok",
        "uid=0 path=\"/bin/busybox\" result=ok",
        "uid=0 path=\"/nowhere/x\" result=ENOENT",
        "uid=0 path=\"/etc\" result=EACCES",
        "uid=0 path=\"/tmp/g\" result=ENOEXEC",
    ] {
        assert!(text.contains(record), "{record} in:\n{text}");
    }
    // The record of a process's making comes before its program's.
    let made = text.lines().position(|line| line.contains(" fork ") && line.contains(" child="));
    let executed = text.lines().position(|line| line.contains("path=\"/bin/busybox\""));
    assert!(made.is_some() && made < executed, "{text}");
    guest.stop();
    // It is off by default.
    let mut guest = Guest::start(&under_test(Options::default())).expect("a machine");
    let text = guest.shell("/bin/true; dmesg | grep -c ' exec '").expect("the machine lives on").text();
    guest.stop();
    assert_eq!(text, "0\n");
}

#[test]
fn each_allocation_of_fork_and_exec_may_fail_and_nothing_is_lost() {
    let mut guest = Guest::start(&with_cases(Options::default())).expect("a machine");
    let output = guest.run(&["/tests/exec", "allocations"]).expect("the machine lives on");
    guest.stop();
    assert_eq!(output.end, End::Exited(0), "{}", output.text());
    assert_eq!(output.text().matches("failures were told").count(), 5, "{}", output.text());
}

/// An ext4 image with the programs that the cases about disks execute; each test has one of its own.
fn disk_image(name: &str) -> std::path::PathBuf {
    let folder = xtask::paths::made("tmp").expect("a folder").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    let programs = xtask::programs::build("test-programs").expect("the test programs compile");
    let (_, exec) = programs.iter().find(|(name, _)| name == "exec").expect("it is one of them");
    let made = std::process::Command::new(exec).arg("make").arg(&folder).arg("/disk").status();
    assert!(made.is_ok_and(|status| status.success()), "its files");
    let image = folder.with_extension("img");
    let _ = std::fs::remove_file(&image);
    xtask::packages::ensure(&[xtask::packages::MKE2FS]).expect("mke2fs");
    let mut make = std::process::Command::new("mke2fs");
    let made = make.args(["-q", "-F", "-t", "ext4", "-d"]).arg(&folder).arg(&image).arg("16M").output();
    assert!(made.is_ok_and(|made| made.status.success()), "an image");
    image
}

#[test]
fn a_disk_that_is_slow_or_fails_harms_only_the_program_that_needs_it() {
    let options = Options {
        disk: vec![disk_image("exec-slow-disk").into()],
        append: vec!["block.fault=off".into()],
        ..Options::default()
    };
    let mut guest = Guest::start(&with_cases(options)).expect("a machine");
    let script = "mkdir /disk && mount -t ext4 -o ro /dev/vda /disk && /tests/exec disk /disk && /disk/tiny; echo $?";
    let output = guest.shell(script).expect("the machine lives on");
    // The shell itself goes on when a program cannot be executed, and says why.
    let failing = guest.shell(
        "echo 3 > /proc/sys/vm/drop_caches; echo eio=all > /proc/rouse/block-fault; /disk/tiny 2>&1; echo $?; \
         cat /proc/rouse/block-fault; echo off > /proc/rouse/block-fault; /disk/tiny; echo $?; echo x > /proc/rouse/block-fault",
    );
    let failing = failing.expect("the machine lives on");
    guest.stop();
    assert!(output.text().ends_with("then it ran\n42\n"), "{}", output.text());
    assert!(failing.text().contains("Input/output error"), "{}", failing.text());
    assert!(failing.text().ends_with("eio=all\n42\n"), "{}", failing.text());
    assert!(String::from_utf8_lossy(&failing.stderr).contains("Invalid argument"), "{failing:?}");
}

#[test]
fn what_the_command_line_says_of_the_disks_holds_from_the_start() {
    let append = vec!["block.fault=eio=all,on=reads".into()];
    let options = Options { disk: vec![disk_image("exec-bad-disk").into()], append, ..Options::default() };
    let mut guest = Guest::start(&under_test(options)).expect("a machine");
    let output = guest.shell("mkdir /disk; mount -t ext4 -o ro /dev/vda /disk 2>&1").expect("the machine lives on");
    guest.stop();
    assert_ne!(output.end, End::Exited(0), "{}", output.text());
    assert!(output.text().contains("Input/output error"), "{}", output.text());
}
