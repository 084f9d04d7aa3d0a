//! Exercise 5: a policy for one CPU, tried on loads that policies have failed on.

#[cfg(feature = "mine")]
use exercises::exercise::fairness::Fair;
#[cfg(not(feature = "mine"))]
use exercises::solution::fairness::Fair;

use exercises::world::cpu::{Fate, Load, Policy, SLICE, share};
use std::time::Duration;

/// The weights of nice 0 and nice 5 (sched(7)).
const NICE_0: u64 = 1024;
const NICE_5: u64 = 335;
/// Of nice -5.
const NICE_MINUS_5: u64 = 3121;

/// How far the shares of tasks that are always busy are from their weights, at worst, in per cent.
fn unfairness(policy: &mut dyn Policy, weights: &[u64]) -> f64 {
    let loads: Vec<Load> = weights.iter().map(|weight| Load::busy(*weight)).collect();
    let end = Duration::from_secs(20);
    let fates = share(policy, &loads, end);
    let sum: u64 = weights.iter().sum();
    let off = |(fate, weight): (&Fate, &u64)| {
        let due = end.as_secs_f64() * *weight as f64 / sum as f64;
        (fate.ran.as_secs_f64() / due - 1.0).abs() * 100.0
    };
    fates.iter().zip(weights).map(off).fold(0.0, f64::max)
}

/// The longest that a task waits that computes little and often sleeps, among ten that are always busy.
fn latency(policy: &mut dyn Policy) -> Duration {
    let mut loads = vec![Load::busy(NICE_0); 10];
    let (runs, sleeps) = (Duration::from_micros(100), Duration::from_millis(50));
    loads.push(Load { weight: NICE_0, runs, sleeps, begins: Duration::from_millis(100) });
    share(policy, &loads, Duration::from_secs(20))[10].worst_latency
}

/// For how long one who is always busy runs in the second after another one has begun, which has been away until then.
fn left_beside_a_latecomer(policy: &mut dyn Policy) -> Duration {
    let busy = Load::busy(NICE_0);
    let late = Load { begins: Duration::from_secs(5), ..busy };
    share(policy, &[busy, late], Duration::from_secs(6))[0].ran - Duration::from_secs(5)
}

#[test]
fn those_who_are_always_busy_have_time_in_proportion_to_their_weights() {
    for weights in [&[NICE_0, NICE_5][..], &[NICE_0; 7], &[NICE_MINUS_5, NICE_0, NICE_5, NICE_0]] {
        let off = unfairness(&mut Fair::default(), weights);
        assert!(off < 2.0, "{weights:?}: {off:.1} %");
    }
}

#[test]
fn one_who_mostly_sleeps_goes_soon_however_many_are_busy() {
    let worst = latency(&mut Fair::default());
    assert!(worst <= 2 * SLICE, "{worst:?}");
}

#[test]
fn one_who_was_away_does_not_make_up_for_it() {
    let left = left_beside_a_latecomer(&mut Fair::default());
    assert!((450..=550).contains(&left.as_millis()), "half of a second, not {left:?}");
}

#[test]
fn one_who_never_sleeps_is_not_starved_by_many_who_do() {
    let mut loads = vec![Load::busy(NICE_0)];
    let (runs, sleeps) = (Duration::from_millis(2), Duration::from_millis(1));
    loads.extend((0..9).map(|number| Load { weight: NICE_0, runs, sleeps, begins: Duration::from_micros(number) }));
    let fates = share(&mut Fair::default(), &loads, Duration::from_secs(10));
    assert!(fates[0].ran >= Duration::from_millis(700), "a tenth of the time is its due: {:?}", fates[0]);
}

/// Left out when you try your own work.
#[test]
#[cfg(not(feature = "mine"))]
fn taking_turns_is_neither_fair_by_weight_nor_quick() {
    use exercises::exercise::fairness::Fair as Turns;

    assert!(unfairness(&mut Turns::default(), &[NICE_0, NICE_5]) > 30.0);
    assert!(latency(&mut Turns::default()) > 5 * SLICE);
    assert_eq!(left_beside_a_latecomer(&mut Turns::default()).as_millis() / 10, 50);
}
