//! The kernel that is to be started: Rouse, built here; Debian's Linux; or any file.

use crate::packages;
use crate::toolchain::{self, TARGET, Target};
use crate::{linux, paths, symbols};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiler flags that a person has set for their own programs do not suit a kernel.
pub const FLAGS_OF_THE_ENVIRONMENT: [&str; 6] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
    "CARGO_TARGET_X86_64_UNKNOWN_NONE_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
];

/// Which kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Kernel {
    /// This one.
    #[default]
    Rouse,
    /// Debian's: the oracle.
    Linux,
    /// A file that QEMU's `-kernel` takes, treated like Rouse.
    File(PathBuf),
}

/// How Rouse is compiled: a cargo profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Fast, and soon there.
    #[default]
    Fast,
    /// As fast as it gets: compiled as a whole.
    Optimized,
    /// With debug assertions, lock-order checks and overflow checks.
    Checked,
    /// As [`Profile::Fast`], with all that a debugger wants to know.
    Debugged,
}

impl Kernel {
    /// What `--kernel` was given.
    pub fn named(name: &str) -> Self {
        match name {
            "rouse" => Kernel::Rouse,
            "linux" => Kernel::Linux,
            file => Kernel::File(file.into()),
        }
    }

    /// The kernel's file for QEMU, built or unpacked if need be.
    ///
    /// # Errors
    /// It does not compile, cannot be downloaded, or is not there.
    pub fn file(&self, profile: Profile) -> Result<PathBuf> {
        match self {
            Kernel::Rouse => build(profile),
            Kernel::Linux => Ok(linux::unpacked()?.image),
            Kernel::File(path) if path.is_file() => Ok(path.clone()),
            Kernel::File(path) => bail!("there is no kernel at {}", path.display()),
        }
    }

    /// Whether this is Linux.
    pub fn is_linux(&self) -> bool {
        *self == Kernel::Linux
    }
}

/// Compiles Rouse.
///
/// # Errors
/// The target cannot be provided, or the code does not compile.
pub fn build(profile: Profile) -> Result<PathBuf> {
    packages::ensure(&[packages::LINKER])?;
    let target = toolchain::target()?;
    // A folder of its own for the debugger's, so that neither build undoes the other.
    let (folder, name) = match profile {
        Profile::Fast => ("kernel", "kernel"),
        Profile::Optimized => ("kernel", "kernel-optimized"),
        Profile::Checked => ("kernel", "kernel-checked"),
        Profile::Debugged => ("kernel-debugged", "kernel"),
    };
    let folder = paths::made(folder)?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::workspace());
    for variable in FLAGS_OF_THE_ENVIRONMENT {
        command.env_remove(variable);
    }
    command
        .args(["build", "--package", "rouse", "--bin", "rouse", "--target", TARGET, "--profile", name])
        .arg("--target-dir")
        .arg(&folder);
    if let Target::Sysroot(sysroot) = target {
        let flag = format!("target.{TARGET}.rustflags=['--sysroot={}']", sysroot.display());
        command.args(["--config", &flag]);
    }
    if profile == Profile::Debugged {
        command.args(["--config", "profile.kernel.debug='full'"]);
    }
    let linked = folder.join(TARGET).join(name).join("rouse");
    if !linked.exists() {
        crate::progress::step("compiling the kernel (a minute the first time)");
    }
    // Cargo says what is wrong with the code on standard error, and that is for the person to see.
    command.arg("--quiet").stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let status = command.status().context("starting cargo")?;
    if !status.success() {
        bail!("the kernel does not compile");
    }
    with_symbols(&linked)
}

/// The linked kernel with its symbol table, made anew when the kernel is newer.
fn with_symbols(linked: &Path) -> Result<PathBuf> {
    let filled = linked.with_extension("elf");
    let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    if changed(&filled) < changed(linked) {
        let content = std::fs::read(linked).with_context(|| linked.display().to_string())?;
        paths::write_whole(&filled, &symbols::fill(&content)?)?;
    }
    Ok(filled)
}
