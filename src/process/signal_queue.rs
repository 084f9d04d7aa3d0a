//! Signals that were sent and not yet taken: one queue for a process, one for each of its threads.

use alloc::collections::VecDeque;

use super::signal::{Origin, Signal, SignalInfo, SignalSet};
use crate::mm::MakeRoom;

/// The signals that wait for one receiver. A standard signal waits at most once; real-time signals queue up.
#[derive(Default)]
pub struct SignalQueue {
    set: SignalSet,
    infos: VecDeque<SignalInfo>,
}

/// The most signals that one queue holds with what they carry; a further real-time signal is refused with `EAGAIN`, a
/// standard one waits without its information.
const MOST_QUEUED: usize = 1024;

impl SignalQueue {
    /// Which signals wait.
    pub fn set(&self) -> SignalSet {
        self.set
    }

    /// Adds a signal; says `false` if there was no room for it (`EAGAIN` for the sender of a real-time signal).
    pub fn push(&mut self, info: SignalInfo) -> bool {
        let waits_once = !info.signal.is_real_time() && !matches!(info.origin, Origin::Timer { .. });
        if self.set.contains(info.signal) && (waits_once || self.has_of_timer(&info)) {
            return true;
        }
        let has_room = self.infos.len() < MOST_QUEUED && self.infos.make_room(1).is_ok();
        if has_room {
            self.infos.push_back(info);
        } else if info.signal.is_real_time() {
            return false;
        }
        self.set.insert(info.signal);
        true
    }

    /// Whether the same timer's signal waits already. Each timer's does once, beside whatever else waits.
    fn has_of_timer(&self, info: &SignalInfo) -> bool {
        let Origin::Timer { id, .. } = info.origin else { return false };
        let is_its = |other: &SignalInfo| matches!(other.origin, Origin::Timer { id: other, .. } if other == id);
        self.infos.iter().any(|other| other.signal == info.signal && is_its(other))
    }

    /// Takes the first signal that is in `wanted`.
    #[inline]
    pub fn take(&mut self, wanted: SignalSet) -> Option<SignalInfo> {
        self.set.intersection(wanted).first().map(|signal| self.take_one(signal))
    }

    /// Takes a signal that waits.
    fn take_one(&mut self, signal: Signal) -> SignalInfo {
        // Mostly there is just one.
        let info = if self.infos.front().is_some_and(|info| info.signal == signal) {
            self.infos.pop_front()
        } else {
            let found = self.infos.iter().position(|info| info.signal == signal);
            found.and_then(|place| self.infos.remove(place))
        };
        let info = info.unwrap_or(SignalInfo { signal, origin: Origin::User { pid: 0, uid: 0, is_directed: false } });
        if !self.infos.iter().any(|info| info.signal == signal) {
            self.set.remove(signal);
        }
        info
    }

    /// Throws waiting signals away.
    pub fn discard(&mut self, unwanted: SignalSet) {
        if self.set.intersection(unwanted).is_empty() {
            return;
        }
        self.set = self.set.without(unwanted);
        self.infos.retain(|info| !unwanted.contains(info.signal));
    }

    /// Throws one waiting signal away.
    pub fn discard_one(&mut self, signal: Signal) {
        self.discard(SignalSet::of(&[signal]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real_time(value: i32) -> SignalInfo {
        SignalInfo { signal: Signal::new(40).unwrap(), origin: Origin::User { pid: value, uid: 0, is_directed: false } }
    }

    #[test]
    fn a_standard_signal_waits_once_and_keeps_what_came_first() {
        let mut queue = SignalQueue::default();
        let first = SignalInfo { signal: Signal::SIGTERM, origin: Origin::User { pid: 1, uid: 0, is_directed: false } };
        assert!(queue.push(first) && queue.push(SignalInfo::kernel(Signal::SIGTERM)));
        assert_eq!(queue.take(SignalSet(!0)), Some(first));
        assert_eq!(queue.take(SignalSet(!0)), None);
    }

    #[test]
    fn real_time_signals_queue_in_order() {
        let mut queue = SignalQueue::default();
        assert!(queue.push(real_time(1)) && queue.push(real_time(2)));
        assert_eq!(queue.take(SignalSet(!0)), Some(real_time(1)));
        assert!(queue.set().contains(Signal::new(40).unwrap()));
        assert_eq!(queue.take(SignalSet(!0)), Some(real_time(2)));
        assert!(queue.set().is_empty());
    }

    #[test]
    fn each_timer_has_one_signal_waiting_beside_those_of_others() {
        let timer = |id| SignalInfo { signal: Signal::SIGALRM, origin: Origin::Timer { id, overrun: 0, value: 0 } };
        let mut queue = SignalQueue::default();
        for info in
            [SignalInfo::kernel(Signal::SIGALRM), timer(1), timer(2), timer(1), SignalInfo::kernel(Signal::SIGALRM)]
        {
            assert!(queue.push(info));
        }
        let taken: std::vec::Vec<_> = core::iter::from_fn(|| queue.take(SignalSet(!0))).collect();
        assert_eq!(taken, [SignalInfo::kernel(Signal::SIGALRM), timer(1), timer(2)]);
        assert!(queue.set().is_empty());
    }

    #[test]
    fn a_full_queue_refuses_real_time_signals_and_keeps_standard_ones() {
        let mut queue = SignalQueue::default();
        while queue.push(real_time(0)) {}
        assert_eq!(queue.infos.len(), MOST_QUEUED);
        assert!(queue.push(SignalInfo::kernel(Signal::SIGUSR1)));
        assert_eq!(queue.take(SignalSet::of(&[Signal::SIGUSR1])).map(|info| info.signal), Some(Signal::SIGUSR1));
    }

    #[test]
    fn blocked_signals_stay() {
        let mut queue = SignalQueue::default();
        queue.push(SignalInfo::kernel(Signal::SIGTERM));
        assert_eq!(queue.take(SignalSet::of(&[Signal::SIGINT])), None);
        assert!(queue.set().contains(Signal::SIGTERM));
    }
}
