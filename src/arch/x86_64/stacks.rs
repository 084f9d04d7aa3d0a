//! Where the kernel's stacks are, and which guard page an address hit.
//!
//! A CPU has one stack for everything the kernel does, one for the first few pushes of a trap from user mode, and one each for
//! the four exceptions that must not trust the current stack. They lie in the window at [`STACKS`], one slot of 1 MiB each; only
//! the top of a slot is mapped, so running over the end of a stack faults at once instead of eating a neighbour.
//!
//! ```text
//! slot base                                      slot end
//!   │ not mapped (guard) ............ │ the stack ▲ │ one page not mapped
//!                                                 └ top
//! ```
//!
//! Next: `boot_paging.rs`, which maps them; `descriptors.rs`, whose task state segment names them.

/// The window in which stacks are mapped.
pub const STACKS: u64 = 0xffff_c000_0000_0000;
const SLOT: u64 = 1 << 20;
const GUARD: u64 = 4096;
/// Slots kept for each CPU, more than there are kinds.
const SLOTS_PER_CPU: u64 = 8;
/// CPUs that the window can hold.
pub const MAX_CPUS: usize = 64;

/// What a stack is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StackKind {
    /// All kernel code.
    Main = 0,
    /// The frame of a trap from user mode, until the stub has stored it.
    TrapEntry = 1,
    /// IST 1.
    DoubleFault = 2,
    /// IST 2.
    Nmi = 3,
    /// IST 3.
    MachineCheck = 4,
    /// IST 4.
    Debug = 5,
}

/// All kinds, in the order of their slots.
pub const KINDS: [StackKind; 6] = [
    StackKind::Main,
    StackKind::TrapEntry,
    StackKind::DoubleFault,
    StackKind::Nmi,
    StackKind::MachineCheck,
    StackKind::Debug,
];

impl StackKind {
    /// How many bytes of it are mapped.
    pub const fn size(self) -> u64 {
        match self {
            StackKind::Main => 256 << 10,
            StackKind::DoubleFault => 32 << 10,
            StackKind::TrapEntry => 16 << 10,
            _ => 16 << 10,
        }
    }

    /// One past the highest byte of the stack of `cpu`.
    pub const fn top(self, cpu: u64) -> u64 {
        STACKS + (cpu * SLOTS_PER_CPU + self as u64 + 1) * SLOT - GUARD
    }

    /// The lowest byte of the stack of `cpu`.
    pub const fn bottom(self, cpu: u64) -> u64 {
        self.top(cpu) - self.size()
    }

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            StackKind::Main => "kernel stack",
            StackKind::TrapEntry => "trap entry stack",
            StackKind::DoubleFault => "double fault stack",
            StackKind::Nmi => "NMI stack",
            StackKind::MachineCheck => "machine check stack",
            StackKind::Debug => "debug stack",
        }
    }
}

/// An address in the stack window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackAddress {
    /// Whose stack it belongs to.
    pub cpu: u64,
    /// Which one.
    pub kind: StackKind,
    /// Whether it lies beyond the stack's end.
    pub is_guard: bool,
}

impl core::fmt::Display for StackAddress {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} of CPU {}", self.kind.name(), self.cpu)
    }
}

/// Which stack, or which stack's guard, `address` belongs to.
pub fn stack_at(address: u64) -> Option<StackAddress> {
    let slot = address.checked_sub(STACKS)? / SLOT;
    let (cpu, kind) = (slot / SLOTS_PER_CPU, *KINDS.get((slot % SLOTS_PER_CPU) as usize)?);
    if cpu >= MAX_CPUS as u64 {
        return None;
    }
    Some(StackAddress { cpu, kind, is_guard: !(kind.bottom(cpu)..kind.top(cpu)).contains(&address) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_below_a_stack_is_its_guard() {
        for cpu in [0, 7] {
            for kind in KINDS {
                let below = stack_at(kind.bottom(cpu) - 8).expect("inside the window");
                assert_eq!(below, StackAddress { cpu, kind, is_guard: true });
                let last = stack_at(kind.bottom(cpu)).expect("inside the window");
                assert!(!last.is_guard);
                assert!(stack_at(kind.top(cpu)).expect("inside the window").is_guard);
            }
        }
    }

    #[test]
    fn other_addresses_are_no_stack() {
        assert_eq!(stack_at(0x1000), None);
        assert_eq!(stack_at(0xffff_ffff_8010_0000), None);
        assert_eq!(stack_at(STACKS + 6 * SLOT), None);
    }

    #[test]
    fn stacks_begin_on_pages_and_leave_room_for_a_guard() {
        for kind in KINDS {
            assert_eq!(kind.bottom(0) % 4096, 0);
            assert!(kind.size() + 2 * GUARD <= SLOT);
            assert_eq!(kind.top(0) % 16, 0);
        }
    }
}
