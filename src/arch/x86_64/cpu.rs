//! What each CPU has for itself: its number, its descriptor tables, and the few words that the trap stubs use.
//!
//! In the kernel, GS base points to this CPU's [`Cpu`]; in user mode it is the program's, and the other one waits in
//! `KERNEL_GS_BASE`; `swapgs` at the border exchanges them. The first five words are reached from assembly as `gs:[n]`. Only this
//! CPU writes to it, with interrupts off or in ways an interrupt does not mind, so its fields are `Cell`s.
//!
//! Next: `trap_entry.rs`, the assembly that uses it.

use core::arch::asm;
use core::cell::{Cell, UnsafeCell};
use core::sync::atomic::{AtomicU32, Ordering};

use super::cpu_features::CpuFeatures;
use super::descriptors::{
    Gate, Gdt, KERNEL_CODE, KERNEL_DATA, RaisedBy, SYSRET_BASE, TASK_STATE, TaskState, interrupt_stack,
};
use super::instructions::{rdmsr, read_cr0, read_cr4, write_cr0, write_cr4, wrmsr};
use super::stacks::{MAX_CPUS, StackKind};
use super::trap_entry::{STUB_SIZE, syscall_entry, trap_stubs};
use super::user_context::{UserContext, vector};

const EFER: u32 = 0xc000_0080;
const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const CSTAR: u32 = 0xc000_0083;
const SFMASK: u32 = 0xc000_0084;
pub(super) const FS_BASE: u32 = 0xc000_0100;
pub(super) const GS_BASE: u32 = 0xc000_0101;
pub(super) const KERNEL_GS_BASE: u32 = 0xc000_0102;
const PAT: u32 = 0x277;
const TSC_AUX: u32 = 0xc000_0103;

/// Flags that SYSCALL clears: TF, IF, DF, IOPL, NT, AC.
const SYSCALL_CLEARED_FLAGS: u64 = 0x4_7700;

/// One CPU's own data. The assembly knows the order of the first five fields.
#[repr(C)]
pub struct Cpu {
    this: Cell<*const Cpu>,
    /// The kernel's stack pointer while this CPU is in user mode.
    pub(super) kernel_stack: Cell<u64>,
    /// Where the stubs store the user registers.
    pub(super) context: Cell<*mut UserContext>,
    /// The user's stack pointer, for a moment.
    pub(super) scratch: Cell<u64>,
    /// Exceptions and interrupts seen, for `/proc/interrupts`-like counts.
    pub(super) traps: Cell<u64>,
    id: Cell<usize>,
    apic_id: Cell<u32>,
    /// The segment bases that were last loaded for user mode.
    pub(super) loaded_fs_base: Cell<u64>,
    pub(super) loaded_gs_base: Cell<u64>,
    /// Which vector state the registers hold; 0: none.
    pub(super) vector_owner: Cell<u64>,
    /// The alarm interrupt came while this CPU was in user mode or in the kernel, and nobody has looked yet.
    pub(super) alarm_rang: Cell<bool>,
    gdt: UnsafeCell<Gdt>,
    task_state: UnsafeCell<TaskState>,
}

/// The local APIC's number of each CPU that runs.
static APIC_IDS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

/// The local APIC's number of a CPU that runs.
pub(super) fn apic_id_of(cpu: usize) -> Option<u32> {
    // Relaxed: written once, before the CPU ran its first task.
    Some(APIC_IDS.get(cpu)?.load(Ordering::Relaxed))
}

/// Offsets for the assembly.
pub(super) const KERNEL_STACK: usize = core::mem::offset_of!(Cpu, kernel_stack);
pub(super) const CONTEXT: usize = core::mem::offset_of!(Cpu, context);
pub(super) const SCRATCH: usize = core::mem::offset_of!(Cpu, scratch);
const ID: usize = core::mem::offset_of!(Cpu, id);

struct BootCpu(UnsafeCell<Cpu>);

// SAFETY: only the boot CPU reaches its own record: `with_cpu` goes through GS, and `init_boot_cpu` runs once, alone.
unsafe impl Sync for BootCpu {}

static BOOT_CPU: BootCpu = BootCpu(UnsafeCell::new(Cpu::new()));

#[repr(C, align(16))]
struct Idt(UnsafeCell<[Gate; 256]>);

// SAFETY: written once by `init_boot_cpu`, before any other CPU runs; read by the CPUs only.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new([Gate::missing(); 256]));

#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

impl Cpu {
    /// The record of a CPU that does not run yet.
    pub(super) const fn new() -> Cpu {
        Cpu {
            this: Cell::new(core::ptr::null()),
            kernel_stack: Cell::new(0),
            context: Cell::new(core::ptr::null_mut()),
            scratch: Cell::new(0),
            traps: Cell::new(0),
            id: Cell::new(0),
            apic_id: Cell::new(0),
            loaded_fs_base: Cell::new(0),
            loaded_gs_base: Cell::new(0),
            vector_owner: Cell::new(0),
            alarm_rang: Cell::new(false),
            gdt: UnsafeCell::new(Gdt::new()),
            task_state: UnsafeCell::new(TaskState::new()),
        }
    }

