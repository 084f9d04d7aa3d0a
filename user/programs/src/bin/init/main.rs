//! init, the first program (PID 1), the same on Rouse and on Linux.
//!
//! It makes the tree that programs expect (`/proc`, `/sys`, `/dev`, `/tmp`), moves to the root disk if there is one, and then
//! does what the kernel's command line asks of it:
//!
//! ```text
//! init.mode=shell     a shell on the console (the default); the machine powers off when it ends
//! init.mode=exec      programs on behalf of the host, over virtio ports
//! init.root=/dev/vda  a root disk (ext4), never written: a tmpfs lies over it
//! init.size=24x80     rows and columns of the console
//! init.shell=PATH     what to start instead of the first shell found
//! init.term=NAME      TERM of the shell
//! ```
//!
//! Started as `init --session CMD…` it is another program: it begins a session on the terminal that is its standard input and
//! becomes CMD. That a new process does this itself, and PID 1 does not do it on its behalf between fork and exec, keeps
//! unsafe code away.
//!
//! next: `mounts.rs`, `root.rs`, then `shell.rs` and `channels.rs`.

mod channels;
mod console;
mod environment;
mod events;
mod modules;
mod mounts;
mod options;
mod power;
mod root;
mod shell;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "--session") {
        console::become_session(arguments);
    }
    if std::process::id() != 1 {
        eprintln!("init: I am process {}, and only process 1 starts the system", std::process::id());
        std::process::exit(1);
    }
    let error = start();
    eprintln!("init: {error}");
    power::off();
}

/// Brings the system up and serves it; returns only when that fails.
fn start() -> std::io::Error {
    mounts::early();
    console::open();
    modules::load();
    let options = options::Options::read();
    let ports = if options.exec { Some(channels::Ports::open()) } else { None };
    if let Some(disk) = &options.root
        && let Err(error) = root::switch_to(disk)
    {
        eprintln!("init: the root disk {} cannot be used: {error}; going on without it", disk.display());
    }
    mounts::late();
    console::set_size(&options);
    let outcome = match ports {
        Some(Ok(ports)) => channels::serve(ports),
        Some(Err(error)) => Err(error),
        None => shell::serve(&options),
    };
    match outcome {
        Ok(()) => std::io::Error::other("nothing left to do"),
        Err(error) => error,
    }
}
