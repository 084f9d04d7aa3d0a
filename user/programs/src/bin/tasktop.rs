//! Shows the tasks of a running Rouse, and what each CPU does, live like top: `tasktop [-b] [-n COUNT] [-d SECONDS]`.
//!
//! It reads /proc/rouse/tasks and /proc/rouse/executor again and again and shows what has changed in between. On a terminal: `q` or Ctrl-C
//! ends it, a space shows anew, and it follows the window's size. With `-b`, or where standard output is no terminal, it prints one
//! picture after the other, without control sequences and whole.
//!
//! next: `src/proc/rouse_tasks.rs` of the kernel, which says what the columns mean.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGTERM, SIGWINCH};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Write, stdin, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const TASKS: &str = "/proc/rouse/tasks";
const CPUS: &str = "/proc/rouse/executor";
const USAGE: &str = "usage: tasktop [-b] [-n COUNT] [-d SECONDS]";

fn main() -> ExitCode {
    let outcome = Settings::parse(std::env::args().skip(1)).and_then(|settings| run(&settings));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(complaint) => {
            eprintln!("tasktop: {complaint}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line says.
struct Settings {
    is_batch: bool,
    count: Option<u64>,
    delay: Duration,
}

impl Settings {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut settings = Self { is_batch: false, count: None, delay: Duration::from_secs(2) };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(USAGE);
            match word.as_str() {
                "-b" => settings.is_batch = true,
                "-n" => settings.count = Some(value()?.parse().map_err(|_| USAGE)?),
                "-d" => {
                    let seconds = value()?.parse().map_err(|_| USAGE)?;
                    settings.delay = Duration::try_from_secs_f64(seconds).map_err(|_| USAGE)?;
                }
                _ => return Err(USAGE.into()),
            }
        }
        Ok(settings)
    }
}

fn run(settings: &Settings) -> Result<(), String> {
    let mut before = Sample::take()?;
    let screen = if !settings.is_batch && isatty(stdout()) && isatty(stdin()) { Some(Screen::open()?) } else { None };
    let mut shown = 0;
    // The first picture has little to compare with: it is shown soon, and again at the usual pace.
    let mut delay = settings.delay.min(Duration::from_millis(500));
    while settings.count.is_none_or(|count| shown < count) {
        let wish = match &screen {
            Some(screen) => screen.wait(delay)?,
            None => {
                std::thread::sleep(delay);
                Wish::GoOn
            }
        };
        if wish == Wish::End {
            break;
        }
        let now = Sample::take()?;
        let picture = picture(&before, &now);
        let outcome = match &screen {
            Some(screen) => screen.show(&picture),
            None => writeln!(stdout(), "{}", picture.join("\n")),
        };
        if outcome.is_err() {
            break; // nobody looks any more
        }
        shown += 1;
        // A picture that a changed window asked for compares with the same moment as the last.
        if wish == Wish::GoOn {
            before = now;
        }
        delay = settings.delay;
    }
    Ok(())
}

/// What both files said at one moment.
struct Sample {
    at: Instant,
    tasks: Vec<Task>,
    cpus: Vec<HashMap<String, u64>>,
}

/// A line of /proc/rouse/tasks.
#[derive(Debug, PartialEq)]
struct Task {
    id: u64,
    class: String,
    state: String,
    cpu: String,
    since: u64,
    polls: u64,
    time: u64,
    worst: u64,
    wakes: u64,
    by: String,
    call: String,
    waits_at: String,
    what: String,
}

impl Task {
    fn parse(line: &str) -> Option<Self> {
        let mut rest = line;
        let mut word = || {
            let (word, behind) = rest.trim_start().split_once(' ')?;
            rest = behind;
            Some(word)
        };
        let task = Self {
            id: word()?.parse().ok()?,
            class: word()?.into(),
            state: word()?.into(),
            cpu: word()?.into(),
            since: word()?.parse().ok()?,
            polls: word()?.parse().ok()?,
            time: word()?.parse().ok()?,
            worst: word()?.parse().ok()?,
            wakes: word()?.parse().ok()?,
            by: word()?.into(),
            call: word()?.to_lowercase(),
            waits_at: word()?.into(),
            what: String::new(),
        };
        Some(Self { what: rest.trim_start().into(), ..task })
    }
}

impl Sample {
    fn take() -> Result<Self, String> {
        let read = |path: &str| {
            std::fs::read(path)
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .map_err(|error| format!("{path}: {error}: this kernel does not tell of its tasks"))
        };
        let (tasks, cpus) = (read(TASKS)?, read(CPUS)?);
        Ok(Self {
            at: Instant::now(),
            tasks: tasks.lines().filter_map(Task::parse).collect(),
            cpus: cpus.lines().map(numbers).collect(),
        })
    }
}

/// `cpu0 polls 5 sleeps 2` as a map of names to numbers.
fn numbers(line: &str) -> HashMap<String, u64> {
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    words.chunks_exact(2).filter_map(|pair| Some((pair[0].to_owned(), pair[1].parse().ok()?))).collect()
}

/// The lines of a picture: the CPUs, then the tasks, those that were polled longest lately first.
fn picture(before: &Sample, now: &Sample) -> Vec<String> {
    let elapsed = now.at.duration_since(before.at).as_secs_f64().max(1e-6);
    let state = |wanted: &str| now.tasks.iter().filter(|task| task.state == wanted).count();
    let mut lines = vec![format!(
        "{} tasks: {} running, {} queued, {} waiting",
        now.tasks.len(),
        state("running"),
        state("queued"),
        state("waits")
    )];
    lines.push("  cpu  busy%  queue  polls/s  long  steals/s  IPIs/s  sleeps/s".into());
    for (cpu, counts) in now.cpus.iter().enumerate() {
        let get = |name: &str| counts.get(name).copied().unwrap_or(0);
        let rise = |name: &str| {
            let former = before.cpus.get(cpu).and_then(|counts| counts.get(name)).copied().unwrap_or(0);
            get(name).saturating_sub(former) as f64 / elapsed
        };
        let busy = (100.0 - rise("idle_us") / 1e4).clamp(0.0, 100.0);
        lines.push(format!(
            "  {cpu:>3} {busy:>6.1} {:>6} {:>8.0} {:>5} {:>9.0} {:>7.0} {:>9.0}",
            get("waiting"),
            rise("polls"),
            get("long_polls"),
            rise("stolen"),
            rise("kicks"),
            rise("sleeps")
        ));
    }
    lines.push(String::new());
    lines.push(format!(
        "{:>6} {:<10} {:<7} {:>3} {:>5} {:>8} {:>9} {:>8} {:<9} {:>8} {:<24} {:<14} {}",
        "ID",
        "CLASS",
        "STATE",
        "CPU",
        "%CPU",
        "POLLS/s",
        "WORST/us",
        "WAKES/s",
        "BY",
        "SINCE/s",
        "WHAT",
        "CALL",
        "WAITS AT"
    ));
    let former: HashMap<u64, &Task> = before.tasks.iter().map(|task| (task.id, task)).collect();
    let since_before = |task: &Task, field: fn(&Task) -> u64| {
        field(task).saturating_sub(former.get(&task.id).map_or(0, |former| field(former)))
    };
    let mut order: Vec<(u64, &Task)> =
        now.tasks.iter().map(|task| (since_before(task, |task| task.time), task)).collect();
    order.sort_by_key(|(time, task)| (std::cmp::Reverse(*time), task.id));
    for (time, task) in order {
        let mut line = String::new();
        let (polls, wakes) = (since_before(task, |task| task.polls), since_before(task, |task| task.wakes));
        // Writing to a string cannot fail.
        let _ = write!(
            line,
            "{:>6} {:<10} {:<7} {:>3} {:>5.1} {:>8.0} {:>9} {:>8.0} {:<9} {:>8.1} {:<24} {:<14} {}",
            task.id,
            task.class,
            task.state,
            task.cpu,
            // Both files are not read at the same moment.
            (time as f64 / 1e7 / elapsed).min(100.0),
            polls as f64 / elapsed,
            task.worst / 1000,
            wakes as f64 / elapsed,
            task.by,
            task.since as f64 / 1e3,
            task.what,
            task.call,
            task.waits_at
        );
        lines.push(line);
    }
    lines
}

/// What the person, or the window, asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    GoOn,
    ShowAgain,
    End,
}

