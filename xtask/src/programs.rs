//! Builds the guest's own programs (`user/programs`, `tests/programs`) as static executables.

use crate::kernel::FLAGS_OF_THE_ENVIRONMENT;
use crate::packages::{self, run_quietly};
use crate::paths;
use anyhow::Result;
use std::path::PathBuf;
use std::process::Command;

const HOST: &str = "x86_64-unknown-linux-gnu";

/// Builds one package and answers its executables, as (name, path) pairs in the order of their names.
///
/// # Errors
/// It does not compile, or the static C library is missing and cannot be installed.
pub fn build(package: &str) -> Result<Vec<(String, PathBuf)>> {
    packages::ensure(&[packages::LINKER, packages::STATIC_LIBC])?;
    let target_folder = paths::made("user")?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::workspace());
    for variable in FLAGS_OF_THE_ENVIRONMENT {
        command.env_remove(variable);
    }
    command
        .args(["build", "--quiet", "--package", package, "--bins", "--profile", "user", "--target", HOST])
        .arg("--target-dir")
        .arg(&target_folder)
        .args(["--config", &format!("target.{HOST}.rustflags=['-Ctarget-feature=+crt-static']")]);
    run_quietly(&mut command)?;
    let binaries = paths::workspace().join(match package {
        "user-programs" => "user/programs/src/bin",
        _ => "tests/programs/src/bin",
    });
    let mut programs = Vec::new();
    for entry in std::fs::read_dir(binaries)? {
        let path = entry?.path();
        let Some(name) = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()) else { continue };
        let built = target_folder.join(HOST).join("user").join(&name);
        if built.is_file() {
            programs.push((name, built));
        }
    }
    programs.sort();
    Ok(programs)
}
