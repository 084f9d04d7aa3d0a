//! Segments, the task state segment and interrupt gates, as the CPU wants them encoded (Intel SDM volume 3, chapters 3 and 6).
//!
//! Segmentation is switched off in 64-bit mode but for a few bits; what is left is one code and one data segment for each ring, in
//! the order and with the selectors of Linux (programs see them in signal frames), and a task state segment that says which stacks
//! traps use. This file only encodes; `cpu.rs` keeps the tables and loads them.
//!
//! Next: `cpu.rs`.

use super::stacks::StackKind;

/// Ring 0 code. SYSCALL takes this and the next one.
pub const KERNEL_CODE: u16 = 0x10;
/// Ring 0 data.
pub const KERNEL_DATA: u16 = 0x18;
/// What SYSRET counts from: the place of a 32-bit code segment, which does not exist here.
pub const SYSRET_BASE: u16 = 0x23;
/// Ring 3 data, with its privilege level.
pub const USER_DATA: u16 = 0x2b;
/// Ring 3 code, with its privilege level.
pub const USER_CODE: u16 = 0x33;
/// The task state segment.
pub const TASK_STATE: u16 = 0x40;
/// A segment that nobody uses: its limit is the CPU's number, which ring 3 may ask for (LSL), with its privilege level.
pub const CPU_NUMBER: u16 = 0x7b;

const KERNEL_CODE_DESCRIPTOR: u64 = 0x00af_9b00_0000_ffff;
const KERNEL_DATA_DESCRIPTOR: u64 = 0x00cf_9300_0000_ffff;
const USER_DATA_DESCRIPTOR: u64 = 0x00cf_f300_0000_ffff;
const USER_CODE_DESCRIPTOR: u64 = 0x00af_fb00_0000_ffff;
/// Ring 3, read-only data, limit 0.
const CPU_NUMBER_DESCRIPTOR: u64 = 0x0040_f100_0000_0000;

/// The global descriptor table of one CPU.
#[repr(C, align(16))]
pub struct Gdt([u64; 16]);

impl Gdt {
    /// The table with everything but the task state segment.
    pub const fn new() -> Gdt {
        let mut table = [0; 16];
        table[(KERNEL_CODE / 8) as usize] = KERNEL_CODE_DESCRIPTOR;
        table[(KERNEL_DATA / 8) as usize] = KERNEL_DATA_DESCRIPTOR;
        table[(USER_DATA / 8) as usize] = USER_DATA_DESCRIPTOR;
        table[(USER_CODE / 8) as usize] = USER_CODE_DESCRIPTOR;
        Gdt(table)
    }

    /// Enters the task state segment that lies at `address`.
    pub const fn set_task_state(&mut self, address: u64) {
        let [low, high] = task_state_descriptor(address, size_of::<TaskState>() as u64 - 1);
        self.0[(TASK_STATE / 8) as usize] = low;
        self.0[(TASK_STATE / 8) as usize + 1] = high;
    }

    /// Enters the CPU's number, as the limit of [`CPU_NUMBER`]: 12 bits, as Linux has it.
    pub const fn set_cpu_number(&mut self, cpu: u64) {
        self.0[(CPU_NUMBER / 8) as usize] = CPU_NUMBER_DESCRIPTOR | cpu & 0xfff;
    }
}

impl Default for Gdt {
    fn default() -> Gdt {
        Gdt::new()
    }
}

/// The two words of a system descriptor: present, type 9 (64-bit task state, available).
const fn task_state_descriptor(address: u64, limit: u64) -> [u64; 2] {
    let low = limit & 0xffff
        | (address & 0xff_ffff) << 16
        | 0x89 << 40
        | (limit >> 16 & 0xf) << 48
        | (address >> 24 & 0xff) << 56;
    [low, address >> 32]
}

/// The task state segment: which stacks traps use. The I/O permission bitmap lies beyond its limit: ring 3 reaches no port.
#[repr(C, packed(4))]
pub struct TaskState {
    reserved0: u32,
    /// The stack for traps from ring 3.
    ring_stacks: [u64; 3],
    reserved1: u64,
    /// IST 1 to 7.
    interrupt_stacks: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    io_bitmap: u16,
}

impl TaskState {
    /// No stacks yet.
    pub const fn new() -> TaskState {
        TaskState {
            reserved0: 0,
            ring_stacks: [0; 3],
            reserved1: 0,
            interrupt_stacks: [0; 7],
            reserved2: 0,
            reserved3: 0,
            io_bitmap: size_of::<TaskState>() as u16,
        }
    }

