//! Every wait is dropped at every one of its awaits: what it had taken, or was about to be given, is there for the next, and nothing that
//! it has put anywhere is left. One test for each thing in `sync` and `time` that can be awaited.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Waker,
    time::Duration,
};

use executor::{
    Instant,
    sync::{Event, Mutex, Observe, Observer, RwLock, Semaphore, SpinLock, WaitQueue, channel, wait_until},
    testing::{Bench, WakeCounter, cancel_at_every_await, poll_once},
    yield_now,
};
use futures_util::future::{join, select};

/// Two wait; what they wait for is `give`n once, and goes to the first, which is dropped before it could look. Whether the second is
/// woken, and has it.
fn passes_on<F: Future>(make: impl Fn() -> F, give: impl FnOnce()) -> bool {
    let counter = Arc::new(WakeCounter::default());
    let (mut first, mut second) = (Box::pin(make()), Box::pin(make()));
    assert!(poll_once(first.as_mut(), Waker::noop()).is_pending());
    assert!(poll_once(second.as_mut(), &Waker::from(Arc::clone(&counter))).is_pending());
    give();
    assert_eq!(counter.count(), 0, "it is the first one's");
    drop(first);
    counter.count() == 1 && poll_once(second.as_mut(), Waker::noop()).is_ready()
}

#[test]
fn a_wait_in_a_queue() {
    let queue = WaitQueue::new();
    let polls = cancel_at_every_await(
        || async {
            queue.wait().await;
            queue.wait_shared().await;
            queue.wait().await;
        },
        |_| {
            queue.wake_one();
        },
        |_| assert!(queue.is_empty()),
    );
    assert_eq!(polls, 4);
    assert!(passes_on(|| queue.wait(), || assert_eq!(queue.wake_one(), 1)));
    assert!(queue.is_empty());
}

#[test]
fn an_attempt_that_waits() {
    let (items, filled) = (SpinLock::new(0_u32), WaitQueue::new());
    let take = || {
        let mut items = items.lock();
        items.checked_sub(1).map(|fewer| *items = fewer)
    };
    let put = || {
        *items.lock() += 1;
        filled.wake_one();
    };
    let taken = AtomicUsize::new(0);
    let given = AtomicUsize::new(0);
    let polls = cancel_at_every_await(
        || async {
            for _ in 0..2 {
                wait_until(&filled, take).await;
                taken.fetch_add(1, SeqCst);
            }
        },
        |_| {
            given.fetch_add(1, SeqCst);
            put();
        },
        |_| {
            assert_eq!(given.load(SeqCst), taken.load(SeqCst) + *items.lock() as usize, "an item is lost");
            taken.store(given.load(SeqCst), SeqCst);
            *items.lock() = 0;
            assert!(filled.is_empty());
        },
    );
    assert_eq!(polls, 3);
    assert!(passes_on(|| wait_until(&filled, take), put));
}

#[test]
fn an_event() {
    let event = Event::new();
    let heard = AtomicUsize::new(0);
    let given = AtomicUsize::new(0);
    let polls = cancel_at_every_await(
        || async {
            for _ in 0..3 {
                heard.fetch_add(event.wait().await as usize, SeqCst);
            }
        },
        |_| {
            given.fetch_add(1, SeqCst);
            event.notify();
        },
        |_| {
            heard.fetch_add(event.take() as usize, SeqCst);
            assert_eq!(heard.load(SeqCst), given.load(SeqCst), "a notification is lost");
        },
    );
    assert_eq!(polls, 4);
}

