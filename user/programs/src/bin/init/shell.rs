//! The shell on the console. The machine goes off when it ends.

use crate::channels::WindowSizes;
use crate::environment;
use crate::events::Events;
use crate::options::Options;
use crate::power;
use std::io;
use std::path::Path;

/// The first of these that exists is started; the last is Rouse's own.
const SHELLS: [&str; 4] = ["/bin/bash", "/bin/sh", "/bin/ash", "/bin/small-shell"];

/// Starts the shell and reaps until it ends, then powers off.
///
/// # Errors
/// The shell could not be started, or init cannot wait.
pub fn serve(options: &Options) -> io::Result<()> {
    let found = SHELLS.iter().map(Path::new).find(|path| path.exists());
    let shell = options.shell.as_deref().or(found).ok_or_else(|| io::Error::other("there is no shell on this root"))?;
    let mut events = Events::new()?;
    let mut command = environment::session([shell])?;
    if let Some(term) = &options.term {
        command.env("TERM", term);
    }
    let child = command.env("INIT_LOGIN", "1").spawn()?.id();
    let mut alive = true;
    // Only a host with a terminal has told its size. The port appears when its driver has talked to the host.
    let mut is_followed = options.size.is_some();
    let mut sizes: Option<WindowSizes> = None;
    while alive {
        if is_followed && sizes.is_none() {
            sizes = WindowSizes::open();
        }
        events.wait(sizes.as_ref().map(WindowSizes::interest).as_slice())?;
        if let Some(port) = &mut sizes
            && port.follow().is_err()
        {
            (sizes, is_followed) = (None, false);
        }
        events.handle(|pid, _| alive &= pid.as_raw_pid().cast_unsigned() != child);
    }
    power::off()
}
