//! Workers that start together: threads of this process, or processes of their own.
//!
//! All get ready, and begin when the starter says so: when the last is ready, one byte is written to a pipe that all poll and nobody reads,
//! as hackbench does it. What each answers is a number.
//!
//! next: `many.rs`.

use crate::raw;
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::time::{Duration, Instant};

/// What workers are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Threads of one process.
    Threads,
    /// Processes.
    Processes,
}

/// What workers share to begin together, and to answer.
struct Start {
    ready: PipeWriter,
    begin: PipeReader,
    answers: PipeWriter,
}

impl Start {
    /// A worker's life.
    fn live(&self, work: impl FnOnce() -> io::Result<u64>) -> io::Result<()> {
        (&self.ready).write_all(b"r")?;
        poll(&mut [PollFd::new(&self.begin, PollFlags::IN)], None)?;
        let answer = work()?;
        // Small writes to a pipe are whole.
        (&self.answers).write_all(&answer.to_ne_bytes())
    }
}

/// Lets each of the workers do its work, which is told its number; how long that took all of them together, and their answers.
///
/// # Errors
/// The workers' own; they cannot be started.
pub fn run<F>(kind: Kind, count: usize, work: F) -> io::Result<(Duration, Vec<u64>)>
where
    F: Fn(usize) -> io::Result<u64> + Sync,
{
    let (mut ready, here_ready) = io::pipe()?;
    let (there_begin, mut begin) = io::pipe()?;
    let (mut answers, here_answers) = io::pipe()?;
    let start = Start { ready: here_ready, begin: there_begin, answers: here_answers };
    let mut lead = |answers: &mut PipeReader| {
        ready.read_exact(&mut vec![0; count])?;
        let began = Instant::now();
        begin.write_all(b"b")?;
        let mut bytes = vec![0; count * size_of::<u64>()];
        answers.read_exact(&mut bytes)?;
        let took = began.elapsed();
        let (numbers, _) = bytes.as_chunks();
        io::Result::Ok((took, numbers.iter().map(|bytes| u64::from_ne_bytes(*bytes)).collect()))
    };
    match kind {
        Kind::Threads => std::thread::scope(|scope| {
            for number in 0..count {
                let (start, work) = (&start, &work);
                // One that fails ends all: there is no figure then, and nobody to wait for.
                let life = move || start.live(|| work(number)).unwrap_or_else(|error| give_up(&error));
                std::thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, life)?;
            }
            lead(&mut answers)
        }),
        Kind::Processes => {
            let mut children = Vec::new();
            for number in 0..count {
                children.push(raw::fork(|| start.live(|| work(number)).is_ok())?);
            }
            // So that the answers end if all children do.
            drop(start);
            let outcome = lead(&mut answers);
            children.into_iter().try_for_each(raw::wait)?;
            outcome
        }
    }
}

fn give_up(error: &io::Error) {
    eprintln!("bench: a worker failed: {error}");
    std::process::exit(1);
}
