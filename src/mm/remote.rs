//! Another program's memory: for /proc/pid/cmdline and mem, ptrace, process_vm_readv.
//!
//! It is reached through its frames, so the CPU stays with its own address space.
//!
//! Next: `report.rs`.

use super::address_space::AddressSpace;
use super::frames::{FRAME_SIZE, Frame};
use super::page_fault::Access;

impl AddressSpace {
    /// Reads memory of this address space, whichever is active; returns how many bytes could be read.
    ///
    /// # Cancel safety
    ///
    /// Reads change nothing but what is in memory.
    pub async fn read_remote(&self, address: usize, into: &mut [u8]) -> usize {
        let mut done = 0;
        while done < into.len() {
            let Some(at) = address.checked_add(done) else { break };
            let part = (FRAME_SIZE - at % FRAME_SIZE).min(into.len() - done);
            let target = &mut into[done..done + part];
            if self.fault_in(at, Access::Read).await.is_err() {
                break;
            }
            // `None`: the frame of zeros, or the page has gone again, as it may at any time.
            if self.with_frame(at, |frame| frame.read(at % FRAME_SIZE, target)).is_none() {
                into[done..done + part].fill(0);
            }
            done += part;
        }
        done
    }

    /// Writes memory of this address space, whichever is active; returns how many bytes could be written.
    ///
    /// # Cancel safety
    ///
    /// Part of the bytes may have been written.
    pub async fn write_remote(&self, address: usize, bytes: &[u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let Some(at) = address.checked_add(done) else { break };
            let part = (FRAME_SIZE - at % FRAME_SIZE).min(bytes.len() - done);
            let write = |frame: &Frame| frame.write(at % FRAME_SIZE, &bytes[done..done + part]);
            if self.fault_in(at, Access::Write).await.is_err() || self.with_frame(at, write).is_none() {
                break;
            }
            done += part;
        }
        done
    }

    fn with_frame<R>(&self, address: usize, work: impl FnOnce(&Frame) -> R) -> Option<R> {
        self.inner.lock().table.slot(address & !(FRAME_SIZE - 1))?.with_frame(work)
    }
}
