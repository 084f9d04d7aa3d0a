//! Address spaces against a model, and against memory that runs out.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::pin::{Pin, pin};
use core::task::{Context, Waker};
use std::collections::BTreeMap;

use abi::{Errno, general};
use drivers::hw::Page;
use executor::sync::SpinLock;
use fs::inode::FileSystemStatus;
use fs::{Attributes, Inode, InodeCore, Io, Kind};

use super::address_space::UNMAPPED_AT_ONCE;
use super::frames::faults;
use super::*;

const RW: Rights = Rights { read: true, write: true, execute: false };
const RO: Rights = Rights { read: true, write: false, execute: false };
const NONE: Rights = Rights { read: false, write: false, execute: false };
const PAGE: usize = FRAME_SIZE;

fn new_space() -> Arc<AddressSpace> {
    init_on_host();
    AddressSpace::new(Layout::new(8 << 20, None), Limits::default()).expect("memory")
}

fn anonymous(space: &AddressSpace, at: usize, pages: usize) {
    space.map(MapRequest::anonymous(pages * PAGE, RW).at(Placement::Fixed(at))).expect("room");
}

fn put(space: &AddressSpace, address: usize, value: u8) -> bool {
    space.active().write_bytes(address, &[value]).is_ok()
}

fn get(space: &AddressSpace, address: usize) -> Option<u8> {
    let mut byte = [0];
    space.active().read_bytes(address, &mut byte).ok().map(|()| byte[0])
}

/// A small generator: a failing test prints its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// A file in memory whose page `n` begins with the byte `n + 1`, and whose device can be made to fail.
struct TestFile {
    core: InodeCore,
    fails: SpinLock<bool>,
}

impl TestFile {
    fn new(bytes: u64) -> Arc<TestFile> {
        init_on_host();
        let attributes = Attributes { size: bytes, ..Attributes::default() };
        let core = InodeCore::new(&FRAMES, 1, 1, Kind::Regular, 0, attributes);
        Arc::new(TestFile { core, fails: SpinLock::new(false) })
    }

    fn mapped(self: &Arc<TestFile>) -> Arc<MappedFile> {
        Arc::new(MappedFile::new(self.clone(), None))
    }

    fn cache(&self, index: u64) -> Page {
        block_on(self.core.pages.load(self, index)).expect("the device works")
    }
}

impl Inode for TestFile {
    fn core(&self) -> &InodeCore {
        &self.core
    }

    fn read_page<'a>(&'a self, index: u64, page: &'a Page) -> Io<'a, ()> {
        if *self.fails.lock() {
            return Io::ready(Err(Errno::EIO));
        }
        page.zero(0, PAGE);
        page.write(0, &[index as u8 + 1]);
        Io::ready(Ok(()))
    }

    fn reserve_page(&self, _index: u64) -> Io<'_, ()> {
        Io::ready(Ok(()))
    }

    fn file_system(&self) -> FileSystemStatus {
        FileSystemStatus::default()
    }
}

/// Polls until it is ready: nothing here waits for an interrupt.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = core::pin::pin!(future);
    let mut context = core::task::Context::from_waker(core::task::Waker::noop());
    for _ in 0..1000 {
        if let core::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
    panic!("the future waits for something that never comes");
}

/// What one page of the model is.
#[derive(Clone, Copy, PartialEq, Debug)]
struct ModelPage {
    rights: Rights,
    value: u8,
}

type Model = BTreeMap<usize, ModelPage>;

const ARENA: usize = 0x4000_0000;
/// Two and a half leaf tables, so that changes cross from one to the next.
const ARENA_PAGES: usize = 1280;

fn check(space: &AddressSpace, model: &Model) {
    let mut expected = model.iter().peekable();
    space.for_each_area(0, |area| {
        for page in (area.start / PAGE)..(area.end / PAGE) {
            let (at, model) = expected.next().expect("an area that the model does not have");
            assert_eq!((page, area.rights), (*at, model.rights));
        }
        true
    });
    assert_eq!(expected.next(), None, "a page of the model lies in no area");
    let mut resident = page_table::Resident::default();
    space.for_each_area(0, |area| {
        resident.anonymous += area.resident.anonymous;
        resident.file += area.resident.file;
        true
    });
    assert_eq!(space.usage().resident, resident, "the count of pages in memory is off");
    assert_eq!(space.usage().mapped, model.len());
}

