//! The rows for several CPUs: as many workers as CPUs, on machines with one CPU, two and four (or as `--smp` says), from plain runs only.
//!
//! QEMU runs each CPU of a guest as a thread of its own, so more CPUs than the host has can gain nothing.
//!
//! next: `whole.rs`.

use super::figure::{Figure, best, gain, ratio};
use super::machines::{Slot, start_all};
use super::rows::decimal;
use crate::machine::Options;
use crate::progress;
use serde_json::{Value, json};

const ROUNDS: usize = 2;

/// All figures of one row.
pub struct Row {
    name: String,
    /// For each number of CPUs.
    on: Vec<Cell>,
}

/// The figures for one number of CPUs.
struct Cell {
    cpus: u32,
    /// On Rouse and on Linux, each round's.
    figures: [Vec<Figure>; 2],
}

impl Cell {
    fn best(&self) -> [Option<&Figure>; 2] {
        self.figures.each_ref().map(|figures| best(figures))
    }
}

/// How many CPUs the machines have: 1, 2, 4 up to what was asked for, which is 4 if it was nothing.
fn numbers_of_cpus(asked: u32) -> Vec<u32> {
    let most = if asked > 1 { asked } else { 4 };
    let mut numbers: Vec<u32> = [1, 2, 4, 8, 16, 32, 64].into_iter().filter(|number| *number < most).collect();
    numbers.push(most);
    numbers
}

/// Measures rows; prints nothing but notes, for a line is whole only at the end.
pub fn measure(options: &Options, names: &[String]) -> Vec<Row> {
    let mut rows: Vec<Row> = names.iter().map(|name| Row { name: name.clone(), on: Vec::new() }).collect();
    if rows.is_empty() {
        return rows;
    }
    for cpus in numbers_of_cpus(options.smp) {
        progress::step(&format!("measuring on {cpus} {}", if cpus == 1 { "CPU" } else { "CPUs" }));
        let options = Options { icount: false, smp: cpus, ..options.clone() };
        let mut slots = [Slot::new(&options), Slot::new(&options.on_linux())];
        start_all(slots.iter_mut());
        for row in &mut rows {
            let mut figures = [Vec::new(), Vec::new()];
            for _ in 0..ROUNDS {
                for (slot, figures) in slots.iter_mut().zip(&mut figures) {
                    figures.extend(slot.measure(&["--many", &row.name, &cpus.to_string()]));
                }
            }
            row.on.push(Cell { cpus, figures });
        }
    }
    rows
}

/// The table of all rows.
pub fn table(rows: &[Row]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let heads = first.on.iter().map(|cell| match cell.cpus {
        1 => " Rouse, 1 CPU | Linux | ratio |".to_owned(),
        cpus => format!(" Rouse, {cpus} | Linux | ratio |"),
    });
    let ruler = "--:|".repeat(first.on.len() * 3);
    let lines = rows.iter().map(Row::line);
    format!("\n| on several CPUs |{}\n|---|{ruler}\n{}", heads.collect::<String>(), lines.collect::<String>())
}

impl Row {
    fn line(&self) -> String {
        let mut line = format!("| {} |", self.name);
        let one = self.on.first().map_or([None, None], Cell::best);
        for cell in &self.on {
            let [rouse, linux] = cell.best();
            let is_first = cell.cpus == 1;
            let shown = |figure, one| shown(figure, if is_first { None } else { gain(one, figure) });
            line +=
                &format!(" {} | {} | {} |", shown(rouse, one[0]), shown(linux, one[1]), decimal(ratio(rouse, linux)));
        }
        line + "\n"
    }

    /// Every raw figure.
    pub fn json(&self) -> Value {
        let all = |figures: &Vec<Figure>| figures.iter().map(Figure::json).collect::<Vec<_>>();
        let cell = |cell: &Cell| {
            let [rouse, linux] = cell.figures.each_ref().map(all);
            json!({ "cpus": cell.cpus, "rouse": rouse, "linux": linux })
        };
        json!({ "row": self.name, "on": self.on.iter().map(cell).collect::<Vec<_>>() })
    }
}

/// A figure, with what it gains over one CPU.
fn shown(figure: Option<&Figure>, gain: Option<f64>) -> String {
    let Some(figure) = figure else { return "–".into() };
    let value = match (figure.unit.as_str(), figure.counted("p99").zip(figure.counted("max"))) {
        (_, Some((p99, max))) => {
            return format!("{:.0} / {:.0} / {:.0} µs", figure.value / 1e3, p99 / 1e3, max / 1e3);
        }
        ("/s", _) => format!("{:.1} k/s", figure.value / 1e3),
        (unit, _) => format!("{:.2} {unit}", figure.value),
    };
    gain.map_or(value.clone(), |gain| format!("{value} ({gain:.2}×)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_cpus_are_powers_of_two_up_to_what_was_asked_for() {
        assert_eq!([1, 2, 3, 8].map(numbers_of_cpus), [vec![1, 2, 4], vec![1, 2], vec![1, 2, 3], vec![1, 2, 4, 8]]);
    }

    #[test]
    fn a_line_shows_the_best_of_the_rounds_and_the_gain_over_one_cpu() {
        let figures =
            |values: [f64; 2]| values.map(|value| Figure { value, unit: "/s".into(), more: Vec::new() }).to_vec();
        let cell = |cpus, rouse, linux| Cell { cpus, figures: [figures(rouse), figures(linux)] };
        let on = vec![cell(1, [1e6, 2e6], [1e6, 1e6]), cell(2, [3e6, 1e6], [2e6, 1e6])];
        let row = Row { name: "x".into(), on };
        assert_eq!(
            row.line(),
            "| x | 2000.0 k/s | 1000.0 k/s | 0.50 | 3000.0 k/s (1.50×) | 2000.0 k/s (2.00×) | 0.67 |\n"
        );
    }
}
