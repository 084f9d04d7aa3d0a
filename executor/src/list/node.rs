//! Nodes: places in a collection that are part of the futures that wait there.
//!
//! A [`Home`] is a collection behind a spin lock, a [`Node`] a pinned part of somebody's future. What the home may touch is in the
//! node's `inner`, and is touched under the home's lock only ([`Locked`]); the owner of the node has no other way to it either.
//! A node remembers the first home that it was brought to and is refused by every other one, so a wrong `Deref` is found before
//! it does harm. It takes itself out when it is dropped.
//!
//! These are the safe doors to the links: what uses them (sync/wait_queue.rs, sync/semaphore.rs, time/) has no unsafe code.
//! next: sync/wait_queue.rs.
//!
//! Exercise: a node is popped by `wake_one` on another CPU while its future is being dropped. Which line makes the drop
//! wait until the other CPU has finished with the value?

use core::{
    cell::UnsafeCell,
    marker::{PhantomData, PhantomPinned},
    ops::Deref,
    pin::Pin,
    ptr::{self, NonNull},
    sync::atomic::{AtomicPtr, Ordering},
};

use super::{Link, Links, List, Wheel};
use crate::sync::{Rank, SpinGuard, SpinLock};

/// What a [`Home`] can be made of.
pub(crate) trait Shape: Send {
    /// Takes `element` out.
    ///
    /// # Safety
    /// `element` is an element of this collection.
    unsafe fn remove(&mut self, element: Link);

    fn is_empty(&self) -> bool;
}

impl Shape for List {
    unsafe fn remove(&mut self, element: Link) {
        // SAFETY: the caller's promise is the same.
        unsafe { Self::remove(self, element) };
    }

    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl Shape for Wheel {
    unsafe fn remove(&mut self, element: Link) {
        // SAFETY: the caller's promise is the same.
        unsafe { Self::remove(self, element) };
    }

    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

/// A collection of nodes behind its spin lock. `T` is what each node carries.
#[derive(Debug)]
pub(crate) struct Home<S: Shape, T> {
    shape: SpinLock<S>,
    /// Values of `T` are reached from whichever thread holds the lock: `Home` is `Sync` if `T` is `Send`.
    values: PhantomData<SpinLock<T>>,
}

impl<S: Shape, T> Home<S, T> {
    #[cfg(not(loom))]
    #[inline]
    pub(crate) const fn new(rank: Rank, empty: S) -> Self {
        Self { shape: SpinLock::ordered(rank, empty), values: PhantomData }
    }

    #[cfg(loom)]
    #[inline]
    pub(crate) fn new(rank: Rank, empty: S) -> Self {
        Self { shape: SpinLock::ordered(rank, empty), values: PhantomData }
    }

    #[inline]
    pub(crate) fn lock(&self) -> Locked<'_, S, T> {
        Locked { home: self, shape: self.shape.lock() }
    }

    #[inline]
    fn address(&self) -> *mut () {
        ptr::from_ref(self).cast_mut().cast()
    }
}

impl<S: Shape, T> Drop for Home<S, T> {
    fn drop(&mut self) {
        if !self.shape.lock().is_empty() {
            // A node outlives its home only if a `Deref` has lied about which home it names.
            abort("a collection was dropped while nodes hang in it");
        }
    }
}

/// A place in a [`Home`], as part of the future (or other pinned thing) that wants to be found there.
#[derive(Debug)]
pub(crate) struct Node<Q, S, T>
where
    Q: Deref<Target = Home<S, T>>,
    S: Shape,
{
    home: Q,
    /// The home that this node has been seen with first, or null. `home` is a stranger's `Deref`, and may name another
    /// home each time it is asked; this word does not change, and is compared before anything is touched.
    owner: AtomicPtr<()>,
    /// Touched only under the lock of `owner`, or by the node's owner as long as `owner` is null.
    inner: UnsafeCell<Inner<T>>,
    _pinned: PhantomPinned,
}

/// What the home may touch.
#[derive(Debug)]
#[repr(C)]
struct Inner<T> {
    /// First: a [`Link`] is a pointer to `Inner`.
    links: Links,
    is_linked: bool,
    value: T,
}

// SAFETY: `inner` is reached under the lock of the one home that `owner` names (or exclusively), so a node may be moved to,
// and used from, another thread if its value may.
unsafe impl<Q: Deref<Target = Home<S, T>> + Send, S: Shape, T: Send> Send for Node<Q, S, T> {}
// SAFETY: as above; a shared node gives access to its value under that lock only.
unsafe impl<Q: Deref<Target = Home<S, T>> + Sync, S: Shape, T: Send> Sync for Node<Q, S, T> {}

impl<Q: Deref<Target = Home<S, T>>, S: Shape, T> Node<Q, S, T> {
    #[inline]
    pub(crate) const fn new(home: Q, value: T) -> Self {
        Self {
            home,
            owner: AtomicPtr::new(ptr::null_mut()),
            inner: UnsafeCell::new(Inner { links: Links::new(), is_linked: false, value }),
            _pinned: PhantomPinned,
        }
    }

