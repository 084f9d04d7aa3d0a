//! What the tasks of a simulation do: small plays, each of which ends only if no wake is lost, and looks at what it was promised.
//!
//! Which of them run, how many, and with which numbers, is drawn from the seed. next: main.rs.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use executor::{
    Class, Duration, Executor, Instant, Machine, TaskRef,
    sync::{Event, Mutex, RwLock, Semaphore, SpinLock, WaitQueue, channel, wait_until},
    yield_now,
};
use futures_util::future::{Either, select};

use crate::machine::{Simulated, cpu_count, draw, enter_user, interrupt_in};

/// No timer may be later than this: a dozen slices, and the delays of the machine.
const LATEST: Duration = Duration::from_millis(60);

type Play = fn(&Stage);

/// Everything that there is to play.
const PLAYS: [Play; 12] = [
    ping_pong,
    device,
    producers_and_consumers,
    sleepers,
    computing,
    lone_computing,
    wandering,
    woken_to_the_end,
    exclusive_use,
    crowd,
    results,
    pipe_and_deadline,
];

/// Where a play is played.
pub struct Stage {
    executor: Executor<Simulated>,
    /// How many futures there are.
    alive: Arc<AtomicUsize>,
}

/// A future that must not be polled twice at once, nor where it may not run.
struct Watched<F> {
    future: Pin<Box<F>>,
    is_polled: AtomicBool,
    alive: Arc<AtomicUsize>,
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        assert!(!self.is_polled.swap(true, SeqCst), "polled on two CPUs at once");
        let poll = self.future.as_mut().poll(context);

        assert!(self.is_polled.swap(false, SeqCst), "polled on two CPUs at once");
        poll
    }
}

impl<F> Drop for Watched<F> {
    fn drop(&mut self) {
        assert!(!self.is_polled.load(SeqCst), "dropped while it is polled");
        self.alive.fetch_sub(1, SeqCst);
    }
}

/// Spawns some plays. What is returned is 0 when all futures are gone.
pub fn play_some(executor: Executor<Simulated>) -> Arc<AtomicUsize> {
    let stage = Stage { executor, alive: Arc::default() };
    for _ in 0..1 + draw(4) {
        PLAYS[draw(PLAYS.len() as u64) as usize](&stage);
    }
    stage.alive
}

fn micros(limit: u64) -> Duration {
    Duration::from_nanos(draw(limit * 1_000))
}

fn class() -> Class {
    match draw(4) {
        0 => Class::Driver,
        1 => Class::User { weight: 335 },
        _ => Class::NORMAL,
    }
}

