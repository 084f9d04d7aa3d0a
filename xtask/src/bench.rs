//! `cargo run -- bench`: what Rouse costs beside Linux, with the same binary on the same machine, in one run.
//!
//! Each row is measured on both kernels: with `-icount` (one instruction is one nanosecond: the cost of code, and it repeats)
//! on both at once, then plain (traps, TLB and wake-ups, on a machine that does other things too: the best of two) on one after the
//! other. `--icount` leaves the plain half out. Times of a whole machine (boot, memory) are taken from plain runs only.
//!
//! next: `user/programs/src/bin/bench`, which runs in the guest.

use crate::guest::Guest;
use crate::kernel::{self, Profile};
use crate::machine::Options;
use crate::{image, paths, progress};
use anyhow::{Context, Result};
use std::io::Read;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

/// A row that takes longer than this, with its machine's start, is given up.
const LIMIT_SECONDS: u64 = 300;
const PLAIN_ROUNDS: usize = 2;

/// One kernel's figure.
#[derive(Clone, Debug, PartialEq)]
struct Figure {
    value: f64,
    unit: String,
    counters: String,
}

/// Two kernels' figures for a row.
#[derive(Clone, Debug, Default)]
struct Pair {
    rouse: Option<Figure>,
    linux: Option<Figure>,
}