    /// Enters the stacks of `cpu`.
    pub fn set_stacks(&mut self, cpu: u64) {
        self.ring_stacks = [StackKind::TrapEntry.top(cpu), 0, 0];
        let mut stacks = [0; 7];
        for kind in [StackKind::DoubleFault, StackKind::Nmi, StackKind::MachineCheck, StackKind::Debug] {
            stacks[interrupt_stack(kind) as usize - 1] = kind.top(cpu);
        }
        self.interrupt_stacks = stacks;
    }
}

impl Default for TaskState {
    fn default() -> TaskState {
        TaskState::new()
    }
}

/// The IST number of a stack; 0 for those that are not in that table.
pub const fn interrupt_stack(kind: StackKind) -> u8 {
    match kind {
        StackKind::DoubleFault => 1,
        StackKind::Nmi => 2,
        StackKind::MachineCheck => 3,
        StackKind::Debug => 4,
        StackKind::Main | StackKind::TrapEntry => 0,
    }
}

/// One entry of the interrupt descriptor table.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate([u64; 2]);

/// Who may raise a vector with an instruction (`int3`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum RaisedBy {
    /// Ring 0 only; from ring 3 it is a general protection fault.
    Kernel,
    /// Ring 3 too.
    Anyone,
}

impl Gate {
    /// Not present.
    pub const fn missing() -> Gate {
        Gate([0; 2])
    }

    /// An interrupt gate (interrupts off on entry) to `handler`, on the given IST stack (0: none).
    pub const fn interrupt(handler: u64, stack: u8, raised_by: RaisedBy) -> Gate {
        let privilege: u64 = match raised_by {
            RaisedBy::Kernel => 0,
            RaisedBy::Anyone => 3,
        };
        let low = handler & 0xffff
            | (KERNEL_CODE as u64) << 16
            | (stack as u64) << 32
            | (0x8e | privilege << 5) << 40
            | (handler >> 16 & 0xffff) << 48;
        Gate([low, handler >> 32])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_sizes_that_the_cpu_knows() {
        assert_eq!(size_of::<TaskState>(), 104);
        assert_eq!(size_of::<Gate>(), 16);
        assert_eq!(size_of::<Gdt>(), 128);
    }

    #[test]
    fn sysret_finds_the_user_segments() {
        assert_eq!(SYSRET_BASE + 16, USER_CODE);
        assert_eq!(SYSRET_BASE + 8, USER_DATA);
        assert_eq!(KERNEL_CODE + 8, KERNEL_DATA);
    }

    #[test]
    fn the_cpu_number_is_the_limit_of_a_segment_that_ring_three_may_look_at() {
        let mut table = Gdt::new();
        table.set_cpu_number(5);
        let descriptor = table.0[usize::from(CPU_NUMBER / 8)];
        assert_eq!(descriptor & 0xffff | descriptor >> 32 & 0xf_0000, 5);
        assert_eq!(descriptor >> 40 & 0xff, 0xf1, "present, ring 3, read-only data, accessed");
        assert_eq!(descriptor >> 55 & 1, 0, "the limit counts bytes");
    }

    #[test]
    fn a_gate_scatters_its_handler_over_three_fields() {
        let Gate([low, high]) = Gate::interrupt(0xffff_ffff_8123_4567, 2, RaisedBy::Kernel);
        assert_eq!(low, 0x8123_8e02_0010_4567);
        assert_eq!(high, 0xffff_ffff);
        let Gate([low, _]) = Gate::interrupt(0, 0, RaisedBy::Anyone);
        assert_eq!(low >> 40 & 0xff, 0xee);
    }

    #[test]
    fn a_task_state_descriptor_scatters_its_base_over_four_fields() {
        let [low, high] = task_state_descriptor(0xffff_ffff_8123_4560, 103);
        assert_eq!(low, 0x8100_8923_4560_0067);
        assert_eq!(high, 0xffff_ffff);
    }

    #[test]
    fn ring_three_reaches_no_port() {
        let state = TaskState::new();
        let io_bitmap = state.io_bitmap;
        assert!(usize::from(io_bitmap) >= size_of::<TaskState>());
    }

    #[test]
    fn exceptions_that_distrust_the_stack_have_one_of_their_own() {
        let mut state = TaskState::new();
        state.set_stacks(3);
        let stacks = state.interrupt_stacks;
        for kind in [StackKind::DoubleFault, StackKind::Nmi, StackKind::MachineCheck, StackKind::Debug] {
            assert_eq!(stacks[usize::from(interrupt_stack(kind)) - 1], kind.top(3));
        }
    }
}
