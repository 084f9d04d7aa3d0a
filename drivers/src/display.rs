//! Frame buffers.
//!
//! Next: `drivers/terminal`, which draws text into one.

use crate::hw::Mmio;

/// Where the three colours of a pixel lie, in bits from the least significant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PixelFormat {
    /// Bytes of a pixel: 2, 3 or 4.
    pub bytes: usize,
    /// Position and width of red.
    pub red: (u8, u8),
    /// Position and width of green.
    pub green: (u8, u8),
    /// Position and width of blue.
    pub blue: (u8, u8),
}

/// A linear frame buffer, as the firmware left it.
#[derive(Clone, Copy)]
pub struct FrameBuffer {
    /// Its pixels.
    pub pixels: Mmio,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Bytes from one line to the next.
    pub pitch: usize,
    /// What a pixel looks like.
    pub format: PixelFormat,
}