    /// Its number: 0 is the one that booted.
    pub fn id(&self) -> usize {
        self.id.get()
    }

    /// Its local APIC's number.
    pub fn apic_id(&self) -> u32 {
        self.apic_id.get()
    }

    /// Exceptions and interrupts it has taken.
    pub fn trap_count(&self) -> u64 {
        self.traps.get()
    }
}

/// Runs `work` with this CPU's own data. Nothing of it outlives the call: a task may wake up elsewhere.
#[inline(always)]
pub fn with_cpu<R>(work: impl FnOnce(&Cpu) -> R) -> R {
    let cpu: *const Cpu;
    // SAFETY: since `init_boot_cpu`, GS base is this CPU's record whenever Rust code runs, and its first word is its address, which
    // never changes: so the compiler may read it once in a function (which begins and ends on one CPU; a future's `poll` is one).
    unsafe { asm!("mov {}, gs:[0]", out(reg) cpu, options(nostack, preserves_flags, nomem, pure)) };
    // SAFETY: as above; the record lives for ever, and only this CPU uses it.
    work(unsafe { &*cpu })
}

/// The number of the CPU that executes this; a hint as soon as the caller has awaited anything.
#[inline(always)]
pub fn cpu_id() -> usize {
    let id: usize;
    // SAFETY: as in `with_cpu`: the number was written before the record was loaded, and never changes.
    unsafe { asm!("mov {}, gs:[{}]", out(reg) id, const ID, options(nostack, preserves_flags, nomem, pure)) };
    id
}

/// Loads the descriptor tables, GS base, the SYSCALL registers and the protection bits of the boot CPU.
pub fn init_boot_cpu(features: &CpuFeatures) {
    // SAFETY: runs once, alone, with interrupts off: nothing else refers to the record or to the table of gates.
    unsafe {
        fill_idt(&mut *IDT.0.get());
        load(&mut *BOOT_CPU.0.get(), 0, features.apic_id, features);
    }
    set_protection(features);
}

/// The same for the executing CPU, which is another one; it is taken to be like the boot CPU.
///
/// # Safety
/// `cpu` belongs to this CPU alone; it was called with interrupts off, once, and the stacks of CPU `id` are mapped.
pub(super) unsafe fn init_other_cpu(cpu: &'static mut Cpu, id: usize, features: &CpuFeatures) {
    // SAFETY: the caller's promise.
    unsafe { load(cpu, id, 0, features) };
    set_protection(features);
}

/// Says what the executing CPU's local APIC is called, once that can be asked.
pub(super) fn set_apic_id(apic_id: u32) {
    with_cpu(|cpu| {
        cpu.apic_id.set(apic_id);
        // Relaxed: read by other CPUs only after they were told of this one.
        APIC_IDS[cpu.id()].store(apic_id, Ordering::Relaxed);
    });
}

fn fill_idt(idt: &mut [Gate; 256]) {
    for (number, gate) in idt.iter_mut().enumerate() {
        let handler = trap_stubs as *const () as u64 + (number * STUB_SIZE) as u64;
        let stack = match number as u8 {
            vector::DOUBLE_FAULT => StackKind::DoubleFault,
            vector::NMI => StackKind::Nmi,
            vector::MACHINE_CHECK => StackKind::MachineCheck,
            vector::DEBUG => StackKind::Debug,
            _ => StackKind::Main,
        };
        let raised_by = match number as u8 {
            vector::BREAKPOINT | vector::OVERFLOW => RaisedBy::Anyone,
            _ => RaisedBy::Kernel,
        };
        *gate = Gate::interrupt(handler, interrupt_stack(stack), raised_by);
    }
}

