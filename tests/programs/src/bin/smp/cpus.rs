//! What a thread sees of the CPU it runs on: affinity, the clock, barriers, its share.

use super::*;

fn here() -> usize {
    let mut cpu = u32::MAX;
    // SAFETY: stores a number.
    unsafe { libc::syscall(libc::SYS_getcpu, &raw mut cpu, null_mut::<u32>(), null_mut::<u32>()) };
    cpu as usize
}

fn move_to(cpu: usize) -> bool {
    // SAFETY: a set of CPUs by value.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) == 0
    }
}

pub fn a_thread_runs_where_it_was_told_to(time: Duration) -> Outcome {
    let end = Instant::now() + time;
    let threads = 2 * cpus();
    thread::scope(|scope| {
        let movers: Vec<_> = (0..threads)
            .map(|number| {
                scope.spawn(move || -> Outcome {
                    let mut cpu = number % cpus();
                    let mut moves = 0;
                    while Instant::now() < end || moves < cpus() {
                        ensure!(move_to(cpu), "CPU {cpu}");
                        for look in 0..40 {
                            ensure!(here() == cpu, "on {} instead of {cpu}", here());
                            // SAFETY: only asks; the C library may answer from its restartable-sequence area.
                            ensure!(unsafe { libc::sched_getcpu() } as usize == cpu, "look {look}");
                            match look % 10 {
                                3 => thread::yield_now(),
                                7 => thread::sleep(Duration::from_micros(50)),
                                _ => {}
                            }
                        }
                        // SAFETY: asks for the set.
                        unsafe {
                            let mut set: libc::cpu_set_t = std::mem::zeroed();
                            ensure!(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) == 0);
                            ensure!(libc::CPU_COUNT(&set) == 1 && libc::CPU_ISSET(cpu, &set));
                        }
                        let inherited = thread::spawn(here).join().map_err(|_| "the child panicked".to_owned())?;
                        ensure!(inherited == cpu);
                        cpu = (cpu + 1) % cpus();
                        moves += 1;
                    }
                    Ok(())
                })
            })
            .collect();
        movers.into_iter().try_for_each(|mover| mover.join().map_err(|_| "a mover panicked".to_owned())?)
    })?;
    // SAFETY: sets of CPUs by value.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        ensure!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == -1);
        libc::CPU_SET(1000, &mut set);
        ensure!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == -1);
    }
    Ok(())
}

fn now() -> u64 {
    // SAFETY: a structure of its own.
    unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }
}

pub fn the_clock_never_goes_back_from_one_cpu_to_another(time: Duration) -> Outcome {
    let latest = Mutex::new(0u64);
    let published = AtomicU64::new(0);
    let end = Instant::now() + time;
    let look = |number: usize, _: &AtomicBool| {
        move_to(number % cpus());
        while Instant::now() < end {
            let before = published.load(Acquire);
            let own = now();
            ensure!(own >= before, "{} ns back", before - own);
            published.fetch_max(own, Release);
            let mut latest = latest.lock().expect("nobody panics");
            let own = now();
            ensure!(own >= *latest, "under a lock: {} ns back", *latest - own);
            *latest = own;
        }
        Ok(())
    };
    while_others(cpus().max(2), look, |_| thread::sleep(time))
}

pub fn a_barrier_of_one_thread_is_one_for_all(time: Duration) -> Outcome {
    const REGISTER: i32 = 16;
    const PRIVATE_EXPEDITED: i32 = 8;
    // SAFETY: registers this process, or fails.
    let membarrier = |command: i32| unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
    ensure!(membarrier(REGISTER) == 0);
    let (x, y, round, both_missed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (seen_by_fast, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let fast = |_: usize, is_over: &AtomicBool| {
        let mut known = 0;
        while !is_over.load(Relaxed) {
            let now = round.load(Acquire);
            if now != known {
                known = now;
                x.store(now, Relaxed);
                compiler_fence(SeqCst);
                seen_by_fast.store(y.load(Relaxed), Relaxed);
                done.store(now, Release);
            }
        }
        Ok(())
    };
    while_others(1, fast, |is_over| {
        let end = Instant::now() + time;
        let mut number = 0;
        while until(end, is_over) {
            number += 1;
            round.store(number, Release);
            y.store(number, Relaxed);
            membarrier(PRIVATE_EXPEDITED);
            let own = x.load(Relaxed);
            while done.load(Acquire) != number && !is_over.load(Relaxed) {
                std::hint::spin_loop();
            }
            both_missed.fetch_add(u64::from(own != number && seen_by_fast.load(Relaxed) != number), Relaxed);
        }
    })?;
    ensure!(both_missed.load(SeqCst) == 0, "{} times", both_missed.load(SeqCst));
    Ok(())
}

/// Computes on CPU 0 with this nice value until the time is up; tells how much CPU time it had, in microseconds.
fn compute_with_nice(nice: i32, start: &std::fs::File, mut result: std::fs::File, time: Duration) -> ! {
    move_to(0);
    // SAFETY: this process's own priority, and its own usage.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, nice);
        let mut byte = [0];
        let _ = (&*start).read(&mut byte);
        let before = cpu_time();
        let end = Instant::now() + time;
        while Instant::now() < end {
            (0..500).for_each(|_| std::hint::spin_loop());
        }
        let _ = result.write_all(&(cpu_time() - before).to_ne_bytes());
        libc::_exit(0)
    }
}

fn cpu_time() -> u64 {
    // SAFETY: a structure of its own.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
        micros(usage.ru_utime) + micros(usage.ru_stime)
    }
}

pub fn busy_programs_share_a_cpu_by_their_weights(time: Duration) -> Outcome {
    const WEIGHTS: [(i32, f64); 2] = [(0, 1024.0), (5, 335.0)];
    let time = time.max(Duration::from_millis(1500));
    let (start, mut go) = pipe();
    let mut results = Vec::new();
    let mut children = Vec::new();
    for (nice, _) in WEIGHTS {
        let (read, write) = pipe();
        // SAFETY: the child computes and exits.
        let child = unsafe { libc::fork() };
        if child == 0 {
            compute_with_nice(nice, &start, write, time);
        }
        drop(write);
        results.push(read);
        children.push(child);
    }
    thread::sleep(Duration::from_millis(50));
    go.write_all(b"go").map_err(|error| error.to_string())?;
    let mut had = Vec::new();
    for mut result in results {
        let mut bytes = [0; 8];
        result.read_exact(&mut bytes).map_err(|error| error.to_string())?;
        had.push(u64::from_ne_bytes(bytes) as f64);
    }
    for child in children {
        // SAFETY: its status is not looked at.
        unsafe { libc::waitpid(child, null_mut(), 0) };
    }
    let share = had[0] / (had[0] + had[1]);
    let fair = WEIGHTS[0].1 / (WEIGHTS[0].1 + WEIGHTS[1].1);
    let off = (share / fair - 1.0).abs();
    println!("  shares {share:.4}, by weight {fair:.4}: off by {:.2} %", off * 100.0);
    let is_fair = off < 0.1;
    ensure!(is_fair);
    Ok(())
}
