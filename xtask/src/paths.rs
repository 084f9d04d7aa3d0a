//! Where things are: the workspace, and the folder under `target/` for each kind of thing that is made.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
}

/// A folder for things that are made, under `target/`; it exists when this returns.
///
/// # Errors
/// It cannot be made.
pub fn made(folder: &str) -> std::io::Result<PathBuf> {
    let path = workspace().join("target").join(folder);
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

/// Writes a file all at once, so that an interrupted run leaves no half of it.
///
/// # Errors
/// It cannot be written.
pub fn write_whole(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let draft = draft_of(path);
    std::fs::write(&draft, content)?;
    std::fs::rename(draft, path)
}

/// A name under which a file or folder is made before it gets its own; never the same twice.
pub fn draft_of(path: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".draft-{}-{number}", std::process::id()));
    name.into()
}

/// Removes all but the newest files of a folder of things that can be made again.
///
/// # Errors
/// The folder cannot be read.
pub fn keep_newest(folder: &Path, count: usize) -> std::io::Result<()> {
    let mut all: Vec<_> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    all.sort_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok());
    let surplus = all.len().saturating_sub(count);
    // One that is gone already was removed by another run.
    all.iter().take(surplus).for_each(|old| drop(std::fs::remove_file(old)));
    Ok(())
}