/// Makes `cpu` the record of the executing CPU.
///
/// # Safety
/// `cpu` lives for ever and belongs to the executing CPU alone; interrupts are off; the stacks of CPU `id` are mapped.
unsafe fn load(cpu: &'static mut Cpu, id: usize, apic_id: u32, features: &CpuFeatures) {
    cpu.id.set(id);
    cpu.apic_id.set(apic_id);
    // Relaxed: read by other CPUs only after they were told of this one.
    APIC_IDS[id].store(apic_id, Ordering::Relaxed);
    cpu.task_state.get_mut().set_stacks(id as u64);
    let task_state = cpu.task_state.get() as u64;
    cpu.gdt.get_mut().set_task_state(task_state);
    cpu.gdt.get_mut().set_cpu_number(id as u64);
    let gdt = TablePointer { limit: size_of::<Gdt>() as u16 - 1, base: cpu.gdt.get() as u64 };
    let idt = TablePointer { limit: size_of::<[Gate; 256]>() as u16 - 1, base: IDT.0.get() as u64 };
    let this: *const Cpu = cpu;
    cpu.this.set(this);
    // SAFETY: the tables live for ever; their kernel segments are what the CPU uses already, flat; the far return reloads CS,
    // and the moves reload the data segments. The MSRs exist on every 64-bit CPU, TSC_AUX where RDTSCP does, PAT as checked.
    unsafe {
        asm!("lgdt [{}]", in(reg) &gdt, options(readonly, nostack, preserves_flags));
        asm!(
            "push {code}", "lea {scratch}, [rip + 2f]", "push {scratch}", "retfq", "2:",
            "mov ss, {data:x}", "mov ds, {null:x}", "mov es, {null:x}", "mov fs, {null:x}", "mov gs, {null:x}",
            code = const KERNEL_CODE, scratch = out(reg) _, data = in(reg) u64::from(KERNEL_DATA), null = in(reg) 0_u64,
        );
        asm!("ltr {:x}", in(reg) u64::from(TASK_STATE), options(nostack, preserves_flags));
        asm!("lidt [{}]", in(reg) &idt, options(readonly, nostack, preserves_flags));
        wrmsr(GS_BASE, this as u64);
        wrmsr(KERNEL_GS_BASE, 0);
        wrmsr(FS_BASE, 0);
        wrmsr(EFER, rdmsr(EFER) | 1);
        wrmsr(STAR, u64::from(SYSRET_BASE) << 48 | u64::from(KERNEL_CODE) << 32);
        wrmsr(LSTAR, syscall_entry as *const () as u64);
        wrmsr(CSTAR, 0);
        wrmsr(SFMASK, SYSCALL_CLEARED_FLAGS);
        if features.rdtscp {
            wrmsr(TSC_AUX, id as u64);
        }
        if features.pat {
            // Entry 1 (PWT alone) becomes write-combining, the others stay as after reset.
            wrmsr(PAT, 0x0007_0406_0007_0106);
        }
    }
}

/// CR0 and CR4: write protection in ring 0, the FPU without emulation, and what the CPU has of SMEP, SMAP, UMIP, XSAVE.
fn set_protection(features: &CpuFeatures) {
    const MONITOR: u64 = 1 << 1;
    const EMULATE: u64 = 1 << 2;
    const TASK_SWITCHED: u64 = 1 << 3;
    const NUMERIC_ERROR: u64 = 1 << 5;
    const WRITE_PROTECT: u64 = 1 << 16;
    const ALIGNMENT_MASK: u64 = 1 << 18;
    let cr4 = [
        (true, 1 << 9),  // OSFXSR
        (true, 1 << 10), // OSXMMEXCPT
        (features.global_pages, 1 << 7),
        (features.umip, 1 << 11),
        (features.xsave, 1 << 18),
        (features.smep, 1 << 20),
        (features.smap, 1 << 21),
    ];
    // SAFETY: each bit is set only where CPUID says that the CPU has it; paging and protection stay on.
    unsafe {
        write_cr0(read_cr0() & !(EMULATE | TASK_SWITCHED) | MONITOR | NUMERIC_ERROR | WRITE_PROTECT | ALIGNMENT_MASK);
        write_cr4(cr4.iter().filter(|(has, _)| *has).fold(read_cr4(), |bits, (_, bit)| bits | bit));
    }
}

/// Runs `work` with interrupts off, and leaves them as they were.
pub fn interrupts_off<R>(work: impl FnOnce() -> R) -> R {
    let were_on = super::instructions::interrupts_are_on();
    super::instructions::disable_interrupts();
    let result = work();
    if were_on {
        // SAFETY: they were on before, so the tables are loaded.
        unsafe { super::instructions::enable_interrupts() };
    }
    result
}

/// Lets interrupts in on the executing CPU, once its controllers are set up.
pub fn start_interrupts() {
    // SAFETY: the descriptor tables were loaded before any code that can call this ran.
    unsafe { super::instructions::enable_interrupts() };
}

/// Sleeps until an interrupt. First turns interrupts off and asks `nothing_to_do`; if that is so, turns them on and halts, as one pair;
/// else only turns them on. Returns with interrupts on.
pub fn idle(nothing_to_do: &dyn Fn() -> bool) {
    super::instructions::disable_interrupts();
    if nothing_to_do() {
        // SAFETY: the kernel runs its tasks, and so calls this, with interrupts on; the tables are loaded.
        unsafe { super::instructions::enable_interrupts_and_halt() };
    } else {
        // SAFETY: as above.
        unsafe { super::instructions::enable_interrupts() };
    }
}
