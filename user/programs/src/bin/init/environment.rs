//! What every program that init starts inherits: a clean environment and the place of init itself.

use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Where init copies itself on a root disk, which need not have it.
pub const INIT_ON_DISK: &str = "/run/init";

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program with the environment of a fresh login. Init's own working directory, `/`, is its too.
///
/// A bare name is searched for here, and no directory is set: so the standard library can use `posix_spawn`, where its other way
/// wants sockets of the kernel.
///
/// # Errors
/// A bare name is in no folder of `PATH`.
pub fn command(program: &OsStr) -> io::Result<Command> {
    let is_bare = !program.as_encoded_bytes().contains(&b'/');
    let mut folders = PATH.split(':').map(|folder| Path::new(folder).join(program));
    let path = match folders.find(|path| is_bare && is_executable(path)) {
        Some(path) => path,
        None if is_bare => return Err(io::Error::from_raw_os_error(Errno::NOENT.raw_os_error())),
        None => program.into(),
    };
    let mut command = Command::new(path);
    command.arg0(program).env_clear();
    command.envs([("PATH", PATH), ("HOME", "/root"), ("USER", "root"), ("TERM", "linux")]);
    Ok(command)
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// A program in a session of its own on the terminal that is its standard input (see `init --session`).
///
/// # Errors
/// As [`command`].
pub fn session(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> io::Result<Command> {
    let init = if Path::new(INIT_ON_DISK).exists() { INIT_ON_DISK } else { "/init" };
    let mut command = command(OsStr::new(init))?;
    command.arg("--session").args(arguments);
    Ok(command)
}
