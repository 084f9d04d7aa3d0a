//! What every program that init starts inherits: a clean environment and the place of init itself.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// Where init copies itself on a root disk, which need not have it.
pub const INIT_ON_DISK: &str = "/run/init";

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program with the environment of a fresh login, and `/` as its working directory.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir("/").envs([("PATH", PATH), ("HOME", "/root"), ("USER", "root"), ("TERM", "linux")]);
    command
}

/// A program in a session of its own on the terminal that is its standard input (see `init --session`).
pub fn session(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let init = if Path::new(INIT_ON_DISK).exists() { INIT_ON_DISK } else { "/init" };
    let mut command = command(init);
    command.arg("--session").args(arguments);
    command
}
