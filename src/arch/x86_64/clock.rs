//! Time: nanoseconds since boot, from the time stamp counter.
//!
//! The counter's rate is taken from CPUID where it tells (a hypervisor's leaf, or the crystal's), else measured against a timer whose
//! rate is known: the HPET, the ACPI power management timer, or the old interval timer. The local APIC's timer is measured in the same
//! go. Where the counter cannot be trusted (a real machine on which it may stop), the HPET is read instead.
//!
//! Next: `tsc_scale.rs`, the arithmetic; `reference.rs`, the timers.

use core::num::NonZeroU64;
use core::time::Duration;

use conquer_once::spin::OnceCell;
use executor::Instant;

use super::acpi::platform;
use super::cpu_features::cpu_features;
use super::instructions::{rdtsc, rdtsc_ordered};
use super::reference::{Hpet, Reference};
use super::tsc_scale::{TickScale, TscParameters, rate};
use super::{apic, rtc};

/// How long the counter is compared with a timer.
const MEASURING: Duration = Duration::from_millis(10);
/// What is believed if nothing can be measured.
const GUESS_HZ: NonZeroU64 = NonZeroU64::new(1_000_000_000).expect("not zero");

struct Clock {
    source: Source,
    tsc: TickScale,
    tsc_at_boot: u64,
    wall_at_boot: Duration,
}

enum Source {
    Tsc,
    Hpet { hpet: Hpet, scale: TickScale, at_boot: u64 },
}

static CLOCK: OnceCell<Clock> = OnceCell::uninit();

/// Measures the counter and the local APIC's timer, and starts the clock.
pub(super) fn init() {
    let tsc_at_boot = rdtsc_ordered();
    let wall_at_boot = Duration::from_secs(rtc::read(platform().century).unwrap_or(0));
    let reference = Reference::find();
    let measured = reference.as_ref().and_then(measure);
    let stated = stated_tsc_hz();
    let tsc_hz = stated.or(measured.map(|(tsc, _)| tsc)).unwrap_or(GUESS_HZ);
    let apic_hz = measured.map_or(GUESS_HZ, |(_, apic)| apic);
    log::debug!("TSC {tsc_hz} Hz (stated: {stated:?}), APIC timer {apic_hz} Hz, against {reference:?}");
    let source = match reference {
        Some(Reference::Hpet(hpet)) if !tsc_is_trusted() => {
            log::warn!("the time stamp counter may stop: using the HPET");
            Source::Hpet { scale: TickScale::from_hz(hpet.hz()), at_boot: hpet.read(), hpet }
        }
        _ => Source::Tsc,
    };
    let _ = CLOCK.try_init_once(|| Clock { source, tsc: TickScale::from_hz(tsc_hz), tsc_at_boot, wall_at_boot });
    apic::set_timer_scale(TickScale::from_hz(apic_hz));
    apic::start_timer();
}

/// Whether the counter runs on whatever the CPU does: it says so, or a hypervisor sees to it.
fn tsc_is_trusted() -> bool {
    cpu_features().invariant_tsc || cpu_features().hypervisor
}

/// The counter's rate as CPUID tells it: leaf 0x4000_0010 of hypervisors (kHz), or leaf 0x15 (Intel SDM volume 2, CPUID).
fn stated_tsc_hz() -> Option<NonZeroU64> {
    const HYPERVISOR_TIMING: u32 = 0x4000_0010;
    if cpu_features().hypervisor && (HYPERVISOR_TIMING..0x4001_0000).contains(&raw_cpuid::cpuid!(0x4000_0000).eax) {
        let khz = raw_cpuid::cpuid!(HYPERVISOR_TIMING).eax;
        return NonZeroU64::new(u64::from(khz) * 1000);
    }
    NonZeroU64::new(raw_cpuid::CpuId::new().get_tsc_info()?.tsc_frequency()?)
}

