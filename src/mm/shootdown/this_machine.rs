//! This machine, as the shoot-down knows it.

use super::{Hardware, Shootdown};
use crate::arch::{self, paging};
use crate::mm::page_table;

/// Which CPU has which table loaded.
pub static SHOOTDOWN: Shootdown<ThisMachine> = Shootdown::new(ThisMachine);

/// This machine, as the shoot-down knows it.
pub struct ThisMachine;

impl Hardware for ThisMachine {
    #[inline]
    fn here(&self) -> usize {
        arch::cpu_id()
    }

    #[inline]
    fn count(&self) -> usize {
        arch::cpus_online()
    }

    fn loaded(&self) -> u64 {
        paging::active_root()
    }

    fn load(&self, root: u64) {
        paging::activate(root);
    }

    fn flush_page(&self, address: usize) {
        paging::flush_page(address);
    }

    fn kernel_root(&self) -> u64 {
        page_table::kernel_root()
    }

    fn interrupt(&self, cpu: usize) {
        arch::apic::send_shootdown(cpu);
    }

    fn pause(&self) {
        debug_assert!(arch::interrupts_are_on(), "a CPU waits for others with interrupts off");
        executor::sync::assert_no_lock_held();
        core::hint::spin_loop();
    }
}
