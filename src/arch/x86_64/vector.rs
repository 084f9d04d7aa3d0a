//! A thread's vector registers: x87, SSE and what else the CPU has.
//!
//! The kernel itself is built without them, so they keep the values of the thread that ran last, through any number of system
//! calls. They are saved when a thread's poll ends without its being done, so that another CPU may take the thread over, and
//! restored before it enters user mode again, unless this CPU still holds them:
//!
//! ```text
//!   poll begins: restore() ── already ours? nothing ──► user mode, system calls … ──► poll ends: save()
//! ```
//!
//! Whose they are is settled by two facts: the CPU remembers the id it holds, the state remembers the CPU that held it last. Writing to
//! a saved state gives it a new id, so that no CPU believes to hold it still.
//!
//! A signal's frame is written and read straight from the registers, by the same instructions on user memory; where that cannot be,
//! as on a stack that is not there yet, by way of the saved state.
//!
//! Next: `vector_layout.rs`, what the bytes mean.

use alloc::alloc::{alloc, dealloc};
use alloc::vec::Vec;
use core::alloc::Layout;
use core::arch::asm;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;
use conquer_once::spin::OnceCell;
use executor::sync::get_or_init;

use super::copy;
use super::cpu::{Cpu, with_cpu};
use super::cpu_features::{CpuFeatures, cpu_features};
use super::vector_layout::{
    END_MARK, HEADER_END, LEGACY_FEATURES, LEGACY_SIZE, SOFTWARE_BYTES, VectorLayout, area_of_frame, keep_legacy_only,
    mark_frame, reset, sanitize, software_bytes,
};
use crate::mm::MakeRoom;

/// x87, SSE, AVX, and the three parts of AVX-512.
const WANTED_FEATURES: u64 = 0xe7;
const AVX: u64 = 1 << 2;
const AVX_512: u64 = 7 << 5;
const NO_CPU: usize = usize::MAX;

static LAYOUT: OnceCell<VectorLayout> = OnceCell::uninit();
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// How an area is laid out on this machine.
pub fn layout() -> &'static VectorLayout {
    get_or_init(&LAYOUT, || detect(cpu_features()))
}

/// What a signal frame takes on the stack at most: AT_MINSIGSTKSZ.
pub fn smallest_signal_stack() -> usize {
    layout().smallest_signal_stack()
}

/// Turns on, on the executing CPU, the parts that are saved.
pub(super) fn init_cpu(features: &CpuFeatures) {
    if features.xsave {
        let wanted = usable(raw_cpuid::cpuid!(13, 0).eax.into());
        // SAFETY: CR4.OSXSAVE is set, and CPUID names every part that is turned on.
        unsafe { asm!("xsetbv", in("ecx") 0, in("eax") wanted as u32, in("edx") 0, options(nostack, preserves_flags)) };
    }
    layout();
}

/// Of the parts that the CPU has, those that are wanted and that it lets one turn on together.
fn usable(supported: u64) -> u64 {
    let mut features = supported & WANTED_FEATURES | LEGACY_FEATURES;
    if features & AVX == 0 || features & AVX_512 != AVX_512 {
        features &= !AVX_512;
    }
    features
}

fn detect(features: &CpuFeatures) -> VectorLayout {
    let mut area = FxArea([0; LEGACY_SIZE]);
    // SAFETY: every 64-bit CPU has FXSAVE; the area is 512 bytes on 16.
    unsafe { asm!("fxsave64 [{}]", in(reg) &mut area, options(nostack, preserves_flags)) };
    let mask = u32::from_le_bytes([area.0[28], area.0[29], area.0[30], area.0[31]]);
    let mxcsr_mask = if mask == 0 { 0xffbf } else { mask };
    if !features.xsave {
        return VectorLayout { size: LEGACY_SIZE, features: LEGACY_FEATURES, is_extended: false, mxcsr_mask };
    }
    let supported = usable(raw_cpuid::cpuid!(13, 0).eax.into());
    // EBX: the size for the parts that XCR0 has turned on.
    let size = (raw_cpuid::cpuid!(13, 0).ebx as usize).max(HEADER_END).next_multiple_of(64);
    VectorLayout { size, features: supported, is_extended: true, mxcsr_mask }
}

