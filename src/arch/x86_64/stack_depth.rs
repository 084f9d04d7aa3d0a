//! How deep the kernel's stacks have ever been: their memory is zeroed when it is mapped, so the lowest word that is not zero is the mark.
//! It costs nothing until somebody asks. Next: `stacks.rs`.

use super::stacks::{KINDS, StackKind};

/// Which stack, how many of its bytes were ever used, and how many it has; for each stack of a CPU that is online.
pub fn deepest(cpu: usize) -> impl Iterator<Item = (StackKind, u64, u64)> {
    KINDS.into_iter().filter(move |_| cpu < super::smp::online()).map(move |kind| {
        let bottom = kind.bottom(cpu as u64) as *const u64;
        let words = kind.size() as usize / size_of::<u64>();
        // SAFETY: the stacks of a CPU that is online stay mapped; a word is read at a time, whatever the CPU does to it meanwhile.
        let untouched = (0..words).take_while(|index| unsafe { bottom.add(*index).read_volatile() } == 0).count();
        (kind, ((words - untouched) * size_of::<u64>()) as u64, kind.size())
    })
}