    /// The home that this node belongs to.
    #[inline]
    pub(crate) fn home(&self) -> &Home<S, T> {
        &self.home
    }

    /// What names the home.
    pub(crate) fn home_handle(&self) -> &Q {
        &self.home
    }

    /// Whether the node has been in its home's hands since it was made or [retired](Locked::retire).
    #[inline]
    pub(crate) fn is_claimed(&self) -> bool {
        // Relaxed: asked by the node's owner, who alone claims and retires it.
        !self.owner.load(Ordering::Relaxed).is_null()
    }
}

impl<Q: Deref<Target = Home<S, T>>, S: Shape, T> Drop for Node<Q, S, T> {
    fn drop(&mut self) {
        let owner = *self.owner.get_mut();
        if owner.is_null() {
            return;
        }
        if self.home.address() != owner {
            abort("a node's home is not the one that it hangs in");
        }
        let mut locked = self.home.lock();
        // The lock is taken even if the node is no longer linked: whoever popped it may still be using its value.
        // SAFETY: the pointer comes from a cell, and is not null. (Not `get_mut`: the home has pointers to it.)
        let inner = unsafe { NonNull::new_unchecked(self.inner.get()) };
        // SAFETY: the node is this home's, whose lock is held.
        if unsafe { (*inner.as_ptr()).is_linked } {
            // SAFETY: it is linked, and `owner` says that it is in this home.
            unsafe { locked.shape.remove(inner.cast()) };
        }
    }
}

/// A [`Home`] whose lock is held: the only way to its nodes.
#[derive(Debug)]
pub(crate) struct Locked<'h, S: Shape, T> {
    home: &'h Home<S, T>,
    shape: SpinGuard<'h, S>,
}

/// What to do with the node just visited, and with the visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visit {
    /// Leave the node in, go on with the next.
    Keep,
    /// Take the node out, go on with the next.
    Remove,
    /// Take the node out and stop.
    RemoveAndStop,
    /// Leave the node in and stop.
    Stop,
}

impl<S: Shape, T> Locked<'_, S, T> {
    /// What `node` carries.
    ///
    /// # Panics
    /// If the node belongs to another home.
    #[inline]
    pub(crate) fn value<'a, Q: Deref<Target = Home<S, T>>>(&'a mut self, node: Pin<&'a Node<Q, S, T>>) -> &'a mut T {
        let inner = self.claim(node);
        // SAFETY: the node is this home's, the lock is held, and `self` stays borrowed exclusively as long as the value is.
        unsafe { &mut (*inner.as_ptr()).value }
    }

    /// Whether `node` is in the collection.
    #[inline]
    pub(crate) fn is_linked<Q: Deref<Target = Home<S, T>>>(&mut self, node: Pin<&Node<Q, S, T>>) -> bool {
        let inner = self.claim(node);
        // SAFETY: the node is this home's, and the lock is held.
        unsafe { (*inner.as_ptr()).is_linked }
    }

    /// Takes `node` out, if it is in. Says whether it was.
    pub(crate) fn remove<Q: Deref<Target = Home<S, T>>>(&mut self, node: Pin<&Node<Q, S, T>>) -> bool {
        let inner = self.claim(node);
        // SAFETY: the node is this home's, and the lock is held.
        let was_linked = unsafe { core::mem::replace(&mut (*inner.as_ptr()).is_linked, false) };
        if was_linked {
            // SAFETY: it was linked, and no node is ever linked into a home that is not its owner.
            unsafe { self.shape.remove(inner.cast()) };
        }
        was_linked
    }

    /// Takes `node` out and forgets it: dropping it will not need the lock any more.
    pub(crate) fn retire<Q: Deref<Target = Home<S, T>>>(&mut self, node: Pin<&Node<Q, S, T>>) {
        self.remove(node);
        // Release: pairs with the Acquire in claim(): what was done under this home's lock comes before what another home does.
        node.get_ref().owner.store(ptr::null_mut(), Ordering::Release);
    }

    /// Ties `node` to this home, for as long as it lives or until it is retired.
    #[inline]
    fn claim<Q: Deref<Target = Home<S, T>>>(&self, node: Pin<&Node<Q, S, T>>) -> NonNull<Inner<T>> {
        let here = self.home.address();
        let node = node.get_ref();
        // Acquire: pairs with the Release in retire(). As long as it is the same home, its lock orders everything.
        let owner = node.owner.load(Ordering::Acquire);
        if owner != here {
            let first = owner.is_null()
                && ptr::eq(&raw const *node.home, self.home)
                && node.owner.compare_exchange(owner, here, Ordering::Acquire, Ordering::Relaxed).is_ok();
            assert!(first, "a node was brought to a home that is not its own");
        }
        // SAFETY: the pointer comes from a cell, and is not null.
        unsafe { NonNull::new_unchecked(node.inner.get()) }
    }

    /// Marks `node` as linked. None if it is linked already.
    #[inline]
    fn admit<Q: Deref<Target = Home<S, T>>>(&mut self, node: Pin<&Node<Q, S, T>>) -> Option<Link> {
        let inner = self.claim(node);
        // SAFETY: the node is this home's, and the lock is held.
        let was_linked = unsafe { core::mem::replace(&mut (*inner.as_ptr()).is_linked, true) };
        (!was_linked).then(|| inner.cast())
    }

    /// The value of an element that has been taken out.
    ///
    /// # Safety
    /// `element` was in this home until now.
    unsafe fn dismiss(&mut self, element: Link) -> &mut T {
        let inner = element.cast::<Inner<T>>();
        // SAFETY: elements of this home are nodes that carry a `T`; their owner cannot free them before the lock is released.
        unsafe {
            (*inner.as_ptr()).is_linked = false;
            &mut (*inner.as_ptr()).value
        }
    }
}

