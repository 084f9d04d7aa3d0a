//! The thread-local storage that a program without a C library starts with.
//!
//! On x86_64 the storage lies below the thread pointer (variant II of the ELF TLS ABI), and the word at the thread pointer holds
//! the pointer itself:
//!
//! ```text
//!   page                     initial content, zeros        FS ─► pointer to itself, …, 0x28: stack protector's slot
//!   └──────── padding ──────┴──────── storage ────────────┴───── control block ─────┘
//! ```
//!
//! It is an inode whose pages are made when they are touched, mapped privately like a file: a program whose library makes its
//! own storage never costs a page here.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::{Errno, Result};
use fs::inode::{FileSystemStatus, InodeCore};
use fs::{Attributes, Inode, Io, Kind, PAGE_SIZE, Page};

use super::elf_plan::ThreadLocal;

/// Room above the thread pointer: for the self-pointer and the stack protector's slot at 0x28.
const CONTROL_BLOCK: u64 = 64;

/// One program's initial storage.
pub struct TlsImage {
    core: InodeCore,
    program: Arc<dyn Inode>,
    storage: ThreadLocal,
    /// Offset of the thread pointer from the beginning of the mapping.
    pointer: u64,
    /// Where the mapping begins.
    address: AtomicU64,
}

impl TlsImage {
    /// The image for a program.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: larger than memory can be.
    pub fn new(program: Arc<dyn Inode>, storage: ThreadLocal) -> Result<TlsImage> {
        let pointer = storage.memory_len.checked_next_multiple_of(storage.alignment.max(16)).ok_or(Errno::ENOMEM)?;
        let len = pointer.checked_add(CONTROL_BLOCK).and_then(|len| len.checked_next_multiple_of(PAGE_SIZE as u64));
        let attributes = Attributes { size: len.ok_or(Errno::ENOMEM)?, links: 1, ..Attributes::default() };
        let core = InodeCore::new(&crate::mm::FRAMES, 0, 0, Kind::Regular, 0, attributes);
        Ok(TlsImage { core, program, storage, pointer, address: AtomicU64::new(0) })
    }

    /// Its length in bytes: whole pages.
    pub fn size(&self) -> usize {
        self.core.size() as usize
    }

    /// Says where it was mapped; returns the thread pointer.
    pub fn place(&self, address: u64) -> u64 {
        self.address.store(address, Ordering::Relaxed);
        address + self.pointer
    }

    async fn fill(&self, index: u64, page: &Page) -> Result<()> {
        page.zero(0, PAGE_SIZE);
        let page_start = index * PAGE_SIZE as u64;
        let page_end = page_start + PAGE_SIZE as u64;
        // The storage ends at the thread pointer, whose alignment is the storage's.
        let storage_start = self.pointer - self.storage.memory_len.next_multiple_of(self.storage.alignment);
        let mut at = storage_start.max(page_start);
        let content_end = (storage_start + self.storage.file_len).min(page_end);
        while at < content_end {
            let offset = self.storage.offset + (at - storage_start);
            let within = offset as usize % PAGE_SIZE;
            let part = ((PAGE_SIZE - within) as u64).min(content_end - at) as usize;
            let from = self.program.core().pages.load(&*self.program, offset / PAGE_SIZE as u64).await?;
            let mut bytes = [0; 64];
            let part = part.min(bytes.len());
            from.read(within, &mut bytes[..part]);
            page.write((at - page_start) as usize, &bytes[..part]);
            at += part as u64;
        }
        if (page_start..page_end).contains(&self.pointer) {
            let value = self.address.load(Ordering::Relaxed) + self.pointer;
            page.write((self.pointer - page_start) as usize, &value.to_le_bytes());
        }
        Ok(())
    }
}

impl Inode for TlsImage {
    fn core(&self) -> &InodeCore {
        &self.core
    }

    fn read_page<'a>(&'a self, index: u64, page: &'a Page) -> Io<'a, ()> {
        Io::wait(self.fill(index, page))
    }

    fn file_system(&self) -> FileSystemStatus {
        FileSystemStatus::default()
    }
}
