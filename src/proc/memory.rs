//! The files about a process's memory: /proc/PID/{auxv,cmdline,environ,maps,statm}.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use abi::Result;
use fs::environment::{major, minor};

use super::process::{Subject, display};
use super::text::Text;
use crate::mm::MakeRoom;
use crate::mm::report::{AreaName, AreaReport};
use crate::mm::{AddressSpace, MappedFile, Rights, VmaFlags};
use crate::process::image::Image;

/// Where names begin in a line of maps.
const NAME_COLUMN: usize = 73;
/// The device that Linux keeps shared memory on: 0:1.
const INTERNAL_DEVICE: u64 = 1;

/// /proc/PID/auxv.
pub fn auxiliary_vector(subject: &Subject) -> Result<Vec<u8>> {
    Ok(subject.process()?.image.lock().auxiliary.clone())
}

/// The memory and what lies in it; `None` for a zombie. No open file is held: others may be awaited meanwhile.
fn image_in_memory(subject: &Subject) -> Result<Option<(Arc<AddressSpace>, Arc<Image>)>> {
    let image = subject.process()?.image.lock().clone();
    Ok(subject.view().ok().map(|view| (view.space.clone(), image)))
}

/// Reads memory up to where it ends.
async fn read(space: &AddressSpace, range: Range<usize>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.make_exact_room(range.len())?;
    bytes.resize(range.len(), 0);
    let len = space.read_remote(range.start, &mut bytes).await;
    bytes.truncate(len);
    Ok(bytes)
}

/// /proc/PID/cmdline. A program that has written over its arguments, and on into its environment, is told of as it wants to be.
pub async fn arguments(subject: &Subject) -> Result<Vec<u8>> {
    let Some((space, image)) = image_in_memory(subject)? else { return Ok(Vec::new()) };
    let mut bytes = read(&space, image.arguments.clone()).await?;
    if bytes.last().is_some_and(|last| *last != 0) && image.environment.start == image.arguments.end {
        bytes.extend(read(&space, image.environment.clone()).await?);
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        bytes.truncate(end);
    }
    Ok(bytes)
}

/// /proc/PID/environ.
pub async fn environment(subject: &Subject) -> Result<Vec<u8>> {
    let Some((space, image)) = image_in_memory(subject)? else { return Ok(Vec::new()) };
    read(&space, image.environment.clone()).await
}

/// /proc/PID/statm.
pub fn statm(subject: &Subject) -> Result<Vec<u8>> {
    let mut text = Text::new();
    match subject.view() {
        Ok(view) => {
            let usage = view.space.usage();
            let resident = usage.resident.total();
            let (shared, data) = (usage.resident.file, usage.data + usage.stack);
            text.add(format_args!("{} {resident} {shared} {} 0 {data} 0\n", usage.mapped, usage.text))
        }
        Err(_) => text.add(format_args!("0 0 0 0 0 0 0\n")),
    };
    Ok(text.into_bytes())
}

/// An area, with what its name is made of: the line is made when the address space is no longer locked.
struct Area {
    range: Range<usize>,
    rights: Rights,
    flags: VmaFlags,
    offset: u64,
    name: Name,
}

enum Name {
    None,
    Fixed(&'static str),
    File(Option<fs::Path>, u64, u64),
    /// A System V segment: its key and its identifier.
    Segment(i32, i32),
}

impl Area {
    fn new(report: AreaReport<'_>) -> Area {
        let name = match report.name {
            AreaName::None => Name::None,
            AreaName::Heap => Name::Fixed("[heap]"),
            AreaName::Stack => Name::Fixed("[stack]"),
            AreaName::Special(name) => Name::Fixed(name),
            AreaName::File(MappedFile { inode, path, attachment }) => {
                let core = inode.core();
                match attachment {
                    Some(attachment) => {
                        let (key, id) = attachment.key_and_id();
                        Name::Segment(key, id)
                    }
                    None => Name::File(path.clone(), core.device, core.number),
                }
            }
        };
        Area {
            range: report.start..report.end,
            rights: report.rights,
            flags: report.flags,
            offset: report.offset,
            name,
        }
    }

    fn tell(&self, text: &mut Text) {
        let start = text.len();
        let letter = |is_set: bool, letter: char| if is_set { letter } else { '-' };
        let sharing = if self.flags.contains(VmaFlags::SHARED) { 's' } else { 'p' };
        let Rights { read, write, execute } = self.rights;
        let (device, inode) = match self.name {
            Name::File(_, device, inode) => (device, inode),
            Name::Segment(_, id) => (INTERNAL_DEVICE, u64::from(id.unsigned_abs())),
            Name::None | Name::Fixed(_) => (0, 0),
        };
        let (read, write, execute) = (letter(read, 'r'), letter(write, 'w'), letter(execute, 'x'));
        text.add(format_args!("{:08x}-{:08x} ", self.range.start, self.range.end));
        text.add(format_args!("{read}{write}{execute}{sharing} {:08x} ", self.offset));
        text.add(format_args!("{:02x}:{:02x} {inode} ", major(device), minor(device)));
        match &self.name {
            Name::None => {}
            Name::Fixed(name) => {
                text.pad(start + NAME_COLUMN).bytes(name.as_bytes());
            }
            Name::File(Some(path), ..) => {
                text.pad(start + NAME_COLUMN).escaped(&display(path), b"\n");
            }
            Name::Segment(key, _) => {
                text.pad(start + NAME_COLUMN).add(format_args!("/SYSV{key:08x} (deleted)"));
            }
            // Memory without a name: only if it is shared does Linux say of what.
            Name::File(None, ..) if sharing == 'p' => {}
            Name::File(None, ..) => {
                text.pad(start + NAME_COLUMN).bytes(b"/dev/zero (deleted)");
            }
        }
        text.bytes(b"\n");
    }
}

/// /proc/PID/maps.
pub fn maps(subject: &Subject) -> Result<Vec<u8>> {
    let Ok(view) = subject.view() else { return Ok(Vec::new()) };
    let mut areas = Vec::new();
    view.space.for_each_area(0, |report| {
        areas.push(Area::new(report));
        true
    });
    let mut text = Text::new();
    for area in &areas {
        area.tell(&mut text);
    }
    Ok(text.into_bytes())
}