fn step(space: &AddressSpace, model: &mut Model, random: &mut Random) {
    let first = ARENA / PAGE + random.below(ARENA_PAGES);
    let is_large = random.below(8) == 0;
    let count = 1 + random.below(if is_large { 600 } else { 12 });
    let (address, pages) = (first * PAGE, first..first + count);
    let rights = [RW, RW, RO, NONE][random.below(4)];
    match random.below(10) {
        0 | 1 => {
            space.map(MapRequest::anonymous(count * PAGE, rights).at(Placement::Fixed(address))).expect("room");
            pages.for_each(|page| {
                model.insert(page, ModelPage { rights, value: 0 });
            });
        }
        2 => {
            space.unmap(address, count * PAGE).expect("a good range");
            pages.for_each(|page| {
                model.remove(&page);
            });
        }
        3 => {
            let end = pages.clone().find(|page| !model.contains_key(page)).unwrap_or(pages.end);
            let result = space.protect(address, count * PAGE, rights);
            assert_eq!(result.is_ok(), end == pages.end);
            for page in first..end {
                model.get_mut(&page).expect("mapped").rights = rights;
            }
        }
        4 => {
            let is_whole = pages.clone().all(|page| model.contains_key(&page));
            assert_eq!(space.advise(address, count * PAGE, general::MADV_DONTNEED).is_ok(), is_whole);
            for page in pages {
                if let Some(page) = model.get_mut(&page) {
                    page.value = 0;
                }
            }
        }
        5 => {
            let result = space.map(MapRequest::anonymous(count * PAGE, rights).at(Placement::FixedNoReplace(address)));
            let is_free = pages.clone().all(|page| !model.contains_key(&page));
            assert_eq!(result, if is_free { Ok(address) } else { Err(Errno::EEXIST) });
            if is_free {
                pages.for_each(|page| {
                    model.insert(page, ModelPage { rights, value: 0 });
                });
            }
        }
        6 => remap(space, model, random, first, count),
        _ => {
            for page in pages.take(8) {
                let value = 1 + random.below(255) as u8;
                let is_writable = model.get(&page).is_some_and(|page| page.rights.write);
                assert_eq!(put(space, page * PAGE + 5, value), is_writable);
                if let Some(page) = model.get_mut(&page).filter(|_| is_writable) {
                    page.value = value;
                }
            }
        }
    }
    for _ in 0..16 {
        let page = ARENA / PAGE + random.below(ARENA_PAGES + 700);
        let expected = model.get(&page).filter(|page| page.rights.read).map(|page| page.value);
        assert_eq!(get(space, page * PAGE + 5), expected, "page {page:#x}");
    }
}

fn remap(space: &AddressSpace, model: &mut Model, random: &mut Random, first: usize, count: usize) {
    let new_count = 1 + random.below(40);
    let to = ARENA / PAGE + random.below(ARENA_PAGES);
    let flags = general::MREMAP_MAYMOVE | general::MREMAP_FIXED;
    let before = model.clone();
    let result = space.remap(first * PAGE, count * PAGE, new_count * PAGE, flags, to * PAGE);
    let overlaps = to < first + count && first < to + new_count;
    if overlaps {
        assert_eq!(result, Err(Errno::EINVAL));
        return;
    }
    // The model learns from the areas whether the old range is one mapping.
    let Ok(address) = result else {
        assert_eq!(result, Err(Errno::EFAULT));
        assert_eq!(*model, before);
        return;
    };
    assert_eq!(address, to * PAGE);
    for page in to..to + new_count {
        model.remove(&page);
    }
    let rights = before[&first].rights;
    for index in 0..count {
        let value = model.remove(&(first + index)).map_or(0, |page| page.value);
        if index < new_count {
            model.insert(to + index, ModelPage { rights, value });
        }
    }
    for index in count..new_count {
        model.insert(to + index, ModelPage { rights, value: 0 });
    }
}

