//! The thread that is being polled on each CPU: for those who are asked on its behalf but are not handed it, as terminals are.

use alloc::sync::Arc;

use executor::MAX_CPUS;
use executor::sync::SpinLock;

use super::thread::Thread;

static CURRENT: [SpinLock<Option<Arc<Thread>>>; MAX_CPUS] = [const { SpinLock::new(None) }; MAX_CPUS];

/// Says whose poll begins on this CPU, or that it has ended.
pub fn set(thread: Option<Arc<Thread>>) {
    let before = core::mem::replace(&mut *CURRENT[crate::arch::cpu_id()].lock(), thread);
    drop(before);
}

/// The thread that this CPU polls; `None` in the kernel's own tasks.
pub fn get() -> Option<Arc<Thread>> {
    CURRENT[crate::arch::cpu_id()].lock().clone()
}
