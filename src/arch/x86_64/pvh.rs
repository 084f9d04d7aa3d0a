//! What QEMU's `-kernel` hands over: the PVH start information.
//!
//! The layout is Xen's (`public/arch-x86/hvm/start_info.h`), version 1. Each structure is read from bytes, so this file holds no
//! pointer; `boot.rs` fetches the bytes from physical memory.
//!
//! Next: `boot.rs`.

use zerocopy::{FromBytes, Immutable, KnownLayout};

/// What the first four bytes hold.
pub const MAGIC: u32 = 0x336e_c578;

/// `struct hvm_start_info`, version 1.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct StartInfo {
    pub magic: u32,
    pub version: u32,
    pub flags: u32,
    pub module_count: u32,
    pub modules: u64,
    pub command_line: u64,
    pub rsdp: u64,
    pub memory_map: u64,
    pub memory_map_entries: u32,
    pub reserved: u32,
}

/// `struct hvm_modlist_entry`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct Module {
    pub start: u64,
    pub size: u64,
    pub command_line: u64,
    pub reserved: u64,
}

/// `struct hvm_memmap_table_entry`; the kinds are those of E820.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[allow(missing_docs, reason = "the names are those of the header")]
pub struct MemoryEntry {
    pub start: u64,
    pub size: u64,
    pub kind: u32,
    pub reserved: u32,
}

impl StartInfo {
    /// Whether this is a start information that has a memory map (version 1 and later).
    pub fn is_valid(&self) -> bool {
        self.magic == MAGIC && self.version >= 1 && self.memory_map != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_sizes_of_the_header() {
        assert_eq!(size_of::<StartInfo>(), 56);
        assert_eq!(size_of::<Module>(), 32);
        assert_eq!(size_of::<MemoryEntry>(), 24);
    }

    #[test]
    fn a_version_without_a_memory_map_is_refused() {
        let mut bytes = [0; 56];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[40..48].copy_from_slice(&0x9000_u64.to_le_bytes());
        assert!(!StartInfo::read_from_bytes(&bytes).expect("56 bytes").is_valid());
        bytes[4] = 1;
        let info = StartInfo::read_from_bytes(&bytes).expect("56 bytes");
        assert!(info.is_valid());
        assert_eq!(info.memory_map, 0x9000);
    }
}
