//! Debian's own programs, dynamically linked through Debian's own ld.so, from an ext4 disk; and how deep the kernel's stacks get with them.

use xtask::machine::Options;
use xtask::testing::{Machine, same_on_both};

static ROUSE: Machine = Machine::rouse(debian);
static LINUX: Machine = Machine::linux(debian);

fn debian() -> Options {
    let packages = ["gcc", "git", "libc6-dev", "python3", "sqlite3"].map(str::to_owned).into();
    Options { root: "debian".into(), packages, memory: "1G".into(), ..Options::default() }
}

#[test]
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
            "find /usr/share/perl -name '*.pm' -size +64k -printf '%P %s %m\\n' | sort | head -n 5; find /etc/apt -type d -exec ls -d {} +",
            "find /usr/include -name '*.h' -print0 | xargs -0 -n 100 -P 3 grep -l EOVERFLOW | sort; grep -c . /usr/share/perl/5*/perl5db.pl",
            "cd /tmp && cp -a /etc/apt a && diff -r a /etc/apt && echo same; tar -cf - a | sha256sum | wc -c; rm -r a; ls -d a",
            // Not `wait -n`: it waits for ever if bash has heard of the stop before.
            "bash -c 'set -m; sleep 30 & jobs; kill -STOP %1; until jobs %1 | grep -q Stopped; do sleep 0.1; done; jobs -l | cut -c 13-40; kill -CONT %1; kill %1; wait %1; echo $?' 2>&1",
            "bash -c 'trap \"echo caught\" INT; kill -INT $$; exec 7<<<here; cat <&7; printf \"%(%F)T\\n\" 0; ulimit -Sn 99; ulimit -n'",
            "perl -e 'print join(\",\", map { $_ * 2 } 1..5), \"\\n\"'",
            "perl -MPOSIX -e 'pipe(R, W); if (my $p = fork) { close W; print <R>; waitpid $p, 0; print $? >> 8, \"\\n\" } else { print W \"from $0\\n\"; close W; exit 9 }'",
            "echo changed > /etc/motd && cat /etc/motd && rm /etc/motd && ls /etc/motd; mkdir /opt/new && ls -d /opt/new",
        ],
    );
}

#[test]
fn python_runs_threads_and_other_programs() {
    same_on_both(
        &ROUSE,
        &LINUX,
        &[
            "python3 -c 'print(sum(range(1000)))'",
            "python3 -c 'import threading,queue\nq=queue.Queue()\nts=[threading.Thread(target=lambda i=i: q.put(i*i)) for i in range(20)]\n[t.start() for t in ts]; [t.join() for t in ts]\nprint(sorted(q.get() for _ in range(20)))'",
            "python3 -c 'import subprocess; print(subprocess.run([\"echo\", \"hi\"], capture_output=True))'",
            "python3 -c 'import subprocess as s\np=s.Popen([\"sort\",\"-r\"],stdin=s.PIPE,stdout=s.PIPE,text=True); print(p.communicate(\"a\\nb\\n\"))\nprint(s.run(\"exit 4\",shell=True).returncode, s.getoutput(\"echo $((6*7))\"))\ntry: s.run([\"sleep\",\"9\"],timeout=.2)\nexcept s.TimeoutExpired as e: print(e.cmd)'",
            "python3 -c 'import multiprocessing as m\nwith m.get_context(\"fork\").Pool(3) as p: print(p.map(abs, range(-5,5)))'",
            "python3 -c 'import asyncio\nasync def f(n): await asyncio.sleep(n/20); return n\nasync def g():\n p=await asyncio.create_subprocess_exec(\"echo\",\"out\",stdout=-1); print(await p.communicate(), await asyncio.gather(f(3),f(1)))\nasyncio.run(g())'",
            "python3 -c 'import tempfile,mmap,os,json,hashlib\nwith tempfile.TemporaryFile() as f:\n f.truncate(8192); m=mmap.mmap(f.fileno(),0); m[4095:4097]=b\"xy\"; f.seek(4095); print(f.read(2)); m.close()\nprint(hashlib.sha256(json.dumps(list(range(99))).encode()).hexdigest())'",
            "python3 -c 'import os,signal; signal.signal(signal.SIGUSR1, lambda *a: print(\"got\")); os.kill(os.getpid(), signal.SIGUSR1)'",
        ],
    );
}

