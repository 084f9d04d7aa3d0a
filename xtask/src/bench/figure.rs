//! One figure, as the guest's program prints it: a value, its unit, and what was counted beside it.
//!
//! next: `machines.rs`.

use serde_json::{Value, json};

/// What one kernel took for a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// How much.
    pub value: f64,
    /// Of what: `ns` and `s` are costs, `MB/s` and `/s` are yields.
    pub unit: String,
    /// What else was counted, by name.
    pub more: Vec<(String, f64)>,
}

impl Figure {
    /// A line of the guest's program: value, unit, and `name=number` for what else was counted.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let value = words.next()?.parse().ok()?;
        let unit = words.next()?.to_owned();
        let pairs = words.filter_map(|word| word.split_once('='));
        let more = pairs.filter_map(|(name, number)| Some((name.to_owned(), number.parse().ok()?))).collect();
        Some(Self { value, unit, more })
    }

    /// Something that was counted beside the value.
    pub fn counted(&self, name: &str) -> Option<f64> {
        self.more.iter().find(|(found, _)| found == name).map(|(_, number)| *number)
    }

    /// Whether more is better.
    fn is_yield(&self) -> bool {
        self.unit.ends_with("/s")
    }

    /// Raw, for a file.
    pub fn json(&self) -> Value {
        let more: serde_json::Map<_, _> =
            self.more.iter().map(|(name, number)| (name.clone(), json!(number))).collect();
        json!({ "value": self.value, "unit": self.unit, "more": more })
    }
}

/// The best of several figures of the same row.
pub fn best(figures: &[Figure]) -> Option<&Figure> {
    let first = |one: &&Figure, other: &&Figure| {
        let order = one.value.total_cmp(&other.value);
        if one.is_yield() { order.reverse() } else { order }
    };
    figures.iter().min_by(first)
}

/// By how many per cent of the best the worst differs from it.
pub fn spread(figures: &[Figure]) -> Option<f64> {
    let (least, most) = figures
        .iter()
        .fold((f64::MAX, f64::MIN), |(least, most), figure| (least.min(figure.value), most.max(figure.value)));
    let best = best(figures).filter(|best| best.value > 0.0 && figures.len() > 1)?;
    Some((most - least) / best.value * 100.0)
}

/// What Rouse costs over what Linux costs, so that less than 1 is always the better.
pub fn ratio(rouse: Option<&Figure>, linux: Option<&Figure>) -> Option<f64> {
    let (rouse, linux) = (rouse?, linux?);
    Some(if rouse.is_yield() { linux.value / rouse.value } else { rouse.value / linux.value })
}

/// By how much a figure is better than that of one CPU.
pub fn gain(one: Option<&Figure>, many: Option<&Figure>) -> Option<f64> {
    ratio(one, many).map(|ratio| if ratio > 0.0 { ratio } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(value: f64, unit: &str) -> Figure {
        Figure { value, unit: unit.into(), more: Vec::new() }
    }

    #[test]
    fn a_ratio_below_one_is_in_favour_of_rouse_whatever_the_unit() {
        let ratio = |rouse, linux, unit| ratio(Some(&figure(rouse, unit)), Some(&figure(linux, unit)));
        assert_eq!(ratio(50.0, 100.0, "ns"), Some(0.5));
        assert_eq!(ratio(200.0, 100.0, "MB/s"), Some(0.5));
        assert_eq!(super::ratio(None, Some(&figure(1.0, "ns"))), None);
    }

    #[test]
    fn the_best_is_the_shortest_time_or_the_greatest_yield() {
        let of = |unit: &str| [figure(1.0, unit), figure(2.0, unit)];
        assert_eq!(best(&of("ns")).map(|figure| figure.value), Some(1.0));
        assert_eq!(best(&of("/s")).map(|figure| figure.value), Some(2.0));
        assert_eq!((spread(&of("ns")), spread(&of("/s")), spread(&of("s")[..1])), (Some(100.0), Some(50.0), None));
    }

    #[test]
    fn twice_the_yield_or_half_the_time_is_a_gain_of_two() {
        let gain = |one, many, unit| gain(Some(&figure(one, unit)), Some(&figure(many, unit)));
        assert_eq!((gain(10.0, 20.0, "/s"), gain(2.0, 1.0, "s")), (Some(2.0), Some(2.0)));
    }

    #[test]
    fn what_the_guest_prints_is_taken_apart() {
        let parsed = Figure::parse("7.5 ns cr3_loads=1.00 ipis=2").expect("it is a figure");
        assert_eq!((parsed.value, parsed.unit.as_str(), parsed.counted("ipis")), (7.5, "ns", Some(2.0)));
        assert_eq!(Figure::parse("no figure"), None);
    }
}
