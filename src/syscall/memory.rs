//! Memory: mmap and its kin.

use alloc::sync::Arc;

use abi::{Errno, Result, general};
use fs::OpenFile;

use crate::mm::address_space::UNMAPPED_AT_ONCE;
use crate::mm::{Access, Fault, MapRequest, MappedFile, Placement, Rights, Source, VmaFlags};
use crate::process::RunningThread;
use crate::process::fd_table::Fd;

/// Bytes of a page.
const PAGE: usize = fs::PAGE_SIZE;

fn rights(protection: u32) -> Result<Rights> {
    let known = general::PROT_READ | general::PROT_WRITE | general::PROT_EXEC;
    if protection & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let has = |bit| protection & bit != 0;
    let (write, execute) = (has(general::PROT_WRITE), has(general::PROT_EXEC));
    // What may be written or executed may be read too, as the hardware has it.
    Ok(Rights { read: has(general::PROT_READ) || write || execute, write, execute })
}

/// mmap(2). `EINVAL`: no length, a bad address or offset, neither shared nor private. `EACCES`: rights that the file was not opened with.
/// `EPERM`: execution from a noexec mount. `ENODEV`: a file that cannot be mapped. `EBADF`, `EEXIST`, `ENOMEM`, `EAGAIN`, `EOVERFLOW`.
pub async fn mmap(
    thread: &mut RunningThread,
    address: usize,
    len: usize,
    protection: u32,
    flags: u32,
    fd: i32,
    offset: u64,
) -> Result<usize> {
    if len == 0 || !(offset as usize).is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let len = len.checked_next_multiple_of(PAGE).ok_or(Errno::ENOMEM)?;
    let placement = placement(address, flags)?;
    let shared = match flags & general::MAP_TYPE {
        general::MAP_SHARED | general::MAP_SHARED_VALIDATE => true,
        general::MAP_PRIVATE => false,
        _ => return Err(Errno::EINVAL),
    };
    let rights = rights(protection & !(general::PROT_GROWSDOWN | general::PROT_GROWSUP))?;
    let mut area = VmaFlags::MAY_WRITE | VmaFlags::MAY_EXECUTE;
    for (bit, flag) in [
        (general::MAP_GROWSDOWN, VmaFlags::GROWS_DOWN),
        (general::MAP_LOCKED, VmaFlags::LOCKED),
        (general::MAP_NORESERVE, VmaFlags::NO_RESERVE),
    ] {
        area.set(flag, flags & bit != 0);
    }
    area.set(VmaFlags::SHARED, shared);
    let source = if flags & general::MAP_ANONYMOUS != 0 {
        if shared { shared_zeros(len)? } else { Source::Anonymous }
    } else {
        offset.checked_add(len as u64).ok_or(Errno::EOVERFLOW)?;
        let file = thread.files.get(Fd(fd))?;
        file_source(&file, offset, rights, shared, &mut area)?
    };
    crate::mm::admit().await?;
    let address = thread.space.map(MapRequest { placement, len, rights, flags: area, source })?;
    let populates = flags & general::MAP_POPULATE != 0 && flags & general::MAP_NONBLOCK == 0;
    if (populates || flags & general::MAP_LOCKED != 0) && rights.read {
        let access = if rights.write && !shared { Access::Write } else { Access::Read };
        // As Linux, a page that cannot be brought in now is not an error of mmap.
        let _ = thread.space.populate(address..address + len, Some(access)).await;
    }
    Ok(address)
}

fn placement(address: usize, flags: u32) -> Result<Placement> {
    let is_aligned = address.is_multiple_of(PAGE);
    if flags & general::MAP_FIXED_NOREPLACE != 0 {
        return if is_aligned { Ok(Placement::FixedNoReplace(address)) } else { Err(Errno::EINVAL) };
    }
    if flags & general::MAP_FIXED != 0 {
        return if is_aligned { Ok(Placement::Fixed(address)) } else { Err(Errno::EINVAL) };
    }
    Ok(if address == 0 { Placement::Anywhere } else { Placement::Hint(address & !(PAGE - 1)) })
}

fn shared_zeros(len: usize) -> Result<Source> {
    Ok(Source::File { file: crate::mm::shared_memory(len)?, offset: 0 })
}