#[test]
fn random_changes_agree_with_a_map_of_single_pages_and_forks_do_not_see_each_other() {
    let before = faults::balance();
    for seed in 1..=6 {
        let mut random = Random(seed);
        let mut spaces = Vec::from([(new_space(), Model::new())]);
        for round in 0..1200 {
            let chosen = random.below(spaces.len());
            if round % 60 == 59 {
                let (space, model) = &spaces[chosen];
                let child = (space.fork().expect("memory"), model.clone());
                spaces.push(child);
            } else if spaces.len() > 4 {
                spaces.swap_remove(chosen);
            } else {
                let (space, model) = &mut spaces[chosen];
                step(space, model, &mut random);
                if round % 10 == 0 {
                    check(space, model);
                }
            }
        }
        for (space, model) in &spaces {
            check(space, model);
            let anonymous = space.usage().resident.anonymous;
            assert!(anonymous <= model.len(), "{anonymous} pages in memory, {} mapped", model.len());
        }
        drop(spaces);
        assert_eq!(faults::balance(), before, "frames are lost with seed {seed}");
    }
}

#[test]
fn a_fork_copies_a_page_when_it_is_written_and_the_last_holder_keeps_it() {
    let before = faults::balance();
    let parent = new_space();
    anonymous(&parent, ARENA, 2);
    assert!(put(&parent, ARENA, 1));
    let child = parent.fork().expect("memory");
    let shared = faults::balance();
    assert_eq!((get(&parent, ARENA), get(&child, ARENA)), (Some(1), Some(1)));
    assert_eq!(faults::balance(), shared, "reading copies nothing");
    assert!(put(&child, ARENA, 2));
    assert_eq!(faults::balance(), shared + 1, "writing copies one page");
    assert!(put(&parent, ARENA, 3));
    assert_eq!(faults::balance(), shared + 1, "the parent is the last holder now");
    assert_eq!((get(&parent, ARENA), get(&child, ARENA)), (Some(3), Some(2)));
    drop((parent, child));
    assert_eq!(faults::balance(), before);
}

#[test]
fn reading_fresh_memory_takes_no_frame_for_it() {
    let space = new_space();
    anonymous(&space, ARENA, 100);
    assert_eq!(get(&space, ARENA), Some(0));
    let before = faults::balance();
    for page in 0..100 {
        assert_eq!(get(&space, ARENA + page * PAGE), Some(0));
    }
    assert_eq!(faults::balance(), before);
    assert_eq!(space.usage().resident.anonymous, 0);
}

#[test]
fn a_private_mapping_shares_the_cache_until_it_writes_and_never_changes_the_file() {
    let file = TestFile::new(3 * PAGE as u64 + 10);
    let space = new_space();
    let request = MapRequest::private_file(file.mapped(), PAGE as u64, 3 * PAGE, RW);
    let at = space.map(request).expect("room");
    assert!(matches!(space.try_fault(at, Access::Read), Err(Stop::Page(_, 1, Access::Read))));
    block_on(space.fault_in(at, Access::Read)).expect("the file has it");
    assert_eq!(get(&space, at), Some(2));
    let cached = file.cache(1);
    assert!(put(&space, at, 77));
    assert_eq!(get(&space, at), Some(77));
    let mut byte = [0];
    cached.read(0, &mut byte);
    assert_eq!(byte, [2], "the file is as it was");
    assert_eq!(space.usage().resident.anonymous, 1);
}

#[test]
fn cached_neighbours_are_mapped_along_with_a_page_that_is_read() {
    let file = TestFile::new(64 * PAGE as u64);
    (0..64).for_each(|index| drop(file.cache(index)));
    let space = new_space();
    let at = space.map(MapRequest::private_file(file.mapped(), 0, 64 * PAGE, RO)).expect("room");
    space.try_fault(at + 17 * PAGE, Access::Read).ok().expect("it is cached");
    let resident = space.usage().resident.file;
    assert!((8..=32).contains(&resident), "{resident} pages were mapped");
}

