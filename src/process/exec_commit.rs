//! The point of no return of exec: from a finished new program beside the old one to the new one alone.
//!
//! ```text
//!   begin_commit ──► outlive_other_threads ──► the old memory's last duties ──► swap
//!    no other thread  they are gone, this one    robust futexes, the word for     files, ids, handlers, memory, registers
//!    begins, execs    takes the first's number    the thread's end
//! ```
//!
//! Next: `signal.rs`.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use abi::general;
use fs::Credentials;

use super::deliver::AlternateStack;
use super::fd_table::FdTable;
use super::image::Image;
use super::process::SignalHandlers;
use super::table;
use super::thread::{RunningThread, View, attention};
use super::wait_event::Interruptible;
use crate::arch::{FaultRecord, UserContext};
use crate::mm::AddressSpace;

/// Everything that the commit needs, made beforehand: nothing is allocated from here on.
pub struct Prepared {
    /// The new program's memory.
    pub space: Arc<AddressSpace>,
    /// Its registers.
    pub context: UserContext,
    /// What is told of it.
    pub image: Arc<Image>,
    /// Whom it acts for.
    pub credentials: Arc<Credentials>,
    /// It may do what its caller may not.
    pub is_secure: bool,
    /// Others may look into it.
    pub is_dumpable: bool,
    /// personality(2).
    pub personality: u32,
    /// `comm`.
    pub name: [u8; 16],
    /// A descriptor table of its own, if the old one is shared.
    pub files: Option<Arc<FdTable>>,
    /// What it does about signals.
    pub handlers: Arc<SignalHandlers>,
}

impl RunningThread {
    /// The point of no return. From here on nothing fails; a kill ends the new program in its first step.
    pub(super) async fn commit(&mut self, prepared: Prepared) {
        self.outlive_other_threads().await;
        crate::syscall::futex::release_robust_list(self).await;
        self.let_go_of_child_tid().await;
        self.take_over_leader();
        self.process.timers.posix.clear();
        if let Some(files) = prepared.files {
            self.files = files;
        }
        while let Some(file) = self.files.remove_first_close_on_exec() {
            let _ = self.close_file(file).await;
        }
        let Prepared { space, context, image, credentials, name, handlers, .. } = prepared;
        self.permit.change_user(credentials.uid);
        self.credentials = credentials;
        self.personality.store(prepared.personality, Ordering::Relaxed);
        let old = core::mem::replace(&mut self.space, space);
        self.context = context;
        {
            let mut own = self.vector.lock();
            own.reset();
            own.restore();
        }
        self.alternate_stack = AlternateStack::NONE;
        self.saved_mask = None;
        self.restart = None;
        self.last_fault = FaultRecord::default();
        self.forget_rseq();
        *self.name.lock() = name;
        crate::trace::executed(self);
        let process = self.process.clone();
        process.set_handlers(handlers);
        let old_image = core::mem::replace(&mut *process.image.lock(), image);
        process.dumpable.store(u32::from(prepared.is_dumpable), Ordering::Relaxed);
        if prepared.is_secure {
            // Who asked for it cannot ask it of somebody else.
            process.parent_death_signal.store(0, Ordering::Relaxed);
        }
        process.has_executed.store(true, Ordering::Relaxed);
        process.exit_signal.store(general::SIGCHLD, Ordering::Relaxed);
        *self.view.lock() = Some(View {
            space: self.space.clone(),
            files: self.files.clone(),
            fs: self.fs.clone(),
            credentials: self.credentials.clone(),
        });
        self.release_borrowed_memory();
        drop(old_image);
        old.free().await;
    }

    /// The word that is cleared at the thread's end is cleared now, if others still use the memory it lies in: for them this is the end.
    async fn let_go_of_child_tid(&mut self) {
        // This half and the view hold the memory; more are those who share it.
        if Arc::strong_count(&self.space) > 2 {
            self.clear_child_tid().await;
        } else {
            self.shared().clear_child_tid.store(0, Ordering::Relaxed);
        }
    }

    /// Marks the point of no return and tells all other threads to end. False: the process is ending, or another thread was first; then this
    /// one is among those that are to end.
    pub(super) fn begin_commit(&self) -> bool {
        let threads = self.process.threads.lock();
        let mut signals = self.process.signals.lock();
        if signals.group_exit.is_some() || signals.is_executing {
            return false;
        }
        signals.is_executing = true;
        for other in threads.iter().filter(|other| !Arc::ptr_eq(other, self.shared())) {
            other.alert(attention::END);
        }
        true
    }

    /// Waits until all other threads of the process are gone.
    async fn outlive_other_threads(&self) {
        let process = self.process.clone();
        let is_alone = || (process.threads.lock().len() == 1).then_some(());
        // Even a kill waits for this: the other threads are on their way out.
        let _ = self.wait_event(&process.thread_events, Interruptible::No, None, is_alone).await;
        process.signals.lock().is_executing = false;
    }

    /// The process keeps its number whichever thread executes the program.
    fn take_over_leader(&self) {
        let (old, pid) = (self.tid(), self.process.pid);
        if old != pid {
            let shared = self.shared().clone();
            table::with(|table| {
                table.remove_thread(old);
                shared.tid.store(pid, Ordering::Relaxed);
                table.add_thread(pid, shared);
            });
        }
    }
}
