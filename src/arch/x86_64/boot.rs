//! From the first Rust function to `crate::boot::start`: who started us, with what memory, and the final page tables.
//!
//! Runs once, on the boot stack, under the boot tables (`entry.rs`), which show the low 4 GiB at [`DIRECT_MAP`]. In order: patch
//! the image while it is writable, read what the loader left, settle the memory map, build the tables and load them, load this
//! CPU's descriptor tables, and go on with the real kernel stack, whose guard page now exists.
//!
//! Next: `src/boot.rs`.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::ops::Range;

use zerocopy::FromBytes;

use super::boot_paging::{self, Bump, ImageLayout};
use super::cpu_features::cpu_features;
use super::entry::{DIRECT_MAP, KERNEL_BASE, PROTOCOL_MULTIBOOT2};
use super::instructions::write_cr3;
use super::memory_map::{MemoryMap, kind_of_e820};
use super::multiboot2::{Information, until_nul};
use super::pvh::{MemoryEntry, Module, StartInfo};
use super::stacks::StackKind;
use super::{acpi, apic, clock, copy, cpu, io_apic, pic, provoke, serial_emergency, vector};
use crate::arch::boot_info::{BootInfo, FramebufferInfo, MemoryKind};
use crate::symbols;

/// What the boot tables reach.
const BOOT_LIMIT: u64 = 1 << 32;
/// The longest command line that is kept.
const COMMAND_LINE_MAX: usize = 4096;
/// Modules beyond this many are ignored; only the first is used.
const MODULES_MAX: u32 = 16;
/// Real mode's vectors and data, and room for starting other CPUs.
const LOW_MEMORY: u64 = 0x1_0000;

/// What must outlive booting.
struct Kept {
    map: MemoryMap,
    command_line: [u8; COMMAND_LINE_MAX],
    command_line_len: usize,
    info: Option<BootInfo>,
}

struct BootCell(UnsafeCell<Kept>);

// SAFETY: written while booting, by one CPU; only read afterwards.
unsafe impl Sync for BootCell {}

static KEPT: BootCell = BootCell(UnsafeCell::new(Kept {
    map: MemoryMap::new(),
    command_line: [0; COMMAND_LINE_MAX],
    command_line_len: 0,
    info: None,
}));

/// What a loader said, whichever it was.
#[derive(Default)]
struct Loaded {
    initrd: Option<Range<u64>>,
    rsdp: Option<u64>,
    framebuffer: Option<FramebufferInfo>,
}

unsafe extern "C" {
    static image_start: u8;
    static text_start: u8;
    static text_end: u8;
    static rodata_end: u8;
    static data_end: u8;
    static symbols_start: u8;
}

#[used]
#[unsafe(link_section = ".rouse.symbols")]
static SYMBOL_HEADER: [u8; symbols::HEADER_SIZE] = symbols::EMPTY;

/// The symbol table that xtask put at the end of the image, or an empty one.
pub fn symbol_table() -> &'static [u8] {
    let start = &raw const symbols_start;
    // SAFETY: the header lies in the image, and the image is as long as the header says: xtask wrote both.
    unsafe {
        let header = core::slice::from_raw_parts(start, symbols::HEADER_SIZE);
        core::slice::from_raw_parts(start, symbols::stated_length(header).unwrap_or(0))
    }
}

fn image_layout() -> ImageLayout {
    let symbols = &raw const symbols_start as u64;
    ImageLayout {
        text: (&raw const text_start as u64, &raw const text_end as u64),
        rodata: (&raw const text_end as u64, &raw const rodata_end as u64),
        data: (&raw const rodata_end as u64, &raw const data_end as u64),
        symbols: (symbols, symbols + symbol_table().len() as u64),
    }
}

/// The bytes at a physical address that the loader told us.
///
/// # Safety
/// Only while booting: nobody writes there as long as the slice is used.
unsafe fn physical(address: u64, len: u64) -> &'static [u8] {
    let len = len.min(BOOT_LIMIT.saturating_sub(address));
    // SAFETY: below 4 GiB, where the boot tables show physical memory; the caller vouches that nobody writes there.
    unsafe { core::slice::from_raw_parts((DIRECT_MAP + address.min(BOOT_LIMIT)) as *const u8, len as usize) }
}