#[test]
fn a_program_is_compiled_and_run_in_the_guest() {
    same_on_both(
        &ROUSE,
        &LINUX,
        &[
            "cd /tmp && printf '#include <stdio.h>\\nint main(void) { puts(\"hello\"); return 3; }\\n' > h.c && gcc -O1 -o h h.c && ./h; echo $?",
            "cd /tmp && gcc -g -static -pthread -x c -o t - <<'EOF' && ./t && gcc -S -o - -x c - < h.c | grep -c puts; echo 'int main(' | gcc -x c -; echo $?\n#include <pthread.h>\n#include <stdio.h>\nstatic void *work(void *to) { ++*(int *)to; return to; }\nint main(void) { int n = 0; for (int i = 0; i < 50; i++) { pthread_t t; pthread_create(&t, 0, work, &n); pthread_join(t, 0); } printf(\"%d\\n\", n); }\nEOF",
        ],
    );
}

#[test]
fn git_and_sqlite_keep_their_files() {
    same_on_both(
        &ROUSE,
        &LINUX,
        &[
            "export HOME=/tmp GIT_AUTHOR_DATE=@1700000000 GIT_COMMITTER_DATE=@1700000000; cd /tmp && rm -rf g && git init -q g && cd g && git config user.name n && git config user.email e && echo one > f && git add f && git commit -qm first && git log --format='%H %s' && git status --short && git checkout -qb b && echo two >> f && git commit -qam second && git checkout -q - && git merge -q b && git log --oneline | wc -l && git diff HEAD~1 && git clone -q . ../g2 && git -C ../g2 fsck && git gc -q && git count-objects -v | head -n 4; rm -rf /tmp/g2",
            "cd /tmp && rm -f d.db && sqlite3 d.db 'create table t(x); insert into t values (1),(2); select sum(x) from t;' && sqlite3 d.db 'pragma integrity_check'",
            "cd /tmp && sqlite3 d.db 'pragma journal_mode=wal; begin; insert into t select value from generate_series(1,1000); commit; create index i on t(x); select count(*), max(x) from t' && ls d.db && sqlite3 d.db .dump | wc -l; rm -f locked tried; (echo 'begin immediate;'; echo '.shell touch locked'; until [ -e tried ]; do sleep .2; done) | sqlite3 d.db & until [ -e locked ]; do sleep .2; done; sqlite3 d.db 'insert into t values (1)'; touch tried; wait",
        ],
    );
}

#[test]
fn half_of_the_kernels_stacks_is_enough() {
    // What the other tests have run before counts, too.
    let script = "python3 -c 'import subprocess; subprocess.run([\"ls\", \"-lR\", \"/etc\"], capture_output=True)'; cat /proc/rouse/stacks";
    let text = ROUSE.with(|guest| guest.shell(script)).text();
    let stacks: Vec<(&str, u64, u64)> = text
        .lines()
        .filter_map(|line| {
            let (name_and_used, size) = line.rsplit_once(" of ")?;
            let (name, used) = name_and_used.rsplit_once(' ')?;
            Some((name, used.parse().ok()?, size.parse().ok()?))
        })
        .collect();
    let main = stacks.iter().find(|(name, ..)| *name == "cpu0 kernel stack").unwrap_or_else(|| panic!("{text}"));
    assert!(main.1 > 1024, "all kernel code runs on it: {text}");
    assert!(stacks.iter().all(|(_, used, size)| used * 2 <= *size), "{text}");
}
