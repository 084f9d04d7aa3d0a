//! The root that the guest starts with: a tree in memory, and for some a disk to which init moves.

use crate::initrd::Tree;
use crate::packages::{self, run_quietly};
use crate::{libraries, linux, paths, programs, progress};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Which root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Root {
    /// Busybox and Rouse's own programs, all in memory.
    #[default]
    Busybox,
    /// Debian's minimal system on a disk, with these packages added.
    Debian(BTreeSet<String>),
    /// A folder of the host, made into a disk.
    Folder(PathBuf),
    /// An ext4 image.
    Image(PathBuf),
}

/// What QEMU is given of a root.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The cpio archive.
    pub initrd: PathBuf,
    /// The image of the root disk.
    pub disk: Option<PathBuf>,
}

/// One `--add HOST[=GUEST]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addition {
    /// The file or folder here.
    pub host: PathBuf,
    /// Its path there.
    pub guest: Vec<u8>,
}

impl Addition {
    /// Reads `HOST[=GUEST]`. Without GUEST, what has an absolute path keeps it, if that is a place which the guest leaves as it is;
    /// else a file goes to `/bin`, and a folder to `/`.
    pub fn parse(text: &OsStr) -> Self {
        let bytes = text.as_bytes();
        if let Some(equals) = bytes.iter().position(|&byte| byte == b'=') {
            let host = OsStr::from_bytes(&bytes[..equals]).into();
            return Self { host, guest: bytes[equals + 1..].to_vec() };
        }
        let host = PathBuf::from(text);
        let name = host.file_name().unwrap_or(OsStr::new("added")).as_bytes();
        // The guest mounts file systems over these.
        let is_hidden = ["/dev", "/proc", "/run", "/sys", "/tmp"].iter().any(|place| host.starts_with(place));
        let guest = match () {
            () if host.is_absolute() && !is_hidden => bytes.to_vec(),
            () if host.is_dir() => [b"/", name].concat(),
            () => [b"/bin/", name].concat(),
        };
        Self { host, guest }
    }
}

impl Root {
    /// What `--root` and `--packages` were given.
    ///
    /// # Errors
    /// It names nothing that is here, or packages were asked of a root that is not Debian's.
    pub fn named(name: &str, packages: &[String]) -> Result<Self> {
        let packages: BTreeSet<String> = packages.iter().filter(|name| !name.is_empty()).cloned().collect();
        if name == "debian" {
            return Ok(Root::Debian(packages));
        }
        if !packages.is_empty() {
            bail!("--packages goes with --root debian");
        }
        match name {
            "busybox" => Ok(Root::Busybox),
            path if Path::new(path).is_dir() => Ok(Root::Folder(path.into())),
            path if Path::new(path).is_file() => Ok(Root::Image(path.into())),
            path => bail!("--root is busybox, debian, a folder or an ext4 image; there is no {path}"),
        }
    }

    /// Makes the root, or finds it made.
    ///
    /// # Errors
    /// A part of it cannot be downloaded, built or read.
    pub fn prepare(&self, additions: &[Addition], for_linux: bool, verbose: bool) -> Result<Prepared> {
        let disk = match self {
            Root::Busybox => None,
            Root::Debian(packages) => Some(debian(packages, verbose)?),
            Root::Folder(folder) => Some(folder_image(folder)?),
            Root::Image(image) => Some(image.clone()),
        };
        let mut tree = base(disk.is_none())?;
        for addition in additions {
            add(&mut tree, addition, disk.is_some())?;
        }
        if for_linux {
            add_modules(&mut tree)?;
        }
        Ok(Prepared { initrd: write(&tree)?, disk })
    }
}

