//! The list of memory regions, made true.
//!
//! Firmware tables overlap, are unsorted and end in the middle of pages. A [`MemoryMap`] collects *claims* (from the loader,
//! and the kernel's own: its image, the initrd), each with a [`MemoryKind`]; [`MemoryMap::resolve`] cuts them at every
//! boundary and gives each piece to its strongest claim (the order of `MemoryKind`), so that RAM under the kernel is not free
//! and a hole that somebody calls reserved stays reserved. Usable memory shrinks to whole pages, everything else grows.
//!
//! Next: `boot_paging.rs`, which maps what comes out of here.

use crate::arch::boot_info::{MemoryKind, MemoryRegion};

/// Bytes in a page.
pub const PAGE_SIZE: u64 = 4096;
/// Physical addresses beyond this are not believed (52 bits is what the architecture can address).
const PHYSICAL_END: u64 = 1 << 52;
/// Room for claims. A PC's firmware states 10 to 60; what does not fit is lost memory, not a fault.
pub const CAPACITY: usize = 160;

/// Claims on physical memory, later: regions.
pub struct MemoryMap {
    claims: [MemoryRegion; CAPACITY],
    count: usize,
}

const NOTHING: MemoryRegion = MemoryRegion { start: 0, end: 0, kind: MemoryKind::Reserved };

impl MemoryMap {
    /// No memory at all.
    pub const fn new() -> MemoryMap {
        MemoryMap { claims: [NOTHING; CAPACITY], count: 0 }
    }

    /// Claims `len` bytes from `start`, and says whether there was room to note it.
    pub fn claim(&mut self, start: u64, len: u64, kind: MemoryKind) -> bool {
        let end = start.saturating_add(len).min(PHYSICAL_END);
        let region = match kind {
            MemoryKind::Usable => MemoryRegion { start: align_up(start), end: align_down(end), kind },
            _ => MemoryRegion { start: align_down(start), end: align_up(end), kind },
        };
        if region.is_empty() {
            return true;
        }
        match self.claims.get_mut(self.count) {
            Some(slot) => {
                *slot = region;
                self.count += 1;
                true
            }
            None => false,
        }
    }

    /// The claims as they stand; after [`resolve`](Self::resolve) sorted and without overlaps.
    pub fn regions(&self) -> &[MemoryRegion] {
        &self.claims[..self.count]
    }

    /// Cuts the claims into regions that do not overlap, sorted by address, neighbours of one kind merged. Usable memory that
    /// does not fit into the table is left out, so that nothing reserved is ever forgotten.
    pub fn resolve(&mut self) {
        let mut resolved = MemoryMap::new();
        let mut position = 0;
        while let Some((start, end)) = self.next_piece(position) {
            position = end;
            let strongest = self.regions().iter().filter(|claim| claim.start < end && start < claim.end);
            if let Some(kind) = strongest.map(|claim| claim.kind).max() {
                resolved.append(MemoryRegion { start, end, kind });
            }
        }
        *self = resolved;
    }

    /// The stretch from `position` (or the first boundary) to the boundary after it.
    fn next_piece(&self, position: u64) -> Option<(u64, u64)> {
        let boundaries = || self.regions().iter().flat_map(|claim| [claim.start, claim.end]);
        let end = boundaries().filter(|&boundary| boundary > position).min()?;
        Some((position, end))
    }

    fn append(&mut self, region: MemoryRegion) {
        if let Some(last) = self.claims[..self.count].last_mut()
            && last.end == region.start
            && last.kind == region.kind
        {
            last.end = region.end;
            return;
        }
        if let Some(slot) = self.claims.get_mut(self.count) {
            *slot = region;
            self.count += 1;
        }
    }

    /// The largest usable region that ends at or below `limit`, cut off there.
    pub fn largest_usable_below(&self, limit: u64) -> Option<MemoryRegion> {
        self.regions()
            .iter()
            .filter(|region| region.kind == MemoryKind::Usable)
            .map(|region| MemoryRegion { end: region.end.min(limit), ..*region })
            .filter(|region| !region.is_empty())
            .max_by_key(MemoryRegion::len)
    }

    /// One past the highest byte of RAM.
    pub fn ram_end(&self) -> u64 {
        self.regions().iter().filter(|region| region.kind.is_ram()).map(|region| region.end).max().unwrap_or(0)
    }
}

impl Default for MemoryMap {
    fn default() -> MemoryMap {
        MemoryMap::new()
    }
}