impl<T> Locked<'_, List, T> {
    /// Appends `node`, unless it is in the list already.
    pub(crate) fn push_back<Q: Deref<Target = Home<List, T>>>(&mut self, node: Pin<&Node<Q, List, T>>) {
        if let Some(element) = self.admit(node) {
            // SAFETY: it was in no list; it is pinned, and takes itself out before it is dropped.
            unsafe { self.shape.push_back(element) };
        }
    }

    /// Puts `node` at the front, unless it is in the list already.
    pub(crate) fn push_front<Q: Deref<Target = Home<List, T>>>(&mut self, node: Pin<&Node<Q, List, T>>) {
        if let Some(element) = self.admit(node) {
            // SAFETY: it was in no list; it is pinned, and takes itself out before it is dropped.
            unsafe { self.shape.push_front(element) };
        }
    }

    /// Shows the values to `visit`, first to last, and does with each node what it says.
    pub(crate) fn visit(&mut self, mut visit: impl FnMut(&mut T) -> Visit) {
        let mut next = self.shape.head;
        while let Some(element) = next {
            // SAFETY: an element of this home, whose lock is held.
            next = unsafe { (*element.as_ptr()).next };
            // SAFETY: as above; the borrow ends before anything else looks at the node.
            let verdict = visit(unsafe { &mut (*element.cast::<Inner<T>>().as_ptr()).value });
            if matches!(verdict, Visit::Remove | Visit::RemoveAndStop) {
                // SAFETY: it is an element of this list.
                unsafe {
                    self.shape.remove(element);
                    self.dismiss(element);
                }
            }
            if matches!(verdict, Visit::RemoveAndStop | Visit::Stop) {
                return;
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.shape.is_empty()
    }
}

impl<T> Locked<'_, Wheel, T> {
    /// Puts `node` in at `key`, unless it is in already.
    #[inline]
    pub(crate) fn insert<Q: Deref<Target = Home<Wheel, T>>>(&mut self, node: Pin<&Node<Q, Wheel, T>>, key: u64) {
        if let Some(element) = self.admit(node) {
            // SAFETY: it was in no wheel; it is pinned, and takes itself out before it is dropped.
            unsafe { self.shape.insert(element, key) };
        }
    }

    /// No key is smaller than this.
    #[inline]
    pub(crate) fn first_key(&self) -> Option<u64> {
        self.shape.first_key()
    }

    /// Takes out the node with the smallest key, if that is at most `limit`. If there is none, [`Locked::first_key`] is
    /// afterwards more than `limit`.
    pub(crate) fn pop_up_to(&mut self, limit: u64) -> Option<&mut T> {
        let element = self.shape.pop_up_to(limit)?;
        // SAFETY: it was just taken out of this home.
        Some(unsafe { self.dismiss(element) })
    }
}

/// Ends everything: memory would be reached after it is freed. A panic would unwind, and free it.
#[cold]
fn abort(why: &'static str) -> ! {
    struct Bomb(&'static str);
    impl Drop for Bomb {
        fn drop(&mut self) {
            // A panic during a panic does not unwind any further.
            panic!("{}", self.0);
        }
    }
    let _bomb = Bomb(why);
    panic!("{why}");
}