#[test]
fn a_shared_mapping_writes_to_the_file_and_a_child_sees_it() {
    let file = TestFile::new(2 * PAGE as u64);
    let space = new_space();
    let request = MapRequest::private_file(file.mapped(), 0, 2 * PAGE, RW).with(VmaFlags::SHARED);
    let at = space.map(request).expect("room");
    block_on(space.fault_in(at, Access::Read)).expect("the file has it");
    let child = space.fork().expect("memory");
    assert!(put(&space, at + 9, 5));
    assert_eq!(get(&child, at + 9), Some(5));
    let mut byte = [0];
    file.cache(0).read(9, &mut byte);
    assert_eq!(byte, [5]);
}

#[test]
fn beyond_the_end_of_the_file_is_a_bus_error_and_so_is_a_device_that_fails() {
    let file = TestFile::new(PAGE as u64 + 1);
    let space = new_space();
    let at = space.map(MapRequest::private_file(file.mapped(), 0, 4 * PAGE, RO)).expect("room");
    assert_eq!(block_on(space.fault_in(at + PAGE, Access::Read)), Ok(()));
    assert_eq!(block_on(space.fault_in(at + 2 * PAGE, Access::Read)), Err(Fault::Bus));
    *file.fails.lock() = true;
    assert_eq!(block_on(space.fault_in(at, Access::Read)), Err(Fault::Bus));
    *file.fails.lock() = false;
    assert_eq!(block_on(space.fault_in(at, Access::Read)), Ok(()));
    assert_eq!(block_on(space.fault_in(at, Access::Write)), Err(Fault::Refused));
    assert_eq!(block_on(space.fault_in(at - PAGE, Access::Read)), Err(Fault::Unmapped));
}

#[test]
fn a_stack_grows_to_its_limit_and_keeps_its_gap() {
    init_on_host();
    let limits = Limits { stack: 64 * PAGE as u64, ..Limits::default() };
    let space = AddressSpace::new(Layout::new(8 << 20, None), limits).expect("memory");
    let top = USER_END;
    let stack = MapRequest::anonymous(2 * PAGE, RW).with(VmaFlags::GROWS_DOWN);
    space.map(stack.at(Placement::Fixed(top - 2 * PAGE))).expect("room");
    assert!(put(&space, top - 60 * PAGE, 1), "it grows by a touch");
    assert!(put(&space, top - 64 * PAGE, 1), "up to its limit");
    assert!(!put(&space, top - 65 * PAGE, 1), "and not beyond");
    // A neighbour comes within the gap: no more growth, though the limit would allow it.
    space.set_limits(Limits::default());
    anonymous(&space, top - (64 + 300) * PAGE, 1);
    assert!(put(&space, top - 100 * PAGE, 1));
    assert!(!put(&space, top - 120 * PAGE, 1), "the gap would be less than 256 pages");
    space.set_limits(Limits { address_space: (101 + 5) * PAGE as u64, ..Limits::default() });
    assert!(!put(&space, top - 108 * PAGE, 1), "RLIMIT_AS bounds a stack as well");
    // Nothing is placed in the gap unless it is forced there.
    space.set_limits(Limits::default());
    let hint = top - 150 * PAGE;
    let placed = space.map(MapRequest::anonymous(PAGE, RW).at(Placement::Hint(hint))).expect("room");
    assert_ne!(placed, hint);
}

#[test]
fn brk_moves_up_and_down_and_stops_at_a_neighbour() {
    let space = new_space();
    space.set_brk_start(ARENA + 1);
    let start = ARENA + PAGE;
    assert_eq!(space.brk(0), start);
    assert_eq!(space.brk(start + 3 * PAGE + 7), start + 3 * PAGE + 7);
    assert!(put(&space, start + 3 * PAGE, 9) && !put(&space, start + 4 * PAGE, 9));
    assert_eq!(space.brk(start + PAGE), start + PAGE);
    assert!(!put(&space, start + PAGE, 9));
    assert_eq!(space.brk(start + 4 * PAGE), start + 4 * PAGE);
    assert_eq!(get(&space, start + 3 * PAGE), Some(0), "what came back is fresh");
    anonymous(&space, start + 10 * PAGE, 1);
    assert_eq!(space.brk(start + 11 * PAGE), start + 4 * PAGE);
}

