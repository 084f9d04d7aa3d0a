//! What GRUB hands over: the Multiboot2 information structure, read as bytes.
//!
//! The loader leaves a list of tags; each has a type, a size and a payload (Multiboot2 specification 2.0, section 3.6). This
//! file only reads: it is given the bytes, and gives values back, so a damaged list ends the walk instead of the kernel.
//!
//! Next: `pvh.rs` (the other protocol), `boot.rs` (who calls both).

use crate::arch::boot_info::FramebufferInfo;

/// What EAX holds when a Multiboot2 loader jumps to the kernel.
pub const MAGIC: u32 = 0x36d7_6289;

/// The tags of one information structure.
#[derive(Clone, Copy)]
pub struct Information<'a> {
    bytes: &'a [u8],
}

/// One tag: its type, its payload, and where the payload begins within the structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag<'a> {
    /// Its number in the specification.
    pub kind: u32,
    /// What follows the type and the size.
    pub payload: &'a [u8],
    /// Offset of the payload in the structure.
    pub offset: usize,
}

/// The tags this kernel reads.
#[allow(missing_docs, reason = "the names are those of the specification")]
pub mod tag {
    pub const END: u32 = 0;
    pub const COMMAND_LINE: u32 = 1;
    pub const MODULE: u32 = 3;
    pub const MEMORY_MAP: u32 = 6;
    pub const FRAMEBUFFER: u32 = 8;
    pub const ACPI_OLD_RSDP: u32 = 14;
    pub const ACPI_NEW_RSDP: u32 = 15;
}

impl<'a> Information<'a> {
    /// The structure that begins with `bytes`; its own size field says where it ends.
    pub fn new(bytes: &'a [u8]) -> Information<'a> {
        let size = read_u32(bytes, 0).unwrap_or(0) as usize;
        Information { bytes: &bytes[..size.min(bytes.len())] }
    }

    /// Its length in bytes.
    pub fn size(self) -> usize {
        self.bytes.len()
    }

    /// All tags, in order.
    pub fn tags(self) -> impl Iterator<Item = Tag<'a>> {
        let mut position = 8;
        core::iter::from_fn(move || {
            let kind = read_u32(self.bytes, position)?;
            let size = read_u32(self.bytes, position + 4)? as usize;
            let payload = self.bytes.get(position + 8..position.checked_add(size)?)?;
            let tag = Tag { kind, payload, offset: position + 8 };
            position = position.checked_add(size)?.checked_next_multiple_of(8)?;
            (kind != tag::END).then_some(tag)
        })
    }

    fn find(self, kind: u32) -> Option<Tag<'a>> {
        self.tags().find(|tag| tag.kind == kind)
    }

    /// The command line, without its NUL.
    pub fn command_line(self) -> &'a [u8] {
        self.find(tag::COMMAND_LINE).map_or(&[], |tag| until_nul(tag.payload))
    }

    /// The first module: (first byte, one past the last).
    pub fn first_module(self) -> Option<(u64, u64)> {
        let tag = self.find(tag::MODULE)?;
        let (start, end) = (read_u32(tag.payload, 0)?, read_u32(tag.payload, 4)?);
        (start < end).then_some((start.into(), end.into()))
    }

    /// The memory map: (base, length, type).
    pub fn memory(self) -> impl Iterator<Item = (u64, u64, u32)> + 'a {
        let payload = self.find(tag::MEMORY_MAP).map_or(&[][..], |tag| tag.payload);
        let entry_size = (read_u32(payload, 0).unwrap_or(0) as usize).max(20);
        payload
            .get(8..)
            .unwrap_or(&[])
            .chunks_exact(entry_size)
            .filter_map(|entry| Some((read_u64(entry, 0)?, read_u64(entry, 8)?, read_u32(entry, 16)?)))
    }

    /// Offset of the copy of the ACPI root pointer in this structure; the newer kind is preferred.
    pub fn rsdp_offset(self) -> Option<usize> {
        self.find(tag::ACPI_NEW_RSDP).or_else(|| self.find(tag::ACPI_OLD_RSDP)).map(|tag| tag.offset)
    }

    /// The framebuffer, if it is one of direct colours.
    pub fn framebuffer(self) -> Option<FramebufferInfo> {
        let payload = self.find(tag::FRAMEBUFFER)?.payload;
        const DIRECT_RGB: u8 = 1;
        if *payload.get(21)? != DIRECT_RGB {
            return None;
        }
        let field = |at: usize| Some((*payload.get(at)?, *payload.get(at + 1)?));
        Some(FramebufferInfo {
            phys: read_u64(payload, 0)?,
            pitch: read_u32(payload, 8)?,
            width: read_u32(payload, 12)?,
            height: read_u32(payload, 16)?,
            bits_per_pixel: *payload.get(20)?,
            red: field(24)?,
            green: field(26)?,
            blue: field(28)?,
        })
    }
}