impl Stage {
    fn spawn(&self, class: Class, name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> TaskRef {
        self.alive.fetch_add(1, SeqCst);
        let alive = Arc::clone(&self.alive);
        self.executor.spawn(class, name, Watched { future: Box::pin(future), is_polled: AtomicBool::new(false), alive })
    }
}

/// Two tasks that wake each other: each notification is heard.
fn ping_pong(stage: &Stage) {
    let (ball, back) = (Arc::new(Event::new()), Arc::new(Event::new()));
    let rounds = 1 + draw(8);
    let (ball2, back2) = (Arc::clone(&ball), Arc::clone(&back));
    stage.spawn(class(), "ping", async move {
        for _ in 0..rounds {
            ball2.notify();
            back2.wait().await;
        }
    });
    stage.spawn(class(), "pong", async move {
        for _ in 0..rounds {
            ball.wait().await;
            back.notify();
        }
    });
}

/// A driver and its device: the next interrupt comes only when the last one was heard.
fn device(stage: &Stage) {
    let event = Arc::new(Event::new());
    let rounds = 1 + draw(6);
    stage.spawn(Class::Driver, "driver", async move {
        for _ in 0..rounds {
            let event2 = Arc::clone(&event);
            interrupt_in(micros(20), move || event2.notify());
            event.wait().await;
        }
    });
}

/// Some of the consumers give up, at the very time at which something comes: what they were woken for goes to others.
fn producers_and_consumers(stage: &Stage) {
    let shelf = Arc::new((SpinLock::new(0_u64), WaitQueue::new()));
    let (patient, hasty) = (1 + draw(3), draw(3));
    let executor = stage.executor;
    for index in 0..patient + hasty {
        let shelf = Arc::clone(&shelf);
        stage.spawn(class(), "consumer", async move {
            let take = wait_until(&shelf.1, || {
                let mut items = shelf.0.lock();
                items.checked_sub(1).map(|fewer| *items = fewer)
            });
            if index < patient {
                take.await;
            } else if executor.timeout_at(executor.now() + micros([5, 30][draw(2) as usize]), take).await.is_ok() {
                *shelf.0.lock() += 1;
                shelf.1.wake_one();
            }
        });
    }
    stage.spawn(class(), "producer", async move {
        for _ in 0..patient {
            if draw(2) == 0 {
                executor.sleep_until(executor.now() + micros([5, 30][draw(2) as usize])).await;
            }
            *shelf.0.lock() += 1;
            shelf.1.wake_one();
        }
    });
}

/// Timers are never early, and not late without bound; one that is given up leaves nothing behind.
fn sleepers(stage: &Stage) {
    let executor = stage.executor;
    for _ in 0..1 + draw(4) {
        stage.spawn(class(), "sleeper", async move {
            for _ in 0..1 + draw(3) {
                let deadline = executor.now() + micros([50, 5_000][draw(2) as usize]);
                let given_up = executor.now() + micros(5_000);
                let (sleep, other) = (pin!(executor.sleep_until(deadline)), pin!(executor.sleep_until(given_up)));
                if draw(2) == 0 {
                    // The timers belong to the CPU that they were made on; another one puts them there.
                    executor.current().expect("it is polled").set_affinity(1 << draw(cpu_count()));
                    yield_now().await;
                }
                if let Either::Left(_) = select(sleep, other).await {
                    assert!(executor.now() >= deadline, "early");
                }
                let late = executor.now() - deadline.min(given_up);
                assert!(late < LATEST, "{late:?} late");
            }
        });
    }
}

/// Signals for a thread, and the end of its life.
#[derive(Default)]
struct Signals {
    sent: AtomicUsize,
    is_killed: AtomicBool,
}

/// A thread, as the kernel runs it, that computes until it is killed. Its system calls, if it makes any, are `every` so long.
async fn thread(executor: Executor<Simulated>, signals: Arc<Signals>, every: Option<Duration>, heard: Arc<Event>) {
    let mut seen = 0;
    while !signals.is_killed.load(SeqCst) {
        let sent = signals.sent.load(SeqCst);
        if sent > seen {
            seen = sent;
            heard.notify();
        }
        let call = every.map(|every| executor.now() + every);
        if !enter_user(executor, call) && executor.acknowledge_kick() {
            yield_now().await;
        }
    }
}

/// Threads that compute, and somebody who sends them signals: each is heard, though nothing but a kick would bring the thread back.
fn computing(stage: &Stage) {
    compute(stage, 1 + draw(3), 1 + draw(4));
}

/// One thread alone: no tick comes.
fn lone_computing(stage: &Stage) {
    compute(stage, 1, 1 + draw(6));
}

fn compute(stage: &Stage, threads: u64, rounds: u64) {
    let executor = stage.executor;
    for _ in 0..threads {
        let (signals, heard) = (Arc::new(Signals::default()), Arc::new(Event::new()));
        let every = (draw(2) == 0).then(|| Duration::from_micros(1) + micros(200));
        let computing = thread(executor, Arc::clone(&signals), every, Arc::clone(&heard));
        let target = stage.spawn(Class::NORMAL, "thread", computing);
        stage.spawn(class(), "sender", async move {
            for _ in 0..rounds {
                if draw(2) == 0 {
                    executor.sleep_until(executor.now() + micros(20)).await;
                }
                signals.sent.fetch_add(1, SeqCst);
                if draw(3) == 0 {
                    // The signal comes from an interrupt: a key was struck.
                    let target = target.clone();
                    interrupt_in(micros(3), move || target.wake());
                } else {
                    target.wake();
                }
                heard.wait().await;
            }
            signals.is_killed.store(true, SeqCst);
            target.wake();
        });
    }
}

/// A task that is sent from CPU to CPU, by itself and by others, is polled where it may be.
fn wandering(stage: &Stage) {
    let executor = stage.executor;
    let cpus = cpu_count();
    let (ready, go) = (Arc::new(Event::new()), Arc::new(Event::new()));
    let rounds = 1 + draw(6);
    let (ready2, go2) = (Arc::clone(&ready), Arc::clone(&go));
    let wanderer = stage.spawn(class(), "wanderer", async move {
        let own = executor.current().expect("it is polled");
        for _ in 0..rounds {
            let target = draw(cpus);
            own.set_affinity(1 << target);
            yield_now().await;
            assert_eq!(executor.machine().current_cpu() as u64, target, "it runs where it may");
            ready2.notify();
            go2.wait().await;
        }
    });
    stage.spawn(class(), "sender", async move {
        for _ in 0..rounds {
            ready.wait().await;
            wanderer.set_affinity(1 << draw(cpus) | 1 << draw(cpus));
            go.notify();
        }
    });
}

/// A task that ends while others, interrupts among them, still wake it and let go of it.
fn woken_to_the_end(stage: &Stage) {
    let rounds = draw(5);
    let short_lived = stage.spawn(class(), "short-lived", async move {
        for _ in 0..rounds {
            yield_now().await;
        }
    });
    for _ in 0..1 + draw(3) {
        let (target, waker) = (short_lived.clone(), short_lived.waker());
        stage.spawn(class(), "waker", async move {
            for _ in 0..draw(6) {
                target.wake();
                if draw(3) == 0 {
                    yield_now().await;
                }
            }
            match draw(3) {
                0 => waker.wake(),
                1 => interrupt_in(micros(10), move || waker.wake()),
                _ => drop(waker),
            }
        });
    }
}

/// A mutex and a lock for readers, with some who give up: nobody is inside with another, and all get in.
fn exclusive_use(stage: &Stage) {
    let lock = Arc::new((Mutex::new(0_u64), RwLock::new(0_u64), Semaphore::new(2)));
    let inside = Arc::new(AtomicBool::new(false));
    let executor = stage.executor;
    for _ in 0..2 + draw(4) {
        let (lock, inside) = (Arc::clone(&lock), Arc::clone(&inside));
        stage.spawn(class(), "locker", async move {
            for _ in 0..1 + draw(3) {
                let deadline = if draw(3) == 0 { executor.now() + micros(20) } else { Instant::NEVER };
                if let Ok(mut guard) = executor.timeout_at(deadline, lock.0.lock()).await {
                    assert!(!inside.swap(true, SeqCst), "two have the mutex");
                    *guard += 1;
                    if draw(2) == 0 {
                        yield_now().await;
                    }
                    inside.store(false, SeqCst);
                }
                if draw(2) == 0 {
                    *lock.1.write().await += 1;
                } else {
                    let before = lock.1.read().await;
                    let seen = *before;
                    yield_now().await;
                    assert_eq!(*before, seen, "a writer came among the readers");
                }
                let permits = 1 + draw(2) as usize;
                if executor.timeout_at(deadline, lock.2.acquire(permits)).await.is_ok() {
                    lock.2.release(permits);
                }
            }
        });
    }
}

/// More tasks than the inbox has slots are woken at once, by an interrupt.
fn crowd(stage: &Stage) {
    // Dear, so not every time.
    let size = if draw(8) == 0 { 80 } else { 1 + draw(6) };
    let gates: Vec<_> = (0..size).map(|_| Arc::new(Event::new())).collect();
    for gate in &gates {
        let gate = Arc::clone(gate);
        stage.spawn(class(), "one of a crowd", async move {
            gate.wait().await;
        });
    }
    interrupt_in(micros(50), move || gates.iter().for_each(|gate| gate.notify()));
}

/// Tasks that start tasks and wait for what they return.
fn results(stage: &Stage) {
    let executor = stage.executor;
    let count = 1 + draw(4);
    stage.spawn(class(), "parent", async move {
        for number in 0..count {
            let child = executor.spawn_with_result(class(), "child", async move {
                if draw(2) == 0 {
                    yield_now().await;
                }
                number
            });
            assert_eq!(child.await, number);
        }
    });
}

/// A channel whose ends go at their own times; what was sent arrives, in order, while the receiver is there.
fn pipe_and_deadline(stage: &Stage) {
    let executor = stage.executor;
    let (sender, mut receiver) = channel(1 + draw(2) as usize);
    let count = 1 + draw(6);
    let is_patient = draw(2) == 0;
    stage.spawn(class(), "sender", async move {
        for number in 0..count {
            if sender.send(number).await.is_err() {
                assert!(!is_patient, "the receiver does not go");
                return;
            }
        }
    });
    stage.spawn(class(), "receiver", async move {
        let mut expected = 0;
        loop {
            let deadline = if is_patient { Instant::NEVER } else { executor.now() + micros(10) };
            let mut receive = pin!(receiver.receive());
            match executor.timeout_at(deadline, receive.as_mut()).await {
                Ok(Some(number)) => {
                    assert_eq!(number, expected);
                    expected += 1;
                }
                Ok(None) => break assert!(expected == count || !is_patient),
                Err(_) => break,
            }
        }
    });
}
