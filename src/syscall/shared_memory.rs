//! System V shared memory: shmget(2), shmat(2), shmdt(2), shmctl(2). What a segment is stands in `ipc/shared_memory.rs`.
//!
//! Next: `ipc/shared_memory.rs`.

use alloc::sync::Arc;

use abi::{Errno, Result, general, ipc};

use crate::ipc::identifiers::{Identified, Ownership, READ};
use crate::ipc::shared_memory::{MOST_BYTES, MOST_SEGMENTS, SEGMENTS, Segment, page_count};
use crate::mm::user::UserPtr;
use crate::mm::{MapRequest, Placement, Rights, Source, VmaFlags};
use crate::process::RunningThread;

/// `struct shmid64_ds`.
type SegmentInformation = [u64; 14];

/// shmget(2). `EACCES`, `EEXIST`, `EINVAL`, `ENOENT`, `ENOMEM`: also for large pages, of which there are none. `ENOSPC`.
pub async fn shmget(thread: &mut RunningThread, key: i32, size: usize, flags: u32) -> Result<usize> {
    crate::mm::admit().await?;
    let found = SEGMENTS.lock().find(key);
    if let Some(segment) = found {
        return open(thread, &segment, size, flags);
    }
    if key != ipc::IPC_PRIVATE && flags & ipc::IPC_CREAT == 0 {
        return Err(Errno::ENOENT);
    }
    if size == 0 || size > MOST_BYTES {
        return Err(Errno::EINVAL);
    }
    if flags & ipc::SHM_HUGETLB != 0 {
        return Err(Errno::ENOMEM);
    }
    let memory = Segment::zeros(size)?;
    let mut segments = SEGMENTS.lock();
    // Somebody may have been faster.
    match segments.find(key) {
        Some(segment) => {
            drop(segments);
            open(thread, &segment, size, flags)
        }
        None => {
            let ownership = Ownership::new(key, flags, &thread.credentials);
            Segment::make(&mut segments, ownership, size, memory, thread.process.pid).map(|id| id as usize)
        }
    }
}

/// The identifier of a segment that is there, as shmget(2) answers it.
fn open(thread: &RunningThread, segment: &Segment, size: usize, flags: u32) -> Result<usize> {
    if flags & ipc::IPC_CREAT != 0 && flags & ipc::IPC_EXCL != 0 {
        return Err(Errno::EEXIST);
    }
    if size > segment.size() {
        return Err(Errno::EINVAL);
    }
    segment.ownership().check(&thread.credentials, flags & 0o777)?;
    Ok(segment.id() as usize)
}

/// shmat(2). `EACCES`, `EINVAL`: no such segment, an address that does not fit, or where something is mapped. `ENOMEM`.
pub async fn shmat(thread: &mut RunningThread, id: i32, address: usize, flags: u32) -> Result<usize> {
    let has = |bit: u32| flags & bit != 0;
    let placement = match address {
        0 if has(ipc::SHM_REMAP) => return Err(Errno::EINVAL),
        0 => Placement::Anywhere,
        address => {
            let rounded = address & !(ipc::SHMLBA - 1);
            if rounded != address && !has(ipc::SHM_RND) || rounded == 0 && has(ipc::SHM_REMAP) {
                return Err(Errno::EINVAL);
            }
            match rounded {
                0 => Placement::Anywhere,
                rounded if has(ipc::SHM_REMAP) => Placement::Fixed(rounded),
                rounded => Placement::FixedNoReplace(rounded),
            }
        }
    };
    let (write, execute) = (!has(ipc::SHM_RDONLY), has(ipc::SHM_EXEC));
    let wanted = READ | if write { 0o222 } else { 0 } | if execute { 0o111 } else { 0 };
    crate::mm::admit().await?;
    let file = Arc::new(Segment::attach(id, &thread.credentials, wanted)?);
    let len = file.attachment.as_ref().map_or(0, |attachment| attachment.size());
    let mut area = VmaFlags::SHARED | VmaFlags::MAY_EXECUTE;
    area.set(VmaFlags::MAY_WRITE, write);
    let rights = Rights { read: true, write, execute };
    let request = MapRequest { placement, len, rights, flags: area, source: Source::File { file, offset: 0 } };
    thread.space.map(request).map_err(|errno| if errno == Errno::EEXIST { Errno::EINVAL } else { errno })
}

/// shmdt(2). `EINVAL`: nothing is attached there.
pub fn shmdt(thread: &mut RunningThread, address: usize) -> Result<usize> {
    thread.space.detach(address).map(|()| 0)
}

/// shmctl(2). `EACCES`, `EFAULT`, `EINVAL`, `ENOMEM`, `EPERM`.
pub async fn shmctl(thread: &mut RunningThread, id: i32, command: u32, argument: UserPtr<u8>) -> Result<usize> {
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    match command {
        ipc::IPC_INFO => {
            let (most, largest) = (MOST_BYTES as u64, SEGMENTS.lock().largest_index());
            let limits = [most, 1, MOST_SEGMENTS as u64, MOST_SEGMENTS as u64, most, 0, 0, 0, 0];
            thread.put(argument.cast(), &limits).await?;
            Ok(largest)
        }
        ipc::SHM_INFO => {
            let (used, largest) = use_of_memory();
            thread.put(argument.cast(), &used).await?;
            Ok(largest)
        }
        ipc::IPC_STAT | ipc::SHM_STAT | ipc::SHM_STAT_ANY => {
            let is_by_index = command != ipc::IPC_STAT;
            let segment = if is_by_index { SEGMENTS.lock().at(id)? } else { SEGMENTS.lock().get(id)? };
            if command != ipc::SHM_STAT_ANY {
                segment.ownership().check(&thread.credentials, READ)?;
            }
            thread.put(argument.cast(), &information(&segment)).await?;
            Ok(if is_by_index { segment.id() as usize } else { 0 })
        }
        ipc::IPC_SET => {
            let wanted: SegmentInformation = thread.get(argument.cast()).await?;
            controlled(thread, id)?.set_ownership(&wanted).map(|()| 0)
        }
        ipc::IPC_RMID => {
            controlled(thread, id)?;
            Segment::remove(id).map(|()| 0)
        }
        ipc::SHM_LOCK | ipc::SHM_UNLOCK => {
            let segment = SEGMENTS.lock().get(id)?;
            let limit = thread.process.limits.lock().soft(general::RLIMIT_MEMLOCK);
            segment.set_locked(command == ipc::SHM_LOCK, &thread.credentials, limit).map(|()| 0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// The segment, if the caller may change or remove it.
fn controlled(thread: &RunningThread, id: i32) -> Result<Arc<Segment>> {
    let segment = SEGMENTS.lock().get(id)?;
    segment.ownership().check_control(&thread.credentials)?;
    Ok(segment)
}

/// `struct shm_info`, and the largest index in use.
fn use_of_memory() -> ([u64; 6], usize) {
    let segments = SEGMENTS.lock();
    let resident: usize = segments.iter().map(|segment| segment.describe().resident).sum();
    ([segments.len() as u64, page_count() as u64, resident as u64, 0, 0, 0], segments.largest_index())
}

fn information(segment: &Segment) -> SegmentInformation {
    let about = segment.describe();
    let [a, b, c, d, e, f] = about.ownership.words(segment.sequence());
    let pids = u64::from(about.creator_pid as u32) | u64::from(about.last_pid as u32) << 32;
    let size = about.size as u64;
    [a, b, c, d, e, f, size, about.attached_at, about.detached_at, about.changed_at, pids, about.attached as u64, 0, 0]
}
