//! Virtual memory areas: what a program has mapped, and where.
//!
//! A [`Vma`] is a range of pages with the same rights, flags and backing. [`VmaMap`] keeps them in order of address, in chunks of at
//! most 32, so that a small program's map is one short array, and a map of 65,530 areas is still changed in a few
//! hundred steps. Every change that may need room calls [`VmaMap::reserve`] first: the changes themselves cannot fail.
//!
//! Next: `address_space.rs`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

use bitflags::bitflags;
use drivers::hw::Page;
use fs::Inode;

use super::attachment::Attachment;
use super::frames::FRAME_SIZE;
use super::page_table::OutOfMemory;
use crate::arch::paging::Rights;
use crate::mm::MakeRoom;

/// Areas a program may have: Linux's `vm.max_map_count`, and as much as there.
static AREAS_AT_MOST: AtomicUsize = AtomicUsize::new(65_530);

/// Areas a program may have.
pub fn areas_at_most() -> usize {
    AREAS_AT_MOST.load(Ordering::Relaxed)
}

/// Says how many areas a program may have.
pub fn set_areas_at_most(count: usize) {
    AREAS_AT_MOST.store(count, Ordering::Relaxed);
}

/// Bytes below a stack that nothing else may be mapped in, as Linux's `stack_guard_gap`.
pub const STACK_GUARD: usize = 256 * FRAME_SIZE;
/// Areas in one chunk of the map.
const CHUNK: usize = 32;

bitflags! {
    /// What is special about an area.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct VmaFlags: u16 {
        /// Writes are seen by everyone who maps the same pages.
        const SHARED = 1;
        /// `mprotect` may make it writable: not for a shared mapping of a file that is open for reading only.
        const MAY_WRITE = 1 << 1;
        /// `mprotect` may make it executable: not on a mount with `noexec`.
        const MAY_EXECUTE = 1 << 2;
        /// It grows towards lower addresses when the page below it is touched.
        const GROWS_DOWN = 1 << 3;
        /// Its pages stay in memory (mlock).
        const LOCKED = 1 << 4;
        /// A child does not get it (`MADV_DONTFORK`).
        const DONT_FORK = 1 << 5;
        /// A child finds zeros in it (`MADV_WIPEONFORK`).
        const WIPE_ON_FORK = 1 << 6;
        /// It stays out of core dumps (`MADV_DONTDUMP`).
        const DONT_DUMP = 1 << 7;
        /// It may be larger than memory (`MAP_NORESERVE`).
        const NO_RESERVE = 1 << 8;
        /// The kernel's own pages: it cannot grow, and moves only as a whole. The vDSO.
        const SPECIAL = 1 << 9;
    }
}

/// A file as it is mapped.
pub struct MappedFile {
    /// Its content.
    pub inode: Arc<dyn Inode>,
    /// What /proc/self/maps calls it; `None` for memory that is shared without a name.
    pub path: Option<fs::Path>,
    /// Who counts its mappings: a System V segment.
    pub attachment: Option<Box<dyn Attachment>>,
}

impl MappedFile {
    /// A file, by the name it was opened by, if it has one.
    pub fn new(inode: Arc<dyn Inode>, path: Option<fs::Path>) -> MappedFile {
        MappedFile { inode, path, attachment: None }
    }
}

/// Pages that the kernel makes: the vDSO and its data.
pub struct SpecialPages {
    /// What /proc/self/maps calls them, such as `[vdso]`.
    pub name: &'static str,
    /// The pages.
    pub pages: Vec<Page>,
}

/// Where an area's content comes from.
#[derive(Clone)]
pub enum Backing {
    /// Zeros.
    Anonymous,
    /// A file, from page `page` of its content on.
    File {
        /// The file.
        file: Arc<MappedFile>,
        /// The page of its content that the area begins with.
        page: u64,
    },
    /// Pages of the kernel's, from number `page` on.
    Special {
        /// The pages.
        pages: Arc<SpecialPages>,
        /// The number of the one that the area begins with.
        page: usize,
    },
}

impl Backing {
    /// The backing of what begins `pages` pages further on.
    fn advanced(&self, pages: usize) -> Backing {
        match self {
            Backing::Anonymous => Backing::Anonymous,
            Backing::File { file, page } => Backing::File { file: file.clone(), page: page + pages as u64 },
            Backing::Special { pages: special, page } => {
                Backing::Special { pages: special.clone(), page: page + pages }
            }
        }
    }

