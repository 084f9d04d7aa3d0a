//! What becomes of signals: the one place where a thread looks at them, on its way back to user mode.
//!
//! Everything that makes a thread turn aside sets a bit of [`attention`]; with none set it is undisturbed, which is one load to find
//! out. Otherwise, in [`RunningThread::deliver_signals`], the thread ends, stops, or runs a handler. Whether an interrupted system
//! call fails with `EINTR` or is made again is decided here too, and only here:
//!
//! | the call returned | no handler runs | handler without SA_RESTART | handler with SA_RESTART |
//! |---|---|---|---|
//! | `ERESTARTSYS` | again | `EINTR` | again |
//! | `ERESTARTNOHAND` | again | `EINTR` | `EINTR` |
//! | `ERESTART_RESTARTBLOCK` | goes on by restart_syscall(2) | `EINTR` | `EINTR` |
//!
//! Next: `exit.rs`.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use abi::{Errno, Result, general};

use super::process::ExitStatus;
use super::send::{self, ChildNews};
use super::signal::{Action, DefaultAction, Origin, Signal, SignalInfo, SignalSet};
use super::table;
use super::thread::{Life, RunningThread, attention};
use super::wait_event::Interruptible;
use crate::arch::signal_frame::{FaultRecord, FrameContent, SignalFrame};
use crate::arch::{Exception, PageFault, VectorState, vector_layout};
use crate::mm::{Access, Fault, MakeRoom, try_box};
use crate::syscall::numbers;

/// A frame for a handler, on a stack that must be waited for.
struct UnwrittenFrame {
    frame: SignalFrame,
    bytes: [u8; SignalFrame::SIZE],
    uses_alternate: bool,
}

/// The alternative signal stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlternateStack {
    /// Its lowest address.
    pub base: usize,
    /// Its length.
    pub size: usize,
    /// `SS_DISABLE`, `SS_AUTODISARM`.
    pub flags: u32,
}

impl AlternateStack {
    /// None.
    pub const NONE: AlternateStack = AlternateStack { base: 0, size: 0, flags: general::SS_DISABLE };

    /// Whether a stack pointer lies on it.
    pub fn contains(&self, stack_pointer: usize) -> bool {
        stack_pointer > self.base && stack_pointer - self.base <= self.size
    }
}

/// What is to be done next.
enum Verdict {
    /// No signal is left.
    Nothing,
    /// The process ends.
    End(ExitStatus),
    /// The process has been stopped.
    Stopped(Signal),
    /// A handler is to run.
    Handle(SignalInfo, Action),
}

impl RunningThread {
    /// Whether nothing asks it to turn aside: the one question on every way back to user mode.
    #[inline]
    pub fn is_undisturbed(&self) -> bool {
        self.attention.load(Ordering::Acquire) == 0
    }

    /// Ends, stops, or arranges for a handler to run, if anything asks for it.
    pub async fn deliver_signals(&mut self) -> Life {
        loop {
            // Cleared before the queues are read: what is sent from now on sets the bits again. END stays.
            let seen = self.attention.fetch_and(attention::END, Ordering::AcqRel);
            if seen & attention::END != 0 {
                return Life::Ends;
            }
            if seen & attention::TRACE != 0 {
                crate::trace::look(self);
            }
            if seen & attention::PLACE != 0 {
                self.update_rseq(None).await;
            }
            if seen & attention::STOP != 0 {
                self.wait_while_stopped().await;
                continue;
            }
            match self.next_verdict() {
                Verdict::Nothing => break,
                Verdict::End(status) => send::end_group(&self.process, status),
                Verdict::Stopped(signal) => {
                    send::notify_parent(&self.process, ChildNews::Stopped(signal));
                }
                Verdict::Handle(info, action) => {
                    self.restart_or_interrupt(Some(&action));
                    self.run_handler(&info, &action).await;
                }
            }
        }
        self.restart_or_interrupt(None);
        if let Some(mask) = self.saved_mask.take() {
            self.set_blocked(mask);
        }
        Life::GoesOn
    }

