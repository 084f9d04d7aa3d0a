//! The rest of the machine on the developer's side, for `cargo test`: user mode, time, vector registers, the ways out.
//!
//! User mode is a script: [`script`] says what the next thread that enters it does and how it comes back. The clock stands still until
//! a test moves it. Everything is one test thread's own, so tests do not disturb each other.
//!
//! Next: `host.rs`, whose RAM and page tables these stand beside.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use abi::Errno;

use super::x86_64::user_context::{Trap, UserContext};
use super::x86_64::vector_layout::{
    LEGACY_SIZE, VectorLayout, area_of_frame, keep_legacy_only, mark_frame, reset, sanitize,
};

/// What a thread does in user mode: it changes its registers, and comes back with a reason.
pub type Visit = Box<dyn FnOnce(&mut UserContext) -> Trap>;

std::thread_local! {
    static SCRIPT: RefCell<VecDeque<Visit>> = const { RefCell::new(VecDeque::new()) };
    static NOW: Cell<u64> = const { Cell::new(0) };
}

/// Appends what the next thread in user mode does.
pub fn script(visit: impl FnOnce(&mut UserContext) -> Trap + 'static) {
    SCRIPT.with_borrow_mut(|visits| visits.push_back(Box::new(visit)));
}

/// Plays the next visit of the script; at its end the thread comes back at once, with nothing done.
pub fn enter_user(context: &mut UserContext, leave: impl Fn() -> bool) -> Trap {
    if leave() {
        return Trap::Kick;
    }
    match SCRIPT.with_borrow_mut(VecDeque::pop_front) {
        Some(visit) => visit(context),
        None => Trap::Kick,
    }
}

/// Asks whether there is nothing to do, and lets other threads run.
pub fn idle(nothing_to_do: &dyn Fn() -> bool) {
    if nothing_to_do() {
        std::thread::yield_now();
    }
}

/// Runs `work`; there are no interrupts.
pub fn interrupts_off<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// The same 32 bytes every time.
pub fn random_seed() -> [u8; 32] {
    [7; 32]
}

/// AT_HWCAP and AT_HWCAP2 of an ordinary CPU.
pub fn hardware_capabilities() -> (u64, u64) {
    (0x078b_fbff, 0)
}

/// AT_MINSIGSTKSZ.
pub fn smallest_signal_stack() -> usize {
    LAYOUT.smallest_signal_stack()
}

/// A clock that a test moves.
pub mod clock {
    use core::time::Duration;

    use executor::Instant;

    use super::NOW;

    /// Moves the clock.
    pub fn advance(by: Duration) {
        NOW.set(NOW.get() + by.as_nanos() as u64);
    }

    /// Nanoseconds since the test began.
    pub fn now_nanoseconds() -> u64 {
        NOW.get()
    }

    /// The time since the test began.
    pub fn now() -> Instant {
        Instant::from_nanos(now_nanoseconds())
    }

    /// A counter of one tick a nanosecond.
    pub fn ticks() -> u64 {
        now_nanoseconds()
    }

    /// How long so many ticks took.
    pub fn nanoseconds_of(ticks: u64) -> u64 {
        ticks
    }

    /// 2001-09-09, 01:46:40.
    pub fn wall_clock_at_boot() -> Duration {
        Duration::from_secs(1_000_000_000)
    }
}

/// Alarms and interrupts between CPUs, which nobody hears.
pub mod apic {
    use executor::Instant;

    /// Sets no alarm: a test moves the clock and the timers itself.
    pub fn set_alarm(_at: Option<Instant>) {}

    /// Kicks nobody: there is one CPU.
    pub fn send_kick(_cpu: usize) {}
}

/// The ways out. Each ends the test.
pub mod power {
    /// Power-off.
    pub fn off() -> ! {
        panic!("the machine was turned off")
    }

    /// Restart.
    pub fn reboot() -> ! {
        panic!("the machine was restarted")
    }

