//! Loading: a plan becomes mappings of a new address space.
//!
//! Segments are mapped from the page cache and come in page by page as they are touched, so that all who run a program share
//! its text. Only what cannot be mapped is written: the end of the last page that the file gives to a segment, which is zeroed.
//!
//! Next: `exec.rs`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ops::Range;

use abi::{Errno, Result, general};

use super::elf_plan::{Plan, Segment, ThreadLocal};
use super::exec_credentials::NewIdentity;
use super::executable::Executable;
use super::thread::RunningThread;
use super::tls_image::TlsImage;
use crate::mm::{AddressSpace, Layout, Limits, MapRequest, MappedFile, Placement, Rights, VmaFlags};

/// Bytes of a page.
const PAGE: u64 = fs::PAGE_SIZE as u64;
/// The size the stack is mapped with beyond the start-up strings; it grows by page faults.
const STACK_START: u64 = 128 * 1024;
/// personality(2): addresses are the same each time.
const ADDR_NO_RANDOMIZE: u32 = 0x004_0000;
/// A program that must not trust its caller starts as if the caller's stack had at most this limit.
const SECURE_STACK: u64 = 8 << 20;

/// Where a program came to lie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// What its own addresses count from; 0 for one that cannot be moved.
    pub base: u64,
    /// Where it begins to run.
    pub entry: u64,
    /// Where its program headers lie.
    pub table_address: u64,
    /// First and last address of its code.
    pub code: Range<usize>,
    /// First and last address of its data.
    pub data: Range<usize>,
}

/// An empty address space for a new program, with bases that chance has chosen.
///
/// # Errors
///
/// `ENOMEM`.
pub fn new_space(thread: &RunningThread, identity: &NewIdentity) -> Result<Arc<AddressSpace>> {
    let limits = *thread.process.limits.lock();
    let limits = Limits {
        address_space: limits.soft(general::RLIMIT_AS),
        data: limits.soft(general::RLIMIT_DATA),
        stack: limits.soft(general::RLIMIT_STACK),
        locked: limits.soft(general::RLIMIT_MEMLOCK),
    };
    let mut random = crate::random::number;
    let stack = if identity.is_secure { limits.stack.min(SECURE_STACK) } else { limits.stack };
    let layout = Layout::new(stack, if is_random(identity.personality) { Some(&mut random) } else { None });
    AddressSpace::new(layout, limits)
}

fn is_random(personality: u32) -> bool {
    personality & ADDR_NO_RANDOMIZE == 0
}

/// Loads the program itself and places its brk behind it.
///
/// # Errors
///
/// `ENOMEM`, `EIO`.
pub async fn program(space: &Arc<AddressSpace>, file: &Executable, plan: &Plan) -> Result<Loaded> {
    let layout = space.layout();
    let has_interpreter = plan.interpreter.is_some();
    let base = match (plan.is_relocatable, has_interpreter) {
        (false, _) => 0,
        (true, true) => (layout.program_base as u64).wrapping_sub(plan_start(plan)?),
        // A program without an interpreter may be an interpreter itself: it must stay out of the way of what it will load.
        (true, false) => free_base(space, plan)?,
    };
    let loaded = map_all(space, file, plan, base).await?;
    let behind = if plan.is_relocatable && !has_interpreter { layout.program_base } else { loaded.1 as usize };
    space.set_brk_start(behind + layout.brk_gap);
    Ok(loaded.0)
}

/// Loads the interpreter somewhere.
///
/// # Errors
///
/// `ENOMEM`, `EIO`.
pub async fn interpreter(space: &Arc<AddressSpace>, file: &Executable, plan: &Plan) -> Result<Loaded> {
    let base = if plan.is_relocatable { free_base(space, plan)? } else { 0 };
    Ok(map_all(space, file, plan, base).await?.0)
}

fn plan_start(plan: &Plan) -> Result<u64> {
    plan.span().map(|span| span.start).ok_or(Errno::ENOEXEC)
}

/// Finds room for a program that can be loaded anywhere, as one piece.
fn free_base(space: &AddressSpace, plan: &Plan) -> Result<u64> {
    let span = plan.span().ok_or(Errno::ENOEXEC)?;
    let len = (span.end - span.start) as usize;
    let none = Rights { read: false, write: false, execute: false };
    let address = space.map(MapRequest::anonymous(len, none))?;
    space.unmap(address, len)?;
    Ok((address as u64).wrapping_sub(span.start))
}

