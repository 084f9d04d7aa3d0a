//! Debian's packages: installed when a tool is missing, or only downloaded and unpacked when files of one are wanted.
//!
//! Installing changes the machine, so it happens without a question only for root; with sudo on a terminal the person is shown
//! the list and asked. Unpacking is this file's own work (a `.deb` is an `ar` of compressed `tar`s), and touches only `target/`.

use crate::{paths, progress};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// `--yes`: install without a question.
static ASSUME_YES: AtomicBool = AtomicBool::new(false);

/// One installation or download at a time, whichever test wants it.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A program of the host that an action needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// A program searched for in `PATH`, or a file's full path.
    pub file: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
}

/// What starting a machine needs.
pub const QEMU: Need = Need { file: "qemu-system-x86_64", package: "qemu-system-x86" };
/// What linking anything needs.
pub const LINKER: Need = Need { file: "cc", package: "gcc" };
/// The C library's static archive, for the guest's own programs.
pub const STATIC_LIBC: Need = Need { file: "/usr/lib/x86_64-linux-gnu/libc.a", package: "libc6-dev" };
/// What makes ext4 images.
pub const MKE2FS: Need = Need { file: "mke2fs", package: "e2fsprogs" };
/// What `tar` needs for sources.
pub const XZ: Need = Need { file: "xz", package: "xz-utils" };
/// What `tar` needs for older sources.
pub const BZIP2: Need = Need { file: "bzip2", package: "bzip2" };
/// What makes a Debian root.
pub const MMDEBSTRAP: Need = Need { file: "mmdebstrap", package: "mmdebstrap" };
/// UEFI firmware for QEMU.
pub const OVMF: Need = Need { file: "/usr/share/OVMF/OVMF_CODE_4M.fd", package: "ovmf" };
/// What makes the image for USB sticks and CDs.
pub const IMAGE: [Need; 5] = [
    Need { file: "grub-mkrescue", package: "grub-common" },
    Need { file: "/usr/lib/grub/i386-pc/boot.img", package: "grub-pc-bin" },
    Need { file: "/usr/lib/grub/x86_64-efi/moddep.lst", package: "grub-efi-amd64-bin" },
    Need { file: "xorriso", package: "xorriso" },
    Need { file: "mformat", package: "mtools" },
];

/// Installs without asking, from now on.
pub fn assume_yes() {
    ASSUME_YES.store(true, Ordering::Relaxed);
}

/// Whether a program of this name can be started, or the file of this path is there.
pub fn find(file: &str) -> Option<PathBuf> {
    if file.starts_with('/') {
        return Path::new(file).exists().then(|| file.into());
    }
    // Tools for file systems are in sbin, which a user's own PATH may lack.
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(file))
        .find(|candidate| candidate.is_file())
}

/// Makes sure that all of `needs` are there, by installing what is not.
///
/// # Errors
/// Something is missing and cannot be installed from here; the message is what the person can do.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let missing = || {
        let missing = needs.iter().filter(|need| find(need.file).is_none());
        missing.map(|need| need.package).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    if missing().is_empty() {
        return Ok(());
    }
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let wanted = missing();
    if wanted.is_empty() {
        return Ok(());
    }
    let list = wanted.join(" ");
    if find("apt-get").is_none() {
        bail!("missing here: {list} (the names are Debian's; install what provides them on this system)");
    }
    let as_root = rustix::process::geteuid().is_root();
    let may_ask = io::stdin().is_terminal() && io::stderr().is_terminal() && find("sudo").is_some();
    if !as_root {
        let agreed = ASSUME_YES.load(Ordering::Relaxed) || (may_ask && ask(&list)?);
        if !agreed || find("sudo").is_none() {
            bail!("missing packages; type: sudo apt-get install --no-install-recommends {list}");
        }
    }
    progress::step(&format!("installing Debian packages: {list}"));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new(if as_root { "apt-get" } else { "sudo" });
        if !as_root {
            command.arg("apt-get");
        }
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        run_quietly(&mut command)
    };
    let install: Vec<&str> =
        ["install", "--yes", "--no-install-recommends"].into_iter().chain(wanted.iter().copied()).collect();
    if apt(&install).is_err() {
        // The package lists may be old, or missing on a fresh machine.
        apt(&["update"])?;
        apt(&install)?;
    }
    let still = missing();
    if !still.is_empty() {
        bail!("installed {list}, but these still lack what is needed: {}", still.join(" "));
    }
    Ok(())
}

fn ask(list: &str) -> Result<bool> {
    eprint!("   These Debian packages are missing: {list}\n   Install them with sudo? [Y/n] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "" | "y" | "Y" | "yes"))
}

/// Runs a command whose output matters only if it fails.
///
/// # Errors
/// It cannot be started or fails; the message ends with the last of its output.
pub fn run_quietly(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {name}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(15)..].join("\n");
        bail!("{name} failed ({}):\n{last}", output.status);
    }
    Ok(output.stdout)
}

/// Whether packages can be downloaded here at all.
pub fn can_download() -> bool {
    find("apt-get").is_some()
}

/// Downloads a package and unpacks it under `target/`, unless that was done before; answers the folder.
///
/// # Errors
/// There is no apt, the package cannot be downloaded, or it is damaged.
pub fn unpacked(package: &str) -> Result<PathBuf> {
    let folder = paths::made("packages")?.join(package);
    if folder.exists() {
        return Ok(folder);
    }
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if folder.exists() {
        return Ok(folder);
    }
    let downloads = paths::draft_of(&paths::made("packages")?.join(format!("{package}.deb")));
    let _ = fs::remove_dir_all(&downloads);
    fs::create_dir_all(&downloads)?;
    let deb = download(package, &downloads)?;
    progress::step(&format!("unpacking {package}"));
    let draft = paths::draft_of(&folder);
    let _ = fs::remove_dir_all(&draft);
    unpack(&deb, &draft).with_context(|| format!("unpacking {}", deb.display()))?;
    fs::rename(&draft, &folder)?;
    fs::remove_dir_all(&downloads)?;
    Ok(folder)
}