    /// Whether `next` is what this one becomes `pages` pages further on.
    fn continues(&self, pages: usize, next: &Backing) -> bool {
        match (self, next) {
            (Backing::Anonymous, Backing::Anonymous) => true,
            (Backing::File { file: a, page: from }, Backing::File { file: b, page: to }) => {
                Arc::ptr_eq(&a.inode, &b.inode) && from.checked_add(pages as u64) == Some(*to)
            }
            _ => false,
        }
    }
}

/// A range of pages that are alike.
#[derive(Clone)]
pub struct Vma {
    /// The address of its first byte.
    pub start: usize,
    /// The address behind its last byte.
    pub end: usize,
    /// What the program may do there.
    pub rights: Rights,
    /// What is special about it.
    pub flags: VmaFlags,
    /// Where its content comes from.
    pub backing: Backing,
}

impl Vma {
    /// Its addresses.
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// How many pages it has.
    pub fn pages(&self) -> usize {
        (self.end - self.start) / FRAME_SIZE
    }

    /// Where its territory begins: below a stack, a gap stays unmapped, so that an overflow faults.
    pub fn guarded_start(&self) -> usize {
        if self.flags.contains(VmaFlags::GROWS_DOWN) { self.start.saturating_sub(STACK_GUARD) } else { self.start }
    }

    /// Whether others see what is written to it.
    pub fn is_shared(&self) -> bool {
        self.flags.contains(VmaFlags::SHARED)
    }

    /// Whether it counts as data against `RLIMIT_DATA`: private and writable, and not a stack.
    pub fn is_data(&self) -> bool {
        self.rights.write && !self.flags.intersects(VmaFlags::SHARED | VmaFlags::GROWS_DOWN)
    }

    /// The file it maps, and the page of the file's content at `address`.
    pub fn file_page(&self, address: usize) -> Option<(&Arc<MappedFile>, u64)> {
        match &self.backing {
            Backing::File { file, page } => Some((file, page + ((address - self.start) / FRAME_SIZE) as u64)),
            _ => None,
        }
    }

    /// Cuts off and returns what lies from `address` on.
    pub fn split_off(&mut self, address: usize) -> Vma {
        debug_assert!(self.start < address && address < self.end);
        let backing = self.backing.advanced((address - self.start) / FRAME_SIZE);
        let upper = Vma { start: address, end: self.end, rights: self.rights, flags: self.flags, backing };
        self.end = address;
        upper
    }

    /// Whether `next` goes on where this one ends, in every respect.
    fn is_continued_by(&self, next: &Vma) -> bool {
        self.end == next.start
            && self.rights == next.rights
            && self.flags == next.flags
            && !self.flags.contains(VmaFlags::SPECIAL)
            && self.backing.continues(self.pages(), &next.backing)
    }
}

/// A place in the map: chunk, and index in it. Good until the map is changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position(usize, usize);

/// All areas of a program, in order; they do not overlap.
#[derive(Default)]
pub struct VmaMap {
    /// None of them is empty.
    chunks: Vec<Vec<Vma>>,
    spare: Vec<Vec<Vma>>,
    count: usize,
    searched: Searched,
}

/// What searches from a ceiling down have learned, so that the next need not pass the same areas again: with thousands of stacks,
/// one below the other, each new one would look at all of them.
#[derive(Clone, Copy, Default)]
struct Searched {
    ceiling: usize,
    /// Above this address …
    down_to: usize,
    /// … no gap is longer than this.
    longest: usize,
}

fn new_chunk() -> Result<Vec<Vma>, OutOfMemory> {
    let mut chunk = Vec::new();
    chunk.make_exact_room(CHUNK).map_err(|_| OutOfMemory)?;
    Ok(chunk)
}

