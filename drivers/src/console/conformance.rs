//! What every byte channel must do, as a suite that each driver runs on itself, over a fake of its device.
//!
//! Next: `../input.rs`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Waker};

use executor::sync::WaitQueue;

use super::ByteChannel;

/// A channel to be checked: connected, and empty both ways.
pub struct Subject {
    /// The channel.
    pub channel: Arc<dyn ByteChannel>,
    /// Sends from the other side as much as there is room for, and lets the driver learn of it. Returns how much it was.
    pub far_write: FarWrite,
    /// Takes what has arrived on the other side, and lets the driver learn that there is room again.
    pub far_read: Box<dyn FnMut() -> Vec<u8>>,
}

/// See [`Subject::far_write`].
pub type FarWrite = Box<dyn FnMut(&[u8]) -> usize>;

/// More than any channel holds.
const MUCH: usize = 300_000;

/// Runs the suite; panics where a channel fails it. Each part gets a fresh channel.
pub fn check(make: &mut dyn FnMut() -> Subject) {
    an_empty_channel_is_writable_and_not_readable(make());
    a_reader_that_pauses_loses_nothing(make());
    a_writer_is_stopped_when_it_is_full_and_nothing_is_lost(make());
    waiters_are_woken(make());
}

fn an_empty_channel_is_writable_and_not_readable(subject: Subject) {
    let channel = subject.channel;
    assert!(channel.is_connected() && channel.can_write() && !channel.can_read());
    assert_eq!((channel.try_read(&mut [0; 8]), channel.try_read(&mut []), channel.try_write(&[])), (0, 0, 0));
}

fn a_reader_that_pauses_loses_nothing(mut subject: Subject) {
    let bytes = pattern();
    let (mut sent, mut received) = (0, Vec::<u8>::new());
    let mut piece = vec![0; 777];
    while received.len() < bytes.len() {
        sent += (subject.far_write)(&bytes[sent..]);
        assert!(subject.channel.can_read(), "bytes were taken, but cannot be read");
        let len = subject.channel.try_read(&mut piece);
        received.extend(&piece[..len]);
    }
    assert!(received == bytes, "bytes were lost or changed");
    assert!(!subject.channel.can_read());
}

fn a_writer_is_stopped_when_it_is_full_and_nothing_is_lost(mut subject: Subject) {
    let bytes = pattern();
    let (mut sent, mut received) = (0, Vec::<u8>::new());
    while received.len() < bytes.len() {
        while sent < bytes.len() && subject.channel.can_write() {
            let len = subject.channel.try_write(&bytes[sent..]);
            assert!(len > 0, "it can be written, but takes nothing");
            sent += len;
        }
        assert!(sent == bytes.len() || subject.channel.try_write(&bytes[sent..]) == 0);
        assert!(received.len() < sent, "both sides wait");
        received.extend((subject.far_read)());
    }
    assert!(received == bytes, "bytes were lost or changed");
}

fn waiters_are_woken(mut subject: Subject) {
    let channel = subject.channel.clone();
    is_woken_by(channel.readable(), || _ = (subject.far_write)(b"x"));
    while channel.can_write() {
        channel.try_write(&[0; 1000]);
    }
    is_woken_by(channel.writable(), || while !channel.can_write() && !(subject.far_read)().is_empty() {});
}

fn is_woken_by(queue: &WaitQueue, change: impl FnOnce()) {
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let mut wait = pin!(queue.wait_shared());
    let waker = Waker::from(woken.clone());
    assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    change();
    assert!(woken.0.load(Ordering::Relaxed), "a wake was lost");
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn pattern() -> Vec<u8> {
    (0..MUCH).map(|index| (index * 31 + index / 251) as u8).collect()
}