#[test]
fn a_mutex() {
    let mutex = Mutex::new(0);
    let held = StdMutex::new(None);
    let polls = cancel_at_every_await(
        || {
            *held.lock().unwrap() = mutex.try_lock();
            async {
                let mut value = mutex.lock().await;
                yield_now().await;
                *value += 1;
                drop(value);
                *mutex.lock().await += 1;
            }
        },
        |_| drop(held.lock().unwrap().take()),
        |_| {
            drop(held.lock().unwrap().take());
            assert!(mutex.try_lock().is_some(), "nobody has it, so it is free");
        },
    );
    assert_eq!(polls, 3);
    let guard = mutex.try_lock();
    assert!(passes_on(|| mutex.lock(), || drop(guard)));
    assert!(mutex.try_lock().is_some());
}

#[test]
fn a_lock_for_readers_and_writers() {
    let lock = RwLock::new(0);
    let held = StdMutex::new(None);
    let polls = cancel_at_every_await(
        || {
            *held.lock().unwrap() = lock.try_write();
            async {
                let before = lock.read().await;
                yield_now().await;
                drop(before);
                let mut value = lock.write().await;
                yield_now().await;
                *value += 1;
                drop(value);
                drop(join(lock.read(), lock.read()).await);
            }
        },
        |_| drop(held.lock().unwrap().take()),
        |_| {
            drop(held.lock().unwrap().take());
            assert!(lock.try_write().is_some(), "nobody has it, so it is free");
        },
    );
    assert_eq!(polls, 4);
    let reader = lock.try_read();
    assert!(passes_on(|| lock.write(), || drop(reader)));
    let writer = lock.try_write();
    // A writer that gives up lets the readers behind it in.
    let mut waiting = Box::pin(lock.write());
    let mut behind = Box::pin(lock.read());
    assert!(poll_once(waiting.as_mut(), Waker::noop()).is_pending());
    assert!(poll_once(behind.as_mut(), Waker::noop()).is_pending());
    drop(writer);
    drop(waiting);
    assert!(poll_once(behind.as_mut(), Waker::noop()).is_ready());
}

#[test]
fn a_semaphore() {
    let semaphore = Semaphore::new(0);
    let polls = cancel_at_every_await(
        || async {
            semaphore.acquire(2).await;
            semaphore.release(2);
            semaphore.acquire(3).await;
            semaphore.release(3);
        },
        |_| semaphore.release(2),
        |polls| {
            // Each poll that was not the last was followed by two permits.
            let given = 2 * polls.min(2);
            assert_eq!(semaphore.free(), given, "permits are lost, or made");
            assert!(semaphore.try_acquire(given), "nobody waits any more");
        },
    );
    assert_eq!(polls, 3);
    assert!(passes_on(|| semaphore.acquire(2), || semaphore.release(2)));
    assert_eq!(semaphore.free(), 0);
}

#[test]
fn both_ends_of_a_channel() {
    let (sender, receiver) = channel(1);
    let receiver = Mutex::new(receiver);
    let take = || receiver.try_lock().expect("one receives at a time").try_receive();
    let sent = AtomicUsize::new(0);
    let received = AtomicUsize::new(0);
    let polls = cancel_at_every_await(
        || async {
            for _ in 0..3 {
                sender.send(Box::new(1)).await.expect("the receiver is there");
                sent.fetch_add(1, SeqCst);
            }
        },
        |_| {
            received.fetch_add(usize::from(take().is_some()), SeqCst);
        },
        |_| {
            received.fetch_add(usize::from(take().is_some()), SeqCst);
            assert_eq!(sent.load(SeqCst), received.load(SeqCst), "sent once, or not at all");
        },
    );
    assert_eq!(polls, 3);
    let taken = AtomicUsize::new(0);
    let polls = cancel_at_every_await(
        || async {
            let mut receiver = receiver.try_lock().expect("one receives at a time");
            for _ in 0..2 {
                assert!(receiver.receive().await.is_some());
                taken.fetch_add(1, SeqCst);
            }
        },
        |_| {
            sent.fetch_add(1, SeqCst);
            sender.try_send(Box::new(2)).expect("there is room");
        },
        |_| {
            taken.fetch_add(usize::from(take().is_some()), SeqCst);
            assert_eq!(sent.load(SeqCst), received.load(SeqCst) + taken.load(SeqCst), "a value is lost");
        },
    );
    assert_eq!(polls, 3);
    // Two senders wait; the place that comes free is the first one's, which goes.
    sender.try_send(Box::new(3)).expect("there is room");
    assert!(passes_on(|| sender.send(Box::new(4)), || assert!(take().is_some())));
}

