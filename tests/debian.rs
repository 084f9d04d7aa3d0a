//! Debian's own programs, dynamically linked through Debian's own ld.so, from an ext4 disk.

use xtask::machine::Options;
use xtask::testing::{Machine, same_on_both};

static ROUSE: Machine = Machine::rouse(debian);
static LINUX: Machine = Machine::linux(debian);

fn debian() -> Options {
    let packages = ["gcc", "git", "libc6-dev", "python3", "sqlite3"].map(str::to_owned).into();
    Options { root: "debian".into(), packages, memory: "1G".into(), ..Options::default() }
}

#[test]
#[ignore = "takes many minutes: cargo test --test debian -- --ignored"]
fn bash_and_the_core_utilities_work() {
    same_on_both(
        &ROUSE,
        &LINUX,
        &[
            "head -n 1 /etc/os-release; ls -1 /usr/bin | wc -l; dpkg-query -W -f '${Package}\\n' | head -n 3",
            "bash -c 'a=(1 2 3); echo ${#a[@]} ${a[@]: -1}; [[ abc =~ b ]] && echo re'",
            "bash -c 'set -o pipefail; false | true; echo $?; coproc cat; echo hi >&${COPROC[1]}; read x <&${COPROC[0]}; echo $x'",
            "bash -c 'diff <(seq 3) <(seq 4); echo $?'",
            "cd /tmp && seq 100000 | sort -R | sort -n | tail -n 1; seq 5 | shuf | wc -l; seq 10 | split -l 3 && ls -1 x*; rm x*",
            "grep -rl root /etc/passwd /etc/group; find /etc -maxdepth 1 -name 'h*' | sort",
            "perl -e 'print join(\",\", map { $_ * 2 } 1..5), \"\\n\"'",
            "echo changed > /etc/motd && cat /etc/motd && rm /etc/motd && ls /etc/motd; mkdir /opt/new && ls -d /opt/new",
        ],
    );
}

#[test]
#[ignore = "takes many minutes: cargo test --test debian -- --ignored"]
fn python_runs_threads_and_other_programs() {
    same_on_both(
        &ROUSE,
        &LINUX,
        &[
            "python3 -c 'print(sum(range(1000)))'",
            "python3 -c 'import threading,queue\nq=queue.Queue()\nts=[threading.Thread(target=lambda i=i: q.put(i*i)) for i in range(20)]\n[t.start() for t in ts]; [t.join() for t in ts]\nprint(sorted(q.get() for _ in range(20)))'",
            "python3 -c 'import subprocess; print(subprocess.run([\"echo\", \"hi\"], capture_output=True))'",
            "python3 -c 'import os,signal; signal.signal(signal.SIGUSR1, lambda *a: print(\"got\")); os.kill(os.getpid(), signal.SIGUSR1)'",
        ],
    );
}

#[test]
#[ignore = "takes many minutes: cargo test --test debian -- --ignored"]
fn a_program_is_compiled_and_run_in_the_guest() {
    same_on_both(
        &ROUSE,
        &LINUX,
        &[
            "cd /tmp && printf '#include <stdio.h>\\nint main(void) { puts(\"hello\"); return 3; }\\n' > h.c && gcc -O1 -o h h.c && ./h; echo $?",
        ],
    );
}

#[test]
#[ignore = "takes many minutes: cargo test --test debian -- --ignored"]
fn git_and_sqlite_keep_their_files() {
    same_on_both(
        &ROUSE,
        &LINUX,
        &[
            "export HOME=/tmp GIT_AUTHOR_DATE=@1700000000 GIT_COMMITTER_DATE=@1700000000; cd /tmp && rm -rf g && git init -q g && cd g && git config user.name n && git config user.email e && echo one > f && git add f && git commit -qm first && git log --format='%H %s' && git status --short",
            "cd /tmp && rm -f d.db && sqlite3 d.db 'create table t(x); insert into t values (1),(2); select sum(x) from t;' && sqlite3 d.db 'pragma integrity_check'",
        ],
    );
}
