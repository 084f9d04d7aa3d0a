//! Which page size to map with: the largest that both addresses and the length allow.
//!
//! Next: `boot_paging.rs`.

/// Bytes of a small page.
pub const KIB_4: u64 = 4096;
/// Bytes of a large page.
pub const MIB_2: u64 = 2 << 20;
/// Bytes of a huge page, which not every CPU has.
pub const GIB_1: u64 = 1 << 30;

/// The largest page with which `virt` can be mapped to `phys` when `len` bytes are left.
pub fn largest_page(virt: u64, phys: u64, len: u64, has_gib_pages: bool) -> u64 {
    let fits = |size: u64| (virt | phys) & (size - 1) == 0 && len >= size;
    if has_gib_pages && fits(GIB_1) {
        GIB_1
    } else if fits(MIB_2) {
        MIB_2
    } else {
        KIB_4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_and_the_length_must_allow_a_large_page() {
        let high = 0xffff_8000_0000_0000;
        assert_eq!(largest_page(high, 0, 4 * GIB_1, true), GIB_1);
        assert_eq!(largest_page(high, 0, 4 * GIB_1, false), MIB_2);
        assert_eq!(largest_page(high + MIB_2, MIB_2, 4 * GIB_1, true), MIB_2);
        assert_eq!(largest_page(high, MIB_2 + KIB_4, 4 * GIB_1, true), KIB_4);
        assert_eq!(largest_page(high, 0, MIB_2 - KIB_4, true), KIB_4);
        assert_eq!(largest_page(high, 0, GIB_1 - KIB_4, true), MIB_2);
    }
}
