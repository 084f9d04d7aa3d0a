//! Device registers behind I/O ports.

/// How I/O ports are reached: the kernel implements it with `in` and `out`, a test with a model of the device.
pub trait PortSpace: Sync {
    /// Reads one byte.
    fn read8(&self, port: u16) -> u8;
    /// Writes one byte.
    fn write8(&self, port: u16, value: u8);
    /// Reads two bytes.
    fn read16(&self, port: u16) -> u16;
    /// Writes two bytes.
    fn write16(&self, port: u16, value: u16);
    /// Reads four bytes.
    fn read32(&self, port: u16) -> u32;
    /// Writes four bytes.
    fn write32(&self, port: u16, value: u32);
}

/// A range of I/O ports that a driver may use. Offsets count from its first port.
#[derive(Clone, Copy)]
pub struct Port {
    space: &'static dyn PortSpace,
    first: u16,
    count: u16,
}

impl Port {
    /// Hands out `count` ports from `first` on.
    pub const fn new(space: &'static dyn PortSpace, first: u16, count: u16) -> Port {
        Port { space, first, count }
    }

    fn checked(&self, offset: u16, size: u16) -> u16 {
        assert!(offset < self.count && size <= self.count - offset, "port outside its range");
        self.first + offset
    }

    /// Reads one byte.
    pub fn read8(&self, offset: u16) -> u8 {
        self.space.read8(self.checked(offset, 1))
    }

    /// Writes one byte.
    pub fn write8(&self, offset: u16, value: u8) {
        self.space.write8(self.checked(offset, 1), value);
    }

    /// Reads two bytes.
    pub fn read16(&self, offset: u16) -> u16 {
        self.space.read16(self.checked(offset, 2))
    }

    /// Writes two bytes.
    pub fn write16(&self, offset: u16, value: u16) {
        self.space.write16(self.checked(offset, 2), value);
    }

    /// Reads four bytes.
    pub fn read32(&self, offset: u16) -> u32 {
        self.space.read32(self.checked(offset, 4))
    }

    /// Writes four bytes.
    pub fn write32(&self, offset: u16, value: u32) {
        self.space.write32(self.checked(offset, 4), value);
    }
}
