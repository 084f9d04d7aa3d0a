//! The real executor on two CPUs under every interleaving with a few preemptions, and every value that its weaker loads may see:
//! inbox and idle, theft, a kick out of user mode, timers. The machine is a `Notify` for each CPU: an interrupt ends a sleep.
//!
//! A wake, a kick or a task that is lost ends in a deadlock, which loom reports. What each model finds when the executor is broken:
//! without the fence of `Status::publish` or `observe`, the sleeper and the thread in user mode wait for ever; without the second look
//! in `sleep`, so does the sleeper; without the kick of `interrupt`, the signal is not heard; a timer that is put on another CPU without
//! `alarm_due` or the kick never rings; a theft that forgets a task leaves a CPU waiting for it.

#![allow(clippy::missing_const_for_thread_local, reason = "loom's has no such form")]

mod explore;

use std::{
    cell::Cell,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Waker},
};

use executor::{Class, Executor, Instant, Machine, sync::Event, time::Sleep};
use explore::{Arc, AtomicBool, AtomicUsize, Notify, Ordering, model_in_bounds, thread, thread_local};

thread_local! {
    static CPU: Cell<usize> = Cell::new(0);
}

/// Between the two CPUs' times: CPU 1 sets a timer that is due on CPU 0.
const DEADLINE: Instant = Instant::from_nanos(15);

/// Two CPUs; an interrupt of one is a notification.
struct Interrupts([Notify; 2]);

impl Machine for Interrupts {
    fn now(&self) -> Instant {
        Instant::from_nanos(if self.current_cpu() == 0 { 20 } else { 10 })
    }

    fn current_cpu(&self) -> usize {
        CPU.with(Cell::get)
    }

    fn kick(&self, cpu: usize) {
        self.0[cpu].notify();
    }

    fn idle(&self, nothing_to_do: &dyn Fn() -> bool) {
        if nothing_to_do() {
            self.0[self.current_cpu()].wait();
        }
    }

    fn set_alarm(&self, _at: Option<Instant>) {}
}

fn two_cpus() -> Executor<Interrupts> {
    Executor::new(Interrupts([Notify::new(), Notify::new()]), 2)
}

/// Another CPU than the one that the model's own thread plays.
fn on_cpu_1(body: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        CPU.with(|cpu| cpu.set(1));
        body();
    })
}

/// Only CPU 0: so that a model is about what it is about.
fn spawn_on_0(executor: Executor<Interrupts>, future: impl Future<Output = ()> + Send + 'static) -> executor::TaskRef {
    executor.try_spawn_on(1, Class::NORMAL, "task", |_| (), future).expect("there is memory")
}

#[test]
fn a_wake_from_another_cpu_finds_the_sleeper_or_is_found_by_it() {
    model_in_bounds(|| {
        let executor = two_cpus();
        let (event, is_over) = (Arc::new(Event::new()), Arc::new(AtomicBool::new(false)));
        let (heard, over) = (Arc::clone(&event), Arc::clone(&is_over));
        spawn_on_0(executor, async move {
            heard.wait().await;
            over.store(true, Ordering::Relaxed);
        });
        let waker = on_cpu_1(move || event.notify());
        executor.run_until(0, || is_over.load(Ordering::Relaxed));
        waker.join().unwrap();
    });
}

#[test]
fn a_thread_in_user_mode_hears_a_signal() {
    model_in_bounds(|| {
        let executor = two_cpus();
        let (signal, is_over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (pending, over) = (Arc::clone(&signal), Arc::clone(&is_over));
        let target = spawn_on_0(executor, async move {
            while !pending.load(Ordering::Relaxed) {
                executor.user_mode().visit(|visit| {
                    if !visit.must_end() {
                        executor.machine().0[0].wait();
                    }
                });
                if executor.acknowledge_kick() {
                    executor::yield_now().await;
                }
            }
            over.store(true, Ordering::Relaxed);
        });
        let sender = on_cpu_1(move || {
            // Relaxed: the model must rest on the wake's ordering.
            signal.store(true, Ordering::Relaxed);
            target.wake();
        });
        executor.run_until(0, || is_over.load(Ordering::Relaxed));
        sender.join().unwrap();
    });
}

/// CPU 1 polls a sleep that was made on CPU 0, which is where its timer goes; `after` is what becomes of the sleep.
fn a_timer_for_cpu_0(after: fn(Pin<Box<Sleep>>, &Event)) {
    model_in_bounds(move || {
        let executor = two_cpus();
        let (event, is_over) = (Arc::new(Event::new()), Arc::new(AtomicBool::new(false)));
        let (rung, over) = (Arc::clone(&event), Arc::clone(&is_over));
        spawn_on_0(executor, async move {
            rung.wait().await;
            over.store(true, Ordering::Relaxed);
        });
        let mut sleep = Box::pin(executor.sleep_until(DEADLINE));
        let other = on_cpu_1(move || {
            let waker = Waker::from(std::sync::Arc::new(Notifier(Arc::clone(&event))));
            assert!(sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            after(sleep, &event);
        });
        executor.run_until(0, || is_over.load(Ordering::Relaxed));
        other.join().unwrap();
    });
}

#[test]
fn a_timer_that_another_cpu_puts_on_this_one_rings() {
    // It never goes: there is nobody but the timer to end the wait.
    a_timer_for_cpu_0(|sleep, _| mem::forget(sleep));
}

#[test]
fn a_timer_may_go_while_it_rings() {
    a_timer_for_cpu_0(|sleep, event| {
        drop(sleep);
        event.notify();
    });
}

struct Notifier(Arc<Event>);

impl std::task::Wake for Notifier {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.notify();
    }
}

#[test]
fn each_task_is_polled_once_by_its_cpu_or_by_a_thief() {
    model_in_bounds(|| {
        let executor = two_cpus();
        let left = Arc::new(AtomicUsize::new(2));
        for _ in 0..2 {
            let left = Arc::clone(&left);
            executor.spawn(Class::NORMAL, "task", async move {
                if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    (0..2).for_each(|cpu| executor.machine().kick(cpu));
                }
            });
        }
        let is_over = |left: &AtomicUsize| left.load(Ordering::Relaxed) == 0;
        let seen = Arc::clone(&left);
        let thief = on_cpu_1(move || executor.run_until(1, || is_over(&seen)));
        executor.run_until(0, || is_over(&left));
        thief.join().unwrap();
        // What was retired on either CPU is freed by it.
        executor.run_until_idle();
        let polls: u64 = (0..2).map(|cpu| executor.statistics(cpu).polls).sum();
        assert_eq!(polls, 2);
    });
}
