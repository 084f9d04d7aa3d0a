//! Busybox, which nobody here wrote, does the same on Rouse and on Linux.

use xtask::machine::Options;
use xtask::testing::{Machine, same_dialogue, same_on_both};
use xtask::typist::{PROMPT, key};

static ROUSE: Machine = Machine::rouse(Options::default);
static LINUX: Machine = Machine::linux(Options::default);

#[test]
fn the_shell_language_works() {
    same_on_both(
        &ROUSE,
        &LINUX,
        &[
            "echo hello",
            "for i in 1 2 3; do echo $i; done | tail -n 1",
            "x=$(echo inner; exit 4); echo $x $?",
            "cat <<EOF\nhere $((6 * 7))\nEOF",
            "(exit 3) || echo status $?",
            "f() { echo arg $1; return 5; }; f one; echo $?",
            "case abc in a*) echo match;; esac",
            "set -e; false; echo not reached",
            "trap 'echo trapped' TERM; kill -TERM $$; echo after",
            "trap 'echo bye' EXIT; exit 7",
            "sleep 1 & wait $!; echo waited $?",
            "true & false & wait; echo all",
            "sleep 100 & kill %1 2>/dev/null; kill $! 2>/dev/null; wait $! 2>/dev/null; echo $?",
            "echo a b c | while read x y; do echo \"$y-$x\"; done",
            "ulimit -n 20; ulimit -n",
            "umask 027; umask; touch /tmp/masked; stat -c %a /tmp/masked; rm /tmp/masked",
            "echo ${PATH%%:*}; unset PATH; /bin/echo still",
            "printf '%s %d %x\\n' text 42 255",
            "exec 3>/tmp/three; echo third >&3; exec 3>&-; cat /tmp/three; rm /tmp/three",
            "echo piped | cat | cat | cat | cat",
            "kill -l 9; kill -l TERM",
            "cd /tmp; pwd; cd ..; pwd; cd /nowhere",
        ],
    );
}

#[test]
fn files_are_made_read_moved_and_removed() {
    same_on_both(
        &ROUSE,
        &LINUX,
        &[
            "mkdir -p /tmp/t/a/b && cd /tmp/t && echo x > a/f && ln -s f a/l && ln a/f a/h && ls -1R && cat a/l && stat -c '%F %h %s' a/f a/l && stat -c '%F %h' a",
            "cd /tmp/t && mv a/f a/b/g && cat a/b/g && ls -1 a && rm -r a && ls -1A",
            "cd /tmp/t && dd if=/dev/zero of=z bs=4096 count=100 2>/dev/null && stat -c %s z && truncate -s 5 z && wc -c < z && od -c z",
            "cd /tmp/t && seq 1 1000 > s && sort -rn s | head -n 3 && grep -c 7 s && sed -n '10p;$p' s && awk '{t+=$1} END {print t}' s",
            "cd /tmp/t && tar cf s.tar s && mkdir x && tar xf s.tar -C x && cmp s x/s && gzip s && gunzip s.gz && cmp s x/s && echo same",
            "cd /tmp/t && md5sum s | cut -c1-32; sha256sum s | cut -c1-64; cksum s",
            "cd /tmp/t && find . -name 's*' -type f | sort | xargs ls -1",
            "cd /tmp/t && cp s c && chmod 600 c && stat -c %a c && echo more >> c && tail -n 1 c && diff s c; echo $?",
            "cat /nowhere; rmdir /tmp; mkdir /tmp; echo x > /tmp; rm /tmp/nothing; ln -s loop /tmp/t/loop; cat /tmp/t/loop",
            "rm -rf /tmp/t; ls /tmp/t",
            "readlink -f /proc/self/cwd; test -c /dev/null && test -d /proc && echo kinds",
            "echo lost > /dev/null; head -c 4 /dev/zero | od -An -tx1; head -c 16 /dev/urandom | wc -c; echo x > /dev/full",
            "date -u -d @0; date -u -d @1700000000 +%F",
            "mount -t tmpfs none /mnt 2>/dev/null || mkdir -p /mnt && mount -t tmpfs none /mnt; echo in > /mnt/f; umount /mnt; ls -A /mnt",
            "timeout 1 sleep 100; echo $?",
            "uname -sm; id; whoami; hostname; tty; nproc",
            "env -i A=1 env; env -i sh -c 'echo $0 $#' name one two",
        ],
    );
}

