//! The kernel's own page tables, built once while booting.
//!
//! ```text
//! 0xffff_8000_0000_0000  direct map       all RAM, R W NX; the kernel's text and constants R NX    1 GiB / 2 MiB / 4 KiB pages
//! 0xffff_c000_0000_0000  stacks           guard pages between them (stacks.rs)                     4 KiB pages
//! 0xffff_d000_0000_0000  devices          uncached or write-combining, filled by map_device        4 KiB / 2 MiB pages
//! 0xffff_ffff_8000_0000  kernel image     text R X · constants R · data R W NX · symbols R         4 KiB pages
//! ```
//!
//! All entries of the root table's upper half exist from here on and never change, so an address space copies them once
//! ([`kernel_root`]) and sees every later device mapping. Nothing is mapped both writable and executable.
//!
//! Table memory comes from a [`Bump`] over one stretch of free RAM below 4 GiB; what it used is marked `Boot` afterwards. A pool of
//! tables for later device mappings is taken from it too ([`map_device`]).
//!
//! Next: `boot.rs`, which calls this; `paging.rs` for address spaces.

use core::ptr::NonNull;

use conquer_once::spin::OnceCell;
use executor::sync::SpinLock;

use super::cpu_features::CpuFeatures;
use super::entry::{DIRECT_MAP, KERNEL_BASE};
use super::instructions::read_cr3;
use super::memory_map::{MemoryMap, PAGE_SIZE, align_down, align_up};
use super::page_size::{GIB_1, MIB_2, largest_page};
use super::stacks::{KINDS, STACKS};

/// The window for device memory.
pub const DEVICES: u64 = 0xffff_d000_0000_0000;
const DEVICES_END: u64 = 0xffff_e000_0000_0000;
/// Tables kept for device mappings after boot: each covers 2 MiB of small mappings or 1 GiB of large ones.
const DEVICE_TABLES: usize = 24;

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// How a mapping may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    ReadWrite,
    ReadOnly,
    Execute,
    Device,
    WriteCombining,
}

/// Gives out zeroed pages from one stretch of RAM that both the boot tables and the final tables map.
pub struct Bump {
    next: u64,
    end: u64,
}

impl Bump {
    /// Gives out `[start, end)`, which must be free RAM below 4 GiB.
    pub fn new(start: u64, end: u64) -> Bump {
        Bump { next: start, end }
    }

    /// The first byte that has not been given out.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// `count` adjacent zeroed pages.
    pub fn pages(&mut self, count: u64) -> Option<u64> {
        let start = self.next;
        let len = count.checked_mul(PAGE_SIZE)?;
        let end = start.checked_add(len).filter(|&end| end <= self.end)?;
        self.next = end;
        // SAFETY: [start, end) is free RAM that nobody else uses (new's contract), mapped at DIRECT_MAP.
        unsafe { core::ptr::write_bytes((DIRECT_MAP + start) as *mut u8, 0, len as usize) };
        Some(start)
    }
}

/// Where zeroed table pages come from.
trait TableSource {
    fn table(&mut self) -> Option<u64>;
}

impl TableSource for Bump {
    fn table(&mut self) -> Option<u64> {
        self.pages(1)
    }
}

/// A four-level page table that is being built.
struct Tables {
    root: u64,
    no_execute: u64,
    global: u64,
    gib_pages: bool,
}

impl Tables {
    /// The entry at `index` of the table at physical address `table`.
    fn entry(table: u64, index: u64) -> *mut u64 {
        (DIRECT_MAP + table + (index & 511) * 8) as *mut u64
    }

    /// The table that entry `index` of `table` points to; made if there is none.
    fn descend(table: u64, index: u64, source: &mut dyn TableSource) -> Option<u64> {
        let entry = Self::entry(table, index);
        // SAFETY: `table` is a page table of ours in RAM below 4 GiB, mapped at DIRECT_MAP; the index is within it. Boot is
        // single-threaded and later callers hold the lock of DEVICE_WINDOW.
        let value = unsafe { entry.read_volatile() };
        if value & PRESENT != 0 {
            return (value & LARGE == 0).then_some(value & ADDRESS);
        }
        let below = source.table()?;
        // SAFETY: as above; the new table is zeroed, so nothing becomes mapped by this.
        unsafe { entry.write_volatile(below | PRESENT | WRITE) };
        Some(below)
    }

