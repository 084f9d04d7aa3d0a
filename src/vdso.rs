//! The vDSO in programs: where it is mapped, and when its data change.
//!
//! Two areas, side by side, as Linux has them: `[vvar]`, one page that is the same frame in every program, and `[vdso]`, the image. They
//! lie a little above the stack if there is room, where chance has its say, else among the other mappings. A program may unmap or move
//! them: then it is its own functions that fault.
//!
//! Next: `arch/x86_64/vdso/mod.rs`, what is in them.

use alloc::sync::Arc;
use alloc::vec;

use abi::{Errno, Result};
use conquer_once::spin::OnceCell;
use drivers::hw::Page;
use executor::sync::SpinLock;

use crate::arch::{self, vdso::Data};
use crate::mm::{
    AddressSpace, FRAME_SIZE, FRAMES, MapRequest, Placement, Rights, Source, SpecialPages, USER_END, VmaFlags,
};
use crate::wall_clock;

/// The image lies so many pages above the stack at most: within the reach of one page table, as on Linux.
const REACH: usize = 512;

struct Vdso {
    data: Arc<SpecialPages>,
    image: Arc<SpecialPages>,
    /// Who writes to the data.
    writer: SpinLock<()>,
}

static VDSO: OnceCell<Vdso> = OnceCell::uninit();

/// Makes its pages, once the clocks go. Without memory for them programs make system calls instead.
pub fn init() {
    match make() {
        Ok(vdso) => VDSO.init_once(|| vdso),
        Err(errno) => log::warn!("programs will have no vDSO: {errno}"),
    }
    publish();
}

fn make() -> Result<Vdso> {
    let mut pages = vec![];
    for part in arch::vdso::image().chunks(FRAME_SIZE) {
        let page = Page::allocate_zeroed(&FRAMES).ok_or(Errno::ENOMEM)?;
        page.write(0, part);
        pages.push(page);
    }
    let data = vec![Page::allocate_zeroed(&FRAMES).ok_or(Errno::ENOMEM)?];
    Ok(Vdso {
        data: Arc::new(SpecialPages { name: "[vvar]", pages: data }),
        image: Arc::new(SpecialPages { name: "[vdso]", pages }),
        writer: SpinLock::new(()),
    })
}

/// Tells programs how the clocks go now. Called after every change.
pub fn publish() {
    let Ok(vdso) = VDSO.try_get() else { return };
    let _writer = vdso.writer.lock();
    if let Some(page) = vdso.data.pages.first() {
        Data::of_page(page).publish(arch::clock::tsc_parameters(), wall_clock::offset());
    }
}

/// Maps it into a new program's memory; returns where its ELF header is, or 0 if there is none. `chance` is a random number, or `None`
/// where addresses are to be the same each time.
///
/// # Errors
///
/// `ENOMEM`: no room, no memory, or over `RLIMIT_AS`.
pub fn map(space: &AddressSpace, chance: Option<u64>) -> Result<u64> {
    let Ok(vdso) = VDSO.try_get() else { return Ok(0) };
    let len = vdso.image.pages.len() * FRAME_SIZE;
    let above = chance.map(|chance| space.layout().stack_top + chance as usize % REACH * FRAME_SIZE);
    let placement = match above {
        Some(start) if start + FRAME_SIZE + len <= USER_END => Placement::Hint(start),
        _ => Placement::Anywhere,
    };
    let request = |pages: &Arc<SpecialPages>, placement, len, execute, flags| MapRequest {
        placement,
        len,
        rights: Rights { read: true, write: false, execute },
        flags: VmaFlags::SPECIAL | VmaFlags::DONT_DUMP | flags,
        source: Source::Special(pages.clone()),
    };
    // Room for both; the image then takes its part of it. A debugger may write to its own copy of the image, as on Linux.
    let data = space.map(request(&vdso.data, placement, FRAME_SIZE + len, false, VmaFlags::empty()))?;
    let image = Placement::Fixed(data + FRAME_SIZE);
    let changeable = VmaFlags::MAY_WRITE | VmaFlags::MAY_EXECUTE;
    let image = space.map(request(&vdso.image, image, len, true, changeable))?;
    Ok(image as u64)
}