#[repr(C, align(16))]
struct FxArea([u8; LEGACY_SIZE]);

/// One thread's vector registers, as they are in memory when no CPU holds them.
pub struct VectorState {
    area: NonNull<u8>,
    id: u64,
    last_cpu: usize,
}

// SAFETY: the area belongs to this value alone; only the CPU that runs its owner touches it.
unsafe impl Send for VectorState {}
// SAFETY: through a shared reference the area is only read.
unsafe impl Sync for VectorState {}

impl VectorState {
    /// The state in which a program starts.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn fresh() -> Result<VectorState, Errno> {
        let mut state = VectorState::allocate()?;
        reset(state.bytes_mut());
        Ok(state)
    }

    /// A copy, for a new thread. The caller's own registers must have been saved ([`save`](Self::save)) if this CPU holds them.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn try_clone(&self) -> Result<VectorState, Errno> {
        let mut state = VectorState::allocate()?;
        state.bytes_mut().copy_from_slice(self.bytes());
        Ok(state)
    }

    fn allocate() -> Result<VectorState, Errno> {
        // SAFETY: the layout's size is not zero.
        let area = NonNull::new(unsafe { alloc(Self::memory()) }).ok_or(Errno::ENOMEM)?;
        // SAFETY: just allocated with this size.
        unsafe { area.write_bytes(0, layout().size) };
        Ok(VectorState { area, id: new_id(), last_cpu: NO_CPU })
    }

    fn memory() -> Layout {
        Layout::from_size_align(layout().size, 64).expect("a few hundred bytes on 64")
    }

    /// Bytes of the registers in a signal frame.
    pub fn frame_size() -> usize {
        layout().frame_size()
    }

    /// The registers as last saved.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the area has this size, is initialised, and belongs to this value.
        unsafe { core::slice::from_raw_parts(self.area.as_ptr(), layout().size) }
    }

    /// The saved registers, to be changed: what any CPU still holds of them counts no more.
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.id = new_id();
        // SAFETY: as in `bytes`, and the borrow is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.area.as_ptr(), layout().size) }
    }

    /// Makes it what a program starts with: `execve`.
    pub fn reset(&mut self) {
        reset(self.bytes_mut());
    }

    /// The saved registers as a signal frame holds them.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn to_signal_frame(&self) -> Result<Vec<u8>, Errno> {
        let layout = layout();
        let mut frame = Vec::new();
        frame.make_exact_room(layout.frame_size())?;
        frame.extend_from_slice(self.bytes());
        frame.resize(layout.frame_size(), 0);
        mark_frame(&mut frame, layout);
        Ok(frame)
    }

    /// Writes the registers to a signal frame in the active address space, straight from this CPU. Says whether: not if another holds
    /// them, or the frame's place is not there; then part may have been written.
    pub fn store_in_frame(&self, to: usize) -> bool {
        if !self.is_loaded() {
            return false;
        }
        let layout = layout();
        // SAFETY: the bytes are a slice's.
        let put = |offset, bytes: &[u8]| unsafe { copy::to_user(to + offset, bytes.as_ptr(), bytes.len()) } == 0;
        // XSAVE leaves all of its header but the first word as it is, and one with anything else in it would be refused later.
        let clear_header = || copy::zero_user(to + LEGACY_SIZE + 8, HEADER_END - LEGACY_SIZE - 8) == 0;
        // SAFETY: the layout is that of the instruction that the CPU has.
        let is_saved = unsafe { copy::save_vector_user(to, layout.size, layout.is_extended) };
        is_saved
            && put(SOFTWARE_BYTES, &software_bytes(layout))
            && (!layout.is_extended || clear_header() && put(layout.size, &END_MARK))
    }

    /// Takes registers back from a signal frame in the active address space, straight into this CPU. Says whether: not if another
    /// holds them, the frame is not there, it is not as [`store_in_frame`](Self::store_in_frame) left it, or holds what the CPU refuses.
    pub fn load_from_frame(&mut self, from: usize) -> bool {
        let layout = layout();
        // SAFETY: the layout is that of the instruction that the CPU has; the registers that change are this state's.
        self.is_loaded()
            && (!layout.is_extended || has_marks(from, layout))
            && unsafe { copy::load_vector_user(from, layout.size, layout.is_extended) }
    }

    /// Takes registers back from a signal frame: all of them, or the first 512 bytes where the rest is not as this machine wrote it.
    /// What the CPU would refuse is cleared.
    ///
    /// # Errors
    /// `EINVAL`: less than 512 bytes.
    pub fn load(&mut self, frame: &[u8]) -> Result<(), Errno> {
        let layout = layout();
        let legacy = frame.get(..LEGACY_SIZE).ok_or(Errno::EINVAL)?;
        let area = self.bytes_mut();
        match area_of_frame(frame, layout) {
            Some(whole) => area.copy_from_slice(whole),
            None => {
                area[..LEGACY_SIZE].copy_from_slice(legacy);
                keep_legacy_only(area, layout);
            }
        }
        sanitize(area, layout);
        Ok(())
    }

    /// Whether the executing CPU's registers are this state's.
    pub fn is_loaded(&self) -> bool {
        with_cpu(|cpu| self.is_loaded_on(cpu))
    }

    fn is_loaded_on(&self, cpu: &Cpu) -> bool {
        cpu.vector_owner.get() == self.id && self.last_cpu == cpu.id()
    }

    /// Saves the registers, if they are this state's; they stay in the CPU as well.
    pub fn save(&mut self) {
        if !self.is_loaded() {
            return;
        }
        let area = self.area.as_ptr();
        let features = cpu_features();
        // SAFETY: the area has the size and the alignment that these instructions want, and belongs to this value; each is used
        // only where the CPU has it. The soft-float kernel has nothing in these registers.
        unsafe {
            if features.xsaveopt {
                asm!("xsaveopt64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
            } else if features.xsave {
                asm!("xsave64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
            } else {
                asm!("fxsave64 [{}]", in(reg) area, options(nostack));
            }
        }
    }

    /// Loads the registers, unless this CPU still holds them. Called in each poll before user mode is entered.
    #[inline]
    pub fn restore(&mut self) {
        with_cpu(|cpu| {
            if !self.is_loaded_on(cpu) {
                self.load_registers(cpu);
            }
        });
    }

    #[cold]
    fn load_registers(&mut self, cpu: &Cpu) {
        let area = self.area.as_ptr();
        // SAFETY: the area holds what `reset`, `sanitize` or the CPU itself wrote, so the CPU accepts it; size and alignment fit.
        unsafe {
            if cpu_features().xsave {
                asm!("xrstor64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
            } else {
                asm!("fxrstor64 [{}]", in(reg) area, options(nostack));
            }
        }
        cpu.vector_owner.set(self.id);
        self.last_cpu = cpu.id();
    }
}

/// Whether a frame in user memory says that it holds a whole area of this machine's.
fn has_marks(frame: usize, layout: &VectorLayout) -> bool {
    let mut marks = [0; LEGACY_SIZE - SOFTWARE_BYTES];
    // SAFETY: the bytes are a slice's.
    let left = unsafe { copy::from_user(marks.as_mut_ptr(), frame.wrapping_add(SOFTWARE_BYTES), marks.len()) };
    let mut end = [0; END_MARK.len()];
    // SAFETY: the bytes are an array's.
    let end_left = unsafe { copy::from_user(end.as_mut_ptr(), frame.wrapping_add(layout.size), end.len()) };
    left == 0 && end_left == 0 && marks == software_bytes(layout) && end == END_MARK
}

fn new_id() -> u64 {
    // Relaxed: only distinctness matters.
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

impl Drop for VectorState {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and not used afterwards.
        unsafe { dealloc(self.area.as_ptr(), Self::memory()) };
    }
}
