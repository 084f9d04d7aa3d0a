//! The end of a thread and of a process.
//!
//! A thread ends itself: nobody else drops its future. What it held is given back here, in an order that others can rely on:
//! robust futexes are released while its memory is still there, then its memory and files go, then its number; the last thread
//! of a process makes a zombie of it and tells the parent.
//!
//! Next: `wait.rs`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::process::{ExitStatus, Process, Remains};
use super::send::{self, ChildNews};
use super::signal::Signal;
use super::table::{self, ThreadPermit};
use super::thread::{RunningThread, Thread, attention};
use crate::mm::address_space::AddressSpace;
use crate::syscall::futex;

impl RunningThread {
    /// exit(2): this thread ends on its way back to user mode, the others go on.
    pub fn begin_exit(&mut self, code: i32) {
        self.exit_code.store(code, Ordering::Relaxed);
        self.attention.fetch_or(attention::END, Ordering::AcqRel);
    }

    /// Gives everything back.
    pub async fn exit(mut self: Box<Self>) {
        futex::release_robust_list(&mut self).await;
        self.clear_child_tid().await;
        self.release_semaphores();
        self.close_all_files().await;
        self.release_borrowed_memory();
        let shared = self.shared().clone();
        if self.tid() == self.process.pid {
            let remains = Remains { name: *shared.name.lock(), credentials: self.credentials.clone(), permit: None };
            *self.process.remains.lock() = Some(remains);
        }
        *shared.view.lock() = None;
        let code = self.exit_code.load(Ordering::Relaxed);
        self.account();
        let (permit, space) = self.take_apart();
        space.free().await;
        if shared.tid() == shared.process.pid
            && let Some(remains) = shared.process.remains.lock().as_mut()
        {
            remains.permit = Some(permit);
        } else {
            drop(permit);
        }
        end_thread(&shared, code);
    }

    /// Drops everything but these.
    fn take_apart(self: Box<Self>) -> (ThreadPermit, Arc<AddressSpace>) {
        (self.permit, self.space)
    }

    /// Tells whoever waits for this thread's end at the address that set_tid_address(2) or clone(2) named.
    pub(super) async fn clear_child_tid(&mut self) {
        let address = self.clear_child_tid.swap(0, Ordering::Relaxed);
        if address != 0 {
            let space = self.space.clone();
            // A bad address is the program's own fault; there is nobody to tell.
            if space.write_user_bytes(address, &0u32.to_ne_bytes()).await.is_ok() {
                futex::wake_address(&space, address, 1).await;
            }
        }
    }

    /// Takes back what semop(2) did, if no other thread shares the list.
    pub fn release_semaphores(&mut self) {
        if let Some(list) = self.semaphore_undo.take() {
            list.release(self.process.pid);
        }
    }

    /// Closes the files if this was the table's last user; each close is awaited, for it may have to write to a device.
    async fn close_all_files(&mut self) {
        let files = core::mem::take(&mut self.files);
        if let Some(view) = self.shared().view.lock().as_mut() {
            view.files = self.files.clone();
        }
        // Of several threads that end at once, exactly one gets the table.
        let Some(files) = Arc::into_inner(files) else { return };
        while let Some(file) = files.remove_first(0, usize::MAX) {
            let _ = self.close_file(file).await;
        }
    }

    /// Lets the parent go on that lent its memory by vfork(2).
    pub fn release_borrowed_memory(&self) {
        if self.process.borrows_memory.swap(false, Ordering::AcqRel) {
            self.process.released_memory.wake_all();
        }
    }
}

fn end_thread(thread: &Arc<Thread>, code: i32) {
    crate::trace::exits(thread);
    let process = &thread.process;
    let tid = thread.tid();
    let removed = table::with(|table| table.remove_thread(tid));
    drop(removed);
    let (was_last, status) = {
        let mut threads = process.threads.lock();
        if let Some(place) = threads.iter().position(|other| Arc::ptr_eq(other, thread)) {
            threads.swap_remove(place);
        }
        let mut signals = process.signals.lock();
        if tid == process.pid {
            signals.leader_exit_code = code;
        }
        send::redirect(&signals, &threads);
        (threads.is_empty(), signals.group_exit.unwrap_or(ExitStatus::Exited(signals.leader_exit_code)))
    };
    process.thread_events.wake_all();
    if was_last {
        end_process(process, status);
    }
}

/// Whether a parent keeps its child's group from being orphaned: only then can the group be so without it.
fn connects(parent: &Process, child: &Process) -> bool {
    parent.group() != child.group() && parent.session() == child.session()
}

fn end_process(process: &Arc<Process>, status: ExitStatus) {
    if process.pid == 1 {
        panic!("init ended: {status:?}");
    }
    process.timers.disarm_all();
    if process.session() == process.pid {
        crate::devices::terminals().session_ended(process.pid);
    }
    let (adopted, reaper, group_was_connected) = table::with(|table| {
        let was_connected = table.process(process.parent()).is_some_and(|parent| connects(&parent, process));
        let reaper = table.reaper_of(process);
        *process.exit_status.lock() = Some(status);
        (table.adopt_children(process.pid, reaper), reaper, was_connected)
    });
    process.released_memory.wake_all();
    tell_reaper(&adopted, reaper);
    let left = adopted.iter().filter(|child| connects(process, child));
    let mut groups: alloc::vec::Vec<i32> = left.map(|child| child.group()).collect();
    if group_was_connected {
        groups.push(process.group());
    }
    groups.sort_unstable();
    groups.dedup();
    send::hang_up_if_orphaned_and_stopped(&groups);
    if send::notify_parent(process, ChildNews::Ended(status)) {
        table::with(|table| table.remove_process(process.pid));
    }
}

/// The adopting process hears of zombies among its new children as if they had ended just now.
fn tell_reaper(adopted: &[Arc<Process>], reaper: i32) {
    for child in adopted {
        child.exit_signal.store(Signal::SIGCHLD.number() as u32, Ordering::Relaxed);
        let ended = *child.exit_status.lock();
        if let Some(status) = ended
            && send::notify_parent(child, ChildNews::Ended(status))
        {
            table::with(|table| table.remove_process(child.pid));
        }
    }
    if !adopted.is_empty()
        && let Some(reaper) = table::process(reaper)
    {
        reaper.child_events.wake_all();
    }
}
