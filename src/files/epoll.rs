//! epoll: watching many files at a cost that grows with what happens, not with what is watched (epoll(7)).
//!
//! Each watched file has an `Item` that observes the file's wait queue for good. A wake puts the item on the ready list and wakes
//! whoever waits; `epoll_wait` takes items off the list and only then looks at their files:
//!
//! ```text
//!   file: WaitQueue::wake ──► Item::notify ──► ready list ──► epoll_wait: poll the file, report, put back if level-triggered
//! ```
//!
//! An item keeps the file's operations alive but not its description: when the last descriptor is closed, the description tells its
//! watchers, and the item goes, as epoll(7) says it must.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::ops::Deref;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};

use abi::general;
use executor::sync::{Observe, Observer, SpinLock, WaitQueue};
use fs::file::Watcher;
use fs::{Errno, FileOps, OpenFile, PollEvents, Result};

/// What `epoll_ctl` takes and `epoll_wait` gives: events and the caller's own number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// `EPOLL*` bits.
    pub events: u32,
    /// Given back as it was given.
    pub data: u64,
}

/// Names a file's wait queue and keeps it alive.
struct QueueOf(Arc<dyn FileOps>);

impl Deref for QueueOf {
    type Target = WaitQueue;

    fn deref(&self) -> &WaitQueue {
        self.0.wait_queue().expect("a QueueOf is only made of a file with a queue")
    }
}

/// A watched file.
struct Item {
    key: Key,
    epoll: Weak<Epoll>,
    ops: SpinLock<Option<Arc<dyn FileOps>>>,
    wanted: SpinLock<Event>,
    is_on_list: AtomicBool,
    observer: SpinLock<Option<Pin<Box<Observer<QueueOf>>>>>,
}

/// Which file: the same description may be watched through several descriptors.
type Key = (i32, usize);

/// An epoll instance.
pub struct Epoll {
    items: SpinLock<BTreeMap<Key, Arc<Item>>>,
    ready: SpinLock<VecDeque<Arc<Item>>>,
    changed: WaitQueue,
}

/// So deep may epoll instances watch each other.
const NESTING_MAX: usize = 4;
/// The bits of a request that are no events.
const MODES: u32 = general::EPOLLET | general::EPOLLONESHOT | general::EPOLLWAKEUP | general::EPOLLEXCLUSIVE;

impl Default for Epoll {
    fn default() -> Epoll {
        Epoll {
            items: SpinLock::new(BTreeMap::new()),
            ready: SpinLock::new(VecDeque::new()),
            changed: WaitQueue::new(),
        }
    }
}

impl Item {
    fn poll(&self) -> u32 {
        let wanted = self.wanted.lock().events;
        let always = PollEvents::ERR | PollEvents::HUP;
        let Some(ops) = self.ops.lock().clone() else { return 0 };
        if wanted & !MODES == 0 {
            return 0; // one-shot, and used up
        }
        (ops.poll() & (PollEvents::from_bits_retain(wanted & !MODES) | always)).bits()
    }

    fn let_go(&self) {
        // The observer leaves the queue before the file may go.
        let observer = self.observer.lock().take();
        drop(observer);
        let ops = self.ops.lock().take();
        drop(ops);
    }
}

impl Observe for Item {
    fn notify(&self) {
        if let Some(epoll) = self.epoll.upgrade() {
            epoll.enqueue(self.key);
        }
    }
}

impl Watcher for Item {
    fn file_closed(&self) {
        if let Some(epoll) = self.epoll.upgrade() {
            epoll.items.lock().remove(&self.key);
        }
        self.let_go();
    }
}

impl Epoll {
    /// Puts an item on the ready list, if it is not there already.
    fn enqueue(&self, key: Key) {
        let Some(item) = self.items.lock().get(&key).cloned() else { return };
        if !item.is_on_list.swap(true, Ordering::AcqRel) {
            self.ready.lock().push_back(item);
        }
        self.changed.wake_all();
    }

    fn key(fd: i32, file: &Arc<OpenFile>) -> Key {
        (fd, Arc::as_ptr(file) as usize)
    }

