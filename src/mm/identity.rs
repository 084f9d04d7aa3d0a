//! What a word of shared memory is called, whoever maps it: futexes that processes share are found by it.
//!
//! Next: `user.rs`.

use alloc::sync::Arc;

use super::address_space::AddressSpace;
use super::vma::Backing;

impl AddressSpace {
    /// Identity and offset of what is mapped shared at `address`; `None` if the memory there is the program's own.
    pub fn shared_identity(&self, address: usize) -> Option<(usize, usize)> {
        let inner = self.inner.lock();
        let vma = inner.areas.find(address).filter(|vma| vma.is_shared())?;
        match &vma.backing {
            Backing::File { file, page } => {
                let offset = (*page as usize).wrapping_mul(super::FRAME_SIZE).wrapping_add(address - vma.start);
                Some((Arc::as_ptr(&file.inode).cast::<u8>() as usize, offset))
            }
            _ => None,
        }
    }
}
