//! A disk that is slow or fails, on demand: wraps any disk.
//!
//! What goes wrong is a value, [`Faults`], that can be changed while requests are on their way and be read from text, so that the
//! kernel can take it from its command line and from a file: `delay=50ms eio=every:10 on=reads`.
//!
//! Next: `tracer.rs`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::ops::RangeInclusive;
use core::str::FromStr;
use core::time::Duration;

use executor::sync::SpinLock;
use executor::time::TimerHandle;

use super::{BlockDevice, Geometry, Operation, Request, SECTOR_SIZE};
use crate::{BoxFuture, Errno, Result};

/// Which requests fail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Which {
    /// The one that comes after so many others, once.
    Nth(u64),
    /// Each one after so many others.
    Every(u64),
    /// Those that touch one of these sectors.
    Sectors(RangeInclusive<u64>),
    /// All.
    All,
}

/// What goes wrong.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Faults {
    /// How long each request is held back before the disk gets it.
    pub delay: Option<Duration>,
    /// Which requests fail with `EIO`; the disk never gets those.
    pub failing: Option<Which>,
    /// To which operation that applies; to all if `None`.
    pub only: Option<Operation>,
}

/// A disk between a disk and its user.
pub struct FaultInjector {
    disk: Arc<dyn BlockDevice>,
    timers: TimerHandle,
    state: SpinLock<State>,
}

struct State {
    faults: Faults,
    /// Requests to which the faults applied since they were set.
    seen: u64,
}

impl FaultInjector {
    /// Wraps `disk`; nothing goes wrong yet.
    pub fn new(disk: Arc<dyn BlockDevice>, timers: TimerHandle) -> FaultInjector {
        FaultInjector { disk, timers, state: SpinLock::new(State { faults: Faults::default(), seen: 0 }) }
    }

    /// Changes what goes wrong, for the requests that come from now on; they are counted anew.
    pub fn set(&self, faults: Faults) {
        *self.state.lock() = State { faults, seen: 0 };
    }

    /// What goes wrong now.
    pub fn faults(&self) -> Faults {
        self.state.lock().faults.clone()
    }

    /// What is to happen to a request: how long it waits, and whether it fails.
    fn judge(&self, request: &Request) -> (Option<Duration>, bool) {
        let mut state = self.state.lock();
        if state.faults.only.is_some_and(|only| only != request.operation) {
            return (None, false);
        }
        state.seen += 1;
        let fails = state.faults.failing.as_ref().is_some_and(|which| which.hits(request, state.seen));
        (state.faults.delay, fails)
    }
}

impl Which {
    fn hits(&self, request: &Request, number: u64) -> bool {
        match self {
            Which::Nth(nth) => number == *nth,
            Which::Every(nth) => number.checked_rem(*nth) == Some(0),
            Which::Sectors(bad) => {
                let count = (request.len() / SECTOR_SIZE) as u64;
                count > 0 && *bad.start() < request.sector.saturating_add(count) && request.sector <= *bad.end()
            }
            Which::All => true,
        }
    }
}

impl BlockDevice for FaultInjector {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn submit(&self, request: Request) -> BoxFuture<'_, Result<()>> {
        let (delay, fails) = self.judge(&request);
        if delay.is_none() && !fails {
            return self.disk.submit(request);
        }
        Box::pin(async move {
            request.check(&self.disk.geometry())?;
            if let Some(delay) = delay {
                self.timers.sleep(delay).await;
            }
            if fails { Err(Errno::EIO) } else { self.disk.submit(request).await }
        })
    }
}

/// `off`, or words of `delay=50ms`, `eio=all`, `eio=nth:5`, `eio=every:10`, `eio=sectors:100-200`, `on=reads`, `on=writes`,
/// `on=flushes`, separated by blanks or commas.
impl FromStr for Faults {
    type Err = Errno;

    fn from_str(text: &str) -> Result<Faults> {
        let mut faults = Faults::default();
        let words = text.split(|letter: char| letter.is_ascii_whitespace() || letter == ',');
        for word in words.filter(|word| !word.is_empty() && *word != "off") {
            let (key, value) = word.split_once('=').ok_or(Errno::EINVAL)?;
            match key {
                "delay" => faults.delay = Some(parse_duration(value).ok_or(Errno::EINVAL)?),
                "eio" => faults.failing = Some(parse_which(value).ok_or(Errno::EINVAL)?),
                "on" => faults.only = Some(parse_operation(value).ok_or(Errno::EINVAL)?),
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(faults)
    }
}

/// The words that [`FromStr`] understands.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Faults::default() {
            return f.write_str("off");
        }
        let mut gap = "";
        if let Some(delay) = self.delay {
            write!(f, "delay={}us", delay.as_micros())?;
            gap = " ";
        }
        if let Some(failing) = &self.failing {
            match failing {
                Which::All => write!(f, "{gap}eio=all")?,
                Which::Nth(nth) => write!(f, "{gap}eio=nth:{nth}")?,
                Which::Every(nth) => write!(f, "{gap}eio=every:{nth}")?,
                Which::Sectors(bad) => write!(f, "{gap}eio=sectors:{}-{}", bad.start(), bad.end())?,
            }
            gap = " ";
        }
        match self.only {
            Some(Operation::Read) => write!(f, "{gap}on=reads"),
            Some(Operation::Write) => write!(f, "{gap}on=writes"),
            Some(Operation::Flush) => write!(f, "{gap}on=flushes"),
            None => Ok(()),
        }
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    if let Some(number) = text.strip_suffix("ms") {
        number.parse().ok().map(Duration::from_millis)
    } else if let Some(number) = text.strip_suffix("us") {
        number.parse().ok().map(Duration::from_micros)
    } else {
        text.strip_suffix('s')?.parse().ok().map(Duration::from_secs)
    }
}