/// Measures the rows whose names contain `only`, prints the table, and saves it if asked to. With `--icount` only the half that
/// repeats is taken.
///
/// # Errors
/// A machine cannot be started at all, or there is no such row.
pub fn run(options: &Options, only: Option<&str>, save: bool) -> Result<ExitCode> {
    // What is shipped is what is measured.
    let options = &Options { optimized: true, ..options.clone() };
    let is_wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    let mut counting = Machines::new(&Options { icount: true, ..options.clone() });
    let mut timing = (!options.icount).then(|| Machines::new(&Options { icount: false, ..options.clone() }));
    let rows: Vec<String> = counting.rows()?.into_iter().filter(|row| is_wanted(row)).collect();
    let mut table = String::new();
    if !rows.is_empty() {
        progress::step("starting both kernels; Linux takes its time");
        start_all([Some(&mut counting), timing.as_mut()].into_iter().flatten());
        table += &heading();
        print!("{table}");
    }
    for row in &rows {
        let counted = counting.measure_at_once(row);
        let timed = timing.as_mut().map(|machines| machines.measure_best(row)).unwrap_or_default();
        let line = line(row, &counted, &timed);
        print!("{line}");
        table += &line;
    }
    drop((counting, timing));
    let mut whole = String::new();
    for (name, measure) in WHOLE.iter().filter(|(name, _)| is_wanted(name)) {
        if whole.is_empty() {
            whole += "\n| the whole machine | Rouse | Linux | ratio |\n|---|---|---|---|\n";
            print!("{whole}");
        }
        let line = measure(name, &Options { icount: false, ..options.clone() })?;
        print!("{line}");
        whole += &line;
    }
    anyhow::ensure!(!table.is_empty() || !whole.is_empty(), "there is no such row");
    if save {
        let path = paths::workspace().join("docs/benchmarks.md");
        std::fs::create_dir_all(path.parent().context("docs is a folder")?)?;
        std::fs::write(&path, page(&table, &whole))?;
        progress::step(&format!("saved to {}", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures something of a whole machine and makes its line of the table, under this name.
type MakeLine = fn(&str, &Options) -> Result<String>;

/// What is measured of whole machines.
const WHOLE: &[(&str, MakeLine)] = &[
    ("memory-thread", sleeping_threads),
    ("memory-process", sleeping_processes),
    ("boot", boots),
    ("size", kernel_sizes),
];

fn page(table: &str, whole: &str) -> String {
    format!(
        "# What Rouse costs beside Linux\n\nMade by `cargo run --release -- bench --save`: the same static binary on both kernels, one CPU, \
         QEMU's TCG, Debian's Linux 6.1. \"icount\" is `-icount shift=0,sleep=off`: one guest instruction is one nanosecond, so the \
         figure counts instructions and repeats. \"plain\" is the better of two timed runs: an order of magnitude, no more. A ratio \
         below 1 is in Rouse's favour. The last column is what Rouse's own counters (`/proc/rouse/counters`) rose by for one \
         operation.\n\n{table}{whole}"
    )
}

/// Two machines that stay up between rows; one that was lost is started again.
struct Machines {
    rouse: Slot,
    linux: Slot,
}

struct Slot {
    options: Options,
    guest: Option<Guest>,
}

/// Starts all machines at once: a start leaves a host's second CPU idle, and Linux's is long.
fn start_all<'a>(machines: impl Iterator<Item = &'a mut Machines>) {
    std::thread::scope(|scope| {
        for slot in machines.flat_map(|machines| [&mut machines.rouse, &mut machines.linux]) {
            scope.spawn(|| {
                // One that does not start is tried again, and its failure told, when it is used.
                let _ = slot.guest();
                slot.rest();
            });
        }
    });
}

impl Machines {
    fn new(options: &Options) -> Self {
        let options = Options { timeout: None, ..options.clone() };
        Self { linux: Slot { options: options.on_linux(), guest: None }, rouse: Slot { options, guest: None } }
    }

    fn rows(&mut self) -> Result<Vec<String>> {
        let list = self.rouse.guest()?.run(&["bench", "--list"])?.text();
        self.rouse.rest();
        Ok(list.lines().map(str::to_owned).collect())
    }

    /// Both kernels at once: what else the host does changes no count of instructions.
    fn measure_at_once(&mut self, row: &str) -> Pair {
        std::thread::scope(|scope| {
            let linux = scope.spawn(|| self.linux.measure(row));
            let rouse = self.rouse.measure(row);
            Pair { rouse, linux: linux.join().ok().flatten() }
        })
    }

    /// One kernel after the other, and the best of several rounds.
    fn measure_best(&mut self, row: &str) -> Pair {
        let round = |_| Pair { rouse: self.rouse.measure(row), linux: self.linux.measure(row) };
        let best = |one: Pair, other: Pair| Pair {
            rouse: better(one.rouse, other.rouse),
            linux: better(one.linux, other.linux),
        };
        (0..PLAIN_ROUNDS).map(round).reduce(best).unwrap_or_default()
    }
}

impl Slot {
    fn guest(&mut self) -> Result<&mut Guest> {
        if self.guest.is_none() {
            self.guest = Some(Guest::start(&self.options)?);
        }
        self.guest.as_mut().context("it was just started")
    }

    /// Keeps a machine that counts instructions from taking the host's time from others.
    fn rest(&self) {
        if let Some(guest) = self.guest.as_ref().filter(|_| self.options.icount) {
            guest.pause();
        }
    }

    /// One figure; `None`, and a note, if the row cannot be measured there.
    fn measure(&mut self, row: &str) -> Option<Figure> {
        let outcome = self.guest().and_then(|guest| {
            guest.set_time_limit(Duration::from_secs(LIMIT_SECONDS));
            guest.go_on();
            guest.run(&["bench", row])
        });
        self.rest();
        let kernel = self.options.kernel.clone();
        match outcome {
            Ok(output) if output.is_success() => parse(&output.text()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                progress::note(&format!("{row} on {kernel}: {:?} {said}", output.end));
                None
            }
            Err(error) => {
                self.guest = None;
                progress::note(&format!("{row} on {kernel}: {}", short(&error)));
                None
            }
        }
    }
}

fn short(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.lines().next().unwrap_or_default().to_owned()
}

fn parse(text: &str) -> Option<Figure> {
    let mut words = text.split_whitespace();
    let value = words.next()?.parse().ok()?;
    let unit = words.next()?.to_owned();
    Some(Figure { value, unit, counters: words.collect::<Vec<_>>().join(" ") })
}

/// The better of two figures of the same row.
fn better(one: Option<Figure>, other: Option<Figure>) -> Option<Figure> {
    let (Some(one), Some(other)) = (&one, &other) else { return one.or(other) };
    let first = if is_bandwidth(&one.unit) { one.value >= other.value } else { one.value <= other.value };
    Some(if first { one.clone() } else { other.clone() })
}

fn is_bandwidth(unit: &str) -> bool {
    unit.ends_with("/s")
}

fn heading() -> String {
    let columns = ["row", "unit", "Rouse, icount", "Linux, icount", "ratio", "Rouse, plain", "Linux, plain", "ratio"];
    let padded = columns.iter().zip(WIDTHS).map(|(name, width)| format!("| {name:width$} "));
    let ruler = WIDTHS.iter().map(|width| format!("|{}", "-".repeat(width + 2)));
    format!("{}| counted on Rouse |\n{}|---|\n", padded.collect::<String>(), ruler.collect::<String>())
}

/// Of the columns, so that the table can be read as it is printed.
const WIDTHS: [usize; 8] = [21, 4, 13, 13, 5, 12, 12, 5];

fn line(row: &str, counted: &Pair, timed: &Pair) -> String {
    let all = [&counted.rouse, &counted.linux, &timed.rouse, &timed.linux];
    let unit = all.iter().find_map(|figure| figure.as_ref()).map_or("", |figure| &figure.unit);
    let counters = counted.rouse.as_ref().or(timed.rouse.as_ref()).map_or("", |figure| &figure.counters);
    let cells = [
        row.to_owned(),
        unit.to_owned(),
        cell(&counted.rouse),
        cell(&counted.linux),
        ratio(counted),
        cell(&timed.rouse),
        cell(&timed.linux),
        ratio(timed),
    ];
    let padded = cells.iter().zip(WIDTHS).enumerate().map(|(column, (text, width))| {
        if column < 2 { format!("| {text:width$} ") } else { format!("| {text:>width$} ") }
    });
    format!("{}| {counters} |\n", padded.collect::<String>())
}

fn cell(figure: &Option<Figure>) -> String {
    figure.as_ref().map_or("–".into(), |figure| format!("{:.0}", figure.value))
}

/// Rouse's cost over Linux's, so that less than 1 is always the better.
fn ratio(pair: &Pair) -> String {
    let (Some(rouse), Some(linux)) = (&pair.rouse, &pair.linux) else { return "–".into() };
    let ratio = if is_bandwidth(&rouse.unit) { linux.value / rouse.value } else { rouse.value / linux.value };
    format!("{ratio:.2}")
}

/// A line of the table of whole machines; what could not be measured says why.
fn whole_line(what: &str, unit: &str, take: impl Fn(&Options) -> Result<f64>, options: &Options) -> String {
    let figures = [options.clone(), options.on_linux()].map(|options| take(&options));
    let shown = figures.each_ref().map(|figure| match figure {
        Ok(value) => format!("{value:.2} {unit}"),
        Err(error) => short(error),
    });
    let ratio = match &figures {
        [Ok(rouse), Ok(linux)] => format!("{:.2}", rouse / linux),
        _ => "–".into(),
    };
    format!("| {what} | {} | {} | {ratio} |\n", shown[0], shown[1])
}

fn sleeping_threads(name: &str, options: &Options) -> Result<String> {
    Ok(whole_line(
        &format!("{name}: the kernel's, for one more sleeping thread"),
        "KiB",
        memory_of_a_sleeping_thread,
        options,
    ))
}

fn sleeping_processes(name: &str, options: &Options) -> Result<String> {
    Ok(whole_line(
        &format!("{name}: the kernel's, page tables included, for one more sleeping process"),
        "KiB",
        memory_of_a_sleeping_process,
        options,
    ))
}

fn boots(name: &str, options: &Options) -> Result<String> {
    let seconds = |options: &Options| {
        // The better of two, as in the other table.
        let (first, second) = (boot_to_prompt(options)?, boot_to_prompt(options)?);
        Ok(first.min(second).as_secs_f64())
    };
    Ok(whole_line(&format!("{name}: from QEMU's start to the shell's prompt, plain"), "s", seconds, options))
}

fn kernel_sizes(name: &str, _options: &Options) -> Result<String> {
    let kernel = std::fs::read(kernel::build(Profile::Optimized)?)?;
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let rouse = mib(image::loadable(&kernel)?.len());
    Ok(format!("| {name}: the kernel's file without what only a debugger reads | {rouse:.2} MiB | – | – |\n"))
}

fn memory_of_a_sleeping_thread(options: &Options) -> Result<f64> {
    memory_of_a_sleeper(options, "--threads", [2_000, 20_000])
}

fn memory_of_a_sleeping_process(options: &Options) -> Result<f64> {
    memory_of_a_sleeper(options, "--processes", [200, 4_000])
}

/// KiB of kernel memory for one more sleeper: the slope between two counts.
fn memory_of_a_sleeper(options: &Options, kind: &str, [few, many]: [u32; 2]) -> Result<f64> {
    let options = Options { memory: "2G".into(), timeout: Some(LIMIT_SECONDS), ..options.clone() };
    let mut guest = Guest::start(&options)?;
    // Both kernels' own limits are lower than what they can do.
    guest.shell(
        "for limit in kernel/threads-max kernel/pid_max vm/max_map_count; do echo 200000 > /proc/sys/$limit; done",
    )?;
    let mut used = |count: u32| -> Result<(f64, f64)> {
        let text = guest.run(&["bench", kind, &count.to_string()])?.text();
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [sleepers, free, own] = numbers[..] else { anyhow::bail!("{kind} {count}: no figure") };
        // What is free, and what the process itself holds, is not the kernel's.
        Ok((sleepers, free + own))
    };
    let ((few, before), (many, after)) = (used(few)?, used(many)?);
    guest.stop();
    anyhow::ensure!(many - few > 1000.0, "only {many} could be started");
    Ok((before - after) / (many - few))
}

/// From QEMU's start to the prompt of the shell on the serial console.
fn boot_to_prompt(options: &Options) -> Result<Duration> {
    const PROMPT: &[u8] = b":/# ";
    const PATIENCE: Duration = Duration::from_secs(60);
    let mut qemu = options.command(&["init.mode=shell".into()])?;
    qemu.args(["-serial", "stdio"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = qemu.spawn()?;
    let mut console = child.stdout.take().context("it was asked for")?;
    let (found, prompt) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut seen = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = console.read(&mut chunk) {
            seen.extend_from_slice(&chunk[..count]);
            if seen.windows(PROMPT.len()).any(|window| window == PROMPT) {
                // Whoever asked may have lost patience.
                let _ = found.send(start.elapsed());
                return;
            }
        }
    });
    let outcome = prompt.recv_timeout(PATIENCE).context("no prompt");
    child.kill()?;
    child.wait()?;
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(rouse: f64, linux: f64, unit: &str) -> Pair {
        let figure = |value| Some(Figure { value, unit: unit.into(), counters: String::new() });
        Pair { rouse: figure(rouse), linux: figure(linux) }
    }

    #[test]
    fn a_ratio_below_one_is_in_favour_of_rouse_whatever_the_unit() {
        assert_eq!(ratio(&pair(50.0, 100.0, "ns")), "0.50");
        assert_eq!(ratio(&pair(200.0, 100.0, "MB/s")), "0.50");
        assert_eq!(ratio(&Pair::default()), "–");
    }

    #[test]
    fn the_better_of_two_is_the_shorter_time_or_the_greater_bandwidth() {
        let best = |unit: &str| {
            let pair = pair(1.0, 2.0, unit);
            better(pair.rouse, pair.linux).map(|figure| figure.value)
        };
        assert_eq!(best("ns"), Some(1.0));
        assert_eq!(best("MB/s"), Some(2.0));
        assert_eq!(better(None, parse("7 ns cr3=1")).map(|figure| figure.counters), Some("cr3=1".into()));
    }
}
