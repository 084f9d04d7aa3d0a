//! Bringing files to stable storage.

use abi::{Errno, Result};

use crate::process::RunningThread;
use crate::process::fd_table::Fd;

/// fsync(2). `EBADF`, `EINVAL`, `EIO`, `ENOSPC`.
pub async fn fsync(thread: &mut RunningThread, fd: Fd) -> Result<usize> {
    let file = thread.files.get(fd)?;
    file.ops.sync(false).await?;
    Ok(0)
}

/// fdatasync(2). As fsync(2).
pub async fn fdatasync(thread: &mut RunningThread, fd: Fd) -> Result<usize> {
    let file = thread.files.get(fd)?;
    file.ops.sync(true).await?;
    Ok(0)
}

/// sync(2).
pub async fn sync(thread: &mut RunningThread) -> Result<usize> {
    for mount in thread.fs.mounts().mounts() {
        // sync(2) reports no errors; fsync(2) does.
        let _ = mount.superblock.file_system.sync().await;
    }
    Ok(0)
}

/// syncfs(2). `EBADF`, `EIO`, `ENOSPC`.
pub async fn syncfs(thread: &mut RunningThread, fd: Fd) -> Result<usize> {
    let file = thread.files.get(fd)?;
    if let Some(path) = &file.path {
        path.mount.superblock.file_system.sync().await?;
    }
    Ok(0)
}

/// sync_file_range(2): brings the file's data to the disk, all of it. `EBADF`, `EINVAL`, `ESPIPE`, `EIO`, `ENOSPC`.
pub async fn sync_file_range(thread: &mut RunningThread, fd: Fd, offset: i64, len: i64, flags: u32) -> Result<usize> {
    let file = thread.files.get(fd)?;
    if flags > 7 || offset < 0 || len < 0 {
        return Err(Errno::EINVAL);
    }
    if !file.ops.is_seekable() {
        return Err(Errno::ESPIPE);
    }
    file.ops.sync(true).await?;
    Ok(0)
}