/// Rounds down to a whole page.
pub const fn align_down(address: u64) -> u64 {
    address & !(PAGE_SIZE - 1)
}

/// Rounds up to a whole page; the last page of the address space stays where it is.
pub const fn align_up(address: u64) -> u64 {
    match address.checked_add(PAGE_SIZE - 1) {
        Some(sum) => align_down(sum),
        None => align_down(u64::MAX),
    }
}

/// What a type number of the firmware's map means: E820, Multiboot2 and PVH count alike (ACPI 6.5, table 15.4).
pub const fn kind_of_e820(number: u32) -> MemoryKind {
    match number {
        1 => MemoryKind::Usable,
        3 => MemoryKind::AcpiReclaimable,
        4 => MemoryKind::AcpiNvs,
        5 => MemoryKind::Bad,
        _ => MemoryKind::Reserved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(claims: &[(u64, u64, MemoryKind)]) -> Vec<(u64, u64, MemoryKind)> {
        let mut map = MemoryMap::new();
        for &(start, len, kind) in claims {
            assert!(map.claim(start, len, kind));
        }
        map.resolve();
        map.regions().iter().map(|region| (region.start, region.end, region.kind)).collect()
    }

    #[test]
    fn the_kernel_cuts_its_image_out_of_free_memory() {
        let regions = resolve(&[(0x10_0000, 0x100_0000, MemoryKind::Usable), (0x20_0000, 0x1234, MemoryKind::Kernel)]);
        assert_eq!(
            regions,
            [
                (0x10_0000, 0x20_0000, MemoryKind::Usable),
                (0x20_0000, 0x20_2000, MemoryKind::Kernel),
                (0x20_2000, 0x110_0000, MemoryKind::Usable),
            ]
        );
    }

    #[test]
    fn free_memory_shrinks_to_whole_pages_and_reserved_memory_grows() {
        let regions = resolve(&[(0, 0x9_fc00, MemoryKind::Usable), (0x9_fc00, 0x400, MemoryKind::Reserved)]);
        assert_eq!(regions, [(0, 0x9_f000, MemoryKind::Usable), (0x9_f000, 0xa_0000, MemoryKind::Reserved)]);
    }

    #[test]
    fn unsorted_overlapping_claims_go_to_the_stronger_and_neighbours_merge() {
        let regions = resolve(&[
            (0x8000, 0x2000, MemoryKind::Usable),
            (0, 0x4000, MemoryKind::Usable),
            (0x3000, 0x5000, MemoryKind::Usable),
            (0x5000, 0x1000, MemoryKind::Reserved),
        ]);
        assert_eq!(
            regions,
            [
                (0, 0x5000, MemoryKind::Usable),
                (0x5000, 0x6000, MemoryKind::Reserved),
                (0x6000, 0xa000, MemoryKind::Usable),
            ]
        );
    }

    #[test]
    fn holes_stay_holes() {
        let regions = resolve(&[(0, 0x1000, MemoryKind::Usable), (0x1_0000_0000, 0x1000, MemoryKind::Usable)]);
        assert_eq!(regions.len(), 2);
        assert_eq!(regions[1].0, 0x1_0000_0000);
    }

    #[test]
    fn absurd_lengths_do_not_overflow() {
        let regions =
            resolve(&[(u64::MAX - 10, u64::MAX, MemoryKind::Usable), (0x1000, u64::MAX, MemoryKind::Reserved)]);
        assert_eq!(regions, [(0x1000, PHYSICAL_END, MemoryKind::Reserved)]);
    }

    #[test]
    fn a_full_table_refuses_further_claims() {
        let mut map = MemoryMap::new();
        for i in 0..CAPACITY as u64 {
            assert!(map.claim(i * 0x2000, 0x1000, MemoryKind::Usable));
        }
        assert!(!map.claim(0, 0x1000, MemoryKind::Kernel));
    }

    #[test]
    fn the_largest_region_is_cut_at_the_limit() {
        let mut map = MemoryMap::new();
        map.claim(0x1000, 0x3000, MemoryKind::Usable);
        map.claim(0x10_0000, 0x100_0000, MemoryKind::Usable);
        map.resolve();
        let region = map.largest_usable_below(0x10_2000).expect("there is memory below the limit");
        assert_eq!((region.start, region.end), (0x1000, 0x4000));
        assert_eq!(map.ram_end(), 0x110_0000);
    }
}