#[test]
fn sleeps_and_deadlines() {
    let bench = Bench::new();
    let executor = bench.executor();
    let (timers, queue) = (executor.timers(), WaitQueue::new());
    let nap = || timers.sleep(Duration::from_micros(1));
    let polls = cancel_at_every_await(
        || async {
            nap().await;
            // The sleep wins, then the wait, then the deadline.
            select(pin!(nap()), pin!(queue.wait())).await;
            let (woken, never) = (pin!(queue.wait()), pin!(timers.sleep_until(Instant::NEVER)));
            let woken = select(woken, never);
            timers.timeout_at(Instant::NEVER, woken).await.expect("it is woken");
            timers.timeout_at(timers.now() + Duration::from_micros(1), queue.wait()).await.expect_err("it is late");
            join(nap(), nap()).await;
        },
        |polls| {
            if polls == 3 {
                queue.wake_one();
            } else {
                bench.machine().turn_clock(Duration::from_micros(1));
                executor.alarm();
                executor.run_one();
            }
        },
        |_| {
            assert!(queue.is_empty());
            // A timer that was left behind would have the alarm set for it again when it rings.
            bench.advance(Duration::from_millis(1));
            assert_eq!(bench.machine().alarm(), None);
        },
    );
    assert_eq!(polls, 6);
}

#[test]
fn a_task_that_is_waited_for() {
    let bench = Bench::new();
    let polls = cancel_at_every_await(
        || async {
            for number in 0..2 {
                let child = bench.start(async move {
                    yield_now().await;
                    number
                });
                assert_eq!(child.await, number);
            }
        },
        |_| bench.settle(),
        |_| {
            bench.settle();
            assert_eq!(bench.executor().task_count(), 0, "a task that nobody waits for goes on to its end");
        },
    );
    assert_eq!(polls, 3);
}

/// Counts what it is told.
#[derive(Default)]
struct Told(AtomicUsize);

impl Observe for Told {
    fn notify(&self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_wait_beside_an_observer() {
    // As epoll waits: observers stay in the queues, the wait is for its own.
    let (queue, own, told) = (Arc::new(WaitQueue::new()), WaitQueue::new(), Arc::new(Told::default()));
    let polls = cancel_at_every_await(
        || {
            let observer = Box::pin(Observer::new(Arc::clone(&queue), Arc::clone(&told) as Arc<dyn Observe>));
            let own = &own;
            async move {
                observer.as_ref().register();
                own.wait().await;
                own.wait().await;
            }
        },
        |_| {
            queue.wake_one();
            own.wake_one();
        },
        |_| assert!(queue.is_empty() && own.is_empty(), "it has left"),
    );
    assert_eq!(polls, 3);
    assert_eq!((told.0.load(SeqCst), Arc::strong_count(&told), Arc::strong_count(&queue)), (5, 1, 1));
}

#[test]
fn a_value_that_is_made_once() {
    let cell = conquer_once::spin::OnceCell::uninit();
    let made = AtomicUsize::new(0);
    let polls = cancel_at_every_await(
        || async {
            // Nothing is awaited while it is made, so there is no half-way.
            assert_eq!(*executor::sync::get_or_init(&cell, || made.fetch_add(1, SeqCst)), 0);
            yield_now().await;
            assert_eq!(*executor::sync::get_or_init(&cell, || made.fetch_add(1, SeqCst)), 0);
        },
        |_| (),
        |_| (),
    );
    assert_eq!((polls, made.load(SeqCst)), (2, 1));
}