/// The bytes before the first NUL.
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or(&[])
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds the structure as the specification draws it.
    fn structure(tags: &[(u32, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        for (kind, payload) in tags.iter().chain(&[(0, &[][..])]) {
            bytes.extend(kind.to_le_bytes());
            bytes.extend((payload.len() as u32 + 8).to_le_bytes());
            bytes.extend(*payload);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        let size = bytes.len() as u32;
        bytes[..4].copy_from_slice(&size.to_le_bytes());
        bytes
    }

    #[test]
    fn command_line_module_and_root_pointer_are_found_by_their_tags() {
        let mut module = Vec::new();
        module.extend(0x20_0000_u32.to_le_bytes());
        module.extend(0x30_0001_u32.to_le_bytes());
        module.extend(b"initrd\0");
        let bytes = structure(&[
            (tag::COMMAND_LINE, b"console=ttyS0 quiet\0"),
            (tag::MODULE, &module),
            (tag::ACPI_OLD_RSDP, b"RSD PTR old"),
            (tag::ACPI_NEW_RSDP, b"RSD PTR new"),
        ]);
        let information = Information::new(&bytes);
        assert_eq!(information.command_line(), b"console=ttyS0 quiet");
        assert_eq!(information.first_module(), Some((0x20_0000, 0x30_0001)));
        let at = information.rsdp_offset().expect("both tags are there");
        assert_eq!(&bytes[at..at + 11], b"RSD PTR new");
        assert_eq!(information.framebuffer(), None);
    }

    #[test]
    fn the_memory_map_honours_its_entry_size() {
        let mut payload = Vec::new();
        payload.extend(24_u32.to_le_bytes());
        payload.extend(0_u32.to_le_bytes());
        for (base, length, kind) in [(0_u64, 0x9_fc00_u64, 1_u32), (0x10_0000, 0x1ff_0000, 2)] {
            payload.extend(base.to_le_bytes());
            payload.extend(length.to_le_bytes());
            payload.extend(kind.to_le_bytes());
            payload.extend([0; 4]);
        }
        let bytes = structure(&[(tag::MEMORY_MAP, &payload)]);
        let map: Vec<_> = Information::new(&bytes).memory().collect();
        assert_eq!(map, [(0, 0x9_fc00, 1), (0x10_0000, 0x1ff_0000, 2)]);
    }

    #[test]
    fn only_a_framebuffer_of_direct_colours_is_taken() {
        let mut payload = Vec::new();
        payload.extend(0xfd00_0000_u64.to_le_bytes());
        payload.extend(4096_u32.to_le_bytes());
        payload.extend(1024_u32.to_le_bytes());
        payload.extend(768_u32.to_le_bytes());
        payload.extend([32, 1, 0, 0, 16, 8, 8, 8, 0, 8]);
        let bytes = structure(&[(tag::FRAMEBUFFER, &payload)]);
        let framebuffer = Information::new(&bytes).framebuffer().expect("direct colours");
        assert_eq!((framebuffer.width, framebuffer.height, framebuffer.pitch), (1024, 768, 4096));
        assert_eq!((framebuffer.red, framebuffer.green, framebuffer.blue), ((16, 8), (8, 8), (0, 8)));
        payload[21] = 2;
        let text = structure(&[(tag::FRAMEBUFFER, &payload)]);
        assert_eq!(Information::new(&text).framebuffer(), None);
    }

    #[test]
    fn a_damaged_list_ends_the_walk() {
        let mut bytes = structure(&[(tag::COMMAND_LINE, b"x\0")]);
        bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Information::new(&bytes).tags().count(), 0);
        bytes[12..16].copy_from_slice(&3_u32.to_le_bytes());
        assert_eq!(Information::new(&bytes).tags().count(), 0);
        assert_eq!(Information::new(&[]).tags().count(), 0);
    }
}
