//! /proc says the same on Rouse and on Linux, where what it says is the same.

use xtask::machine::Options;
use xtask::testing::{Machine, same_on_both};

static ROUSE: Machine = Machine::rouse(Options::default);
static LINUX: Machine = Machine::linux(Options::default);

#[test]
fn a_process_reads_about_itself() {
    same_on_both(
        &ROUSE,
        &LINUX,
        &[
            "awk '{print NF, $2, $3}' /proc/self/stat",
            "awk '{print NF}' /proc/self/statm",
            "tr '\\0' '|' < /proc/self/cmdline; cat /proc/self/comm",
            "cut -c 1-25 /proc/self/limits; head -n 1 /proc/self/limits",
            "head -n 7 /proc/self/status | cut -d : -f 1",
            "readlink /proc/mounts; readlink /proc/self/root; cd /proc && readlink self/cwd",
            "exec 5</dev/null; readlink /proc/self/fd/5; cut -f 1 /proc/self/fdinfo/5",
            "grep -c '\\[stack\\]' /proc/self/maps; ls /proc/self/task | wc -l",
        ],
    );
}

#[test]
fn what_is_written_to_proc_is_taken_or_refused() {
    same_on_both(
        &ROUSE,
        &LINUX,
        &[
            "echo renamed > /proc/$$/comm; cat /proc/$$/comm",
            "echo x > /proc/1/comm; echo $?",
            "echo 17 > /proc/$$/oom_score_adj; cat /proc/$$/oom_score_adj; echo 2000 > /proc/$$/oom_score_adj; echo $?",
            "ls /proc/999999; mkdir /proc/x; rm /proc/uptime; echo $?",
            "echo x > /proc/uptime; echo $?",
        ],
    );
}

#[test]
fn a_stopped_process_is_told_as_stopped() {
    same_on_both(&ROUSE, &LINUX, &["sleep 9 & kill -STOP $!; sleep 1; grep State /proc/$!/status; kill -9 $!"]);
}

#[test]
fn the_kernel_tells_its_settings() {
    same_on_both(
        &ROUSE,
        &LINUX,
        &[
            "cat /proc/sys/kernel/ostype /proc/sys/kernel/cap_last_cap /proc/sys/kernel/ngroups_max",
            "cat /proc/sys/kernel/random/uuid | wc -c; head -n 1 /proc/swaps; awk '{print NF}' /proc/loadavg",
            "cat /proc/sys/kernel/random/boot_id > /tmp/id; cmp /tmp/id /proc/sys/kernel/random/boot_id && echo same",
            "cat /proc/sys/kernel/random/uuid > /tmp/id; cmp -s /tmp/id /proc/sys/kernel/random/uuid || echo fresh; rm /tmp/id",
        ],
    );
}
