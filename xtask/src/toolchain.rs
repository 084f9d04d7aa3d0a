//! The kernel's compilation target: present, or added by rustup, or built from the compiler's own sources.
//!
//! next: `kernel.rs`, which compiles with what [`target`] answers.

use crate::{paths, progress};
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The target's name.
pub const TARGET: &str = "x86_64-unknown-none";

const RUSTUP_LIMIT: Duration = Duration::from_secs(120);

/// Where the target's `core` and `alloc` are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// In the toolchain's own folder.
    Installed,
    /// In a folder for `--sysroot`.
    Sysroot(PathBuf),
}

/// Finds or provides the kernel target.
///
/// # Errors
/// There is no way to it from here; the message is the one line that a person can type.
pub fn target() -> Result<Target> {
    if let Some(target) = present()? {
        return Ok(target);
    }
    if crate::packages::find("rustup").is_some() {
        progress::step(&format!("adding the compilation target {TARGET} with rustup"));
        if rustup(&["target", "add", TARGET]) && is_installed(&sysroot()?) {
            return Ok(Target::Installed);
        }
    }
    match private_sysroot() {
        Ok(folder) => Ok(Target::Sysroot(folder)),
        Err(error) => bail!("the compiler lacks {TARGET}; type: rustup target add {TARGET}   ({error:#})"),
    }
}

/// The target, if it is there already.
///
/// # Errors
/// The compiler does not say where it lives.
pub fn present() -> Result<Option<Target>> {
    if is_installed(&sysroot()?) {
        return Ok(Some(Target::Installed));
    }
    let folder = private_folder()?;
    Ok(is_installed(&folder).then_some(Target::Sysroot(folder)))
}

fn is_installed(sysroot: &Path) -> bool {
    let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    let has = |name: &str| {
        let entries = std::fs::read_dir(&libraries).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(name))
    };
    has("libcore-") && has("liballoc-") && has("libcompiler_builtins-")
}

fn rustc() -> OsString {
    std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

fn ask_rustc(arguments: &[&str]) -> Result<String> {
    let said = crate::packages::run_quietly(Command::new(rustc()).args(arguments))?;
    Ok(String::from_utf8_lossy(&said).trim().to_owned())
}

fn sysroot() -> Result<PathBuf> {
    Ok(ask_rustc(&["--print", "sysroot"])?.into())
}

/// A private sysroot belongs to one compiler.
fn private_folder() -> Result<PathBuf> {
    let version = ask_rustc(&["--version"])?;
    let name: String = version.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    Ok(paths::made("sysroot")?.join(name))
}

fn rustup(arguments: &[&str]) -> bool {
    let mut command = Command::new("rustup");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().is_ok_and(|child| finishes(child, RUSTUP_LIMIT))
}

/// Whether a child succeeds within the limit; it is ended if not.
fn finishes(mut child: Child, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => std::thread::sleep(Duration::from_millis(100)),
            Err(_) => break,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

/// The compiler's own sources, of exactly its version.
fn library_sources() -> Result<PathBuf> {
    let installed = sysroot()?.join("lib/rustlib/src/rust/library");
    if !installed.exists() && crate::packages::find("rustup").is_some() {
        progress::step("adding the compiler's sources with rustup");
        rustup(&["component", "add", "rust-src"]);
    }
    if installed.exists() {
        return Ok(installed);
    }
    let version = ask_rustc(&["--version"])?;
    let number = version.split_whitespace().nth(1).context("rustc tells no version")?;
    let packaged = PathBuf::from(format!("/usr/src/rustc-{number}/library"));
    if packaged.exists() {
        return Ok(packaged);
    }
    bail!("and its sources, from which it could be built, are not here: rustup component add rust-src")
}

/// Builds `core`, `alloc` and `compiler_builtins` for the target with an empty crate, once for each compiler.
///
/// Building the standard library is not a stable feature, so this one build (of no code of ours) is told to allow it.
fn private_sysroot() -> Result<PathBuf> {
    let sources = library_sources()?;
    let folder = private_folder()?;
    progress::step(&format!("building core and alloc for {TARGET} from the compiler's sources"));
    let empty = paths::made("sysroot")?.join("empty");
    std::fs::create_dir_all(empty.join("src"))?;
    let manifest = "[package]\nname = \"empty\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n[profile.release]\npanic = \"abort\"\n";
    std::fs::write(empty.join("Cargo.toml"), manifest)?;
    std::fs::write(empty.join("src/lib.rs"), "#![no_std]\n")?;
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build
        .current_dir(&empty)
        .args(["build", "--release", "--target", TARGET, "-Zbuild-std=core,alloc,compiler_builtins"])
        .args(["-Zbuild-std-features=compiler-builtins-mem", "--target-dir", "built"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("__CARGO_TESTS_ONLY_SRC_ROOT", &sources);
    for variable in crate::kernel::FLAGS_OF_THE_ENVIRONMENT {
        build.env_remove(variable);
    }
    crate::packages::run_quietly(&mut build)?;
    let draft = paths::draft_of(&folder);
    let libraries = draft.join("lib/rustlib").join(TARGET).join("lib");
    std::fs::create_dir_all(&libraries)?;
    for entry in std::fs::read_dir(empty.join("built").join(TARGET).join("release/deps"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".rlib") && !name.starts_with("libempty") {
            std::fs::copy(entry.path(), libraries.join(name))?;
        }
    }
    std::fs::rename(&draft, &folder)?;
    if !is_installed(&folder) {
        bail!("the build left no core for {TARGET}");
    }
    Ok(folder)
}