    fn flags(&self, access: Access) -> u64 {
        PRESENT
            | self.global
            | match access {
                Access::ReadWrite => WRITE | self.no_execute,
                Access::ReadOnly => self.no_execute,
                Access::Execute => 0,
                Access::Device => WRITE | CACHE_DISABLE | WRITE_THROUGH | self.no_execute,
                Access::WriteCombining => WRITE | WRITE_THROUGH | self.no_execute,
            }
    }

    /// Maps `[virt, virt + len)` to `[phys, phys + len)`, with the largest pages that fit.
    fn map(&mut self, virt: u64, phys: u64, len: u64, access: Access, source: &mut dyn TableSource) -> Option<()> {
        let flags = self.flags(access);
        let mut done = 0;
        while done < len {
            let (v, p) = (virt + done, phys + done);
            let size = largest_page(v, p, len - done, self.gib_pages);
            let pointers = Self::descend(self.root, v >> 39, source)?;
            let (table, index, large) = if size == GIB_1 {
                (pointers, v >> 30, LARGE)
            } else {
                let directory = Self::descend(pointers, v >> 30, source)?;
                if size == MIB_2 {
                    (directory, v >> 21, LARGE)
                } else {
                    (Self::descend(directory, v >> 21, source)?, v >> 12, 0)
                }
            };
            // SAFETY: as in descend; the entry was not present, so no mapping that is in use changes.
            unsafe { Self::entry(table, index).write_volatile(p | flags | large) };
            done += size;
        }
        Some(())
    }
}

/// The page ranges of the image, as the linker placed them (virtual addresses).
pub struct ImageLayout {
    /// Where `.text` begins and ends.
    pub text: (u64, u64),
    /// The constants that follow it.
    pub rodata: (u64, u64),
    /// Variables.
    pub data: (u64, u64),
    /// The symbol table.
    pub symbols: (u64, u64),
}

/// Builds the final tables and returns the root's physical address. `None`: not enough memory.
pub fn build(map: &MemoryMap, image: &ImageLayout, features: &CpuFeatures, bump: &mut Bump) -> Option<u64> {
    let mut tables = Tables {
        root: bump.pages(1)?,
        no_execute: if features.no_execute { NO_EXECUTE } else { 0 },
        global: if features.global_pages { GLOBAL } else { 0 },
        gib_pages: features.one_gib_pages,
    };
    // The root's upper half is complete from the start: address spaces copy it.
    for index in 256..512 {
        let is_used = index == 511
            || [(DIRECT_MAP, map.ram_end().max(1 << 32)), (STACKS, 1), (DEVICES, DEVICES_END - DEVICES)]
                .iter()
                .any(|&(start, len)| (start >> 39 & 511..=(start + len - 1) >> 39 & 511).contains(&index));
        if is_used {
            Tables::descend(tables.root, index, bump)?;
        }
    }
    map_image(&mut tables, image, bump)?;
    map_ram(&mut tables, map, image, bump)?;
    for kind in KINDS {
        let memory = bump.pages(kind.size() / PAGE_SIZE)?;
        tables.map(kind.bottom(0), memory, kind.size(), Access::ReadWrite, bump)?;
    }
    let mut pool = [0; DEVICE_TABLES];
    for slot in &mut pool {
        *slot = bump.pages(1)?;
    }
    let root = tables.root;
    DEVICE_WINDOW.lock().replace(DeviceWindow { tables, next: DEVICES, pool, left: DEVICE_TABLES });
    let _ = KERNEL_ROOT.try_init_once(|| root);
    Some(root)
}

fn map_image(tables: &mut Tables, image: &ImageLayout, bump: &mut Bump) -> Option<()> {
    let parts = [
        (image.text, Access::Execute),
        (image.rodata, Access::ReadOnly),
        (image.data, Access::ReadWrite),
        (image.symbols, Access::ReadOnly),
    ];
    for ((start, end), access) in parts {
        tables.map(start, start - KERNEL_BASE, align_up(end) - start, access, bump)?;
    }
    Some(())
}

