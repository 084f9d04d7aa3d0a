//! Loads Linux's modules, in the order of the list that the host tool put beside them. Rouse's root has no such list.

use rustix::io::Errno;
use std::ffi::CStr;
use std::fs::{self, File};

/// Loaded already, or for hardware that this machine lacks.
const NOT_NEEDED: [Errno; 2] = [Errno::EXIST, Errno::NODEV];

const LIST: &str = "/lib/modules/load-order";

/// Loads what the list names.
pub fn load() {
    const NO_OPTIONS: &CStr = c"";
    let Ok(list) = fs::read_to_string(LIST) else { return };
    for path in list.lines() {
        let loaded = File::open(path).map_err(|error| error.to_string()).and_then(|module| {
            rustix::system::finit_module(&module, NO_OPTIONS, 0)
                .or_else(|errno| if NOT_NEEDED.contains(&errno) { Ok(()) } else { Err(errno.to_string()) })
        });
        if let Err(error) = loaded {
            eprintln!("init: module {path}: {error}");
        }
    }
}
