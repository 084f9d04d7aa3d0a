//! Busybox, which nobody here wrote, does the same on Rouse and on Linux.

use xtask::machine::Options;
use xtask::testing::{Machine, same_on_both};

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
            "sleep 100 & kill %1 2>/dev/null; kill $! 2>/dev/null; wait $!; echo $?",
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