/// A terminal that shows pictures, and is as it was when this is dropped.
struct Screen {
    saved: Termios,
    is_resized: Arc<AtomicBool>,
    is_to_end: Arc<AtomicBool>,
}

impl Screen {
    fn open() -> Result<Self, String> {
        let [is_resized, is_to_end] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let register = |signal, flag: &Arc<AtomicBool>| {
            signal_hook::flag::register(signal, Arc::clone(flag)).map_err(|error| error.to_string())
        };
        register(SIGWINCH, &is_resized)?;
        register(SIGTERM, &is_to_end)?;
        register(SIGHUP, &is_to_end)?;
        let saved = tcgetattr(stdin()).map_err(|error| error.to_string())?;
        let mut raw = saved.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).map_err(|error| error.to_string())?;
        let screen = Self { saved, is_resized, is_to_end };
        // The alternate screen, without a cursor.
        screen.write("\x1b[?1049h\x1b[?25l").map_err(|error| error.to_string())?;
        Ok(screen)
    }

    /// Waits until the time is up, or somebody wants something earlier.
    fn wait(&self, delay: Duration) -> Result<Wish, String> {
        let deadline = Instant::now() + delay;
        loop {
            if self.is_to_end.load(Ordering::Relaxed) {
                return Ok(Wish::End);
            }
            if self.is_resized.swap(false, Ordering::Relaxed) {
                return Ok(Wish::ShowAgain);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|error| error.to_string())?;
            let input = stdin();
            let mut wanted = [PollFd::new(&input, PollFlags::IN)];
            match poll(&mut wanted, Some(&timeout)) {
                Ok(0) => return Ok(Wish::GoOn),
                Ok(_) => {
                    let mut key = [0];
                    match rustix::io::read(&input, &mut key) {
                        // Ctrl-C, Ctrl-D; the end of input is nobody at the keyboard.
                        Ok(0) => return Ok(Wish::End),
                        Ok(_) if matches!(key[0], b'q' | b'Q' | 3 | 4) => return Ok(Wish::End),
                        Ok(_) if key[0] == b' ' => return Ok(Wish::GoOn),
                        Ok(_) | Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(error.to_string()),
                    }
                }
                // A signal: the flags say which.
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Shows as much of the picture as the window has room for.
    fn show(&self, picture: &[String]) -> std::io::Result<()> {
        let size = tcgetwinsize(stdout())?;
        let or = |value: u16, usual: usize| if value == 0 { usual } else { usize::from(value) };
        let (rows, columns) = (or(size.ws_row, 24), or(size.ws_col, 80));
        let cut = |line: &String| line.chars().take(columns).collect::<String>();
        let lines: Vec<String> = picture.iter().take(rows).map(cut).collect();
        // Each line is written over the old one, so that nothing flickers.
        self.write(&format!("\x1b[H{}\x1b[K\x1b[J", lines.join("\x1b[K\r\n")))
    }

    fn write(&self, text: &str) -> std::io::Result<()> {
        let mut out = stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If the terminal has gone there is nothing to restore.
        let _ = self.write("\x1b[?25h\x1b[?1049l");
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &self.saved);
    }
}
