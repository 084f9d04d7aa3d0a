//! Feature bits that belong to the transport and the ring; each device's own stand in its driver.
//!
//! Source: Virtio 1.2, section 6. Next: `transport.rs`.

/// A descriptor may point to a table of descriptors: a request takes one place in the ring, however many buffers it has.
pub(crate) const INDIRECT_DESCRIPTORS: u64 = 1 << 28;
/// Each side names the index at which it wants to be told.
pub(crate) const EVENT_INDEX: u64 = 1 << 29;
/// The device is one of Virtio 1.0 or later.
pub(crate) const VERSION_1: u64 = 1 << 32;

/// What every driver here takes when it is offered. `ACCESS_PLATFORM` (33) is not among them: addresses are physical, and a
/// device that insists on an IOMMU refuses the negotiation.
pub(crate) const RING: u64 = INDIRECT_DESCRIPTORS | EVENT_INDEX | VERSION_1;
