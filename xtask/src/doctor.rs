//! `cargo run -- doctor`: what is here, what is missing, and what would be done about it.

use crate::packages::{self, IMAGE, LINKER, MKE2FS, MMDEBSTRAP, Need, OVMF, QEMU, STATIC_LIBC};
use crate::toolchain::{self, TARGET, Target};
use anyhow::Result;
use std::process::ExitCode;

/// What each action needs of the host.
const ACTIONS: [(&str, &[Need]); 5] = [
    ("boot (cargo run, exec, cargo test)", &[QEMU, LINKER, STATIC_LIBC]),
    ("--root debian, --root FOLDER", &[MMDEBSTRAP, MKE2FS]),
    ("image", &IMAGE),
    ("--firmware uefi", &[OVMF]),
    ("--kernel linux, busybox (downloaded, not installed)", &[Need { file: "apt-get", package: "apt" }]),
];

/// What of [`ACTIONS`] cargo test needs.
const NEEDED_BY_TESTS: [&str; 3] = [ACTIONS[0].0, ACTIONS[1].0, ACTIONS[2].0];

/// Prints the state of the host; with `fix`, also provides what the tests need.
///
/// # Errors
/// `fix` was asked for, and something cannot be provided.
pub fn run(fix: bool) -> Result<ExitCode> {
    if fix {
        toolchain::target()?;
        for (action, needs) in ACTIONS {
            if NEEDED_BY_TESTS.contains(&action) {
                packages::ensure(needs)?;
            }
        }
        packages::ensure(&[OVMF])?;
    }
    let mut complete = true;
    match toolchain::present()? {
        Some(Target::Installed) => eprintln!("  ok       the compilation target {TARGET}"),
        Some(Target::Sysroot(folder)) => {
            eprintln!("  ok       the compilation target {TARGET}, in {}", folder.display())
        }
        None => {
            complete = false;
            eprintln!("  missing  the compilation target {TARGET}: would be added with rustup, or built from rust-src");
        }
    }
    for (action, needs) in ACTIONS {
        let missing: Vec<&str> =
            needs.iter().filter(|need| packages::find(need.file).is_none()).map(|need| need.package).collect();
        if missing.is_empty() {
            eprintln!("  ok       {action}");
        } else {
            complete = false;
            eprintln!("  missing  {action}: would install {}", missing.join(" "));
        }
    }
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