fn parse_which(text: &str) -> Option<Which> {
    match text.split_once(':') {
        None => (text == "all").then_some(Which::All),
        Some(("nth", number)) => number.parse().ok().map(Which::Nth),
        Some(("every", number)) => number.parse().ok().map(Which::Every),
        Some(("sectors", range)) => {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(Which::Sectors(first.parse().ok()?..=last.parse().ok()?))
        }
        Some(_) => None,
    }
}

fn parse_operation(text: &str) -> Option<Operation> {
    match text {
        "reads" => Some(Operation::Read),
        "writes" => Some(Operation::Write),
        "flushes" => Some(Operation::Flush),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use executor::testing::Bench;
    use executor::{Class, JoinHandle};

    use super::*;
    use crate::block::conformance::{self, Subject};
    use crate::block::{FakeDisk, Segment};
    use crate::hw::{HostPages, Page};

    fn pages() -> &'static HostPages {
        Box::leak(Box::new(HostPages::new()))
    }

    /// Submits a one-sector request, and lets it run as far as it gets without time going by.
    fn submit(bench: &Bench, disk: &Arc<FaultInjector>, operation: Operation, sector: u64) -> JoinHandle<Result<()>> {
        let page = Page::allocate_zeroed(pages()).expect("no limit");
        let segments = match operation {
            Operation::Flush => alloc::vec![],
            _ => alloc::vec![Segment { page, offset: 0, len: SECTOR_SIZE }],
        };
        let (disk, request) = (disk.clone(), Request { operation, sector, segments });
        let task =
            bench.executor().spawn_with_result(Class::NORMAL, "request", async move { disk.submit(request).await });
        bench.advance(Duration::ZERO);
        task
    }

    fn injector(bench: &Bench, faults: &str) -> Arc<FaultInjector> {
        let injector = FaultInjector::new(Arc::new(FakeDisk::new(64)), bench.executor().timers());
        injector.set(faults.parse().expect("good faults"));
        Arc::new(injector)
    }

    #[test]
    fn a_wrapped_disk_without_faults_is_a_disk() {
        let bench = Bench::new();
        let pages = pages();
        conformance::check(&mut || {
            let disk = Arc::new(FakeDisk::new(64).by_hand());
            let device = Arc::new(FaultInjector::new(disk.clone(), bench.executor().timers()));
            Subject { device, step: Box::new(move |pick| disk.complete(pick)), pages }
        });
    }

    #[test]
    fn a_delayed_request_is_done_when_its_time_has_come() {
        let bench = Bench::new();
        let disk = injector(&bench, "delay=50ms");
        let read = submit(&bench, &disk, Operation::Read, 0);
        bench.advance(Duration::from_millis(49));
        assert!(read.try_take().is_none());
        bench.advance(Duration::from_millis(1));
        assert_eq!(read.try_take(), Some(Ok(())));
    }

    #[test]
    fn exactly_the_chosen_requests_fail() {
        let bench = Bench::new();
        let outcomes = |faults: &str| -> alloc::string::String {
            let disk = injector(&bench, faults);
            let mut outcomes = alloc::string::String::new();
            for sector in 0..6 {
                let operation = if sector % 2 == 0 { Operation::Read } else { Operation::Write };
                let result = submit(&bench, &disk, operation, sector).try_take().expect("nothing delays it");
                assert!(matches!(result, Ok(()) | Err(Errno::EIO)));
                outcomes.push(if result.is_ok() { '.' } else { 'E' });
            }
            outcomes
        };
        assert_eq!(outcomes("off"), "......");
        assert_eq!(outcomes("eio=all"), "EEEEEE");
        assert_eq!(outcomes("eio=nth:2"), ".E....");
        assert_eq!(outcomes("eio=every:3"), "..E..E");
        assert_eq!(outcomes("eio=sectors:1-2"), ".EE...");
        assert_eq!(outcomes("eio=nth:2 on=writes"), "...E..");
        assert_eq!(outcomes("eio=every:0"), "......");
    }

    #[test]
    fn what_is_shown_can_be_set_again() {
        for text in ["off", "delay=50000us", "eio=all", "delay=7us eio=nth:5 on=reads", "eio=sectors:1-20 on=writes"] {
            let faults: Faults = text.parse().expect("good faults");
            assert_eq!(alloc::format!("{faults}"), text);
        }
        assert_eq!(
            "delay=2s,eio=every:3".parse::<Faults>().map(|faults| alloc::format!("{faults}")).as_deref(),
            Ok("delay=2000000us eio=every:3")
        );
    }

    #[test]
    fn words_that_make_no_sense_are_refused() {
        for text in ["delay", "delay=5", "delay=xs", "eio=some", "eio=nth:", "eio=sectors:1-", "on=seeks", "x=y"] {
            assert_eq!(text.parse::<Faults>(), Err(Errno::EINVAL), "{text}");
        }
    }
}
