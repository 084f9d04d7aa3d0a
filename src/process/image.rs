//! What a process executes: the facts about its program that others ask for in /proc.

use alloc::vec::Vec;
use core::ops::Range;

use fs::Path;

/// A program as exec laid it out. Replaced as a whole by the next exec; shared with forked children.
#[derive(Clone, Default)]
pub struct Image {
    /// The file: /proc/PID/exe.
    pub executable: Option<Path>,
    /// Its holds on the files that are being executed (`ETXTBSY` for writers).
    pub holds: Vec<ExecutingHold>,
    /// Where the arguments lie on the stack: /proc/PID/cmdline.
    pub arguments: Range<usize>,
    /// Where the environment lies: /proc/PID/environ.
    pub environment: Range<usize>,
    /// The auxiliary vector: /proc/PID/auxv.
    pub auxiliary: Vec<u8>,
    /// Where the stack began.
    pub stack_start: usize,
    /// First and last address of the code.
    pub code: Range<usize>,
    /// First and last address of the data.
    pub data: Range<usize>,
    /// The real user it started with, for reports about it when it has ended.
    pub owner: u32,
}

/// Keeps a file from being written while it is executed.
pub struct ExecutingHold(alloc::sync::Arc<dyn fs::Inode>);

impl ExecutingHold {
    /// Takes the hold.
    ///
    /// # Errors
    ///
    /// `ETXTBSY`: somebody has it open for writing.
    pub fn take(inode: &alloc::sync::Arc<dyn fs::Inode>) -> abi::Result<ExecutingHold> {
        inode.core().begin_executing()?;
        Ok(ExecutingHold(inode.clone()))
    }
}

impl Clone for ExecutingHold {
    fn clone(&self) -> ExecutingHold {
        // There is a hold already, so there is no writer, and one more always succeeds.
        let _ = self.0.core().begin_executing();
        ExecutingHold(self.0.clone())
    }
}

impl Drop for ExecutingHold {
    fn drop(&mut self) {
        self.0.core().end_executing();
    }
}