    /// Halt.
    pub fn halt() -> ! {
        panic!("the machine was halted")
    }

    /// Leave the emulator.
    pub fn exit(status: u8) -> ! {
        panic!("the machine was left with status {status}")
    }
}

/// What a CPU with AVX saves.
const LAYOUT: VectorLayout = VectorLayout { size: 832, features: 7, is_extended: true, mxcsr_mask: 0xffff };

/// A thread's vector registers; no CPU ever holds them.
pub struct VectorState {
    area: Vec<u8>,
}

impl VectorState {
    /// The state in which a program starts.
    ///
    /// # Errors
    /// None here; `ENOMEM` on the bare machine.
    pub fn fresh() -> Result<VectorState, Errno> {
        let mut area = alloc::vec![0; LAYOUT.size];
        reset(&mut area);
        Ok(VectorState { area })
    }

    /// A copy, for a new thread.
    ///
    /// # Errors
    /// None here; `ENOMEM` on the bare machine.
    pub fn try_clone(&self) -> Result<VectorState, Errno> {
        Ok(VectorState { area: self.area.clone() })
    }

    /// The registers.
    pub fn bytes(&self) -> &[u8] {
        &self.area
    }

    /// Makes it what a program starts with.
    pub fn reset(&mut self) {
        reset(&mut self.area);
    }

    /// The registers as a signal frame holds them.
    ///
    /// # Errors
    /// None here; `ENOMEM` on the bare machine.
    pub fn to_signal_frame(&self) -> Result<Vec<u8>, Errno> {
        let mut frame = self.area.clone();
        frame.resize(LAYOUT.frame_size(), 0);
        mark_frame(&mut frame, &LAYOUT);
        Ok(frame)
    }

    /// Takes registers back from a signal frame, as on the bare machine.
    ///
    /// # Errors
    /// `EINVAL`: less than 512 bytes.
    pub fn load(&mut self, frame: &[u8]) -> Result<(), Errno> {
        let legacy = frame.get(..LEGACY_SIZE).ok_or(Errno::EINVAL)?;
        match area_of_frame(frame, &LAYOUT) {
            Some(whole) => self.area.copy_from_slice(whole),
            None => {
                self.area[..LEGACY_SIZE].copy_from_slice(legacy);
                keep_legacy_only(&mut self.area, &LAYOUT);
            }
        }
        sanitize(&mut self.area, &LAYOUT);
        Ok(())
    }

    /// Whether the CPU's registers are this state's: never.
    pub fn is_loaded(&self) -> bool {
        false
    }

    /// Saves nothing.
    pub fn save(&mut self) {}

    /// Loads nothing.
    pub fn restore(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Call;

    #[test]
    fn a_scripted_thread_comes_back_as_it_was_told() {
        let mut context = UserContext::new(0x40_0000, 0x7000_0000);
        script(|context| {
            context.general.rax = 39;
            Trap::Syscall(context.call())
        });
        script(|_| Trap::Tick);
        assert_eq!(enter_user(&mut context, || true), Trap::Kick);
        assert_eq!(enter_user(&mut context, || false), Trap::Syscall(Call { number: 39, args: [0; 6] }));
        assert_eq!(enter_user(&mut context, || false), Trap::Tick);
        assert_eq!(enter_user(&mut context, || false), Trap::Kick);
    }

    #[test]
    fn vector_registers_survive_a_signal_frame() {
        let mut state = VectorState::fresh().expect("memory");
        let mut frame = state.to_signal_frame().expect("memory");
        frame[160] = 0x5a;
        frame[512] = 7;
        state.load(&frame).expect("a whole frame");
        assert_eq!((state.bytes()[160], state.bytes()[512]), (0x5a, 7));
        assert_eq!(state.load(&frame[..100]), Err(Errno::EINVAL));
        state.load(&frame[..LEGACY_SIZE]).expect("a legacy frame");
        assert_eq!((state.bytes()[160], state.bytes()[512]), (0x5a, 3));
    }
}
