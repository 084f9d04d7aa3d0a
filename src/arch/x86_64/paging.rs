//! The x86_64 page-table entry, and the few instructions that tell the CPU about page tables.
//!
//! A table is 512 entries of eight bytes; four levels of them translate 48 bits of address (Intel SDM vol. 3, 4.5). The
//! entry format is plain data and is shared by `arch::host`, whose software walk reads the very same tables; only
//! [`activate`] and the flushes touch the hardware, and are counted.
//!
//! Bits that the hardware ignores carry what the kernel wants to know of a page:
//!
//! ```text
//!   bit  63  62..52   51..12          11     10         9          8        7   6  5  2  1  0
//!        NX  -        frame number    -      ANONYMOUS  UNCOUNTED  HIDDEN   -   D  A  U  W  P
//! ```
//!
//! * `UNCOUNTED`: the entry holds no reference on its frame (the shared zero page).
//! * `ANONYMOUS`: the frame belongs to no file; it is counted as anonymous memory.
//! * `HIDDEN`: with P clear, a page that is resident but may not be touched (`PROT_NONE`).
//!
//! Next: `src/mm/page_table.rs`, the tables made of these entries.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Entries in one table.
pub const ENTRIES: usize = 512;
/// Levels of tables: the root is level 3, a table whose entries are pages is level 0.
pub const LEVELS: usize = 4;
/// The first root index that belongs to the kernel: the upper half of the address space.
pub const KERNEL_ROOT_INDEX: usize = 256;
/// One past the last byte a user program can map: the last page below the non-canonical hole stays free, as on Linux.
pub const USER_END: usize = 0x0000_7fff_ffff_f000;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLED: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const HUGE: u64 = 1 << 7;
const HIDDEN: u64 = 1 << 8;
const UNCOUNTED: u64 = 1 << 9;
const ANONYMOUS: u64 = 1 << 10;
const NO_EXECUTE: u64 = 1 << 63;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// What a page may be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rights {
    /// It may be read at all; without this nothing else counts.
    pub read: bool,
    /// It may be written.
    pub write: bool,
    /// It may be executed.
    pub execute: bool,
}

impl Rights {
    /// What the `PROT_` bits of mmap(2) ask for. On x86 what can be written or executed can be read.
    pub const fn from_prot(prot: u32) -> Rights {
        Rights { read: prot & 7 != 0, write: prot & 2 != 0, execute: prot & 4 != 0 }
    }
}

/// One entry of a page table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Entry(u64);

impl Entry {
    /// Nothing here.
    pub const EMPTY: Entry = Entry(0);

    /// The entry whose bits are `bits`.
    pub const fn from_bits(bits: u64) -> Entry {
        Entry(bits)
    }

    /// The bits as the hardware sees them.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// A pointer to a lower table of a user space, with every right: the page's own entry decides.
    pub const fn table(physical: u64) -> Entry {
        Entry((physical & FRAME) | PRESENT | WRITABLE | USER | ACCESSED)
    }

    /// A pointer to a lower table of the kernel's half.
    pub const fn kernel_table(physical: u64) -> Entry {
        Entry((physical & FRAME) | PRESENT | WRITABLE | ACCESSED)
    }

    /// A kernel page, writable, never executable; `uncached` for device registers.
    pub const fn kernel_page(physical: u64, uncached: bool) -> Entry {
        let cache = if uncached { CACHE_DISABLED | WRITE_THROUGH } else { 0 };
        Entry((physical & FRAME) | PRESENT | WRITABLE | ACCESSED | DIRTY | NO_EXECUTE | cache)
    }

    /// A user page at `physical` with these rights; it owns a reference on the frame.
    pub const fn user_page(physical: u64, rights: Rights) -> Entry {
        Entry(physical & FRAME).with_rights(rights)
    }

    /// The same page with other rights.
    pub const fn with_rights(self, rights: Rights) -> Entry {
        let kept = self.0 & (FRAME | UNCOUNTED | ANONYMOUS);
        if !rights.read {
            return Entry(kept | HIDDEN);
        }
        let write = if rights.write { WRITABLE | DIRTY } else { 0 };
        let execute = if rights.execute { 0 } else { NO_EXECUTE };
        Entry(kept | PRESENT | USER | ACCESSED | write | execute)
    }

    /// The same entry, not writable: the next write faults.
    pub const fn write_protected(self) -> Entry {
        Entry(self.0 & !(WRITABLE | DIRTY))
    }

    /// The same entry, marked as memory that belongs to no file.
    pub const fn anonymous(self) -> Entry {
        Entry(self.0 | ANONYMOUS)
    }

