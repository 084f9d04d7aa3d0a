//! Memory that threads on several CPUs use while its mappings change.

use super::*;

pub fn a_mapping_that_was_replaced_is_seen_by_nobody(time: Duration) -> Outcome {
    const PAGES: usize = 24;
    let region = map(0, PAGES, 0) as usize;
    let generation = AtomicU64::new(0);
    let read = |_: usize, is_over: &AtomicBool| {
        let mut page = 0;
        while !is_over.load(Relaxed) {
            let least = generation.load(Acquire);
            let seen = word(region + page * PAGE).load(Relaxed);
            // Zero: the next one is being made.
            ensure!(seen == 0 || seen >= least, "page {page}: {seen}, published {least}");
            page = (page + 1) % PAGES;
        }
        Ok(())
    };
    while_others(cpus().max(2), read, |is_over| {
        let end = Instant::now() + time;
        let mut round = 0u64;
        while until(end, is_over) {
            round += 1;
            // Of one page, of some, of all: flushed page by page, or at once.
            let (first, count) = match round % 3 {
                0 => (0, PAGES),
                1 => ((round as usize * 7) % PAGES, 1),
                _ => ((round as usize * 5) % (PAGES - 6), 6),
            };
            if round.is_multiple_of(4) {
                // SAFETY: the case's own memory, whose content is meant to go.
                unsafe { libc::madvise((region + first * PAGE) as *mut _, count * PAGE, libc::MADV_DONTNEED) };
            } else {
                map(region + first * PAGE, count, MAP_FIXED);
            }
            for page in first..first + count {
                word(region + page * PAGE).store(round, Relaxed);
            }
            if count == PAGES {
                generation.store(round, Release);
            }
        }
    })
}

extern "C" fn try_again(_signal: i32) {
    // SAFETY: may be called in a handler.
    unsafe { libc::sched_yield() };
}

pub fn memory_that_was_made_read_only_is_written_by_nobody(time: Duration) -> Outcome {
    const PAGES: usize = 20;
    handle(libc::SIGSEGV, try_again as *const () as usize);
    let region = map(0, PAGES, 0) as usize;
    let write = |number: usize, is_over: &AtomicBool| {
        while !is_over.load(Relaxed) {
            for page in 0..PAGES {
                word(region + page * PAGE + number * 8).fetch_add(1, Relaxed);
            }
        }
        Ok(())
    };
    let writers = cpus().max(2);
    let outcome = while_others(writers, write, |is_over| {
        let end = Instant::now() + time;
        let sum =
            |page: usize| (0..writers).map(|number| word(region + page * PAGE + number * 8).load(Relaxed)).sum::<u64>();
        let mut round = 0;
        while until(end, is_over) {
            round += 1;
            let (first, count) = if round % 2 == 0 { (0, PAGES) } else { (round * 7 % PAGES, 1) };
            let at = (region + first * PAGE) as *mut _;
            // SAFETY: the case's own memory; who writes to it meanwhile tries again.
            unsafe { libc::mprotect(at, count * PAGE, PROT_READ) };
            let before: Vec<u64> = (first..first + count).map(sum).collect();
            (0..200).for_each(|_| std::hint::spin_loop());
            let after: Vec<u64> = (first..first + count).map(sum).collect();
            // SAFETY: as above.
            unsafe { libc::mprotect(at, count * PAGE, RW) };
            ensure!(before == after, "round {round}, pages {first}+{count}");
        }
        Ok(())
    });
    handle(libc::SIGSEGV, libc::SIG_DFL);
    outcome?
}

static FAULTS: AtomicUsize = AtomicUsize::new(0);
static REPAIRED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_and_repair(_signal: i32) {
    FAULTS.fetch_add(1, SeqCst);
    map(REPAIRED.load(SeqCst), 1, MAP_FIXED);
}

pub fn memory_that_was_unmapped_faults_everywhere(time: Duration) -> Outcome {
    handle(libc::SIGSEGV, count_and_repair as *const () as usize);
    let page = map(0, 1, 0) as usize;
    REPAIRED.store(page, SeqCst);
    let (phase, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // In odd phases it reads what is there, in even ones what is not there any more; in between it does not touch it.
    let read = |_: usize, is_over: &AtomicBool| {
        let mut known = 0;
        while !is_over.load(Relaxed) {
            let now = phase.load(Acquire);
            if now == known {
                std::hint::spin_loop();
                continue;
            }
            let before = FAULTS.load(SeqCst);
            word(page).load(Relaxed);
            let faults = FAULTS.load(SeqCst) - before;
            ensure!(faults == usize::from(now % 2 == 0), "phase {now}: {faults} faults");
            known = now;
            answered.store(known, Release);
        }
        Ok(())
    };
    let outcome = while_others(1, read, |is_over| {
        let end = Instant::now() + time;
        let mut number = 0;
        let mut tell = || {
            number += 1;
            phase.store(number, Release);
            while answered.load(Acquire) != number && !is_over.load(Relaxed) {
                std::hint::spin_loop();
            }
        };
        word(page).store(1, Relaxed);
        while until(end, is_over) {
            tell();
            // SAFETY: the case's own page, which the reader's handler maps again.
            unsafe { libc::munmap(page as *mut _, PAGE) };
            tell();
        }
    });
    handle(libc::SIGSEGV, libc::SIG_DFL);
    outcome
}

pub fn a_fork_loses_no_write_of_other_threads(time: Duration) -> Outcome {
    let writers = cpus().clamp(2, 4);
    const PAGES: usize = 8;
    let region = map(0, writers * PAGES, 0) as usize;
    let write = |number: usize, is_over: &AtomicBool| {
        let mut count = 0u64;
        while !is_over.load(Relaxed) {
            count += 1;
            for page in 0..PAGES {
                let place = word(region + (number * PAGES + page) * PAGE);
                ensure!(place.load(Relaxed) == count - 1, "page {page}: {} of {}", place.load(Relaxed), count - 1);
                place.store(count, Relaxed);
            }
        }
        Ok(())
    };
    while_others(writers, write, |is_over| {
        let end = Instant::now() + time;
        while until(end, is_over) {
            // SAFETY: the child only looks at memory and exits.
            unsafe {
                let child = libc::fork();
                if child == 0 {
                    let mut bad = 0;
                    for number in 0..writers {
                        let value = |page| word(region + (number * PAGES + page) * PAGE).load(Relaxed);
                        let first = value(0);
                        // Written in order: no later page is ahead, none is behind by more than one.
                        bad |= i32::from((1..PAGES).any(|page| value(page) > first || first - value(page) > 1));
                        // What is written here is not seen there.
                        word(region + number * PAGES * PAGE).store(u64::MAX, Relaxed);
                    }
                    libc::_exit(bad);
                }
                let mut status = -1;
                ensure!(child > 0 && libc::waitpid(child, &raw mut status, 0) == child);
                ensure!(status == 0, "the child saw a torn copy: {status}");
            }
        }
        Ok(())
    })?
}
