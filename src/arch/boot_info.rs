//! What the boot loader told us, in one form whichever loader it was.
//!
//! Two protocols start this kernel: PVH (QEMU's `-kernel`) and Multiboot2 (GRUB). `x86_64/pvh.rs` and
//! `x86_64/multiboot2.rs` read them; both end in a [`BootInfo`], and from there on nobody asks which one it was.
//!
//! Next: `x86_64/memory_map.rs`, which makes the list of [`MemoryRegion`]s true: sorted, page-aligned, without overlaps.

use core::ops::Range;

/// Everything that is known about the machine before the first driver runs.
#[derive(Clone, Debug)]
pub struct BootInfo {
    /// Physical memory: sorted, page-aligned, not overlapping; what is absent is a hole or device memory.
    pub memory: &'static [MemoryRegion],
    /// The kernel's command line, without a final NUL. Bytes: nothing says it is UTF-8.
    pub command_line: &'static [u8],
    /// Physical range of the initial file system, if the loader brought one. Marked [`MemoryKind::Initrd`] in `memory`.
    pub initrd: Option<Range<u64>>,
    /// Physical address of the ACPI root pointer (RSDP), if the loader or the firmware's memory told.
    pub rsdp: Option<u64>,
    /// A linear framebuffer that the loader has set up.
    pub framebuffer: Option<FramebufferInfo>,
    /// Physical range of the kernel image, `.bss` and symbols included.
    pub kernel: Range<u64>,
}

/// A stretch of physical memory; both ends are multiples of 4,096.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// What it may be used for.
    pub kind: MemoryKind,
}

impl MemoryRegion {
    /// Its size in bytes.
    pub const fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether it holds no byte at all.
    pub const fn is_empty(&self) -> bool {
        self.end <= self.start
    }
}

/// What a region of physical memory may be used for. The order is that of precedence where two claims overlap: the later
/// kind wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryKind {
    /// Free.
    Usable,
    /// Holds ACPI tables; free once they were read (this kernel keeps them).
    AcpiReclaimable,
    /// The firmware's own; must survive, must not be touched.
    Reserved,
    /// The firmware's non-volatile storage.
    AcpiNvs,
    /// The initial file system: free once it has been unpacked.
    Initrd,
    /// Used while booting (page tables, stacks, the loader's records): never free.
    Boot,
    /// The kernel image.
    Kernel,
    /// Reported as broken.
    Bad,
}

impl MemoryKind {
    /// Whether this is RAM that the direct map covers.
    pub const fn is_ram(self) -> bool {
        !matches!(self, MemoryKind::Reserved | MemoryKind::Bad)
    }
}

/// A linear framebuffer of packed pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramebufferInfo {
    /// Physical address of the top left pixel.
    pub phys: u64,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes from one row to the next.
    pub pitch: u32,
    /// Bits a pixel takes: 16, 24 or 32.
    pub bits_per_pixel: u8,
    /// Where red lies within a pixel: (lowest bit, number of bits).
    pub red: (u8, u8),
    /// Where green lies.
    pub green: (u8, u8),
    /// Where blue lies.
    pub blue: (u8, u8),
}

impl FramebufferInfo {
    /// Bytes from the first pixel to the end of the last row.
    pub const fn len(&self) -> u64 {
        self.pitch as u64 * self.height as u64
    }

    /// Whether there is nothing to draw on.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
