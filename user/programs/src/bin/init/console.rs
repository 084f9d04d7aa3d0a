//! The console: where the kernel's own messages go, and where the shell sits.

use crate::options::Options;
use rustix::termios::{Winsize, tcsetwinsize};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes the console init's standard input, output and error.
///
/// The kernel starts init with `/dev/console`, if it finds that in the initial root. A terminal of its own name is better:
/// on Linux `/dev/console` itself cannot be opened as `/dev/tty` later.
pub fn open() {
    let active = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let active = active.split_whitespace().last().map(|name| format!("/dev/{name}"));
    for path in active.iter().map(String::as_str).chain(["/dev/console"]) {
        if let Ok(console) = File::options().read(true).write(true).open(path) {
            // The three descriptors exist already (the standard library sees to that), so replacing them cannot fail.
            let _ = rustix::stdio::dup2_stdin(&console);
            let _ = rustix::stdio::dup2_stdout(&console);
            let _ = rustix::stdio::dup2_stderr(&console);
            return;
        }
    }
}

/// Tells the console its size, where the host knew it.
pub fn set_size(options: &Options) {
    if let Some((ws_row, ws_col)) = options.size {
        resize(ws_row, ws_col);
    }
}

/// Tells the console its size; programs in the foreground get SIGWINCH.
pub fn resize(ws_row: u16, ws_col: u16) {
    // A console that has no size keeps none.
    let _ = tcsetwinsize(io::stdin(), Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 });
}

/// Begins a session whose terminal is standard input, and becomes the program named by `arguments`.
pub fn become_session(mut arguments: impl Iterator<Item = OsString>) -> ! {
    let Some(program) = arguments.next() else {
        eprintln!("usage: init --session PROGRAM [ARGUMENT…]");
        std::process::exit(2);
    };
    // Neither is worth dying for: a shell without job control is still a shell.
    let _ = rustix::process::setsid();
    let _ = rustix::process::ioctl_tiocsctty(io::stdin());
    let mut command = Command::new(&program);
    if let (Some(name), Some(_)) = (program.to_str(), std::env::var_os("INIT_LOGIN")) {
        let base = name.rsplit('/').next().unwrap_or(name);
        command.arg0(format!("-{base}")).env_remove("INIT_LOGIN");
    }
    let error = command.args(arguments).exec();
    eprintln!("init: cannot run {}: {error}", program.display());
    std::process::exit(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 });
}
