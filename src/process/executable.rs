//! A file that is to be executed: checked, kept from being written, and read only as far as its headers.
//!
//! What is read and mapped is the file's [content](fs::Inode::content): in an overlay that is the lower layer's file, and stays it when
//! the file is copied up meanwhile. What is kept from being written is the file as programs name it, in whichever layer it is.
//!
//! Next: `elf_plan.rs`, what the headers ask for; `load.rs`, how it is carried out.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::{Errno, Result};
use fs::permission::{Access, check};
use fs::{Caller, Inode, Kind, MountFlags, Path};

use super::elf_plan::{HEADER_LEN, Header, Plan};
use super::image::ExecutingHold;
use crate::mm::MakeRoom;
use crate::mm::MappedFile;

/// Bytes of a page.
const PAGE: usize = fs::PAGE_SIZE;

/// An executable file that stays as it is while it is looked at.
pub struct Executable {
    /// As programs name it.
    pub path: Path,
    /// Where its pages come from.
    pub content: Arc<dyn Inode>,
    /// Keeps it from being written.
    pub hold: ExecutingHold,
    /// Whether the caller may also read it; else nobody is to look into the process.
    pub is_readable: bool,
}

impl Executable {
    /// Checks that a file may be executed, and keeps it from being written.
    ///
    /// # Errors
    ///
    /// `EACCES`: not a regular file, no x permission, or a mount without exec. `ETXTBSY`: somebody has it open for writing.
    pub fn open(caller: &Caller<'_>, path: Path) -> Result<Executable> {
        let inode = path.inode();
        if !is_executable(caller, &path) {
            return Err(Errno::EACCES);
        }
        let is_readable = check(caller.credentials, &**inode, Access::READ).is_ok();
        let hold = ExecutingHold::take(inode)?;
        let content = inode.content().unwrap_or_else(|| inode.clone());
        Ok(Executable { path, content, hold, is_readable })
    }

    /// What is to be mapped of it.
    pub fn mapped(&self) -> MappedFile {
        MappedFile::new(self.content.clone(), Some(self.path.clone()))
    }

    /// Reads through the page cache, up to the file's end. Returns how much there was.
    ///
    /// # Errors
    ///
    /// `EIO`, `ENOMEM`.
    pub async fn read(&self, offset: u64, into: &mut [u8]) -> Result<usize> {
        let rest = self.size().saturating_sub(offset);
        let len = into.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let within = at as usize % PAGE;
            let part = (PAGE - within).min(len - done);
            let page = self.content.core().pages.load(&*self.content, at / PAGE as u64).await?;
            page.read(within, &mut into[done..done + part]);
            done += part;
        }
        Ok(len)
    }

    /// What its headers ask for.
    ///
    /// # Errors
    ///
    /// `ENOEXEC`: as of [`Header::parse`] and [`Plan::new`], or the file ends before what they promise. `ENOMEM`, `EIO`.
    pub async fn plan(&self) -> Result<Plan> {
        let mut bytes = [0; HEADER_LEN];
        let len = self.read(0, &mut bytes).await?;
        let header = Header::parse(&bytes[..len])?;
        let mut table = Vec::new();
        table.make_exact_room(header.table_len())?;
        table.resize(header.table_len(), 0);
        if self.read(header.table_offset, &mut table).await? != table.len() {
            return Err(Errno::ENOEXEC);
        }
        let plan = Plan::new(header, &table)?;
        if plan.fits_file(self.size()) { Ok(plan) } else { Err(Errno::ENOEXEC) }
    }

    fn size(&self) -> u64 {
        self.content.metadata().attributes.size
    }
}

/// Whether this is a file that the caller may execute.
pub fn is_executable(caller: &Caller<'_>, path: &Path) -> bool {
    let inode = path.inode();
    inode.core().kind == Kind::Regular
        && !path.mount.flags().contains(MountFlags::NOEXEC)
        && check(caller.credentials, &**inode, Access::EXECUTE).is_ok()
}