fn download(package: &str, into: &Path) -> Result<PathBuf> {
    progress::step(&format!("downloading {package}"));
    // Root's apt drops to a user who may not write here, and says so; as root it simply downloads.
    let fetch = || {
        let mut command = Command::new("apt-get");
        command.args(["-o", "APT::Sandbox::User=root", "download", package]).current_dir(into);
        run_quietly(&mut command)
    };
    if let Err(first) = fetch() {
        if !rustix::process::geteuid().is_root() {
            return Err(first.context("if the package lists are missing, type: sudo apt-get update"));
        }
        run_quietly(Command::new("apt-get").arg("update"))?;
        fetch()?;
    }
    let file = fs::read_dir(into)?.filter_map(Result::ok).map(|entry| entry.path());
    file.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb")).context("apt left no package")
}

/// Downloads the source that a package was built from and unpacks its original archive, unless that was done before; answers the
/// folder, with Debian's own additions in its folder `debian`. Debian's patches are not applied.
///
/// A person's apt need not know sources, so it is run with lists of its own here, made of the archives that it is configured
/// with; it checks what it downloads, signature and all, as always.
///
/// # Errors
/// There is no apt, it knows no such source, or the archives are damaged.
pub fn source(package: &str) -> Result<PathBuf> {
    ensure(&[XZ, BZIP2])?;
    let folder = paths::made("packages")?.join(format!("{package}-source"));
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if folder.exists() {
        return Ok(folder);
    }
    progress::step(&format!("downloading the source of {package}"));
    let work = paths::draft_of(&folder);
    let (lists, draft) = (work.join("lists"), work.join("source"));
    for folder in [&lists.join("partial"), &draft] {
        fs::create_dir_all(folder)?;
    }
    fs::write(work.join("sources.list"), archives_of_sources()?)?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.current_dir(&work).args(["-o", "APT::Sandbox::User=root", "-o", "Dir::Etc::SourceParts=/dev/null"]);
        // A cache in a file is the system's, and only root may write it.
        command.args(["-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="]);
        command.arg("-o").arg(format!("Dir::Etc::SourceList={}", work.join("sources.list").display()));
        command.arg("-o").arg(format!("Dir::State::Lists={}", lists.display()));
        run_quietly(command.args(arguments))
    };
    apt(&["update"])?;
    apt(&["source", "--download-only", package])?;
    for (end, into) in [(".orig.tar", &draft), (".debian.tar", &draft.join("debian"))] {
        let mut files = fs::read_dir(&work)?.filter_map(Result::ok).map(|entry| entry.path());
        let archive = files.find(|path| path.to_string_lossy().contains(end));
        let archive = archive.with_context(|| format!("the source of {package} has no {end}"))?;
        fs::create_dir_all(into)?;
        run_quietly(Command::new("tar").args(["--strip-components=1", "-xf"]).arg(archive).arg("-C").arg(into))?;
    }
    fs::rename(&draft, &folder)?;
    fs::remove_dir_all(&work)?;
    Ok(folder)
}

/// The lines of a `sources.list` that name the sources of Debian's archives in use.
fn archives_of_sources() -> Result<String> {
    let format = "$(ORIGIN)\t$(REPO_URI) $(RELEASE) $(COMPONENT)";
    let said = run_quietly(Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]))?;
    let said = String::from_utf8_lossy(&said).into_owned();
    let lines: BTreeSet<String> = said
        .lines()
        .filter_map(|line| line.strip_prefix("Debian\t"))
        .map(|archive| format!("deb-src {archive}\n"))
        .collect();
    Ok(lines.into_iter().collect())
}

/// The one package that another depends on whose name begins with `prefix`.
///
/// # Errors
/// Apt knows neither.
pub fn dependency(package: &str, prefix: &str) -> Result<String> {
    let query = || -> Result<Option<String>> {
        let said = run_quietly(Command::new("apt-cache").args(["depends", package]))?;
        let said = String::from_utf8_lossy(&said).into_owned();
        let names = said.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).find(|name| name.starts_with(prefix)))
    };
    if let Ok(Some(name)) = query() {
        return Ok(name);
    }
    if rustix::process::geteuid().is_root() {
        run_quietly(Command::new("apt-get").arg("update"))?;
    }
    query()?.with_context(|| format!("apt knows no {package} that depends on {prefix}…"))
}

/// Unpacks the files of a `.deb`.
fn unpack(deb: &Path, into: &Path) -> Result<()> {
    let mut archive = ar::Archive::new(File::open(deb)?);
    while let Some(member) = archive.next_entry() {
        let member = member?;
        let name = String::from_utf8_lossy(member.header().identifier()).into_owned();
        let data: Box<dyn Read> = match name.as_str() {
            "data.tar" => Box::new(member),
            "data.tar.xz" => Box::new(lzma_rust2::XzReader::new(member, true)),
            _ if name.starts_with("data.tar") => {
                run_quietly(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(into))?;
                return Ok(());
            }
            _ => continue,
        };
        let mut files = tar::Archive::new(io::BufReader::with_capacity(1 << 20, data));
        files.set_preserve_permissions(true);
        fs::create_dir_all(into)?;
        files.unpack(into)?;
        return Ok(());
    }
    bail!("it has no files")
}