/// The rates of the counter and of the local APIC's timer.
fn measure(reference: &Reference) -> Option<(NonZeroU64, NonZeroU64)> {
    let apic_count = apic::start_measuring();
    let begin = Sample::take(reference, &apic_count);
    let wanted = reference.ticks_of(MEASURING);
    reference.wait(begin.reference, wanted);
    let end = Sample::take(reference, &apic_count);
    let elapsed = reference.elapsed(begin.reference, end.reference);
    let tsc = rate(end.tsc.wrapping_sub(begin.tsc), elapsed, reference.hz().get())?;
    let apic = rate(u64::from(end.apic.wrapping_sub(begin.apic)), elapsed, reference.hz().get()).unwrap_or(GUESS_HZ);
    Some((tsc, apic))
}

/// The three counters at one moment, as nearly as possible.
struct Sample {
    tsc: u64,
    reference: u64,
    apic: u32,
}

impl Sample {
    /// Of a few tries the one that took the least time: nobody interrupted it.
    fn take(reference: &Reference, apic_count: &impl Fn() -> u32) -> Sample {
        let attempt = || {
            let before = rdtsc_ordered();
            let sample = Sample { reference: reference.read(), apic: apic_count(), tsc: rdtsc_ordered() };
            (sample.tsc - before, sample)
        };
        let mut best = attempt();
        for _ in 0..4 {
            let next = attempt();
            if next.0 < best.0 {
                best = next;
            }
        }
        // The middle of the attempt: what that is off by is the same at both ends, and cancels out.
        best.1.tsc -= best.0 / 2;
        best.1
    }
}

/// Nanoseconds since boot. Never goes back; 0 until the clock runs.
#[inline(always)]
pub fn now_nanoseconds() -> u64 {
    match CLOCK.try_get() {
        Ok(clock) => clock.now(),
        Err(_) => 0,
    }
}

impl Clock {
    #[inline(always)]
    fn now(&self) -> u64 {
        match &self.source {
            // One CPU's counter never goes back; those of others were started together.
            Source::Tsc => self.tsc.nanoseconds(rdtsc().saturating_sub(self.tsc_at_boot)),
            Source::Hpet { hpet, scale, at_boot } => scale.nanoseconds(hpet.read().wrapping_sub(*at_boot)),
        }
    }
}

/// The time since boot.
#[inline(always)]
pub fn now() -> Instant {
    Instant::from_nanos(now_nanoseconds())
}

/// A counter for measuring short times cheaply; [`nanoseconds_of`] makes a time of a difference.
#[inline(always)]
pub fn ticks() -> u64 {
    rdtsc()
}

/// How long so many [`ticks`] took.
pub fn nanoseconds_of(ticks: u64) -> u64 {
    CLOCK.try_get().map_or(0, |clock| clock.tsc.nanoseconds(ticks))
}

/// Whether the clock is the time stamp counter, so that programs can read it without a system call.
pub fn is_tsc() -> bool {
    matches!(CLOCK.try_get(), Ok(Clock { source: Source::Tsc, .. }))
}

/// How the counter becomes a time; `None` where the clock is another one.
pub fn tsc_parameters() -> Option<TscParameters> {
    let clock = CLOCK.try_get().ok().filter(|_| is_tsc())?;
    Some(TscParameters { tsc_at_boot: clock.tsc_at_boot, multiplier: clock.tsc.multiplier })
}

/// The counter's value at a time since boot.
pub(super) fn instant_to_tsc(nanoseconds: u64) -> u64 {
    CLOCK.try_get().map_or(0, |clock| clock.tsc_at_boot.saturating_add(clock.tsc.ticks(nanoseconds)))
}

/// What the wall clock showed at boot, since 1970; 0 where there is none.
pub fn wall_clock_at_boot() -> Duration {
    CLOCK.try_get().map_or(Duration::ZERO, |clock| clock.wall_at_boot)
}