#[test]
fn limits_refuse_what_is_too_much() {
    init_on_host();
    let limits = Limits { address_space: 10 * PAGE as u64, locked: 2 * PAGE as u64, ..Limits::default() };
    let space = AddressSpace::new(Layout::new(8 << 20, None), limits).expect("memory");
    anonymous(&space, ARENA, 8);
    assert_eq!(space.map(MapRequest::anonymous(3 * PAGE, RW)), Err(Errno::ENOMEM));
    anonymous(&space, ARENA, 10);
    assert_eq!(space.lock(ARENA, 3 * PAGE, true), Err(Errno::ENOMEM));
    assert_eq!(space.lock(ARENA, 2 * PAGE, true), Ok(()));
    assert_eq!(space.usage().locked, 2);
    assert_eq!(space.lock(ARENA, PAGE, true), Ok(()), "what is locked counts once");
    space.unmap(ARENA, 10 * PAGE).expect("mapped");
    assert_eq!(space.usage().locked, 0);
    let huge = MapRequest::anonymous(1 << 45, RW);
    let space = new_space();
    assert_eq!(space.map(huge.clone()), Err(Errno::ENOMEM));
    assert!(space.map(huge.with(VmaFlags::NO_RESERVE)).is_ok());
}

#[test]
fn bad_requests_are_refused_as_linux_refuses_them() {
    let space = new_space();
    let map = |len, placement| space.map(MapRequest::anonymous(len, RW).at(placement));
    assert_eq!(map(0, Placement::Anywhere), Err(Errno::EINVAL));
    assert_eq!(map(usize::MAX, Placement::Anywhere), Err(Errno::ENOMEM));
    assert_eq!(map(PAGE, Placement::Fixed(ARENA + 1)), Err(Errno::EINVAL));
    assert_eq!(map(PAGE, Placement::Fixed(0)), Err(Errno::EPERM));
    assert_eq!(map(PAGE, Placement::Fixed(USER_END)), Err(Errno::ENOMEM));
    assert_eq!(space.unmap(ARENA, 0), Err(Errno::EINVAL));
    assert_eq!(space.unmap(ARENA + 1, PAGE), Err(Errno::EINVAL));
    assert_eq!(space.unmap(ARENA, PAGE), Ok(()), "unmapping nothing succeeds");
    assert_eq!(space.protect(ARENA, PAGE, RO), Err(Errno::ENOMEM));
    assert_eq!(space.advise(ARENA, PAGE, 12345), Err(Errno::EINVAL));
    let file = TestFile::new(PAGE as u64);
    let read_only =
        MapRequest { rights: RO, flags: VmaFlags::SHARED, ..MapRequest::private_file(file.mapped(), 0, PAGE, RO) };
    let at = space.map(read_only).expect("room");
    assert_eq!(space.protect(at, PAGE, RW), Err(Errno::EACCES));
    assert_eq!(space.map(MapRequest::private_file(file.mapped(), 7, PAGE, RO)), Err(Errno::EINVAL));
}

#[test]
fn memory_without_rights_keeps_its_content() {
    let space = new_space();
    anonymous(&space, ARENA, 1);
    assert!(put(&space, ARENA, 42));
    space.protect(ARENA, PAGE, NONE).expect("mapped");
    assert_eq!(get(&space, ARENA), None);
    space.protect(ARENA, PAGE, RO).expect("mapped");
    assert_eq!((get(&space, ARENA), put(&space, ARENA, 1)), (Some(42), false));
}

#[test]
fn a_mapping_moves_with_its_pages_and_grows_in_place_where_there_is_room() {
    let space = new_space();
    anonymous(&space, ARENA, 2);
    assert!(put(&space, ARENA + PAGE, 7));
    assert_eq!(space.remap(ARENA, 2 * PAGE, 4 * PAGE, 0, 0), Ok(ARENA));
    anonymous(&space, ARENA + 4 * PAGE, 1);
    assert_eq!(space.remap(ARENA, 4 * PAGE, 5 * PAGE, 0, 0), Err(Errno::ENOMEM));
    let moved = space.remap(ARENA, 4 * PAGE, 5 * PAGE, general::MREMAP_MAYMOVE, 0).expect("room");
    assert_eq!((get(&space, moved + PAGE), get(&space, ARENA + PAGE)), (Some(7), None));
    assert_eq!(space.remap(moved, 5 * PAGE, PAGE, 0, 0), Ok(moved));
    assert_eq!(get(&space, moved + PAGE), None);
    let flags = general::MREMAP_MAYMOVE | general::MREMAP_DONTUNMAP;
    assert!(put(&space, moved, 3));
    let copy = space.remap(moved, PAGE, PAGE, flags, 0).expect("room");
    assert_eq!((get(&space, copy), get(&space, moved)), (Some(3), Some(0)));
}

