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
use zerocopy::IntoBytes;

use super::process::ExitStatus;
use super::send::{self, ChildNews};
use super::signal::{Action, DefaultAction, Origin, Signal, SignalInfo, SignalSet};
use super::table;
use super::thread::{Life, RunningThread, attention};
use super::wait_event::Interruptible;
use crate::arch::signal_frame::{FaultRecord, FrameContent, FrameContext, FrameImage, SignalFrame};
use crate::arch::{Exception, PageFault, VectorState, vector_layout};
use crate::mm::user::UserPtr;
use crate::mm::{Access, Fault, MakeRoom, try_box};
use crate::syscall::numbers;

/// Where a handler's frame goes.
struct FramePlace {
    frame: SignalFrame,
    /// It begins the alternative stack.
    uses_alternate: bool,
    /// The interrupted function is on that already.
    on_alternate: bool,
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
                    if !self.run_handler_now(&info, &action) {
                        let signal = info.signal;
                        // Rare, and large: not a part of every thread.
                        let has_memory = match try_box(self.run_handler(info, action)) {
                            Ok(handler) => {
                                Box::into_pin(handler).await;
                                true
                            }
                            Err(_) => false,
                        };
                        if !has_memory {
                            self.give_up_handler(signal, &action);
                        }
                    }
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
        let (own, blocked) = {
            let own = self.signals.lock();
            (own.pending.set(), own.blocked)
        };
        let waiting = self.process.pending().union(own);
        if waiting.without(blocked).is_empty() {
            return Verdict::Nothing;
        }
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

    /// Has a handler run, if that needs no waiting; says whether.
    fn run_handler_now(&mut self, info: &SignalInfo, action: &Action) -> bool {
        // The handler interrupts a restartable sequence, which must not go on behind it.
        if !self.tell_rseq_now() {
            return false;
        }
        let blocked = self.blocked();
        let Ok(place) = self.place_frame(action) else { return false };
        let image = self.frame_image(&place, info, action, self.saved_mask.unwrap_or(blocked));
        if !self.write_frame_now(&place.frame, &image) {
            return false;
        }
        self.begin_handler(&place, info, action, blocked);
        true
    }

    /// Has a handler run, on a stack that must be waited for perhaps.
    async fn run_handler(&mut self, info: SignalInfo, action: Action) {
        self.update_rseq(Some(info.signal)).await;
        let blocked = self.blocked();
        match self.push_frame(&info, &action, self.saved_mask.unwrap_or(blocked)).await {
            Ok(place) => self.begin_handler(&place, &info, &action, blocked),
            Err(_) => self.give_up_handler(info.signal, &action),
        }
    }

    /// There is no room on the stack, or no memory: the program cannot be told but by ending it, unless it handles SIGSEGV elsewhere.
    fn give_up_handler(&mut self, signal: Signal, action: &Action) {
        self.saved_mask = None;
        self.reset_if_wanted(signal, action);
        if signal == Signal::SIGSEGV {
            self.process.handlers().set(Signal::SIGSEGV, Action::default());
        }
        send::force(self.shared(), SignalInfo::kernel(Signal::SIGSEGV));
    }

    /// Finds the place for a handler's frame. `EFAULT`: there is no room.
    fn place_frame(&self, action: &Action) -> Result<FramePlace> {
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
        Ok(FramePlace { frame, uses_alternate, on_alternate })
    }

    #[inline]
    fn frame_image(&self, place: &FramePlace, info: &SignalInfo, action: &Action, old_mask: SignalSet) -> FrameImage {
        let mut stack_flags = self.alternate_stack.flags;
        if place.on_alternate {
            stack_flags |= general::SS_ONSTACK;
        }
        place.frame.encode(&FrameContent {
            context: &self.context,
            fault: self.last_fault,
            restorer: action.restorer,
            mask: old_mask.0,
            alternate_stack: (self.alternate_stack.base, stack_flags, self.alternate_stack.size),
            information: info.to_bytes(),
        })
    }

    /// Its frame is written: lets the handler begin.
    fn begin_handler(&mut self, place: &FramePlace, info: &SignalInfo, action: &Action, blocked: SignalSet) {
        if place.uses_alternate && self.alternate_stack.flags & general::SS_AUTODISARM != 0 {
            self.alternate_stack = AlternateStack::NONE;
        }
        place.frame.enter_handler(&mut self.context, info.signal.number(), action.handler);
        self.saved_mask = None;
        self.reset_if_wanted(info.signal, action);
        let mut mask = blocked.union(action.mask);
        if !action.has(general::SA_NODEFER) {
            mask.insert(info.signal);
        }
        self.set_blocked(mask);
    }

    fn reset_if_wanted(&self, signal: Signal, action: &Action) {
        if action.has(general::SA_RESETHAND) {
            self.process.handlers().set(signal, Action::default());
        }
    }

    /// Writes a frame, once its stack is there.
    async fn push_frame(&mut self, info: &SignalInfo, action: &Action, old_mask: SignalSet) -> Result<FramePlace> {
        let place = self.place_frame(action)?;
        let image = self.frame_image(&place, info, action, old_mask);
        let vector = self.vector_frame()?;
        self.space.write_user(UserPtr::new(place.frame.address), &image).await?;
        self.space.write_user_bytes(place.frame.vector_address, &vector).await?;
        Ok(place)
    }

    /// Writes a frame if the stack it goes to is there: no memory is needed then.
    fn write_frame_now(&self, frame: &SignalFrame, image: &FrameImage) -> bool {
        let space = self.space.active();
        space.write(UserPtr::new(frame.address), image).is_ok()
            && space.store_vector(frame.vector_address, &self.vector.lock())
    }

    /// [`return_from_handler`](Self::return_from_handler), if the frame is there, and as the kernel wrote it.
    pub fn return_from_handler_now(&mut self) -> Option<usize> {
        let space = self.space.active();
        let frame = SignalFrame::of_return(&self.context);
        let mut image = FrameContext::default();
        space.read_bytes(frame.context_address(), image.as_mut_bytes()).ok()?;
        if image.vector_address() == 0 || !space.load_vector(image.vector_address(), &mut self.vector.lock()) {
            return None;
        }
        self.come_back(&image);
        Some(self.context.general.rax as usize)
    }

    /// What a handler's end brings back beside vector registers.
    fn come_back(&mut self, image: &FrameContext) {
        image.restore(&mut self.context);
        self.set_blocked(SignalSet(image.mask()));
        let (base, flags, size) = image.alternate_stack();
        self.alternate_stack = AlternateStack { base, size, flags: flags & !general::SS_ONSTACK };
    }

    /// rt_sigreturn(2): goes back to where a handler interrupted the program. A frame that cannot be read is a SIGSEGV.
    pub async fn return_from_handler(&mut self) -> Result<usize> {
        let frame = SignalFrame::of_return(&self.context);
        let restored = match self.get(UserPtr::new(frame.context_address())).await {
            Ok(image) => {
                self.come_back(&image);
                self.restore_vector_frame(image.vector_address()).await
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
        // Under both locks, so that a sender finds the new mask or is found here.
        let shared = self.process.signals.lock();
        let mut own = self.signals.lock();
        let old = core::mem::replace(&mut own.blocked, mask);
        let (for_all, for_me) = (shared.pending.set(), own.pending.set());
        drop(own);
        drop(shared);
        if for_all.union(for_me).is_empty() {
            return;
        }
        if !for_all.intersection(mask.without(old)).is_empty() {
            let threads = self.process.threads.lock();
            send::redirect(&self.process.signals.lock(), &threads);
        }
        if !for_all.union(for_me).without(mask).is_empty() {
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
