//! The rest of the machine on the developer's side, for `cargo test`: user mode, time, vector registers, the ways out.
//!
//! A user program is a list of steps, made by [`program`]: each changes the registers and ends in a trap. Its instruction pointer counts
//! them, two bytes a step, as long as the instruction `syscall`: so a call that is made again, a fork and a handler's return are what they
//! are on the bare machine. The clock stands still until a test moves it. Everything is one test thread's own, so tests do not
//! disturb each other.
//!
//! Next: `host.rs`, whose RAM and page tables these stand beside.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use abi::Errno;
use executor::Instant;

use super::x86_64::user_context::{Exception, Trap, UserContext, vector};
use super::x86_64::vector_layout::{
    LEGACY_SIZE, VectorLayout, area_of_frame, keep_legacy_only, mark_frame, reset, sanitize,
};

/// What a thread does in user mode before it traps: it changes its registers, and says why it comes back.
pub type Step = Box<dyn Fn(&mut UserContext) -> Trap>;

/// Bytes of a step: those of the instruction `syscall`, which a restarted call goes back by.
const STEP: u64 = 2;
/// Where the first program lies, and how far apart they are.
const PROGRAMS: u64 = 0x10_0000;

std::thread_local! {
    static LOADED: RefCell<Vec<Rc<Vec<Step>>>> = const { RefCell::new(Vec::new()) };
    static NOW: Cell<u64> = const { Cell::new(0) };
    static ALARM: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Makes a program; returns its entry point. A step may go elsewhere by changing RIP, which is that of the next step already.
pub fn program(steps: Vec<Step>) -> u64 {
    LOADED.with_borrow_mut(|loaded| {
        loaded.push(Rc::new(steps));
        loaded.len() as u64 * PROGRAMS
    })
}

/// Takes the next step of the program that the registers are in. Beyond its end the thread executes what is no instruction.
pub fn enter_user(context: &mut UserContext, leave: impl Fn() -> bool) -> Trap {
    if leave() {
        return Trap::Kick;
    }
    let (number, step) = ((context.rip / PROGRAMS).wrapping_sub(1), context.rip % PROGRAMS / STEP);
    let steps = LOADED.with_borrow(|loaded| loaded.get(number as usize).cloned());
    match steps.as_ref().and_then(|steps| steps.get(step as usize)) {
        Some(step) => {
            context.rip += STEP;
            step(context)
        }
        None => Trap::Error(Exception { vector: vector::INVALID_OPCODE, code: 0, address: context.rip as usize }),
    }
}

/// Asks whether there is nothing to do, and lets other threads run.
pub fn idle(nothing_to_do: &dyn Fn() -> bool) {
    if nothing_to_do() {
        std::thread::yield_now();
    }
}

/// How many CPUs share an address space: threads stand for CPUs, but each has its own.
pub fn cpus_online() -> usize {
    1
}

/// There are none, so none is kept from coming.
pub fn interrupts_are_on() -> bool {
    true
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
    use crate::arch::tsc_scale::TscParameters;

    /// How programs may read the clock: not at all.
    pub fn tsc_parameters() -> Option<TscParameters> {
        None
    }

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

/// The alarm, which a test lets ring, and interrupts between CPUs, which nobody hears.
pub mod apic {
    use executor::Instant;

    use super::ALARM;

    /// Sets the alarm.
    pub fn set_alarm(at: Option<Instant>) {
        ALARM.set(at);
    }

    /// What the alarm is set to; it is off from then on.
    pub fn take_alarm() -> Option<Instant> {
        ALARM.take()
    }

    /// Kicks nobody: there is one CPU.
    pub fn send_kick(_cpu: usize) {}

    /// Asks nobody: there is one CPU.
    pub fn send_shootdown(_cpu: usize) {}

    /// None.
    pub fn ipis_sent() -> u64 {
        0
    }
}

/// Interrupts, of which there are none.
pub mod irq {
    /// None.
    pub fn counts() -> impl Iterator<Item = (u8, Option<u32>, u64)> {
        core::iter::empty()
    }

    /// What a vector is for.
    pub fn name(_vector: u8) -> &'static str {
        "device"
    }
}

/// How deep the kernel's stacks have been.
pub mod stack_depth {
    use crate::arch::x86_64::stacks::StackKind;

    /// There are none.
    pub fn deepest(_cpu: usize) -> impl Iterator<Item = (StackKind, u64, u64)> {
        core::iter::empty()
    }
}

/// What the CPU is.
pub mod cpu_info {
    use alloc::string::String;

    /// Nothing in particular.
    pub fn describe(_cpu: usize, _count: usize) -> String {
        String::from("model name\t: the developer's own\n")
    }
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

    /// Bytes of the registers in a signal frame.
    pub fn frame_size() -> usize {
        LAYOUT.frame_size()
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

    /// Never: no CPU holds them.
    pub fn store_in_frame(&self, _to: usize) -> bool {
        false
    }

    /// Never: no CPU holds them.
    pub fn load_from_frame(&mut self, _from: usize) -> bool {
        false
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

    #[test]
    fn a_program_takes_its_steps_one_by_one_and_goes_back_by_its_instruction_pointer() {
        let entry = program(vec![
            Box::new(|context| {
                context.general.rax = 39;
                Trap::Syscall
            }),
            Box::new(|_| Trap::Tick),
        ]);
        let mut context = UserContext::new(entry, 0x7000_0000);
        assert_eq!(enter_user(&mut context, || true), Trap::Kick);
        assert_eq!(enter_user(&mut context, || false), Trap::Syscall);
        assert_eq!(enter_user(&mut context, || false), Trap::Tick);
        context.rip -= 4;
        assert_eq!(enter_user(&mut context, || false), Trap::Syscall);
        context.rip = entry + 4;
        assert!(matches!(
            enter_user(&mut context, || false),
            Trap::Error(Exception { vector: vector::INVALID_OPCODE, .. })
        ));
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