    /// Takes signals until one asks for something to be done.
    fn next_verdict(&self) -> Verdict {
        let waiting = self.process.pending().union(self.signals.lock().pending.set());
        let may_stop = !waiting.intersection(SignalSet::STOPPING).is_empty();
        let is_orphaned = may_stop && table::with(|table| table.is_orphaned(self.process.group(), None));
        let threads = self.process.threads.lock();
        let mut shared = self.process.signals.lock();
        loop {
            let taken = {
                let mut own = self.signals.lock();
                let wanted = SignalSet(!own.blocked.0);
                own.pending.take(wanted).or_else(|| shared.pending.take(wanted))
            };
            let Some(mut info) = taken else { return Verdict::Nothing };
            self.process.timers.delivered(&mut info);
            let signal = info.signal;
            let action = self.process.action(signal);
            match (action.handler, signal.default_action()) {
                (Action::IGNORE, _) => {}
                (Action::DEFAULT, DefaultAction::Ignore | DefaultAction::Continue) => {}
                (Action::DEFAULT, DefaultAction::Terminate) => return Verdict::End(ExitStatus::Killed(signal)),
                (Action::DEFAULT, DefaultAction::Core) => return Verdict::End(ExitStatus::Dumped(signal)),
                (Action::DEFAULT, DefaultAction::Stop) => {
                    if is_orphaned && signal != Signal::SIGSTOP || shared.group_exit.is_some() {
                        continue;
                    }
                    shared.stopped_by = Some(signal);
                    shared.stop_is_news = true;
                    shared.continue_is_news = false;
                    for thread in threads.iter() {
                        thread.alert(attention::STOP);
                    }
                    return Verdict::Stopped(signal);
                }
                _ => return Verdict::Handle(info, action),
            }
        }
    }

    async fn wait_while_stopped(&mut self) {
        let process = self.process.clone();
        let is_running = || process.signals.lock().stopped_by.is_none().then_some(());
        // Only the end of the process interrupts this wait, and the caller looks for that next.
        let _ = self.wait_event(&process.thread_events, Interruptible::ByKill, None, is_running).await;
    }

    /// Decides what an interrupted call returns, once it is known whether a handler runs.
    fn restart_or_interrupt(&mut self, handler: Option<&Action>) {
        let Some(number) = self.call_to_restart.take().map(|number| number.get() as usize - 1) else { return };
        let result = -(self.context.general.rax as i64);
        let restarts = |errno: Errno| result == i64::from(errno.number());
        let again = match handler {
            None if restarts(Errno::ERESTART_RESTARTBLOCK) => Some(numbers::RESTART_SYSCALL),
            None => Some(number),
            Some(action) if restarts(Errno::ERESTARTSYS) && action.has(general::SA_RESTART) => Some(number),
            Some(_) => None,
        };
        match again {
            Some(number) => self.context.repeat_call(number),
            None => self.context.set_return_value(Errno::EINTR.as_return_value()),
        }
    }

    async fn run_handler(&mut self, info: &SignalInfo, action: &Action) {
        if action.has(general::SA_RESETHAND) {
            self.process.handlers().set(info.signal, Action::default());
        }
        // The handler interrupts a restartable sequence, which must not go on behind it.
        self.update_rseq(Some(info.signal)).await;
        let blocked = self.signals.lock().blocked;
        let old_mask = self.saved_mask.take().unwrap_or(blocked);
        let pushed = match self.push_frame_now(info, action, old_mask) {
            // Rare, and large: not a part of every thread.
            Ok(Some(frame)) => self.push_later(frame, info, action).await,
            outcome => outcome.map(|_| ()),
        };
        match pushed {
            Ok(()) => {
                let mut mask = blocked.union(action.mask);
                if !action.has(general::SA_NODEFER) {
                    mask.insert(info.signal);
                }
                self.set_blocked(mask);
            }
            // There is no room on the stack: the program cannot be told but by ending it, unless it handles SIGSEGV elsewhere.
            Err(_) => {
                if info.signal == Signal::SIGSEGV {
                    self.process.handlers().set(Signal::SIGSEGV, Action::default());
                }
                send::force(self.shared(), SignalInfo::kernel(Signal::SIGSEGV));
            }
        }
    }

