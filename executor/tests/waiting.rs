//! Wait queues, events, mutexes, channels: nothing is lost, whatever is woken, dropped or given up when.

use std::{
    collections::VecDeque,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use executor::{
    Instant,
    sync::{
        Event, Mutex, Observe, Observer, RwLock, Semaphore, SpinLock, WaitQueue, Waiter, channel,
        channel::{SendError, TrySendError},
        wait_until,
    },
    testing::{Bench, WakeCounter, cancel_at_every_await, poll_once, with_seeds},
    yield_now,
};

/// How many schedules are tried.
const SEEDS: u64 = if cfg!(miri) { 3 } else { 200 };

fn counter() -> (Arc<WakeCounter>, Waker) {
    let counter = Arc::new(WakeCounter::default());
    let waker = Waker::from(Arc::clone(&counter));
    (counter, waker)
}

#[test]
fn a_wake_that_comes_before_the_first_poll_is_not_remembered() {
    let queue = WaitQueue::new();
    let mut wait = pin!(queue.wait());
    assert_eq!(queue.wake_one(), 0);
    assert!(poll_once(wait.as_mut(), Waker::noop()).is_pending());
    assert_eq!(queue.wake_one(), 1);
    assert!(poll_once(wait, Waker::noop()).is_ready());
}

#[test]
fn exclusive_waiters_are_woken_one_by_one_longest_first() {
    let queue = WaitQueue::new();
    let (mut first, mut second) = (pin!(queue.wait()), pin!(queue.wait()));
    assert!(poll_once(first.as_mut(), Waker::noop()).is_pending());
    assert!(poll_once(second.as_mut(), Waker::noop()).is_pending());
    queue.wake_one();
    assert!(poll_once(second.as_mut(), Waker::noop()).is_pending());
    assert!(poll_once(first.as_mut(), Waker::noop()).is_ready());
    queue.wake_one();
    assert!(poll_once(second.as_mut(), Waker::noop()).is_ready());
    assert!(queue.is_empty());
}

#[test]
fn every_wake_wakes_all_shared_waiters_and_as_many_exclusive_ones_as_it_says() {
    let queue = WaitQueue::new();
    let (count, waker) = counter();
    let mut exclusive: Vec<_> = (0..20).map(|_| Box::pin(queue.wait())).collect();
    let mut shared: Vec<_> = (0..20).map(|_| Box::pin(queue.wait_shared())).collect();
    for wait in exclusive.iter_mut().chain(&mut shared) {
        assert!(poll_once(wait.as_mut(), &waker).is_pending());
    }
    assert_eq!(queue.wake_n(3), 23);
    assert_eq!(count.count(), 23);
    assert!(shared.iter_mut().all(|wait| poll_once(wait.as_mut(), &waker).is_ready()));
    let ready: Vec<bool> = exclusive.iter_mut().map(|wait| poll_once(wait.as_mut(), &waker).is_ready()).collect();
    assert_eq!(ready, (0..20).map(|index| index < 3).collect::<Vec<_>>());
    assert_eq!(queue.wake_all(), 17);
    assert!(queue.is_empty());
}

#[test]
fn a_chosen_waiter_that_is_dropped_passes_the_wake_on() {
    let queue = WaitQueue::new();
    let mut first = Box::pin(queue.wait());
    let mut second = pin!(queue.wait());
    assert!(poll_once(first.as_mut(), Waker::noop()).is_pending());
    assert!(poll_once(second.as_mut(), Waker::noop()).is_pending());
    queue.wake_one();
    drop(first);
    assert!(poll_once(second.as_mut(), Waker::noop()).is_ready());
}

#[test]
fn a_waiter_that_looked_at_its_wake_does_not_pass_it_on() {
    let queue = WaitQueue::new();
    let mut first = Box::pin(queue.wait());
    let mut second = pin!(queue.wait());
    assert!(poll_once(first.as_mut(), Waker::noop()).is_pending());
    assert!(poll_once(second.as_mut(), Waker::noop()).is_pending());
    queue.wake_one();
    assert!(poll_once(first.as_mut(), Waker::noop()).is_ready());
    drop(first);
    assert!(poll_once(second.as_mut(), Waker::noop()).is_pending());
}

#[test]
fn a_registered_waiter_keeps_its_place_and_leaves_no_trace() {
    let queue = WaitQueue::new();
    let (count, waker) = counter();
    let context = Context::from_waker(&waker);
    let mut first = pin!(Waiter::exclusive(&queue));
    let mut second = pin!(Waiter::exclusive(&queue));
    first.as_mut().register(&context);
    second.as_mut().register(&context);
    first.as_mut().register(&context);
    queue.wake_one();
    assert!(first.as_mut().is_woken());
    assert!(!second.as_mut().is_woken());
    assert_eq!(count.count(), 1);
    // It was not looked at: leaving hands it on.
    first.as_mut().leave();
    assert!(second.as_mut().is_woken());
    second.as_mut().register(&context);
    second.as_mut().leave();
    assert!(queue.is_empty());
    assert_eq!(Arc::strong_count(&count), 2, "no waker is left behind");
}

#[test]
fn a_waiter_may_outlive_the_borrow_of_its_queue() {
    struct File(Arc<WaitQueue>);
    impl std::ops::Deref for File {
        type Target = WaitQueue;
        fn deref(&self) -> &WaitQueue {
            &self.0
        }
    }
    let queue = Arc::new(WaitQueue::new());
    let mut waiter = Box::pin(Waiter::exclusive(File(Arc::clone(&queue))));
    assert!(poll_once(waiter.as_mut(), Waker::noop()).is_pending());
    queue.wake_all();
    drop(queue);
    assert!(poll_once(waiter.as_mut(), Waker::noop()).is_ready());
}

/// Counts what it is told.
#[derive(Default)]
struct Told(AtomicUsize);

impl Observe for Told {
    fn notify(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn an_observer_is_told_of_each_wake_until_it_leaves() {
    let queue = Arc::new(WaitQueue::new());
    let told = Arc::new(Told::default());
    let observer = Box::pin(Observer::new(Arc::clone(&queue), Arc::clone(&told) as Arc<dyn Observe>));
    queue.wake_one();
    observer.as_ref().register();
    assert!(!queue.is_empty());
    queue.wake_one();
    queue.wake_all();
    assert_eq!(told.0.load(Ordering::SeqCst), 2);
    observer.as_ref().leave();
    queue.wake_all();
    assert_eq!(told.0.load(Ordering::SeqCst), 2);
    observer.as_ref().register();
    drop(observer);
    queue.wake_all();
    assert_eq!(told.0.load(Ordering::SeqCst), 2);
    assert!(queue.is_empty());
}

#[test]
fn one_wake_tells_each_of_many_observers_once_and_wakes_one_waiter() {
    let queue = Arc::new(WaitQueue::new());
    let told = Arc::new(Told::default());
    let observers: Vec<_> = (0..50)
        .map(|_| {
            let observer = Box::pin(Observer::new(Arc::clone(&queue), Arc::clone(&told) as Arc<dyn Observe>));
            observer.as_ref().register();
            observer
        })
        .collect();
    let (mut first, mut second) = (pin!(queue.wait()), pin!(queue.wait()));
    assert!(poll_once(first.as_mut(), Waker::noop()).is_pending());
    assert!(poll_once(second.as_mut(), Waker::noop()).is_pending());
    assert_eq!(queue.wake_one(), 51);
    assert_eq!(told.0.load(Ordering::SeqCst), 50);
    assert!(poll_once(first, Waker::noop()).is_ready());
    assert!(poll_once(second, Waker::noop()).is_pending());
    drop(observers);
}

#[test]
fn no_byte_and_no_wake_is_lost_between_readers_that_give_up() {
    with_seeds(SEEDS, |bench| {
        let executor = bench.executor();
        let (bytes, filled) = (Arc::new(SpinLock::new(VecDeque::new())), Arc::new(WaitQueue::new()));
        let read = Arc::new(AtomicUsize::new(0));
        for index in 0..12_u64 {
            let (bytes, filled, read) = (Arc::clone(&bytes), Arc::clone(&filled), Arc::clone(&read));
            bench.spawn(async move {
                let one = wait_until(&filled, || bytes.lock().pop_front());
                // Every third reader gives up at the very time at which bytes arrive.
                let deadline = if index % 3 == 0 { Instant::from_nanos(100) } else { Instant::NEVER };
                if executor.timeout_at(deadline, one).await.is_ok() {
                    read.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let writer = (Arc::clone(&bytes), Arc::clone(&filled));
        bench.spawn(async move {
            executor.sleep_until(Instant::from_nanos(100)).await;
            for byte in 0..8_u8 {
                writer.0.lock().push_back(byte);
                writer.1.wake_one();
                if byte % 3 == 0 {
                    yield_now().await;
                }
            }
        });
        bench.advance(Duration::from_secs(1));
        // 8 readers never give up: as long as a byte is left, one of them must have been woken for it.
        assert_eq!(read.load(Ordering::SeqCst), 8);
        assert!(bytes.lock().is_empty());
    });
}

#[test]
fn dropping_a_read_at_any_poll_loses_neither_bytes_nor_wakes() {
    let bytes = SpinLock::new(Vec::new());
    let filled = WaitQueue::new();
    let got = AtomicUsize::new(0);
    let given = AtomicUsize::new(0);
    let polls = cancel_at_every_await(
        || async {
            for _ in 0..3 {
                wait_until(&filled, || bytes.lock().pop()).await;
                got.fetch_add(1, Ordering::SeqCst);
            }
        },
        |_| {
            given.fetch_add(1, Ordering::SeqCst);
            bytes.lock().push(0_u8);
            filled.wake_one();
        },
        |_| {
            assert_eq!(given.load(Ordering::SeqCst), got.load(Ordering::SeqCst) + bytes.lock().len());
            assert!(filled.is_empty(), "no node is left behind");
        },
    );
    assert!(polls > 1);
}

#[test]
fn an_event_counts_what_comes_while_nobody_waits() {
    let event = Event::new();
    event.notify();
    event.notify();
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(event.poll_wait(&mut context), Poll::Ready(2));
    assert_eq!(event.poll_wait(&mut context), Poll::Pending);
    event.notify();
    assert_eq!(event.take(), 1);
    assert_eq!(event.take(), 0);
}

#[test]
fn an_event_wakes_its_waiter_and_a_dropped_wait_keeps_the_count() {
    let bench = Bench::new();
    let event = Arc::new(Event::new());
    let waiter = Arc::clone(&event);
    let handle = bench.start(async move { waiter.wait().await });
    bench.settle();
    event.notify();
    bench.settle();
    assert_eq!(handle.try_take(), Some(1));
    {
        let wait = pin!(event.wait());
        assert!(poll_once(wait, Waker::noop()).is_pending());
        event.notify();
    }
    assert_eq!(event.take(), 1);
}

#[test]
fn a_mutex_excludes_across_awaits_in_every_schedule() {
    with_seeds(SEEDS, |bench| {
        let mutex = Arc::new(Mutex::new(0));
        let inside = Arc::new(AtomicBool::new(false));
        for _ in 0..5 {
            let (mutex, inside) = (Arc::clone(&mutex), Arc::clone(&inside));
            bench.spawn(async move {
                for _ in 0..4 {
                    let mut guard = mutex.lock().await;
                    assert!(!inside.swap(true, Ordering::SeqCst));
                    yield_now().await;
                    *guard += 1;
                    inside.store(false, Ordering::SeqCst);
                }
            });
        }
        bench.settle();
        assert_eq!(*mutex.try_lock().expect("all have finished"), 20);
    });
}

#[test]
fn a_mutex_is_handed_to_whoever_has_waited_longest_and_cannot_be_snatched() {
    let mutex = Mutex::new(());
    let guard = mutex.try_lock().expect("it is free");
    let mut waiter = Box::pin(mutex.lock());
    assert!(poll_once(waiter.as_mut(), Waker::noop()).is_pending());
    drop(guard);
    assert!(mutex.try_lock().is_none(), "it is the waiter's already");
    assert!(poll_once(waiter.as_mut(), Waker::noop()).is_ready());
    assert!(mutex.try_lock().is_some());
}

#[test]
fn a_cancelled_waiter_hands_the_mutex_on() {
    let mutex = Mutex::new(());
    let guard = mutex.try_lock().expect("it is free");
    let mut first = Box::pin(mutex.lock());
    let mut second = Box::pin(mutex.lock());
    assert!(poll_once(first.as_mut(), Waker::noop()).is_pending());
    assert!(poll_once(second.as_mut(), Waker::noop()).is_pending());
    drop(guard);
    drop(first);
    assert!(poll_once(second.as_mut(), Waker::noop()).is_ready());
}

#[test]
fn dropping_a_lock_at_any_poll_leaves_the_mutex_usable() {
    let mutex = Mutex::new(0);
    let held = StdMutex::new(None);
    cancel_at_every_await(
        || {
            *held.lock().unwrap() = mutex.try_lock();
            async {
                *mutex.lock().await += 1;
                yield_now().await;
                *mutex.lock().await += 1;
            }
        },
        |_| drop(held.lock().unwrap().take()),
        |_| {
            drop(held.lock().unwrap().take());
            assert!(mutex.try_lock().is_some(), "nobody has it, so it is free");
        },
    );
}

#[test]
fn readers_share_writers_do_not_and_neither_starves_the_other() {
    let lock = RwLock::new(1);
    let (one, two) = (lock.try_read().expect("free"), lock.try_read().expect("readers share"));
    assert_eq!(*one + *two, 2);
    let mut writer = Box::pin(lock.write());
    assert!(poll_once(writer.as_mut(), Waker::noop()).is_pending());
    assert!(lock.try_read().is_none(), "a writer waits: later readers queue behind it");
    let mut reader = Box::pin(lock.read());
    assert!(poll_once(reader.as_mut(), Waker::noop()).is_pending());
    drop(one);
    assert!(poll_once(writer.as_mut(), Waker::noop()).is_pending());
    drop(two);
    let Poll::Ready(mut guard) = poll_once(writer.as_mut(), Waker::noop()) else { panic!("all readers have left") };
    *guard = 2;
    assert!(poll_once(reader.as_mut(), Waker::noop()).is_pending());
    drop(guard);
    let Poll::Ready(guard) = poll_once(reader.as_mut(), Waker::noop()) else { panic!("the writer has left") };
    assert_eq!(*guard, 2);
}

#[test]
fn a_claim_for_many_that_gives_up_lets_those_behind_it_through() {
    let semaphore = Semaphore::new(2);
    let mut many = Box::pin(semaphore.acquire(5));
    let mut few = Box::pin(semaphore.acquire(2));
    assert!(poll_once(many.as_mut(), Waker::noop()).is_pending());
    assert!(poll_once(few.as_mut(), Waker::noop()).is_pending(), "it does not overtake");
    drop(many);
    assert!(poll_once(few.as_mut(), Waker::noop()).is_ready());
    assert_eq!(semaphore.free(), 0);
    semaphore.release(2);
    assert_eq!(semaphore.free(), 2);
}

#[test]
fn a_release_of_many_permits_serves_more_than_one_batch() {
    let semaphore = Semaphore::new(0);
    let mut claims: Vec<_> = (0..30).map(|_| Box::pin(semaphore.acquire(1))).collect();
    assert!(claims.iter_mut().all(|claim| poll_once(claim.as_mut(), Waker::noop()).is_pending()));
    semaphore.release(31);
    assert!(claims.iter_mut().all(|claim| poll_once(claim.as_mut(), Waker::noop()).is_ready()));
    assert_eq!(semaphore.free(), 1);
}

#[test]
fn a_channel_keeps_order_and_holds_back_fast_senders_in_every_schedule() {
    with_seeds(SEEDS, |bench| {
        let (sender, mut receiver) = channel(2);
        for source in 0..3 {
            let sender = sender.clone();
            bench.spawn(async move {
                for number in 0..10 {
                    sender.send((source, number)).await.expect("the receiver is there");
                }
            });
        }
        drop(sender);
        let received = bench.block_on(async move {
            let mut received = Vec::new();
            while let Some(value) = receiver.receive().await {
                received.push(value);
            }
            received
        });
        for source in 0..3 {
            let numbers: Vec<_> = received.iter().filter(|value| value.0 == source).map(|value| value.1).collect();
            assert_eq!(numbers, (0..10).collect::<Vec<_>>());
        }
    });
}

#[test]
fn both_ends_of_a_channel_learn_that_the_other_is_gone() {
    let bench = Bench::new();
    let (sender, receiver) = channel(1);
    assert_eq!(sender.try_send(1), Ok(()));
    assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
    let waiting = sender.clone();
    let blocked = bench.start(async move { waiting.send(3).await });
    bench.settle();
    assert_eq!(blocked.try_take(), None);
    drop(receiver);
    bench.settle();
    assert_eq!(blocked.try_take(), Some(Err(SendError(3))));
    assert_eq!(sender.try_send(4), Err(TrySendError::Closed(4)));

    let (sender, mut receiver) = channel(4);
    sender.try_send(5).expect("there is room");
    drop(sender);
    assert_eq!(bench.block_on(async move { (receiver.receive().await, receiver.receive().await) }), (Some(5), None));
}

#[test]
fn dropping_a_send_at_any_poll_sends_the_value_once_or_not_at_all() {
    let (sender, receiver) = channel(1);
    let receiver = StdMutex::new(receiver);
    cancel_at_every_await(
        || {
            while receiver.lock().unwrap().try_receive().is_some() {}
            sender.try_send(0).expect("it was emptied");
            async { sender.send(1).await.expect("the receiver is there") }
        },
        |_| assert_eq!(receiver.lock().unwrap().try_receive(), Some(0)),
        |_| {
            let mut receiver = receiver.lock().unwrap();
            let left: Vec<u8> = std::iter::from_fn(|| receiver.try_receive()).collect();
            assert!(matches!(left[..], [] | [0] | [1] | [0, 1]), "{left:?}");
        },
    );
}

#[test]
fn waits_can_be_selected_from_and_joined_with_the_ordinary_combinators() {
    let bench = Bench::new();
    let queue = Arc::new(WaitQueue::new());
    let waiter = Arc::clone(&queue);
    let timers = bench.executor().timers();
    let handle = bench.start(async move {
        let both = futures_util::future::join(waiter.wait(), timers.sleep(Duration::from_secs(1)));
        let never: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(std::future::pending());
        futures_util::future::select(pin!(both), never).await;
        timers.now()
    });
    bench.settle();
    queue.wake_one();
    bench.advance(Duration::from_secs(2));
    assert_eq!(handle.try_take(), Some(Instant::from_nanos(1_000_000_000)));
}
