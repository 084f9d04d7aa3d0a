//! How long the executor's own steps take on this host: `cargo run --release -p executor --example bench`.
//!
//! Times on a shared machine are noise; instructions are not. To count those of one step, name it, and give a number of rounds:
//! `valgrind --tool=callgrind target/release/examples/bench yield 10000`.

use std::{
    hint::black_box,
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use executor::{
    Class, TaskRef,
    sync::{Event, Mutex, SpinLock, WaitQueue, Waiter, channel},
    testing::Bench,
    yield_now,
};

/// Runs `body` if its name contains the first argument, for as many rounds as the second one says.
fn measure(name: &str, body: impl FnOnce(u32)) {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().is_some_and(|part| !name.contains(&part)) {
        return;
    }
    let rounds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let start = Instant::now();
    body(rounds);
    println!("{name:<46} {:>8.1} ns", start.elapsed().as_secs_f64() * 1e9 / f64::from(rounds));
}

fn main() {
    measure("spawn, run and free a task", |rounds| {
        let bench = Bench::new();
        for _ in 0..rounds {
            bench.spawn(async {});
            bench.settle();
        }
    });
    measure("yield: one poll of one task", |rounds| {
        let bench = Bench::new();
        bench.spawn(async move {
            for _ in 0..rounds {
                yield_now().await;
            }
        });
        bench.settle();
    });
    measure("wake a driver task and poll it", |rounds| {
        let bench = Bench::new();
        let task = bench.executor().spawn(Class::Driver, "driver", std::future::pending());
        for _ in 0..rounds {
            task.wake();
            bench.settle();
        }
        black_box(task);
    });
    measure("wake a task that is queued already", |rounds| {
        let bench = Bench::new();
        let task = bench.spawn(std::future::pending());
        (0..rounds).for_each(|_| task.wake());
    });
    measure("ping-pong of two tasks over events, one way", |rounds| {
        let bench = Bench::new();
        let (ping, pong) = (Arc::new(Event::new()), Arc::new(Event::new()));
        let (ping_too, pong_too) = (Arc::clone(&ping), Arc::clone(&pong));
        bench.spawn(async move {
            for _ in 0..rounds / 2 {
                ping.notify();
                pong.wait().await;
            }
        });
        bench.spawn(async move {
            for _ in 0..rounds / 2 {
                ping_too.wait().await;
                pong_too.notify();
            }
        });
        bench.settle();
    });
    measure("send and receive over a channel", |rounds| {
        let bench = Bench::new();
        let (sender, mut receiver) = channel(64);
        bench.spawn(async move {
            for round in 0..rounds {
                sender.send(round).await.expect("the receiver is there");
            }
        });
        bench.spawn(async move { while receiver.receive().await.is_some() {} });
        bench.settle();
    });
    measure("wake an empty wait queue", |rounds| {
        let queue = WaitQueue::new();
        (0..rounds).for_each(|_| {
            black_box(&queue).wake_one();
        });
    });
    measure("register in a wait queue, leave it", |rounds| {
        let queue = WaitQueue::new();
        let context = Context::from_waker(Waker::noop());
        for _ in 0..rounds {
            let mut waiter = pin!(Waiter::exclusive(&queue));
            waiter.as_mut().register(&context);
            waiter.leave();
        }
    });
    measure("lock and unlock a spin lock", |rounds| {
        let lock = SpinLock::new(0);
        (0..rounds).for_each(|_| *black_box(&lock).lock() += 1);
    });
    measure("lock and unlock an async mutex", |rounds| {
        let mutex = Mutex::new(0);
        (0..rounds).for_each(|_| *black_box(&mutex).try_lock().expect("it is free") += 1);
    });
    measure("set a timer, take it back (1,000 others set)", |rounds| {
        let bench = Bench::new();
        let timers = bench.executor().timers();
        for index in 0..1_000 {
            bench.spawn(async move { timers.sleep(Duration::from_micros(index * 7_919 % 1_000 + 1)).await });
        }
        bench.settle();
        let mut context = Context::from_waker(Waker::noop());
        for round in 0..rounds {
            let sleep = pin!(timers.sleep(Duration::from_nanos(u64::from(round % 1_000_000) + 1)));
            assert!(sleep.poll(&mut context).is_pending());
        }
    });
    measure("enter and leave user mode", |rounds| {
        let bench = Bench::new();
        let executor = bench.executor();
        bench.block_on(async move {
            for _ in 0..rounds {
                executor.enter_user();
                black_box(executor.should_leave_user());
                executor.exit_user();
            }
        });
    });
    println!("a task's cell, beside its future: {} bytes", TaskRef::CELL_BYTES);
}
