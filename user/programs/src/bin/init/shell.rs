//! The shell on the console. The machine goes off when it ends.

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
    while alive {
        events.wait(&[])?;
        events.handle(|pid, _| alive &= pid.as_raw_pid().cast_unsigned() != child);
    }
    power::off()
}
