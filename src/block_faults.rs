//! Disks that are slow or fail on demand, to see what the rest of the system makes of it.
//!
//! With the word `block.fault=…` on the kernel's command line every disk is wrapped in drivers' [fault injector](drivers::block). What
//! goes wrong is told there and, from then on, in /proc/rouse/block-fault, in the same words, separated by commas: `delay=50ms`,
//! `eio=all`, `eio=nth:5`, `eio=every:10`, `eio=sectors:100-200`, `on=reads`; `off` for nothing yet. Without the word there is no wrapping
//! and no cost.
//!
//! Next: `drivers/src/block/fault_injector.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::{Errno, Result};
use drivers::block::{BlockDevice, FaultInjector, Faults};
use executor::sync::SpinLock;

use crate::tasks;

static STATE: SpinLock<Option<State>> = SpinLock::new(None);

struct State {
    faults: Faults,
    disks: Vec<Arc<FaultInjector>>,
}

/// Obeys the command line. Called before disks are found.
pub fn configure(command_line: &[u8]) {
    let mut words = command_line.split(u8::is_ascii_whitespace);
    let Some(word) = words.find_map(|word| word.strip_prefix(b"block.fault=")) else { return };
    match core::str::from_utf8(word).map_err(|_| Errno::EINVAL).and_then(str::parse) {
        Ok(faults) => *STATE.lock() = Some(State { faults, disks: Vec::new() }),
        Err(errno) => log::error!("block.fault={}: {errno}", word.escape_ascii()),
    }
}

/// Wraps a disk, if the command line asked for it.
pub fn wrap(disk: Arc<dyn BlockDevice>) -> Arc<dyn BlockDevice> {
    let mut state = STATE.lock();
    let Some(state) = state.as_mut() else { return disk };
    let injector = Arc::new(FaultInjector::new(disk, tasks::timers()));
    injector.set(state.faults.clone());
    state.disks.push(injector.clone());
    injector
}

/// What goes wrong now; `None` if disks are not wrapped.
pub fn now() -> Option<Faults> {
    STATE.lock().as_ref().map(|state| state.faults.clone())
}

/// Changes what goes wrong from now on; requests are counted anew.
///
/// # Errors
///
/// `EINVAL`: not understood. `ENODEV`: disks are not wrapped.
pub fn set(text: &[u8]) -> Result<()> {
    let faults: Faults = core::str::from_utf8(text).map_err(|_| Errno::EINVAL)?.trim().parse()?;
    let mut state = STATE.lock();
    let state = state.as_mut().ok_or(Errno::ENODEV)?;
    state.disks.iter().for_each(|disk| disk.set(faults.clone()));
    state.faults = faults;
    Ok(())
}