#[test]
fn what_programs_read_of_the_system_has_its_form() {
    ROUSE.with(|guest| {
        let ps = guest.shell("ps")?.text();
        assert!(ps.lines().next().is_some_and(|line| line.contains("PID")), "{ps}");
        assert!(ps.lines().any(|line| line.trim_start().starts_with("1 ")), "{ps}");
        let free = guest.shell("free")?.text();
        assert!(free.contains("Mem:"), "{free}");
        let top = guest.shell("top -b -n 1 | head -n 4")?.text();
        assert!(top.contains("Mem") && top.contains("CPU"), "{top}");
        let mount = guest.shell("mount")?.text();
        assert!(mount.contains(" on /proc type proc"), "{mount}");
        let uptime = guest.shell("uptime")?.text();
        assert!(uptime.contains("load average"), "{uptime}");
        Ok(())
    });
}

/// Prints `started` only when it runs, so that what is typed next finds it in the foreground.
const SLEEPER: &str = "sh -c 'echo star\"\"ted; exec sleep 100'\r";

#[test]
fn a_person_at_the_console_controls_jobs() {
    same_dialogue(&ROUSE, &LINUX, &["sh"], |person| {
        person.insists("\r", PROMPT)?;
        person.types(SLEEPER, "started")?;
        person.insists(key::INTERRUPT, PROMPT)?;
        person.enters("echo status $?", "status 130")?;
        person.types(SLEEPER, "started")?;
        person.insists(key::SUSPEND, "Stopped")?;
        person.sees(PROMPT)?;
        person.enters("bg", "sleep 100")?;
        person.enters("jobs", "Running")?;
        person.types("fg\r", "sleep 100")?;
        person.insists(key::SUSPEND, "Stopped")?;
        person.sees(PROMPT)?;
        person.enters("kill -KILL %1; wait; echo al\"\"l over", "all over")?;
        person.types(SLEEPER, "started")?;
        person.insists(key::QUIT, "Quit")?;
        person.sees(PROMPT)?;
        // Who reads in the background is stopped, and goes on in the foreground.
        person.enters("cat &", "\n")?;
        person.enters("sleep 1; jobs", "tty input")?;
        person.types("fg\r", "cat\r\n")?;
        person.insists("once\r", "once\r\nonce\r\n")?;
        person.insists(key::END, PROMPT)?;
        person.enters("sleep 1 & wait; echo wai\"\"ted", "waited")?;
        person.types("seq 100000 | wc -l &\r", "100000\r\n")?;
        person.types("echo bu\"\"sy; while true; do true; done\r", "busy")?;
        person.insists(key::INTERRUPT, PROMPT)?;
        person.enters("timeout 1 sleep 9; echo status $?", "status 143")?;
        person.types("exit 7\r", "exit 7")
    });
}

#[test]
fn a_person_at_the_console_edits_lines_and_files() {
    same_dialogue(&ROUSE, &LINUX, &["sh"], |person| {
        person.insists("\r", PROMPT)?;
        person.types("cat <<END | tr a-z A-Z\r", "> ")?;
        person.types("typed $((6 * 7))\r", "> ")?;
        person.enters("END", "TYPED 42")?;
        person.enters("echo shot > /tmp/f; sed s/o/u/ /tmp/f", "shut")?;
        // The line before, with more at its end.
        person.types(key::UP, "/tmp/f")?;
        person.enters(" | sed s/$/ter/", "shutter")?;
        // The line discipline's own editing: ^U and ^W.
        person.types("echo rea\"\"dy; cat > /tmp/g\r", "ready")?;
        person.types("wrong\x15right wrong\x17end\r", "end")?;
        person.insists(key::END, PROMPT)?;
        person.enters("sed s/^/:/ /tmp/g", ":right end")?;
        person.types("echo rea\"\"dy; read -s secret; echo =$secret=\r", "ready")?;
        person.enters("hidden", "=hidden=")?;
        person.types("vi /tmp/v\r", "~")?;
        person.types("ifirst\rsecond", "second")?;
        person.presses_alone(key::ESCAPE)?;
        person.sees("- /tmp/v [Modified]")?;
        person.types("yyp0x", "econd")?;
        person.enters(":wq", "3L")?;
        person.enters("paste -s -d + /tmp/v", "first+second+econd")?;
        person.types("top -d 1\r", "Load average")?;
        person.sees("Load average")?;
        person.types("q", PROMPT)?;
        person.types("seq 100 | more\r", "--More--")?;
        person.types("q", PROMPT)?;
        person.resizes(33, 111)?;
        person.enters("stty size", "33 111")?;
        let waits = "sh -c 'trap \"stty size; exit\" WINCH; echo rea\"\"dy; while true; do sleep 1; done'\r";
        person.types(waits, "\nready")?;
        person.resizes(44, 122)?;
        person.sees("44 122")?;
        person.sees(PROMPT)?;
        person.types("exit\r", "exit")
    });
}
