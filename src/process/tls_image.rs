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
    /// The thread pointer, once it is known where the image is mapped.
    pointer: AtomicU64,
    /// Its offset from the beginning of the mapping.
    pointer_offset: AtomicU64,
}

impl TlsImage {
    /// The image for a program.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: larger than memory can be.
    pub fn new(program: Arc<dyn Inode>, storage: ThreadLocal) -> Result<TlsImage> {
        let alignment = storage.alignment.max(16);
        let below = storage.memory_len.checked_next_multiple_of(alignment);
        // A mapping begins at a page; what must be aligned more strictly may have to move on by almost that much.
        let slack = if alignment > PAGE_SIZE as u64 { alignment } else { 0 };
        let len = below
            .and_then(|below| below.checked_add(slack + CONTROL_BLOCK))
            .and_then(|len| len.checked_next_multiple_of(PAGE_SIZE as u64));
        let attributes = Attributes { size: len.ok_or(Errno::ENOMEM)?, links: 1, ..Attributes::default() };
        let core = InodeCore::new(&crate::mm::FRAMES, 0, 0, Kind::Regular, 0, attributes);
        Ok(TlsImage { core, program, storage, pointer: AtomicU64::new(0), pointer_offset: AtomicU64::new(0) })
    }

    /// Its length in bytes: whole pages.
    pub fn size(&self) -> usize {
        self.core.size() as usize
    }

    /// Says where it was mapped; returns the thread pointer.
    pub fn place(&self, address: u64) -> u64 {
        let below = self.storage.memory_len.next_multiple_of(self.storage.alignment);
        let pointer = (address + below).next_multiple_of(self.storage.alignment.max(16));
        self.pointer.store(pointer, Ordering::Relaxed);
        self.pointer_offset.store(pointer - address, Ordering::Relaxed);
        pointer
    }

    async fn fill(&self, index: u64, page: &Page) -> Result<()> {
        page.zero(0, PAGE_SIZE);
        let page_start = index * PAGE_SIZE as u64;
        let page_end = page_start + PAGE_SIZE as u64;
        // The storage ends at the thread pointer, whose alignment is the storage's.
        let pointer = self.pointer_offset.load(Ordering::Relaxed);
        let storage_start = pointer - self.storage.memory_len.next_multiple_of(self.storage.alignment);
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
        if (page_start..page_end).contains(&pointer) {
            let value = self.pointer.load(Ordering::Relaxed);
            page.write((pointer - page_start) as usize, &value.to_le_bytes());
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
