//! `cargo run`: see `xtask::cli` for what it offers.

use std::process::ExitCode;

fn main() -> ExitCode {
    xtask::cli::main()
}
