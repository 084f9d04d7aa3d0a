//! The idle protocol under every interleaving: a CPU never sleeps, or stays in user mode, while it has something to do.

mod explore;

use executor::testing::{Mode, Status};
use explore::{Arc, AtomicUsize, Notify, Ordering, model, model_in_bounds, thread};

type Body = Box<dyn Fn() + Send + Sync>;

/// A CPU: what it publishes, its inbox, and its interrupt line.
struct Cpu {
    status: Status,
    inbox: AtomicUsize,
    interrupt: Notify,
}

impl Cpu {
    fn new() -> Arc<Self> {
        Arc::new(Self { status: Status::default(), inbox: AtomicUsize::new(0), interrupt: Notify::new() })
    }

    /// As `Shared::queue` does: give it work, look, kick.
    fn give(&self) {
        // Relaxed: the model must rest on the fences, not on the inbox.
        self.inbox.fetch_add(1, Ordering::Relaxed);
        if self.status.observe() != Mode::Kernel {
            self.interrupt.notify();
        }
    }

    /// As `Shared::sleep` (or `Executor::enter_user`) does: publish, look, and only then sleep.
    fn rest(&self, mode: Mode) {
        self.status.publish(mode);
        if self.inbox.load(Ordering::Relaxed) == 0 {
            // If a kick were missing here, the model would end in a deadlock, which loom reports.
            self.interrupt.wait();
        }
        self.status.publish(Mode::Kernel);
    }

    fn work(&self) -> usize {
        self.inbox.swap(0, Ordering::Relaxed)
    }
}

fn a_resting_cpu_is_kicked(mode: Mode, givers: usize) {
    let explore: fn(Body) = if givers == 1 { |body| model(body) } else { |body| model_in_bounds(body) };
    explore(Box::new(move || {
        let cpu = Cpu::new();
        let threads: Vec<_> = (0..givers)
            .map(|_| {
                let cpu = Arc::clone(&cpu);
                thread::spawn(move || cpu.give())
            })
            .collect();
        let mut done = cpu.work();
        while done < givers {
            cpu.rest(mode);
            done += cpu.work();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }));
}

#[test]
fn a_cpu_that_goes_to_sleep_does_not_miss_work() {
    a_resting_cpu_is_kicked(Mode::Idle, 1);
}

#[test]
fn a_cpu_that_enters_user_mode_does_not_miss_work() {
    a_resting_cpu_is_kicked(Mode::User, 1);
}

#[test]
fn work_from_two_sides_is_not_missed_either() {
    a_resting_cpu_is_kicked(Mode::Idle, 2);
}