/// Maps all segments; returns also the first address behind them.
async fn map_all(space: &Arc<AddressSpace>, file: &Executable, plan: &Plan, base: u64) -> Result<(Loaded, u64)> {
    let file = Arc::new(file.mapped());
    let mut end = 0;
    let (mut code, mut data): (Option<Range<usize>>, Option<Range<usize>>) = (None, None);
    for segment in &plan.segments {
        let moved = Segment { address: segment.address.wrapping_add(base), ..*segment };
        Box::pin(map(space, &file, &moved)).await?;
        end = end.max(moved.address + moved.memory_len);
        let range = moved.address as usize..(moved.address + moved.file_len) as usize;
        let part = if segment.execute { &mut code } else { &mut data };
        *part = Some(match part {
            Some(part) => part.start.min(range.start)..part.end.max(range.end),
            None => range,
        });
    }
    let loaded = Loaded {
        base,
        entry: plan.entry.wrapping_add(base),
        table_address: if plan.table_address == 0 { 0 } else { plan.table_address.wrapping_add(base) },
        code: code.unwrap_or_default(),
        data: data.unwrap_or_default(),
    };
    Ok((loaded, end.next_multiple_of(PAGE)))
}

async fn map(space: &Arc<AddressSpace>, file: &Arc<MappedFile>, segment: &Segment) -> Result<()> {
    let rights = Rights {
        read: segment.read || segment.write || segment.execute,
        write: segment.write,
        execute: segment.execute,
    };
    let slack = segment.address % PAGE;
    let start = segment.address - slack;
    let file_end = segment.address + segment.file_len;
    let memory_end = segment.address + segment.memory_len;
    if segment.file_len > 0 {
        let len = (file_end - start) as usize;
        let request = MapRequest::private_file(file.clone(), segment.offset - slack, len, rights);
        space.map(request.at(Placement::Fixed(start as usize)))?;
    }
    // Behind what the file gives come zeros: the rest of its last page, and whole pages. (A read-only segment's last page is left as it is.)
    let zeros_from = if segment.file_len > 0 { file_end.next_multiple_of(PAGE) } else { start };
    if segment.write && memory_end > file_end && segment.file_len > 0 && file_end < zeros_from {
        space
            .zero_user(file_end as usize, (zeros_from.min(memory_end.next_multiple_of(PAGE)) - file_end) as usize)
            .await?;
    }
    if memory_end > zeros_from {
        let request = MapRequest::anonymous((memory_end - zeros_from) as usize, rights);
        space.map(request.at(Placement::Fixed(zeros_from as usize)))?;
    }
    Ok(())
}

/// Maps the vDSO; returns where its ELF header is, or 0 if there is none.
///
/// # Errors
///
/// `ENOMEM`.
pub fn vdso(identity: &NewIdentity, space: &AddressSpace) -> Result<u64> {
    crate::vdso::map(space, is_random(identity.personality).then(crate::random::number))
}

/// Maps the stack; returns the address behind it, moved a little by chance.
///
/// # Errors
///
/// `ENOMEM`.
pub fn stack(space: &AddressSpace, strings: u64, is_executable: bool, personality: u32) -> Result<usize> {
    let top = space.layout().stack_top;
    let len = (strings + STACK_START).next_multiple_of(PAGE) as usize;
    let rights = Rights { read: true, write: true, execute: is_executable };
    let request = MapRequest::anonymous(len, rights).with(VmaFlags::GROWS_DOWN);
    space.map(request.at(Placement::Fixed(top - len)))?;
    Ok(if is_random(personality) { top - crate::random::number() as usize % 512 * 16 } else { top })
}

/// Gives a program without an interpreter its initial thread-local storage; returns its thread pointer.
///
/// # Errors
///
/// `ENOMEM`.
pub fn thread_local(space: &AddressSpace, file: &Executable, storage: &ThreadLocal) -> Result<u64> {
    let image = Arc::new(TlsImage::new(file.content.clone(), *storage)?);
    let len = image.size();
    let inode: Arc<dyn fs::Inode> = image.clone();
    let file = Arc::new(MappedFile::new(inode, None));
    let rights = Rights { read: true, write: true, execute: false };
    let address = space.map(MapRequest::private_file(file, 0, len, rights))?;
    Ok(image.place(address as u64))
}
