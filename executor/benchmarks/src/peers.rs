//! The executors that are compared, behind one trait: run these futures to their ends on this thread. next: rows.rs.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use executor::{Class, Executor, Instant, Machine};

use crate::rows::Signal;

/// An executor that is measured.
pub trait Peer {
    const NAME: &'static str;

    /// Spawns `count` futures from `make` and runs all of them to their ends, on the calling thread.
    fn run<F: Future<Output = ()> + Send + 'static>(count: usize, make: impl FnMut(usize) -> F + Send + 'static);

    /// A timer, set when it is first polled; called inside of `run`. None if the executor has none.
    fn sleep(_duration: Duration) -> Option<impl Future<Output = ()> + Send + 'static> {
        None::<Pin<Box<dyn Future<Output = ()> + Send>>>
    }
}

/// How many futures are still under way; the last tells.
struct Countdown(AtomicUsize, Signal);

async fn counted(future: impl Future<Output = ()>, left: Arc<Countdown>) {
    future.await;
    if left.0.fetch_sub(1, Ordering::AcqRel) == 1 {
        left.1.notify();
    }
}

pub struct Rouse;

/// A machine of the calling thread, CPU 0, and of all others, which are CPU 1 and run no tasks.
struct Host {
    clock: quanta::Clock,
    start: u64,
    thread: OnceLock<Thread>,
    is_kicked: AtomicBool,
    alarm: AtomicU64,
}

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(1) };
}

static EXECUTOR: LazyLock<Executor<Host>> = LazyLock::new(|| {
    let clock = quanta::Clock::new();
    let start = clock.raw();
    let (is_kicked, alarm) = (AtomicBool::new(false), AtomicU64::new(u64::MAX));
    Executor::new(Host { clock, start, thread: OnceLock::new(), is_kicked, alarm }, 2)
});

impl Machine for Host {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.clock.delta_as_nanos(self.start, self.clock.raw()).max(1))
    }

    fn current_cpu(&self) -> usize {
        CPU.get()
    }

    fn kick(&self, _cpu: usize) {
        self.is_kicked.store(true, Ordering::SeqCst);
        self.thread.get().expect("it is set before anything runs").unpark();
    }

    fn idle(&self, nothing_to_do: &dyn Fn() -> bool) {
        let alarm = Instant::from_nanos(self.alarm.load(Ordering::SeqCst));
        if nothing_to_do() && !self.is_kicked.swap(false, Ordering::SeqCst) {
            match alarm {
                Instant::NEVER => thread::park(),
                alarm => thread::park_timeout(alarm - self.now()),
            }
        }
        if alarm <= self.now() {
            self.alarm.store(u64::MAX, Ordering::SeqCst);
            EXECUTOR.alarm();
        }
    }

    fn set_alarm(&self, at: Option<Instant>) {
        self.alarm.store(at.map_or(u64::MAX, Instant::as_nanos), Ordering::SeqCst);
    }
}

impl Peer for Rouse {
    const NAME: &'static str = "Rouse";

    fn run<F: Future<Output = ()> + Send + 'static>(count: usize, mut make: impl FnMut(usize) -> F + Send + 'static) {
        CPU.set(0);
        let executor = *EXECUTOR;
        executor.machine().thread.get_or_init(thread::current);
        let left = Arc::new(Countdown(AtomicUsize::new(count), Signal::default()));
        for index in 0..count {
            executor.spawn(Class::NORMAL, "benchmark", counted(make(index), Arc::clone(&left)));
        }
        executor.run_until(0, || left.0.load(Ordering::Acquire) == 0);
        executor.run_until_idle();
    }

    fn sleep(duration: Duration) -> Option<impl Future<Output = ()> + Send + 'static> {
        Some(EXECUTOR.timers().sleep(duration))
    }
}

pub struct Tokio;

impl Peer for Tokio {
    const NAME: &'static str = "tokio (current thread)";

    fn run<F: Future<Output = ()> + Send + 'static>(count: usize, mut make: impl FnMut(usize) -> F + Send + 'static) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("threads can be parked");
        runtime.block_on(async {
            let left = Arc::new(Countdown(AtomicUsize::new(count), Signal::default()));
            for index in 0..count {
                tokio::spawn(counted(make(index), Arc::clone(&left)));
            }
            left.1.wait().await;
        });
    }

    fn sleep(duration: Duration) -> Option<impl Future<Output = ()> + Send + 'static> {
        Some(tokio::time::sleep(duration))
    }
}

pub struct AsyncExecutor;

impl Peer for AsyncExecutor {
    const NAME: &'static str = "async-executor";

    fn run<F: Future<Output = ()> + Send + 'static>(count: usize, mut make: impl FnMut(usize) -> F + Send + 'static) {
        let executor = async_executor::Executor::new();
        let left = Arc::new(Countdown(AtomicUsize::new(count), Signal::default()));
        for index in 0..count {
            executor.spawn(counted(make(index), Arc::clone(&left))).detach();
        }
        futures_lite::future::block_on(executor.run(left.1.wait()));
    }

    /// Its companion's.
    fn sleep(duration: Duration) -> Option<impl Future<Output = ()> + Send + 'static> {
        let timer = async_io::Timer::after(duration);
        Some(async {
            timer.await;
        })
    }
}

pub struct Embassy;

impl Peer for Embassy {
    const NAME: &'static str = "embassy-executor";

    /// Its tasks are static: their memory is taken once, here, and never given back.
    fn run<F: Future<Output = ()> + Send + 'static>(count: usize, mut make: impl FnMut(usize) -> F + Send + 'static) {
        let executor = Box::leak(Box::new(embassy_executor::Executor::new()));
        let left = Arc::new(Countdown(AtomicUsize::new(count), Signal::default()));
        let over = Arc::clone(&left);
        let spawn = move |spawner: embassy_executor::Spawner| {
            for index in 0..count {
                let storage = Box::leak(Box::new(embassy_executor::raw::TaskStorage::new()));
                let (future, left) = (make(index), Arc::clone(&left));
                spawner.spawn(storage.spawn(|| counted(future, left)).expect("its memory is free"));
            }
        };
        executor.run_until(spawn, || over.0.load(Ordering::Acquire) == 0);
    }
}