    /// The same entry, marked as holding no reference on its frame.
    pub const fn uncounted(self) -> Entry {
        Entry(self.0 | UNCOUNTED)
    }

    /// Nothing at all is here.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The hardware translates through this entry.
    pub const fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// The entry names a frame, whether or not it may be touched.
    pub const fn is_resident(self) -> bool {
        self.0 & (PRESENT | HIDDEN) != 0
    }

    /// Writes are let through.
    pub const fn is_writable(self) -> bool {
        self.0 & (PRESENT | WRITABLE) == PRESENT | WRITABLE
    }

    /// Instructions may be fetched.
    pub const fn is_executable(self) -> bool {
        self.0 & PRESENT != 0 && self.0 & NO_EXECUTE == 0
    }

    /// Ring 3 may use it.
    pub const fn is_user(self) -> bool {
        self.0 & (PRESENT | USER) == PRESENT | USER
    }

    /// A page of 2 MiB or 1 GiB rather than a pointer to a lower table.
    pub const fn is_huge(self) -> bool {
        self.0 & (PRESENT | HUGE) == PRESENT | HUGE
    }

    /// The page belongs to no file.
    pub const fn is_anonymous(self) -> bool {
        self.0 & ANONYMOUS != 0
    }

    /// The entry owns a reference on its frame.
    pub const fn is_counted(self) -> bool {
        self.0 & UNCOUNTED == 0
    }

    /// The physical address it points to.
    pub const fn physical(self) -> u64 {
        self.0 & FRAME
    }
}

/// The index into the table of `level` that translates `address`.
pub const fn index(address: usize, level: usize) -> usize {
    (address >> (12 + 9 * level)) % ENTRIES
}

/// How many bytes one entry of a table of `level` covers.
pub const fn entry_span(level: usize) -> usize {
    1 << (12 + 9 * level)
}

#[cfg(target_os = "none")]
mod hardware {
    use core::arch::asm;

    use crate::arch::x86_64::DIRECT_MAP;

    /// Where the kernel sees the byte at a physical address of RAM.
    #[inline]
    pub fn direct_map(physical: u64) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut((DIRECT_MAP + physical) as usize)
    }

    /// The physical address of a byte that [`direct_map`] showed.
    #[inline]
    pub fn direct_map_physical(pointer: *mut u8) -> u64 {
        pointer.expose_provenance() as u64 - DIRECT_MAP
    }

    /// Makes `root` the page table of this CPU; every translation of user addresses is forgotten.
    #[inline]
    pub fn activate(root: u64) {
        // SAFETY: `root` is the physical address of a root table that mm made; every such table maps the kernel's half as
        // the boot table does, so the code and the stack in use stay mapped. Nothing in Rust's memory changes its address.
        unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) };
    }

    /// The root of this CPU's page table.
    #[inline]
    pub fn active_root() -> u64 {
        let root: u64;
        // SAFETY: reading CR3 has no effect.
        unsafe { asm!("mov {}, cr3", out(reg) root, options(nomem, nostack, preserves_flags)) };
        root & super::FRAME
    }

    /// Forgets this CPU's translation of the page at `address`.
    #[inline]
    pub fn flush_page(address: usize) {
        // SAFETY: forgetting a translation is always allowed; it is looked up again.
        unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags)) };
    }
}

#[cfg(not(target_os = "none"))]
use crate::arch::host as hardware;

pub use hardware::{active_root, direct_map, direct_map_physical};

static SWITCHES: AtomicU64 = AtomicU64::new(0);
static PAGE_FLUSHES: AtomicU64 = AtomicU64::new(0);

/// Counts one. Not a locked addition: a number for benchmarks may lose a count to another CPU.
#[inline]
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

/// How often a CPU was given a page table, or told to forget all user translations.
pub fn switches() -> u64 {
    SWITCHES.load(Relaxed)
}

/// How often a CPU was told to forget the translation of one page.
pub fn page_flushes() -> u64 {
    PAGE_FLUSHES.load(Relaxed)
}

/// Makes `root` the page table of this CPU; every translation of user addresses is forgotten.
#[inline]
pub fn activate(root: u64) {
    count(&SWITCHES);
    hardware::activate(root);
}

/// Forgets this CPU's translation of the page at `address`.
#[inline]
pub fn flush_page(address: usize) {
    count(&PAGE_FLUSHES);
    hardware::flush_page(address);
}

/// Forgets every user translation of this CPU.
#[inline]
pub fn flush_all() {
    activate(active_root());
}