fn file_source(file: &OpenFile, offset: u64, rights: Rights, shared: bool, area: &mut VmaFlags) -> Result<Source> {
    let flags = file.flags();
    if flags.contains(fs::OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    if !flags.can_read() || shared && rights.write && !flags.can_write() {
        return Err(Errno::EACCES);
    }
    if let Some(path) = &file.path
        && path.mount.flags().contains(fs::MountFlags::NOEXEC)
    {
        if rights.execute {
            return Err(Errno::EPERM);
        }
        area.remove(VmaFlags::MAY_EXECUTE);
    }
    if shared && !flags.can_write() {
        area.remove(VmaFlags::MAY_WRITE);
    }
    let inode = file.ops.mappable().ok_or(Errno::ENODEV)?;
    Ok(Source::File { file: Arc::new(MappedFile::new(inode, file.path.clone())), offset })
}

/// munmap(2). `EINVAL`: no length, a bad address. `ENOMEM`: too many areas.
pub async fn munmap(thread: &mut RunningThread, address: usize, len: usize) -> Result<usize> {
    thread.space.unmap_in_parts(address, len).await.map(|()| 0)
}

/// munmap(2), if it is soon done.
pub fn munmap_now(thread: &mut RunningThread, address: usize, len: usize) -> Option<Result<usize>> {
    if len == 0 || !address.is_multiple_of(PAGE) {
        return Some(Err(Errno::EINVAL));
    }
    (len <= UNMAPPED_AT_ONCE).then(|| thread.space.unmap(address, len).map(|()| 0))
}

/// mprotect(2). `EINVAL`: a bad address or rights. `EACCES`: rights that the file was not opened with. `ENOMEM`: nothing mapped there.
pub fn mprotect(thread: &mut RunningThread, address: usize, len: usize, protection: u32) -> Result<usize> {
    if protection & (general::PROT_GROWSDOWN | general::PROT_GROWSUP) != 0 {
        return Err(Errno::EINVAL);
    }
    thread.space.protect(address, len, rights(protection)?).map(|()| 0)
}

/// mremap(2). `EINVAL`, `EFAULT`: nothing mapped there. `ENOMEM`, `EAGAIN`.
pub async fn mremap(
    thread: &mut RunningThread,
    old: usize,
    old_len: usize,
    new_len: usize,
    flags: u32,
    new: usize,
) -> Result<usize> {
    crate::mm::admit().await?;
    thread.space.remap(old, old_len, new_len, flags, new)
}

/// brk(2), as the kernel has it: returns where it is, changed or not.
pub async fn brk(thread: &mut RunningThread, address: usize) -> Result<usize> {
    // Without memory the break stays where it is, which is how this call says so.
    let wanted = if crate::mm::admit().await.is_ok() { address } else { 0 };
    Ok(thread.space.brk(wanted))
}

/// madvise(2). `EINVAL`: a bad address or unknown advice. `ENOMEM`: nothing mapped there.
pub async fn madvise(thread: &mut RunningThread, address: usize, len: usize, advice: u32) -> Result<usize> {
    let populate = match advice {
        general::MADV_POPULATE_READ => Some(Access::Read),
        general::MADV_POPULATE_WRITE => Some(Access::Write),
        _ => None,
    };
    let Some(access) = populate else { return thread.space.advise(address, len, advice).map(|()| 0) };
    let end = address.checked_add(len).ok_or(Errno::EINVAL)?;
    thread.space.populate(address..end, Some(access)).await.map(|()| 0).map_err(|fault| match fault {
        Fault::Unmapped => Errno::ENOMEM,
        Fault::Refused => Errno::EFAULT,
        Fault::Bus => Errno::EFAULT,
        Fault::OutOfMemory => Errno::EAGAIN,
    })
}

/// msync(2). `EINVAL`: a bad address, or both MS_ASYNC and MS_SYNC. `ENOMEM`: not all of it is mapped. `EIO`.
pub async fn msync(thread: &mut RunningThread, address: usize, len: usize, flags: u32) -> Result<usize> {
    let (later, now) = (flags & general::MS_ASYNC != 0, flags & general::MS_SYNC != 0);
    let known = general::MS_ASYNC | general::MS_SYNC | general::MS_INVALIDATE;
    if flags & !known != 0 || later && now || !address.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let files = thread.space.shared_files(address, len)?;
    if now {
        for file in files {
            file.inode.sync(true).await?;
        }
    }
    Ok(0)
}

/// Pages that one step of mincore(2) tells of.
const STEP: usize = 256;

/// mincore(2). `EINVAL`: a bad address. `ENOMEM`: not all of it is mapped. `EFAULT`.
pub async fn mincore(thread: &mut RunningThread, address: usize, len: usize, result: usize) -> Result<usize> {
    if !address.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let pages = len.div_ceil(PAGE);
    let mut done = 0;
    while done < pages {
        let mut bytes = [0; STEP];
        let part = (pages - done).min(STEP);
        let from = address.checked_add(done * PAGE).ok_or(Errno::ENOMEM)?;
        thread.space.resident_pages(from, &mut bytes[..part])?;
        thread.space.write_user_bytes(result.wrapping_add(done), &bytes[..part]).await?;
        done += part;
    }
    Ok(0)
}

async fn lock(thread: &mut RunningThread, address: usize, len: usize) -> Result<usize> {
    thread.space.lock(address, len, true)?;
    let begin = address & !(PAGE - 1);
    let end = address.checked_add(len).and_then(|end| end.checked_next_multiple_of(PAGE)).ok_or(Errno::EINVAL)?;
    thread.space.populate(begin..end, None).await.map_err(|_| Errno::ENOMEM)?;
    Ok(0)
}

/// mlock(2). `EINVAL`, `ENOMEM`: not mapped, or over RLIMIT_MEMLOCK.
pub async fn mlock(thread: &mut RunningThread, address: usize, len: usize) -> Result<usize> {
    lock(thread, address, len).await
}

/// mlock2(2). As mlock(2); `EINVAL`: unknown flags.
pub async fn mlock2(thread: &mut RunningThread, address: usize, len: usize, flags: u32) -> Result<usize> {
    match flags {
        0 => lock(thread, address, len).await,
        general::MLOCK_ONFAULT => thread.space.lock(address, len, true).map(|()| 0),
        _ => Err(Errno::EINVAL),
    }
}

/// munlock(2). `EINVAL`, `ENOMEM`.
pub fn munlock(thread: &mut RunningThread, address: usize, len: usize) -> Result<usize> {
    thread.space.lock(address, len, false).map(|()| 0)
}

/// mlockall(2). `EINVAL`: unknown flags, or none. `ENOMEM`.
pub fn mlockall(thread: &mut RunningThread, flags: u32) -> Result<usize> {
    let known = general::MCL_CURRENT | general::MCL_FUTURE | general::MCL_ONFAULT;
    if flags & !known != 0 || flags & (general::MCL_CURRENT | general::MCL_FUTURE) == 0 {
        return Err(Errno::EINVAL);
    }
    thread.space.lock_all(flags & general::MCL_CURRENT != 0, flags & general::MCL_FUTURE != 0).map(|()| 0)
}

/// munlockall(2).
pub fn munlockall(thread: &mut RunningThread) -> Result<usize> {
    thread.space.lock_all(false, false).map(|()| 0)
}

/// membarrier(2). `EINVAL`: an unknown command.
pub fn membarrier(thread: &mut RunningThread, command: u32, flags: u32, _cpu: u32) -> Result<usize> {
    use general::membarrier_cmd as commands;
    const GLOBAL: u32 = commands::MEMBARRIER_CMD_GLOBAL as u32;
    const PRIVATE: u32 = commands::MEMBARRIER_CMD_PRIVATE_EXPEDITED as u32;
    const REGISTER_PRIVATE: u32 = commands::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED as u32;
    match command {
        _ if flags != 0 => Err(Errno::EINVAL),
        0 => Ok((GLOBAL | PRIVATE | REGISTER_PRIVATE) as usize),
        GLOBAL => {
            crate::mm::barrier_everywhere();
            Ok(0)
        }
        PRIVATE => {
            thread.space.barrier();
            Ok(0)
        }
        // Nothing has to be prepared for it.
        REGISTER_PRIVATE => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}