/// The first Rust function, called by `entry.rs`.
#[unsafe(no_mangle)]
extern "C" fn boot_entry(protocol: u32, information: u32) -> ! {
    serial_emergency::init();
    let features = cpu_features();
    // SAFETY: the boot CPU alone runs, once; nobody else refers to what is kept.
    let kept = unsafe { &mut *KEPT.0.get() };
    if features.smap {
        // SAFETY: the boot tables map the text writable, and nothing copies yet.
        unsafe { copy::patch_smap() };
    }
    let loaded = match protocol {
        PROTOCOL_MULTIBOOT2 => read_multiboot2(information.into(), kept),
        _ => read_pvh(information.into(), kept),
    };
    let image = image_layout();
    let kernel = &raw const image_start as u64 - KERNEL_BASE..image.symbols.1 - KERNEL_BASE;
    kept.map.claim(0, LOW_MEMORY, MemoryKind::Boot);
    kept.map.claim(kernel.start, kernel.end - kernel.start, MemoryKind::Kernel);
    if let Some(initrd) = &loaded.initrd {
        kept.map.claim(initrd.start, initrd.end - initrd.start, MemoryKind::Initrd);
    }
    kept.map.resolve();

    let free = kept.map.largest_usable_below(BOOT_LIMIT).expect("a machine has memory below 4 GiB");
    let mut bump = Bump::new(free.start, free.end);
    let root = boot_paging::build(&kept.map, &image, features, &mut bump).expect("memory for the page tables");
    kept.map.claim(free.start, bump.position() - free.start, MemoryKind::Boot);
    kept.map.resolve();
    // SAFETY: the tables just built map the image, all RAM at DIRECT_MAP (where the stack in use lies) and the new stacks.
    unsafe { write_cr3(root) };
    pic::silence();
    cpu::init_boot_cpu(features);
    vector::init_cpu(features);
    let Kept { map, command_line, command_line_len, info } = kept;
    *info = Some(BootInfo {
        memory: map.regions(),
        command_line: &command_line[..*command_line_len],
        initrd: loaded.initrd,
        rsdp: loaded.rsdp,
        framebuffer: loaded.framebuffer,
        kernel,
    });
    // SAFETY: the kernel stack of CPU 0 is mapped; nothing on the old stack is used again: what continues is in statics.
    unsafe {
        asm!(
            "mov rsp, {stack}", "xor ebp, ebp", "push 0", "jmp {next}",
            stack = in(reg) StackKind::Main.top(0), next = sym on_the_kernel_stack, options(noreturn)
        )
    }
}

extern "C" fn on_the_kernel_stack() -> ! {
    provoke::if_asked(boot_info());
    crate::boot::start(boot_info())
}

/// What is known about the machine.
pub fn boot_info() -> &'static BootInfo {
    // SAFETY: `boot_entry` wrote this before anything could call this function; from then on it is only read.
    let kept: &'static Kept = unsafe { &*KEPT.0.get() };
    kept.info.as_ref().expect("boot_entry filled it in")
}

/// Finds and starts the interrupt controllers and the clock. Needs no heap; interrupts stay off.
pub fn init_devices() {
    acpi::init(boot_info());
    io_apic::init();
    apic::init_cpu();
    clock::init();
}

fn keep_command_line(kept: &mut Kept, line: &[u8]) {
    let line = &until_nul(line)[..until_nul(line).len().min(COMMAND_LINE_MAX)];
    kept.command_line[..line.len()].copy_from_slice(line);
    kept.command_line_len = line.len();
}

fn read_multiboot2(address: u64, kept: &mut Kept) -> Loaded {
    // SAFETY: the loader left its information there; nothing has been allocated yet.
    let information = Information::new(unsafe { physical(address, BOOT_LIMIT) });
    for (start, len, kind) in information.memory() {
        kept.map.claim(start, len, kind_of_e820(kind));
    }
    // It holds the copy of the ACPI root pointer, which is read later.
    kept.map.claim(address, information.size() as u64, MemoryKind::Boot);
    keep_command_line(kept, information.command_line());
    Loaded {
        initrd: information.first_module().map(|(start, end)| start..end),
        rsdp: information.rsdp_offset().map(|offset| address + offset as u64),
        framebuffer: information.framebuffer(),
    }
}

fn read_pvh(address: u64, kept: &mut Kept) -> Loaded {
    // SAFETY: the loader left its information there; nothing has been allocated yet.
    let read = |address: u64, len: usize| unsafe { physical(address, len as u64) };
    let info = StartInfo::read_from_bytes(read(address, size_of::<StartInfo>())).ok();
    let info = info.filter(StartInfo::is_valid).expect("QEMU starts a PVH kernel with its start information");
    let entries = read(info.memory_map, (info.memory_map_entries as usize).saturating_mul(size_of::<MemoryEntry>()));
    for bytes in entries.chunks_exact(size_of::<MemoryEntry>()) {
        if let Ok(entry) = MemoryEntry::read_from_bytes(bytes) {
            kept.map.claim(entry.start, entry.size, kind_of_e820(entry.kind));
        }
    }
    if info.command_line != 0 {
        keep_command_line(kept, read(info.command_line, COMMAND_LINE_MAX));
    }
    let modules = read(info.modules, info.module_count.min(MODULES_MAX) as usize * size_of::<Module>());
    let initrd = modules
        .chunks_exact(size_of::<Module>())
        .filter_map(|bytes| Module::read_from_bytes(bytes).ok())
        .find(|module| module.size > 0)
        .map(|module| module.start..module.start.saturating_add(module.size));
    Loaded { initrd, rsdp: Some(info.rsdp).filter(|&rsdp| rsdp != 0), framebuffer: None }
}