#[test]
fn a_truncated_file_leaves_the_page_tables_and_is_protected_for_write_back() {
    let file = TestFile::new(3 * PAGE as u64);
    let space = new_space();
    let request = MapRequest::private_file(file.mapped(), 0, 3 * PAGE, RW).with(VmaFlags::SHARED);
    let at = space.map(request).expect("room");
    for page in 0..3 {
        block_on(space.fault_in(at + page * PAGE, Access::Write)).expect("the file has it");
    }
    let inner = space.inner.lock();
    let mapper = inner.mappers.of(&(file.clone() as Arc<dyn Inode>)).expect("registered");
    drop(inner);
    space.activate();
    let flushes = crate::arch::host::flushes();
    mapper.write_protect(0..1);
    assert!(crate::arch::host::flushes() > flushes, "the CPU must forget that it may write");
    {
        let mut inner = space.inner.lock();
        assert!(!inner.table.entry(at).is_writable() && inner.table.entry(at + PAGE).is_writable());
    }
    assert!(put(&space, at, 1), "a write is noticed and let through");
    file.core.attributes.lock().size = PAGE as u64;
    mapper.unmap(1..u64::MAX);
    assert_eq!(space.usage().resident.file, 1);
    assert_eq!(block_on(space.fault_in(at + PAGE, Access::Read)), Err(Fault::Bus));
}

#[test]
fn unmapping_the_last_page_of_a_file_lets_go_of_the_file() {
    let file = TestFile::new(PAGE as u64);
    let space = new_space();
    let at = space.map(MapRequest::private_file(file.mapped(), 0, PAGE, RO)).expect("room");
    assert!(Arc::strong_count(&file) > 1);
    space.unmap(at, PAGE).expect("mapped");
    assert_eq!(Arc::strong_count(&file), 1);
}

/// A bit of everything: stops at the first failure, whatever it is.
fn scenario(file: &Arc<TestFile>) -> Result<(), Errno> {
    let space = AddressSpace::new(Layout::new(8 << 20, None), Limits::default())?;
    let at = space.map(MapRequest::anonymous(4 * PAGE, RW))?;
    let shared = MapRequest::private_file(file.mapped(), 0, 2 * PAGE, RW).with(VmaFlags::SHARED);
    let shared = space.map(shared)?;
    let private = space.map(MapRequest::private_file(file.mapped(), 0, 2 * PAGE, RW))?;
    for address in [at, at + PAGE, shared, private, private + PAGE] {
        block_on(space.write_user_bytes(address, &[3]))?;
    }
    let child = space.fork()?;
    for space in [&child, &space] {
        block_on(space.write_user_bytes(at, &[4]))?;
    }
    child.protect(at + PAGE, PAGE, RO)?;
    child.remap(at, PAGE, 900 * PAGE, general::MREMAP_MAYMOVE, 0)?;
    space.unmap(at + PAGE, PAGE)?;
    Ok(())
}

#[test]
fn whichever_allocation_fails_everything_is_given_back() {
    let file = TestFile::new(2 * PAGE as u64);
    drop((file.cache(0), file.cache(1)));
    let before = faults::balance();
    assert_eq!(scenario(&file), Ok(()));
    assert_eq!(faults::balance(), before);
    let mut failures = 0;
    for countdown in 0.. {
        faults::fail_after(Some(countdown));
        let result = scenario(&file);
        let has_struck = !faults::is_armed();
        faults::fail_after(None);
        assert_eq!(faults::balance(), before, "frames are lost when allocation {countdown} fails");
        if !has_struck {
            break;
        }
        // A fault may find memory at the second attempt; all else must say that there was none.
        assert!(matches!(result, Ok(()) | Err(Errno::ENOMEM)), "{result:?} when allocation {countdown} fails");
        failures += usize::from(result.is_err());
    }
    assert!(failures > 5, "only {failures} allocations led to an error");
}