/// Maps all RAM; the window through which text and constants are seen again is read-only as well.
fn map_ram(tables: &mut Tables, map: &MemoryMap, image: &ImageLayout, bump: &mut Bump) -> Option<()> {
    let constant = (image.text.0 - KERNEL_BASE, align_up(image.rodata.1) - KERNEL_BASE);
    let mut ram = map.regions().iter().filter(|region| region.kind.is_ram()).map(|r| (r.start, r.end)).peekable();
    while let Some((start, mut end)) = ram.next() {
        // Neighbours of different kinds are one stretch here: larger pages.
        while let Some((_, next_end)) = ram.next_if(|next| next.0 == end) {
            end = next_end;
        }
        for (from, to, access) in [
            (start, end.min(constant.0), Access::ReadWrite),
            (start.max(constant.0), end.min(constant.1), Access::ReadOnly),
            (start.max(constant.1), end, Access::ReadWrite),
        ] {
            if from < to {
                tables.map(DIRECT_MAP + from, from, to - from, access, bump)?;
            }
        }
    }
    Some(())
}

/// Maps the stacks of another CPU. `frames` gives so many contiguous, zeroed pages, for ever; `None` if it does.
pub(super) fn map_stacks(cpu: u64, frames: &mut dyn FnMut(u64) -> Option<u64>) -> Option<()> {
    struct Fresh<'a>(&'a mut dyn FnMut(u64) -> Option<u64>);
    impl TableSource for Fresh<'_> {
        fn table(&mut self) -> Option<u64> {
            (self.0)(1)
        }
    }
    for kind in KINDS {
        let memory = frames(kind.size() / PAGE_SIZE)?;
        let mut guard = DEVICE_WINDOW.lock();
        let tables = &mut guard.as_mut()?.tables;
        tables.map(kind.bottom(cpu), memory, kind.size(), Access::ReadWrite, &mut Fresh(frames))?;
    }
    Some(())
}

static KERNEL_ROOT: OnceCell<u64> = OnceCell::uninit();

/// Physical address of the kernel's own root table, whose entries 256 to 511 every address space shares.
pub fn kernel_root() -> u64 {
    // Before the final tables exist, the boot tables are the truth.
    KERNEL_ROOT.try_get().copied().unwrap_or_else(|_| read_cr3() & ADDRESS)
}

struct DeviceWindow {
    tables: Tables,
    next: u64,
    pool: [u64; DEVICE_TABLES],
    left: usize,
}

struct Pool<'a> {
    pool: &'a [u64; DEVICE_TABLES],
    left: &'a mut usize,
}

impl TableSource for Pool<'_> {
    fn table(&mut self) -> Option<u64> {
        *self.left = self.left.checked_sub(1)?;
        Some(self.pool[*self.left])
    }
}

static DEVICE_WINDOW: SpinLock<Option<DeviceWindow>> = SpinLock::new(None);

/// Maps `len` bytes of device memory at `phys`, uncached. The mapping is never undone. `None`: the address is absurd, or the
/// tables kept for this are used up.
pub fn map_device(phys: u64, len: u64) -> Option<NonNull<u8>> {
    map_window(phys, len, Access::Device)
}

/// Maps a framebuffer: like [`map_device`], but writes may be combined where the CPU can (PAT).
pub fn map_framebuffer(phys: u64, len: u64) -> Option<NonNull<u8>> {
    map_window(phys, len, Access::WriteCombining)
}

fn map_window(phys: u64, len: u64, access: Access) -> Option<NonNull<u8>> {
    let (start, end) = (align_down(phys), align_up(phys.checked_add(len.max(1))?));
    if end > 1 << 52 {
        return None;
    }
    let mut guard = DEVICE_WINDOW.lock();
    let window = guard.as_mut()?;
    let alignment = if end - start >= MIB_2 { MIB_2 } else { PAGE_SIZE };
    // The same offset within a large page on both sides, so that large pages can be used.
    let offset = start & (alignment - 1);
    let virt = window.next.checked_next_multiple_of(alignment)?.checked_add(offset)?;
    // A page is left out after each mapping: running off the end of a device faults.
    let next = virt.checked_add(end - start)?.checked_add(PAGE_SIZE)?;
    if next > DEVICES_END {
        return None;
    }
    let mut pool = Pool { pool: &window.pool, left: &mut window.left };
    window.next = next;
    window.tables.map(virt, start, end - start, access, &mut pool)?;
    NonNull::new((virt + (phys - start)) as *mut u8)
}