    /// Has the handler run; returns the frame that it needs if that could not be written without waiting.
    fn push_frame_now(
        &mut self,
        info: &SignalInfo,
        action: &Action,
        old_mask: SignalSet,
    ) -> Result<Option<Box<UnwrittenFrame>>> {
        let on_alternate = self.alternate_stack.contains(self.context.rsp as usize);
        let uses_alternate =
            action.has(general::SA_ONSTACK) && self.alternate_stack.flags & general::SS_DISABLE == 0 && !on_alternate;
        let top = if uses_alternate {
            self.alternate_stack.base + self.alternate_stack.size
        } else {
            SignalFrame::below_red_zone(self.context.rsp as usize)
        };
        let frame = SignalFrame::place(top, VectorState::frame_size()).ok_or(Errno::EFAULT)?;
        if (uses_alternate || on_alternate) && frame.address < self.alternate_stack.base {
            return Err(Errno::EFAULT);
        }
        let mut stack_flags = self.alternate_stack.flags;
        if on_alternate {
            stack_flags |= general::SS_ONSTACK;
        }
        let content = FrameContent {
            context: &self.context,
            fault: self.last_fault,
            restorer: action.restorer,
            mask: old_mask.0,
            alternate_stack: (self.alternate_stack.base, stack_flags, self.alternate_stack.size),
            information: info.to_bytes(),
        };
        let bytes = frame.encode(&content);
        if !self.write_frame_now(&frame, &bytes) {
            return try_box(UnwrittenFrame { frame, bytes, uses_alternate }).map(Some);
        }
        self.enter_handler(&frame, uses_alternate, info, action);
        Ok(None)
    }

    fn enter_handler(&mut self, frame: &SignalFrame, uses_alternate: bool, info: &SignalInfo, action: &Action) {
        if uses_alternate && self.alternate_stack.flags & general::SS_AUTODISARM != 0 {
            self.alternate_stack = AlternateStack::NONE;
        }
        frame.enter_handler(&mut self.context, info.signal.number(), action.handler);
    }

    async fn push_later(&mut self, unwritten: Box<UnwrittenFrame>, info: &SignalInfo, action: &Action) -> Result<()> {
        let UnwrittenFrame { frame, bytes, uses_alternate } = &*unwritten;
        let vector = self.vector_frame()?;
        self.space.write_user_bytes(frame.address, bytes).await?;
        self.space.write_user_bytes(frame.vector_address, &vector).await?;
        self.enter_handler(frame, *uses_alternate, info, action);
        Ok(())
    }

    /// Writes a frame if the stack it goes to is there: no memory is needed then.
    fn write_frame_now(&self, frame: &SignalFrame, bytes: &[u8]) -> bool {
        let space = self.space.active();
        let mut vector = self.vector.lock();
        vector.save();
        space.write_bytes(frame.address, bytes).is_ok()
            && vector.frame_parts(|offset, part| space.write_bytes(frame.vector_address + offset, part).is_ok())
    }

    /// [`return_from_handler`](Self::return_from_handler), if the frame is there, and of a usual size.
    pub fn return_from_handler_now(&mut self) -> Option<usize> {
        let space = self.space.active();
        let frame = SignalFrame::of_return(&self.context);
        let mut bytes = [0; SignalFrame::SIZE];
        space.read_bytes(frame.address, &mut bytes).ok()?;
        let mut context = self.context;
        let (mask, vector_address, stack) = frame.decode(&bytes, &mut context);
        if vector_address == 0 {
            return None;
        }
        self.restore_vector_now(vector_address)?;
        self.context = context;
        self.come_back(mask, stack);
        Some(self.context.general.rax as usize)
    }

    /// Takes vector registers back from a frame, if it is there and of a usual size.
    fn restore_vector_now(&self, address: usize) -> Option<()> {
        let space = self.space.active();
        let mut legacy = [0; vector_layout::LEGACY_SIZE];
        space.read_bytes(address, &mut legacy).ok()?;
        let len = vector_layout::frame_len(&legacy);
        if len > legacy.len() {
            return self.restore_long_vector_now(address, len);
        }
        let mut vector = self.vector.lock();
        vector.load(&legacy).ok()?;
        vector.restore();
        Some(())
    }

    /// The same with more than SSE; apart, so that who has no more need not clear the room for it.
    #[inline(never)]
    fn restore_long_vector_now(&self, address: usize, len: usize) -> Option<()> {
        /// Room for AVX.
        const USUAL: usize = 1024;
        let mut area = [0; USUAL];
        let area = area.get_mut(..len)?;
        self.space.active().read_bytes(address, area).ok()?;
        let mut vector = self.vector.lock();
        vector.load(area).ok()?;
        vector.restore();
        Some(())
    }

    /// What a handler's end brings back beside registers.
    fn come_back(&mut self, mask: u64, (base, flags, size): (usize, u32, usize)) {
        self.set_blocked(SignalSet(mask));
        self.alternate_stack = AlternateStack { base, size, flags: flags & !general::SS_ONSTACK };
    }

