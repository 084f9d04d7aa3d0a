//! How the vector registers lie in memory: the FXSAVE area and the XSAVE header behind it (Intel SDM volume 1, chapters 10
//! and 13). Programs see this layout in signal frames, and hand it back, so [`sanitize`] makes foreign bytes loadable.
//!
//! ```text
//! 0    512  x87, MXCSR at 24, MXCSR's mask at 28, XMM0 to XMM15; the last 48 bytes belong to software
//! 512   64  XSAVE header: which parts are in use (8), compaction (8, zero here), reserved (48, zero)
//! 576   ..  AVX and whatever else the CPU has, where CPUID leaf 13 says
//! ```
//!
//! Next: `vector.rs`, which saves and restores.

/// Bytes of the part that every 64-bit CPU has.
pub const LEGACY_SIZE: usize = 512;
/// Bytes up to the end of the XSAVE header.
pub const HEADER_END: usize = 576;
/// The x87 and SSE parts, which the legacy area holds.
pub const LEGACY_FEATURES: u64 = 3;

const MXCSR: usize = 24;
const CONTROL_WORD_RESET: u16 = 0x037f;
const MXCSR_RESET: u32 = 0x1f80;

/// What this CPU saves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorLayout {
    /// Bytes of an area; a multiple of 64.
    pub size: usize,
    /// The parts that are saved, as XCR0 has them; [`LEGACY_FEATURES`] where the CPU has FXSAVE only.
    pub features: u64,
    /// Whether the area has the XSAVE header.
    pub is_extended: bool,
    /// The bits of MXCSR that may be set.
    pub mxcsr_mask: u32,
}

/// Makes `area` what the registers hold when a program starts: all exceptions masked, everything else zero.
pub fn reset(area: &mut [u8]) {
    area.fill(0);
    area[..2].copy_from_slice(&CONTROL_WORD_RESET.to_le_bytes());
    area[MXCSR..MXCSR + 4].copy_from_slice(&MXCSR_RESET.to_le_bytes());
}

/// Clears what the CPU would refuse to load: reserved bits of MXCSR, parts it does not have, a reserved header.
pub fn sanitize(area: &mut [u8], layout: &VectorLayout) {
    let mxcsr = read_u32(area, MXCSR) & layout.mxcsr_mask;
    area[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr.to_le_bytes());
    if layout.is_extended {
        let mut parts = [0; 8];
        parts.copy_from_slice(&area[LEGACY_SIZE..LEGACY_SIZE + 8]);
        let parts = u64::from_le_bytes(parts) & layout.features;
        area[LEGACY_SIZE..HEADER_END].fill(0);
        area[LEGACY_SIZE..LEGACY_SIZE + 8].copy_from_slice(&parts.to_le_bytes());
    }
}

/// Says that the legacy parts, and no others, of an extended area are in use: for a frame that holds only those.
pub fn keep_legacy_only(area: &mut [u8], layout: &VectorLayout) {
    if layout.is_extended {
        area[LEGACY_SIZE..].fill(0);
        area[LEGACY_SIZE..LEGACY_SIZE + 8].copy_from_slice(&LEGACY_FEATURES.to_le_bytes());
    }
}

/// Where software's bytes begin in the legacy area: in a signal frame, `struct _fpx_sw_bytes` (Linux, `asm/sigcontext.h`).
pub const SOFTWARE_BYTES: usize = 464;
/// The first word there says that the frame holds a whole XSAVE area …
const MAGIC_1: u32 = 0x4650_5853;
/// … and this one follows the area.
const MAGIC_2: u32 = 0x4650_5845;
const MAGIC_2_SIZE: usize = 4;
/// What follows the area in a frame.
pub const END_MARK: [u8; MAGIC_2_SIZE] = MAGIC_2.to_le_bytes();
/// No frame that claims to be larger is read.
const FRAME_MAX: usize = 16 << 10;

impl VectorLayout {
    /// How many bytes the state takes in a signal frame.
    pub const fn frame_size(&self) -> usize {
        if self.is_extended { self.size + MAGIC_2_SIZE } else { self.size }
    }

    /// What a signal frame takes on the stack at most: AT_MINSIGSTKSZ. The frame proper (440 bytes: return address, ucontext, siginfo),
    /// the state, what aligning both may cost, and the handler's own return address.
    pub const fn smallest_signal_stack(&self) -> usize {
        const FRAME: usize = 8 + 304 + 128;
        const ALIGNMENT: usize = 64 + 16 + 8;
        (FRAME + self.frame_size() + ALIGNMENT).next_multiple_of(16)
    }
}

/// Software's bytes of a frame, by which programs can tell what it holds: zeros for a legacy one.
pub fn software_bytes(layout: &VectorLayout) -> [u8; LEGACY_SIZE - SOFTWARE_BYTES] {
    let mut bytes = [0; LEGACY_SIZE - SOFTWARE_BYTES];
    if layout.is_extended {
        bytes[..4].copy_from_slice(&MAGIC_1.to_le_bytes());
        bytes[4..8].copy_from_slice(&(layout.frame_size() as u32).to_le_bytes());
        bytes[8..16].copy_from_slice(&layout.features.to_le_bytes());
        bytes[16..20].copy_from_slice(&(layout.size as u32).to_le_bytes());
    }
    bytes
}

