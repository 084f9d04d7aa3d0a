//! The executor alone, on this machine and without a kernel, beside others: the table of `executor/benchmarks`.

use crate::kernel::FLAGS_OF_THE_ENVIRONMENT;
use crate::{paths, progress};
use anyhow::{Context, Result, ensure};
use std::process::{Command, Stdio};

/// Runs the benchmark and answers its table as it prints it.
///
/// # Errors
/// It does not compile, or fails.
pub fn measure() -> Result<String> {
    progress::step("measuring the executor on this machine");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for variable in FLAGS_OF_THE_ENVIRONMENT {
        command.env_remove(variable);
    }
    command.args(["run", "--quiet", "--release", "--package", "executor-benchmarks"]).current_dir(paths::workspace());
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("starting cargo")?;
    ensure!(output.status.success(), "the executor's benchmark failed: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// As a part of the page.
pub fn section(table: &str) -> String {
    if table.is_empty() {
        return String::new();
    }
    format!(
        "\nThe executor alone, on the developer's machine (`cargo run --release -p executor-benchmarks`), and why it is behind \
         where it is: `executor/benchmarks/src/main.rs`.\n\n```text\n{table}\n```\n"
    )
}