    /// rt_sigreturn(2): goes back to where a handler interrupted the program. A frame that cannot be read is a SIGSEGV.
    pub async fn return_from_handler(&mut self) -> Result<usize> {
        let frame = SignalFrame::of_return(&self.context);
        let mut bytes = [0; SignalFrame::SIZE];
        let restored = self.space.read_user_bytes(frame.address, &mut bytes).await;
        let restored = match restored {
            Ok(()) => {
                let (mask, vector_address, stack) = frame.decode(&bytes, &mut self.context);
                self.come_back(mask, stack);
                self.restore_vector_frame(vector_address).await
            }
            Err(errno) => Err(errno),
        };
        if restored.is_err() {
            send::force(self.shared(), SignalInfo::kernel(Signal::SIGSEGV));
        }
        // Whatever RAX was, it is not a result of this call, and nothing is to be restarted.
        Ok(self.context.general.rax as usize)
    }

    /// Takes vector registers back from a frame; an address of 0 stands for fresh ones.
    async fn restore_vector_frame(&mut self, address: usize) -> Result<()> {
        if address == 0 {
            self.vector.lock().reset();
        } else {
            let mut legacy = [0; vector_layout::LEGACY_SIZE];
            self.space.read_user_bytes(address, &mut legacy).await?;
            let len = vector_layout::frame_len(&legacy);
            let mut bytes = Vec::new();
            bytes.make_exact_room(len)?;
            bytes.resize(len, 0);
            self.space.read_user_bytes(address, &mut bytes).await?;
            self.vector.lock().load(&bytes)?;
        }
        self.vector.lock().restore();
        Ok(())
    }

    /// Which signals are blocked.
    pub fn blocked(&self) -> SignalSet {
        self.signals.lock().blocked
    }

    /// Changes which signals are blocked. One that was waiting and is not blocked any more is looked at before the thread returns to
    /// user mode.
    pub fn set_blocked(&self, mask: SignalSet) {
        let mask = mask.without(SignalSet::UNBLOCKABLE);
        let old = core::mem::replace(&mut self.signals.lock().blocked, mask);
        let refused = mask.without(old);
        if !self.process.pending().intersection(refused).is_empty() {
            let threads = self.process.threads.lock();
            send::redirect(&self.process.signals.lock(), &threads);
        }
        if self.has_signal() {
            self.attention.fetch_or(attention::SIGNAL, Ordering::AcqRel);
        }
    }

    /// Turns an exception of the CPU into the signal that Linux sends for it.
    pub fn raise(&mut self, exception: Exception) {
        let (signal, code) = exception.signal();
        self.last_fault = FaultRecord::from_exception(&exception);
        self.note_fault(&format_args!("trap {} (error {:#x})", exception.vector, exception.code));
        let origin = match code {
            Some(code) => Origin::Fault { code, address: exception.address },
            None => Origin::Kernel,
        };
        let signal = Signal::new(signal).unwrap_or(Signal::SIGSEGV);
        send::force(self.shared(), SignalInfo { signal, origin });
    }

    /// Says in the log what a program did that it has no handler for.
    fn note_fault(&self, what: &dyn core::fmt::Display) {
        if self.process.action(Signal::SIGSEGV).handler == Action::DEFAULT {
            let name = *self.name.lock();
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default().escape_ascii();
            let (rip, rsp) = (self.context.rip, self.context.rsp);
            log::info!("{name}[{}]: {what}, ip {rip:#x}, sp {rsp:#x}", self.tid());
        }
    }

    /// Brings in the page that the program touched, or sends the signal that says why it cannot be.
    pub async fn fault_in(&mut self, fault: PageFault) {
        let access = match fault {
            PageFault { execute: true, .. } => Access::Execute,
            PageFault { write: true, .. } => Access::Write,
            _ => Access::Read,
        };
        let Err(reason) = self.space.fault_in(fault.address, access).await else { return };
        self.last_fault = FaultRecord::from_page_fault(&fault);
        self.note_fault(&format_args!("{reason:?} at {:#x}", fault.address));
        let (signal, code) = match reason {
            Fault::Unmapped => (Signal::SIGSEGV, general::SEGV_MAPERR),
            Fault::Refused => (Signal::SIGSEGV, general::SEGV_ACCERR),
            Fault::Bus => (Signal::SIGBUS, general::BUS_ADRERR),
            Fault::OutOfMemory => return send::end_group(&self.process, ExitStatus::Killed(Signal::SIGKILL)),
        };
        let origin = Origin::Fault { code: code as i32, address: fault.address };
        send::force(self.shared(), SignalInfo { signal, origin });
    }
}
