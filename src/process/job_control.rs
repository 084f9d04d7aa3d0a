//! What terminals ask about processes (`src/tty/job_control.rs`), answered from the process table.

use super::signal::{Action, Signal, SignalInfo};
use super::{current, send, table};
use crate::tty::{Caller, JobControl};

/// The process table, as terminals see it.
pub struct Processes;

fn signal(number: u32) -> Option<Signal> {
    Signal::new(number as usize).ok()
}

impl JobControl for Processes {
    fn caller(&self) -> Option<Caller> {
        let thread = current::get()?;
        let process = &thread.process;
        let credentials = thread.view.lock().as_ref()?.credentials.clone();
        Some(Caller {
            process: process.pid,
            group: process.group(),
            session: process.session(),
            may_administer: credentials.can(fs::permission::Capabilities::SYS_ADMIN),
            user: credentials.euid,
        })
    }

    fn caller_ignores(&self, number: u32) -> bool {
        let (Some(thread), Some(signal)) = (current::get(), signal(number)) else { return false };
        let is_blocked = thread.signals.lock().blocked.contains(signal);
        is_blocked || thread.process.action(signal).handler == Action::IGNORE
    }

    fn is_orphaned(&self, group: i32) -> bool {
        table::with(|table| table.is_orphaned(group, None))
    }

    fn session_of(&self, group: i32) -> Option<i32> {
        table::with(|table| table.group(group).first().map(|member| member.session()))
    }

    fn signal_group(&self, group: i32, number: u32) {
        if let Some(signal) = signal(number) {
            send::to_group(group, SignalInfo::kernel(signal));
        }
    }

    fn signal_process(&self, process: i32, number: u32) {
        if let (Some(process), Some(signal)) = (table::process(process), signal(number)) {
            // Only a queue full of real-time signals refuses, and these are none.
            let _ = send::to_process(&process, SignalInfo::kernel(signal));
        }
    }
}
