//! The rows that one program takes: each on Rouse and on Linux, counted and timed.
//!
//! Counted (`-icount`) on all kernels at once, for what else the host does changes no count of instructions: on Rouse, on Linux as it comes,
//! and on Linux without its mitigations of speculative execution, which Rouse has not got either. Timed on one kernel after the other.
//!
//! next: `many.rs`.

use super::figure::{Figure, best, ratio, spread};
use super::machines::{Slot, start_all};
use crate::machine::Options;
use crate::progress;
use serde_json::{Value, json};

const ROUNDS: usize = 2;

/// All figures of one row.
pub struct Row {
    name: String,
    /// On Rouse, on Linux, on Linux without mitigations.
    counted: [Option<Figure>; 3],
    /// On Rouse and on Linux, each round's.
    timed: [Vec<Figure>; 2],
}

/// Measures rows and prints their table. What is counted is left out for several CPUs, of which `-icount` runs one at a time; what
/// is timed, if only counts are wanted.
pub fn measure(options: &Options, names: &[String]) -> Vec<Row> {
    if names.is_empty() {
        return Vec::new();
    }
    progress::step("starting the kernels; Linux takes its time");
    let linux = options.on_linux();
    let mut bare = linux.clone();
    bare.append.push("mitigations=off".into());
    let counts = options.smp == 1;
    let counting = [options, &linux, &bare].map(|options| Options { icount: true, ..options.clone() });
    let mut counting: Vec<Slot> = counting.iter().filter(|_| counts).map(Slot::new).collect();
    let timing = [options, &linux].map(|options| Options { icount: false, ..options.clone() });
    let mut timing: Vec<Slot> = timing.iter().filter(|_| !options.icount || !counts).map(Slot::new).collect();
    start_all(counting.iter_mut().chain(&mut timing));
    print!("{}", heading());
    let mut rows = Vec::new();
    for name in names {
        let counted = at_once(&mut counting, name);
        let mut timed = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            timing.iter_mut().zip(&mut timed).for_each(|(slot, figures)| figures.extend(slot.measure(&[name])));
        }
        let row = Row { name: name.clone(), counted, timed };
        print!("{}", row.line());
        rows.push(row);
    }
    rows
}

fn at_once(slots: &mut [Slot], row: &str) -> [Option<Figure>; 3] {
    let mut figures = [None, None, None];
    std::thread::scope(|scope| {
        for (slot, figure) in slots.iter_mut().zip(&mut figures) {
            scope.spawn(|| *figure = slot.measure(&[row]));
        }
    });
    figures
}

/// The table of all rows.
pub fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    heading() + &rows.iter().map(Row::line).collect::<String>()
}

/// Names and widths of the columns, so that the table can be read as it is printed.
const COLUMNS: [(&str, usize); 11] = [
    ("row", 21),
    ("unit", 4),
    ("Rouse, icount", 13),
    ("Linux, icount", 13),
    ("ratio", 5),
    ("Linux bare, icount", 18),
    ("ratio", 5),
    ("Rouse, plain", 12),
    ("Linux, plain", 12),
    ("ratio", 5),
    ("spread", 6),
];

fn heading() -> String {
    let names = COLUMNS.iter().map(|(name, width)| format!("| {name:width$} "));
    let ruler = COLUMNS.iter().map(|(_, width)| format!("|{}", "-".repeat(width + 2)));
    format!("{}| counted on Rouse |\n{}|---|\n", names.collect::<String>(), ruler.collect::<String>())
}

impl Row {
    fn line(&self) -> String {
        let [rouse, linux, bare] = self.counted.each_ref().map(Option::as_ref);
        let [timed_rouse, timed_linux] = self.timed.each_ref().map(|figures| best(figures));
        let any = [rouse, linux, timed_rouse, timed_linux].into_iter().flatten().next();
        let spreads = self.timed.iter().filter_map(|figures| spread(figures));
        let cells = [
            self.name.clone(),
            any.map_or(String::new(), |figure| figure.unit.clone()),
            value(rouse),
            value(linux),
            decimal(ratio(rouse, linux)),
            value(bare),
            decimal(ratio(rouse, bare)),
            value(timed_rouse),
            value(timed_linux),
            decimal(ratio(timed_rouse, timed_linux)),
            spreads.reduce(f64::max).map_or("–".into(), |spread| format!("{spread:.0} %")),
        ];
        let padded = cells.iter().zip(COLUMNS).enumerate().map(|(column, (text, (_, width)))| {
            if column < 2 { format!("| {text:width$} ") } else { format!("| {text:>width$} ") }
        });
        let counters = rouse.or(timed_rouse).map_or(String::new(), |figure| {
            let words: Vec<_> = figure.more.iter().map(|(name, number)| format!("{name}={number:.2}")).collect();
            words.join(" ")
        });
        format!("{}| {counters} |\n", padded.collect::<String>())
    }

    /// Every raw figure.
    pub fn json(&self) -> Value {
        let one = |figure: &Option<Figure>| figure.as_ref().map(Figure::json);
        let all = |figures: &Vec<Figure>| figures.iter().map(Figure::json).collect::<Vec<_>>();
        let [rouse, linux, bare] = self.counted.each_ref().map(one);
        let [timed_rouse, timed_linux] = self.timed.each_ref().map(all);
        json!({
            "row": self.name,
            "icount": { "rouse": rouse, "linux": linux, "linux_mitigations_off": bare },
            "plain": { "rouse": timed_rouse, "linux": timed_linux },
        })
    }
}

fn value(figure: Option<&Figure>) -> String {
    figure.map_or("–".into(), |figure| format!("{:.0}", figure.value))
}

/// A ratio, as tables show it.
pub fn decimal(ratio: Option<f64>) -> String {
    ratio.map_or("–".into(), |ratio| format!("{ratio:.2}"))
}