#[test]
fn a_large_address_space_is_freed_in_parts_and_unmapped_so_too() {
    const PAGES: usize = UNMAPPED_AT_ONCE / PAGE + 700;
    init_on_host();
    let before = faults::balance();
    let space = new_space();
    anonymous(&space, ARENA, 2 * PAGES);
    (0..2 * PAGES).for_each(|page| assert!(put(&space, ARENA + page * PAGE, 1)));
    let yields = |mut future: Pin<&mut dyn Future<Output = ()>>| {
        let mut context = Context::from_waker(Waker::noop());
        (0..).find(|_| future.as_mut().poll(&mut context).is_ready())
    };
    let unmap = async { assert_eq!(space.unmap_in_parts(ARENA, PAGES * PAGE).await, Ok(())) };
    assert_eq!(yields(pin!(unmap)), Some(1));
    assert_eq!(space.usage().resident.anonymous, PAGES);
    assert!(!put(&space, ARENA + (PAGES - 1) * PAGE, 1));
    assert_eq!(yields(pin!(space.free())), Some(1));
    assert_eq!(faults::balance(), before);
}

#[test]
fn shared_anonymous_memory_is_seen_by_a_child_and_ends_with_its_last_user() {
    let before = faults::balance();
    let space = new_space();
    let file = shared_memory::shared_memory(3 * PAGE).expect("memory");
    let request = MapRequest::private_file(file, 0, 3 * PAGE, RW).with(VmaFlags::SHARED);
    let at = space.map(request).expect("room");
    assert_eq!(get(&space, at), Some(0));
    let child = space.fork().expect("memory");
    assert!(put(&child, at + PAGE, 9));
    assert_eq!(get(&space, at + PAGE), Some(9));
    drop((space, child));
    assert_eq!(faults::balance(), before);
}

#[test]
fn reclaim_takes_the_files_pages_but_never_what_a_program_has_written() {
    let file = TestFile::new(4 * PAGE as u64);
    let space = new_space();
    let at = space.map(MapRequest::private_file(file.mapped(), 0, 4 * PAGE, RW)).expect("room");
    for page in 0..4 {
        block_on(space.fault_in(at + page * PAGE, Access::Read)).expect("the file has it");
    }
    assert!(put(&space, at + PAGE + 1, 200));
    let mapper = space.inner.lock().mappers.of(&(file.clone() as Arc<dyn Inode>)).expect("registered");
    mapper.unmap(0..u64::MAX);
    assert_eq!(space.usage().resident.file, 0);
    assert_eq!(get(&space, at + PAGE + 1), Some(200));
}

#[test]
fn another_programs_memory_is_read_and_written_without_becoming_active() {
    let (own, other) = (new_space(), new_space());
    anonymous(&other, ARENA, 2);
    assert!(put(&other, ARENA + PAGE, 6));
    own.activate();
    assert_eq!(block_on(other.write_remote(ARENA + PAGE - 2, b"abcd")), 4);
    let mut bytes = [9; 6];
    assert_eq!(block_on(other.read_remote(ARENA + PAGE - 3, &mut bytes)), 6);
    assert_eq!(&bytes, b"\0abcd\0");
    assert_eq!(block_on(other.read_remote(ARENA + 2 * PAGE - 1, &mut bytes)), 1, "it ends where the mapping ends");
    other.protect(ARENA, PAGE, RO).expect("mapped");
    assert_eq!(block_on(other.write_remote(ARENA, b"x")), 0);
    assert!(own.is_active());
}

#[test]
fn a_proof_of_activity_holds_after_another_space_was_active() {
    let (one, other) = (new_space(), new_space());
    anonymous(&one, ARENA, 1);
    anonymous(&other, ARENA, 1);
    let active = one.active();
    assert!(put(&other, ARENA, 5));
    active.write_bytes(ARENA, &[7]).expect("mapped");
    assert_eq!((get(&one, ARENA), get(&other, ARENA)), (Some(7), Some(5)));
}