/// Marks a frame, into whose first bytes the area was copied.
pub fn mark_frame(frame: &mut [u8], layout: &VectorLayout) {
    frame[SOFTWARE_BYTES..LEGACY_SIZE].copy_from_slice(&software_bytes(layout));
    if layout.is_extended {
        frame[layout.size..layout.size + MAGIC_2_SIZE].copy_from_slice(&END_MARK);
    }
}

/// How long the frame is whose first bytes these are: what it claims, if that is believable, else the legacy area alone.
pub fn frame_len(legacy: &[u8; LEGACY_SIZE]) -> usize {
    let size = read_u32(legacy, SOFTWARE_BYTES + 16) as usize;
    let is_marked = read_u32(legacy, SOFTWARE_BYTES) == MAGIC_1;
    if is_marked && (HEADER_END..=FRAME_MAX).contains(&size) { size + MAGIC_2_SIZE } else { LEGACY_SIZE }
}

/// The area within a frame, if it is whole and of this machine's size.
pub fn area_of_frame<'a>(frame: &'a [u8], layout: &VectorLayout) -> Option<&'a [u8]> {
    let is_whole = layout.is_extended && frame.len() == layout.frame_size() && read_u32(frame, layout.size) == MAGIC_2;
    is_whole.then(|| &frame[..layout.size])
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: VectorLayout = VectorLayout { size: 832, features: 7, is_extended: true, mxcsr_mask: 0xffff };

    #[test]
    fn a_fresh_state_masks_all_floating_point_exceptions() {
        let mut area = [0xaa; 832];
        reset(&mut area);
        assert_eq!(&area[..2], &[0x7f, 0x03]);
        assert_eq!(read_u32(&area, MXCSR), 0x1f80);
        assert!(area[32..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn foreign_bytes_lose_what_the_cpu_would_refuse_and_keep_the_rest() {
        let mut area = [0xff; 832];
        sanitize(&mut area, &LAYOUT);
        assert_eq!(read_u32(&area, MXCSR), 0xffff);
        assert_eq!(area[LEGACY_SIZE], 7);
        assert!(area[LEGACY_SIZE + 1..HEADER_END].iter().all(|&byte| byte == 0));
        assert!(area[HEADER_END..].iter().all(|&byte| byte == 0xff));
        assert!(area[32..LEGACY_SIZE].iter().all(|&byte| byte == 0xff));
    }

    #[test]
    fn an_area_without_a_header_is_left_alone_behind_its_end() {
        let layout = VectorLayout { size: 512, features: 3, is_extended: false, mxcsr_mask: 0xffbf };
        let mut area = [0xff; 512];
        sanitize(&mut area, &layout);
        assert_eq!(read_u32(&area, MXCSR), 0xffbf);
        keep_legacy_only(&mut area, &layout);
        assert!(area[32..].iter().all(|&byte| byte == 0xff));
    }

    #[test]
    fn a_frame_says_how_long_it_is_and_comes_back_whole() {
        let mut frame = [0; 836];
        reset(&mut frame[..832]);
        frame[600] = 7;
        mark_frame(&mut frame, &LAYOUT);
        let legacy: &[u8; LEGACY_SIZE] = frame[..LEGACY_SIZE].try_into().expect("512 bytes");
        assert_eq!(frame_len(legacy), 836);
        assert_eq!(area_of_frame(&frame, &LAYOUT).map(|area| area[600]), Some(7));
        frame[833] = 0;
        assert_eq!(area_of_frame(&frame, &LAYOUT), None);
    }

    #[test]
    fn a_frame_that_claims_too_much_counts_as_a_legacy_one() {
        let mut frame = [0; 836];
        mark_frame(&mut frame, &LAYOUT);
        frame[SOFTWARE_BYTES + 18] = 0xff;
        let legacy: &[u8; LEGACY_SIZE] = frame[..LEGACY_SIZE].try_into().expect("512 bytes");
        assert_eq!(frame_len(legacy), LEGACY_SIZE);
        let fx_only = VectorLayout { size: 512, features: 3, is_extended: false, mxcsr_mask: 0xffbf };
        let mut small = [0xff; 512];
        mark_frame(&mut small, &fx_only);
        assert_eq!(frame_len(&small), LEGACY_SIZE);
        assert_eq!(area_of_frame(&small, &fx_only), None);
    }

    #[test]
    fn a_legacy_frame_in_an_extended_area_uses_the_first_two_parts() {
        let mut area = [0xff; 832];
        keep_legacy_only(&mut area, &LAYOUT);
        assert_eq!(area[LEGACY_SIZE], 3);
        assert!(area[LEGACY_SIZE + 1..].iter().all(|&byte| byte == 0));
    }
}