    /// EPOLL_CTL_ADD.
    ///
    /// # Errors
    ///
    /// `EEXIST`: it is watched already. `EPERM`: it cannot be waited for. `ELOOP`: epoll instances that watch each other.
    pub fn add(self: &Arc<Self>, fd: i32, file: &Arc<OpenFile>, event: Event) -> Result<()> {
        if file.ops.wait_queue().is_none() {
            return Err(Errno::EPERM);
        }
        if let Some(other) = file.ops.as_any().downcast_ref::<EpollFile>()
            && other.0.depth(self, NESTING_MAX).is_none()
        {
            return Err(Errno::ELOOP);
        }
        let key = Epoll::key(fd, file);
        let item = Arc::new(Item {
            key,
            epoll: Arc::downgrade(self),
            ops: SpinLock::new(Some(file.ops.clone())),
            wanted: SpinLock::new(event),
            is_on_list: AtomicBool::new(false),
            observer: SpinLock::new(None),
        });
        {
            let mut items = self.items.lock();
            if items.contains_key(&key) {
                return Err(Errno::EEXIST);
            }
            items.insert(key, item.clone());
        }
        let watcher: Arc<dyn Watcher> = item.clone();
        file.add_watcher(&watcher);
        let observe: Arc<dyn Observe> = item.clone();
        let observer = Box::pin(Observer::new(QueueOf(file.ops.clone()), observe));
        observer.as_ref().register();
        *item.observer.lock() = Some(observer);
        // Registered first, looked at then: what happened before counts too.
        self.look_again(&item);
        Ok(())
    }

    /// How many levels of epoll are below this one; `None` if `above` is among them, or too many.
    fn depth(self: &Arc<Self>, above: &Arc<Epoll>, most: usize) -> Option<usize> {
        if Arc::ptr_eq(self, above) || most == 0 {
            return None;
        }
        let below: Vec<Arc<dyn FileOps>> =
            self.items.lock().values().filter_map(|item| item.ops.lock().clone()).collect();
        let mut deepest = 0;
        for ops in below {
            if let Some(other) = ops.as_any().downcast_ref::<EpollFile>() {
                deepest = deepest.max(1 + other.0.depth(above, most - 1)?);
            }
        }
        Some(deepest)
    }

    fn look_again(&self, item: &Arc<Item>) {
        if item.poll() != 0 {
            self.enqueue(item.key);
        }
    }

    /// EPOLL_CTL_MOD.
    ///
    /// # Errors
    ///
    /// `ENOENT`: it is not watched. `EINVAL`: EPOLLEXCLUSIVE.
    pub fn modify(&self, fd: i32, file: &Arc<OpenFile>, event: Event) -> Result<()> {
        if event.events & general::EPOLLEXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        let item = self.items.lock().get(&Epoll::key(fd, file)).cloned().ok_or(Errno::ENOENT)?;
        *item.wanted.lock() = event;
        self.look_again(&item);
        Ok(())
    }

    /// EPOLL_CTL_DEL.
    ///
    /// # Errors
    ///
    /// `ENOENT`: it is not watched.
    pub fn remove(&self, fd: i32, file: &Arc<OpenFile>) -> Result<()> {
        let item = self.items.lock().remove(&Epoll::key(fd, file)).ok_or(Errno::ENOENT)?;
        item.let_go();
        Ok(())
    }

    /// Takes up to `most` events.
    pub fn take(&self, most: usize) -> Vec<Event> {
        let mut taken = Vec::new();
        let mut again = Vec::new();
        // Each item at most once, or a level-triggered one would be found again and again.
        let waiting = self.ready.lock().len();
        for _ in 0..waiting {
            if taken.len() == most {
                break;
            }
            let Some(item) = self.ready.lock().pop_front() else { break };
            // Cleared before the file is looked at: what happens from now on puts the item back.
            item.is_on_list.store(false, Ordering::Release);
            let found = item.poll();
            if found == 0 {
                continue;
            }
            let mut wanted = item.wanted.lock();
            taken.push(Event { events: found, data: wanted.data });
            if wanted.events & general::EPOLLONESHOT != 0 {
                wanted.events &= MODES;
            } else if wanted.events & general::EPOLLET == 0 {
                drop(wanted);
                again.push(item);
            }
        }
        let mut ready = self.ready.lock();
        for item in again {
            if !item.is_on_list.swap(true, Ordering::AcqRel) {
                ready.push_back(item);
            }
        }
        taken
    }

    /// Woken whenever an item becomes ready.
    pub fn changed(&self) -> &WaitQueue {
        &self.changed
    }

    fn has_ready(&self) -> bool {
        let waiting: Vec<Arc<Item>> = self.ready.lock().iter().cloned().collect();
        waiting.iter().any(|item| item.poll() != 0)
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        for item in core::mem::take(&mut *self.items.lock()).into_values() {
            item.let_go();
        }
    }
}

/// An open epoll instance.
pub struct EpollFile(pub Arc<Epoll>);

impl FileOps for EpollFile {
    fn poll(&self) -> PollEvents {
        if self.0.has_ready() { PollEvents::IN | PollEvents::RDNORM } else { PollEvents::empty() }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.changed)
    }

    fn name(&self) -> alloc::string::String {
        "anon_inode:[eventpoll]".into()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