impl VmaMap {
    /// How many areas there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Makes sure that the next three insertions find room, whatever their place.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn reserve(&mut self) -> Result<(), OutOfMemory> {
        let needed = match &mut self.chunks[..] {
            // The only chunk is enough while it is not nearly full; it may be shorter than others.
            [only] => {
                let fits = only.len() + 3 <= CHUNK;
                only.make_room(if fits { 3 } else { CHUNK - only.len() }).map_err(|_| OutOfMemory)?;
                if fits { 0 } else { 3 }
            }
            [] => 1,
            _ => 3,
        };
        self.spare.make_room(needed + 1).map_err(|_| OutOfMemory)?;
        self.chunks.make_room(3).map_err(|_| OutOfMemory)?;
        while self.spare.len() < needed {
            self.spare.push(new_chunk()?);
        }
        Ok(())
    }

    /// The first area that ends above `address`.
    #[inline]
    pub fn locate(&self, address: usize) -> Position {
        let chunk = match &self.chunks[..] {
            [_] => 0,
            chunks => chunks.partition_point(|chunk| chunk.last().is_some_and(|last| last.end <= address)),
        };
        let index = self.chunks.get(chunk).map_or(0, |chunk| chunk.partition_point(|vma| vma.end <= address));
        self.normalised(Position(chunk, index))
    }

    fn normalised(&self, at: Position) -> Position {
        match self.chunks.get(at.0) {
            Some(chunk) if at.1 >= chunk.len() => Position(at.0 + 1, 0),
            _ => at,
        }
    }

    /// The area at a position.
    #[inline]
    pub fn at(&self, at: Position) -> Option<&Vma> {
        self.chunks.get(at.0)?.get(at.1)
    }

    /// The same, to be changed: not beyond its neighbours.
    #[inline]
    pub fn at_mut(&mut self, at: Position) -> Option<&mut Vma> {
        self.chunks.get_mut(at.0)?.get_mut(at.1)
    }

    /// The position behind.
    pub fn next(&self, at: Position) -> Position {
        self.normalised(Position(at.0, at.1 + 1))
    }

    /// The position before, if there is one.
    pub fn previous(&self, at: Position) -> Option<Position> {
        if at.1 > 0 {
            return Some(Position(at.0, at.1 - 1));
        }
        let chunk = at.0.checked_sub(1)?;
        Some(Position(chunk, self.chunks[chunk].len().checked_sub(1)?))
    }

    /// The area that contains `address`.
    #[inline]
    pub fn find(&self, address: usize) -> Option<&Vma> {
        self.at(self.locate(address)).filter(|vma| vma.start <= address)
    }

    /// All areas, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Vma> {
        self.chunks.iter().flatten()
    }

    /// Visits all areas, to be changed in their own bounds.
    pub fn for_each_mut(&mut self, each: impl FnMut(&mut Vma)) {
        self.chunks.iter_mut().flatten().for_each(each);
    }

    /// The areas that overlap `range`, in order.
    pub fn overlapping(&self, range: Range<usize>) -> impl Iterator<Item = &Vma> {
        let mut at = self.locate(range.start);
        core::iter::from_fn(move || {
            let vma = self.at(at).filter(|vma| vma.start < range.end)?;
            at = self.next(at);
            Some(vma)
        })
    }

    /// Where the area below `address` ends, and where the next one from `address` on begins.
    pub fn neighbours(&self, address: usize) -> (usize, usize) {
        let at = self.locate(address);
        let below = self.previous(at).and_then(|at| self.at(at)).map_or(0, |vma| vma.end);
        (below, self.at(at).map_or(usize::MAX, |vma| vma.start))
    }

    /// Adds an area where there is none, joined with its neighbours if they are alike. [`VmaMap::reserve`] came before.
    pub fn insert(&mut self, vma: Vma) {
        let at = self.locate(vma.start);
        debug_assert!(self.at(at).is_none_or(|next| vma.end <= next.start), "areas must not overlap");
        if let Some(before) = self.previous(at)
            && self.chunks[before.0][before.1].is_continued_by(&vma)
        {
            self.chunks[before.0][before.1].end = vma.end;
            self.join(before);
            return;
        }
        if let Some(next) = self.at_mut(at)
            && vma.is_continued_by(next)
        {
            next.start = vma.start;
            next.backing = vma.backing;
            return;
        }
        self.insert_at(at, vma);
    }

    /// Joins the area at `at` with the one behind it if they are alike.
    pub fn join(&mut self, at: Position) {
        let next = self.next(at);
        let (Some(this), Some(that)) = (self.at(at), self.at(next)) else { return };
        if this.is_continued_by(that) {
            let end = that.end;
            self.chunks[at.0][at.1].end = end;
            self.remove_at(next);
        }
    }

    fn insert_at(&mut self, at: Position, vma: Vma) {
        self.count += 1;
        // A place between two chunks is as good as the end of the first.
        let mut at = match at {
            Position(chunk, 0) if chunk > 0 => Position(chunk - 1, self.chunks[chunk - 1].len()),
            at => at,
        };
        if self.chunks.get(at.0).is_none_or(|chunk| chunk.len() == CHUNK) {
            let mut fresh = self.spare.pop().expect("reserve() came before");
            if let Some(full) = self.chunks.get_mut(at.0) {
                // Areas are mostly added at the ends; an even split would leave the chunks half empty then. The second is for
                // stacks, each of which goes below the one before and has a guard.
                let keep = match at.1 {
                    CHUNK => CHUNK - 1,
                    ..=2 => 2,
                    _ => CHUNK / 2,
                };
                fresh.extend(full.drain(keep..));
                self.chunks.insert(at.0 + 1, fresh);
                if at.1 > keep {
                    at = Position(at.0 + 1, at.1 - keep);
                }
            } else {
                self.chunks.push(fresh);
            }
        }
        self.chunks[at.0].insert(at.1, vma);
    }

    fn remove_at(&mut self, at: Position) -> Vma {
        self.count -= 1;
        let vma = self.chunks[at.0].remove(at.1);
        if self.chunks[at.0].is_empty() {
            let chunk = self.chunks.remove(at.0);
            // What is put in place of what was removed wants it back.
            if self.spare.len() < self.spare.capacity() {
                self.spare.push(chunk);
            }
        }
        vma
    }

    /// Splits the area that contains `address`, so that one begins there. [`VmaMap::reserve`] came before.
    pub fn split(&mut self, address: usize) {
        let at = self.locate(address);
        if let Some(vma) = self.at_mut(at)
            && vma.start < address
        {
            let upper = vma.split_off(address);
            self.insert_at(Position(at.0, at.1 + 1), upper);
        }
    }

    /// Removes every area in `range`, cutting those that reach beyond it; `each` gets what is removed. [`VmaMap::reserve`] came
    /// before.
    pub fn remove(&mut self, range: Range<usize>, mut each: impl FnMut(Vma)) {
        self.split(range.start);
        self.split(range.end);
        let mut at = self.locate(range.start);
        while self.at(at).is_some_and(|vma| vma.start < range.end) {
            each(self.remove_at(at));
            at = self.normalised(at);
        }
        if range.end > self.searched.down_to {
            self.searched.down_to = self.at(at).map_or(usize::MAX, |vma| vma.start);
        }
    }

    /// Changes every area in `range`, cutting those that reach beyond it, and joins what has become alike.
    /// [`VmaMap::reserve`] came before.
    pub fn change(&mut self, range: Range<usize>, mut each: impl FnMut(&mut Vma)) {
        self.split(range.start);
        self.split(range.end);
        let mut at = self.locate(range.start);
        while let Some(vma) = self.at_mut(at).filter(|vma| vma.start < range.end) {
            each(vma);
            at = self.next(at);
        }
        // Join from the area before the range up to the one behind it.
        let first = self.locate(range.start.saturating_sub(1));
        let mut at = first;
        while self.at(at).is_some_and(|vma| vma.start < range.end) {
            let count = self.count;
            self.join(at);
            if self.count == count {
                at = self.next(at);
            }
        }
    }

    /// A copy without the areas that `keep` refuses.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn try_clone(&self, keep: impl Fn(&Vma) -> bool) -> Result<VmaMap, OutOfMemory> {
        let mut copy = VmaMap::default();
        copy.chunks.make_room(self.chunks.len()).map_err(|_| OutOfMemory)?;
        for chunk in &self.chunks {
            let mut copied = match &self.chunks[..] {
                // Many a child maps nothing.
                [_] => Vec::new(),
                _ => new_chunk()?,
            };
            copied.make_exact_room(chunk.len()).map_err(|_| OutOfMemory)?;
            copied.extend(chunk.iter().filter(|vma| keep(vma)).cloned());
            if !copied.is_empty() {
                copy.count += copied.len();
                copy.chunks.push(copied);
            }
        }
        Ok(copy)
    }

    /// The highest address below `ceiling` and not below `floor` where `len` bytes are free.
    pub fn gap_below(&mut self, ceiling: usize, floor: usize, len: usize) -> Option<usize> {
        let known = self.searched;
        let (mut end, mut longest) = match known {
            Searched { ceiling: same, .. } if same == ceiling && known.longest < len => {
                (known.down_to.min(ceiling), known.longest)
            }
            _ => (ceiling, 0),
        };
        let mut at = self.locate(end);
        if let Some(vma) = self.at(at) {
            end = end.min(vma.guarded_start());
        }
        loop {
            let before = self.previous(at);
            let below = before.and_then(|at| self.at(at)).map_or(0, |vma| vma.end).max(floor);
            if end >= below && end - below >= len {
                self.searched = Searched { ceiling, down_to: end, longest };
                return Some(end - len);
            }
            longest = longest.max(end.saturating_sub(below));
            at = before?;
            end = end.min(self.at(at)?.guarded_start());
            if end < floor {
                return None;
            }
        }
    }

    /// The lowest address from `floor` on where `len` bytes are free below `ceiling`.
    pub fn gap_above(&self, floor: usize, ceiling: usize, len: usize) -> Option<usize> {
        let mut start = floor;
        let mut at = self.locate(floor);
        loop {
            let next = self.at(at).map_or(ceiling, |vma| vma.guarded_start()).min(ceiling);
            if next >= start && next - start >= len {
                return Some(start);
            }
            start = start.max(self.at(at)?.end);
            at = self.next(at);
        }
    }
}
