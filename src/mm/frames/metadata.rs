//! What the allocator remembers of each frame: sixteen bytes, in sections that are made when they are first needed.
//!
//! Physical memory is cut into sections of 128 MiB. A section's array of [`Metadata`] lies at the start of its largest free
//! range and is written when the allocator first wants the section's memory, so that boot costs the same on 32 MiB and on
//! 64 GiB. A metadata of zeros means "not the head of a free block": the buddy allocator need not visit each frame.
//!
//! Next: `buddy.rs`.

use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicUsize, Ordering::Relaxed};

use crate::arch;

/// log2 of the frames in a section.
pub const SECTION_SHIFT: u32 = 15;
/// Frames in a section.
pub const SECTION_FRAMES: u32 = 1 << SECTION_SHIFT;

/// What is known of one frame. Who may touch a field depends on what the frame is used for:
///
/// | field | free block's head | counted frame | slab |
/// |---|---|---|---|
/// | `references` | 0 | the count, by anyone | 0 |
/// | `state`, `order` | the buddy lock | whoever allocated it | the slab class's lock |
/// | `next`, `previous`, `used`, `head` | the buddy lock | whoever allocated it | the slab class's lock |
#[repr(C)]
pub struct Metadata {
    /// How many owners a counted frame has.
    pub references: AtomicU32,
    /// A [`State`].
    pub state: AtomicU8,
    /// Free block, slab: log2 of its frames.
    pub order: AtomicU8,
    /// Slab: objects handed out.
    pub used: AtomicU16,
    /// The next in the list the frame is in; 0 ends it. Slab's further frames: the slab's first frame.
    pub next: AtomicU32,
    /// The one before; 0 for the first.
    pub previous: AtomicU32,
}

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// In use, reserved, or inside a free block.
    Other = 0,
    /// The first frame of a free block.
    FreeBlock = 1,
    /// The first frame of a slab.
    Slab = 2,
    /// A further frame of a slab.
    SlabTail = 3,
}

impl Metadata {
    /// Whether the frame is what `state` says.
    pub fn is(&self, state: State) -> bool {
        self.state.load(Relaxed) == state as u8
    }

    /// Says what the frame is.
    pub fn set(&self, state: State) {
        self.state.store(state as u8, Relaxed);
    }
}

/// One section's array.
#[repr(C)]
struct Section {
    frames: AtomicPtr<Metadata>,
    count: AtomicU32,
}

/// All sections of a machine.
pub struct Sections {
    table: AtomicPtr<Section>,
    count: AtomicUsize,
}

impl Sections {
    /// None yet.
    pub const fn new() -> Sections {
        Sections { table: AtomicPtr::new(core::ptr::null_mut()), count: AtomicUsize::new(0) }
    }

    /// Bytes of the table for memory that ends at frame `end`.
    pub const fn table_size(end: u32) -> usize {
        end.div_ceil(SECTION_FRAMES) as usize * size_of::<Section>()
    }

    /// Bytes of the metadata of `count` frames.
    pub const fn metadata_size(count: u32) -> usize {
        count as usize * size_of::<Metadata>()
    }

    /// Puts the empty table at `physical`.
    ///
    /// # Safety
    ///
    /// `table_size(end)` bytes of RAM there belong to the table from now on.
    pub unsafe fn place_table(&self, physical: u64, end: u32) {
        let table = arch::direct_map(physical).cast::<Section>();
        // SAFETY: the caller gives this memory; a section of zeros is a valid empty one.
        unsafe { table.cast::<u8>().write_bytes(0, Sections::table_size(end)) };
        self.table.store(table, Relaxed);
        self.count.store(end.div_ceil(SECTION_FRAMES) as usize, Relaxed);
    }

    /// Puts the metadata of the first `count` frames of `section` at `physical`, all zeros.
    ///
    /// # Safety
    ///
    /// `metadata_size(count)` bytes of RAM there belong to it from now on, and the section had none yet.
    pub unsafe fn place_section(&self, section: u32, physical: u64, count: u32) {
        let frames = arch::direct_map(physical).cast::<Metadata>();
        // SAFETY: the caller gives this memory; metadata of zeros is valid.
        unsafe { frames.cast::<u8>().write_bytes(0, Sections::metadata_size(count)) };
        let section = self.section(section).expect("the table covers all memory");
        section.frames.store(frames, Relaxed);
        section.count.store(count, Relaxed);
    }

    #[inline]
    fn section(&self, index: u32) -> Option<&Section> {
        if index as usize >= self.count.load(Relaxed) {
            return None;
        }
        // SAFETY: `place_table` made `count` sections there, for ever.
        Some(unsafe { &*self.table.load(Relaxed).add(index as usize) })
    }

    /// The metadata of `frame`, if it is RAM in a section that was made.
    #[inline]
    pub fn get(&self, frame: u32) -> Option<&Metadata> {
        let section = self.section(frame >> SECTION_SHIFT)?;
        let index = frame & (SECTION_FRAMES - 1);
        if index >= section.count.load(Relaxed) {
            return None;
        }
        // SAFETY: `place_section` made `count` of them there, for ever.
        Some(unsafe { &*section.frames.load(Relaxed).add(index as usize) })
    }

    /// The metadata of a frame that was allocated.
    ///
    /// # Safety
    ///
    /// `frame` came from the allocator that these sections belong to.
    #[inline]
    pub unsafe fn of(&self, frame: u32) -> &Metadata {
        debug_assert!(self.get(frame).is_some());
        // SAFETY: an allocated frame's section was made, and the frame lies inside it.
        unsafe {
            let section = &*self.table.load(Relaxed).add((frame >> SECTION_SHIFT) as usize);
            &*section.frames.load(Relaxed).add((frame & (SECTION_FRAMES - 1)) as usize)
        }
    }
}