/// Init and, unless a disk follows, everything a small system has.
fn base(complete: bool) -> Result<Tree> {
    let mut tree = Tree::default();
    for folder in ["dev", "proc", "sys", "run", "tmp", "root"] {
        tree.folder(folder);
    }
    // Before init has mounted /dev, the standard library wants these.
    tree.character_device("dev/console", 5, 1);
    tree.character_device("dev/null", 1, 3);
    for (name, path) in programs::build("user-programs")? {
        match name.as_str() {
            "init" => tree.add(&path, b"init")?,
            // They are for a system of their own, and for the overlay of a disk.
            _ => tree.add(&path, format!("{}bin/{name}", if complete { "" } else { "add/usr/" }).as_bytes())?,
        }
    }
    if complete {
        for (path, content) in [
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"),
            ("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
            ("etc/hostname", "rouse\n"),
            ("etc/profile", "export PS1='\\u@\\h:\\w\\$ '\n"),
            ("etc/shells", "/bin/sh\n"),
        ] {
            tree.file(path, 0o644, content);
        }
        busybox(&mut tree)?;
    }
    Ok(tree)
}

fn busybox(tree: &mut Tree) -> Result<()> {
    if !packages::can_download() {
        progress::note("no apt here, so the root has only Rouse's own programs; add others with --add PROGRAM");
        return Ok(());
    }
    let folder = match packages::unpacked("busybox-static") {
        Ok(folder) => folder,
        Err(error) => {
            progress::note(&format!("busybox cannot be had ({error:#}); the root has only Rouse's own programs"));
            return Ok(());
        }
    };
    let program = ["bin/busybox", "usr/bin/busybox"].iter().map(|path| folder.join(path)).find(|path| path.exists());
    let program = program.context("the package busybox-static has no busybox")?;
    tree.add(&program, b"bin/busybox")?;
    let applets = run_quietly(Command::new(&program).arg("--list-full"))?;
    for path in String::from_utf8_lossy(&applets).lines() {
        // Init is Rouse's own.
        if !tree.has(path) && !matches!(path, "sbin/init" | "linuxrc") {
            tree.link(path, "/bin/busybox");
        }
    }
    Ok(())
}

fn add(tree: &mut Tree, addition: &Addition, to_disk: bool) -> Result<()> {
    let place = |guest: &[u8]| if to_disk { [b"add/", guest].concat() } else { guest.to_vec() };
    let host = addition.host.canonicalize().with_context(|| format!("--add {}", addition.host.display()))?;
    tree.add(&host, &place(&addition.guest))?;
    if host.is_file() {
        for library in libraries::of(&host)? {
            // The name by which it is looked for may be a link to the file.
            tree.add(&library.canonicalize()?, &place(library.as_os_str().as_bytes()))?;
        }
    }
    Ok(())
}

fn add_modules(tree: &mut Tree) -> Result<()> {
    let mut order = String::new();
    for module in linux::unpacked()?.modules()? {
        let name = module.file_name().and_then(OsStr::to_str).context("a module without a name")?;
        let path = format!("/lib/modules/{}", name.trim_end_matches(".xz"));
        tree.file(&path, 0o644, linux::read(&module)?);
        order += &format!("{path}\n");
    }
    tree.file("lib/modules/load-order", 0o644, order);
    Ok(())
}

fn write(tree: &Tree) -> Result<PathBuf> {
    const KEPT: usize = 12;
    let archive = tree.to_cpio()?;
    let folder = paths::made("initrd")?;
    let path = folder.join(format!("{:016x}.cpio", hash_of(&archive)));
    if !path.exists() {
        paths::write_whole(&path, &archive)?;
        paths::keep_newest(&folder, KEPT)?;
    }
    Ok(path)
}

fn hash_of(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Debian's minimal system as an image, made once for each list of packages.
fn debian(packages: &BTreeSet<String>, verbose: bool) -> Result<PathBuf> {
    const SUITE: &str = "bookworm";
    // Two machines of one test may want the same root, and it is large.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let image = paths::made("roots")?.join(format!("debian-{:016x}.ext4", hash_of(&(SUITE, packages))));
    if image.exists() {
        return Ok(image);
    }
    packages::ensure(&[packages::MMDEBSTRAP, packages::MKE2FS])?;
    let list = packages.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    progress::step(&format!(
        "making a Debian root ({SUITE}{}{list}); about a minute",
        if list.is_empty() { "" } else { ", " }
    ));
    // The ending says which kind of archive is wanted.
    let mut archive = paths::draft_of(&image).into_os_string();
    archive.push(".tar");
    let archive = PathBuf::from(archive);
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", "--aptopt=APT::Install-Recommends \"false\""]);
    // The archive is renamed when it is whole, so nothing is gained by writing each file of it through to the disk.
    command.arg("--dpkgopt=force-unsafe-io");
    if !list.is_empty() {
        command.arg(format!("--include={list}"));
    }
    command.arg(SUITE).arg(&archive);
    if verbose {
        command.arg("--verbose");
    }
    run_quietly(&mut command)?;
    let folder = paths::draft_of(&image.with_extension("files"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    // Files keep their owners, for which one has to be root, or to pretend.
    let script = "tar --numeric-owner -xpf \"$0\" -C \"$1\" --exclude='./dev/*' && exec mke2fs -q -F -t ext4 -L root -d \"$1\" \"$2\" \"$3\"";
    let bytes = archive.metadata()?.len();
    let draft = paths::draft_of(&image);
    let mut make = if rustix::process::geteuid().is_root() {
        Command::new("sh")
    } else {
        packages::ensure(&[packages::Need { file: "fakeroot", package: "fakeroot" }])?;
        let mut command = Command::new("fakeroot");
        command.arg("sh");
        command
    };
    make.arg("-c").arg(script).arg(&archive).arg(&folder).arg(&draft).arg(size_for(bytes));
    run_quietly(make.env("PATH", path_with_sbin()))?;
    std::fs::remove_dir_all(&folder)?;
    std::fs::remove_file(&archive)?;
    std::fs::rename(draft, &image)?;
    Ok(image)
}

/// A folder as an image; made anew when the folder's files have changed.
fn folder_image(folder: &Path) -> Result<PathBuf> {
    packages::ensure(&[packages::MKE2FS])?;
    let mut files = Vec::new();
    let bytes = survey(folder, &mut files)?;
    let image = paths::made("roots")?.join(format!("folder-{:016x}.ext4", hash_of(&(folder, files))));
    if !image.exists() {
        progress::step(&format!("making an image of {}", folder.display()));
        let draft = paths::draft_of(&image);
        let mut make = Command::new("mke2fs");
        make.args(["-q", "-F", "-t", "ext4", "-L", "root", "-d"]).arg(folder).arg(&draft).arg(size_for(bytes));
        run_quietly(make.env("PATH", path_with_sbin()))?;
        std::fs::rename(draft, &image)?;
    }
    Ok(image)
}

/// Each file with its size and time of change; answers the bytes in all.
fn survey(folder: &Path, files: &mut Vec<(PathBuf, u64, Option<std::time::SystemTime>)>) -> Result<u64> {
    let mut bytes = 0;
    let mut entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let metadata = entry.path().symlink_metadata()?;
        bytes += if metadata.is_dir() { survey(&entry.path(), files)? } else { metadata.len().next_multiple_of(4096) };
        files.push((entry.path(), metadata.len(), metadata.modified().ok()));
    }
    Ok(bytes)
}

/// Room for the files, for what ext4 itself needs, and some more; the image is sparse.
fn size_for(bytes: u64) -> String {
    format!("{}K", (bytes + bytes / 4) / 1024 + 64 * 1024)
}

fn path_with_sbin() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_addition_goes_where_it_was_told_or_where_one_would_look_for_it() {
        let parse = |text: &str| Addition::parse(OsStr::new(text));
        assert_eq!(parse("a/b=/c"), Addition { host: "a/b".into(), guest: b"/c".to_vec() });
        assert_eq!(parse("a/tool").guest, b"/bin/tool");
        assert_eq!(parse("/usr/bin/perl").guest, b"/usr/bin/perl");
        assert_eq!(parse("/tmp/tool").guest, b"/bin/tool");
        assert_eq!(parse("/tmp").guest, b"/tmp", "a folder");
    }

    #[test]
    fn packages_belong_to_a_debian_root() {
        let packages = ["git".to_owned()];
        assert!(Root::named("busybox", &packages).is_err());
        assert_eq!(Root::named("debian", &packages).ok(), Some(Root::Debian(["git".to_owned()].into())));
        assert!(Root::named("/does/not/exist", &[]).is_err());
    }
}
