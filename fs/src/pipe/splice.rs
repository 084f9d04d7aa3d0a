//! A pipe's pages, without a program's memory between: splice(2), tee(2), vmsplice(2).
//!
//! What comes from a file is gathered first and joins the pipe then; what goes to a file is taken out, and the rest put back. So the pipe's
//! lock is never held while a file works, which has locks of its own. A page of the page cache is shared where the file allows it; a shared
//! page is written by nobody who has it from the pipe.
//!
//! Next: `../locks.rs`.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use super::{Buffer, Pipe, PipeEnd, State};
use crate::{Errno, PAGE_SIZE, Page, PageSource, Result, Sink, Source, Stop};

/// Gathers what is read from a file.
struct Gathering {
    pages: &'static dyn PageSource,
    buffers: VecDeque<Buffer>,
    /// How many pages, and bytes, there may be.
    room: usize,
    remaining: usize,
    shares: bool,
}

impl Gathering {
    /// The buffer that more bytes fit into, if there may be one.
    fn last(&mut self) -> Option<&mut Buffer> {
        let fits = self.buffers.back().is_some_and(|last| last.is_own && last.end < PAGE_SIZE);
        if !fits {
            if self.buffers.len() >= self.room {
                return None;
            }
            let page = Page::allocate(self.pages)?;
            self.buffers.push_back(Buffer { page, start: 0, end: 0, is_own: true });
        }
        self.buffers.back_mut()
    }

    fn add(&mut self, len: usize, mut copy: impl FnMut(&Page, usize, usize, usize)) -> usize {
        let mut done = 0;
        while done < len.min(self.remaining) {
            let wanted = len.min(self.remaining) - done;
            let Some(last) = self.last() else { break };
            let part = wanted.min(PAGE_SIZE - last.end);
            copy(&last.page, last.end, done, part);
            last.end += part;
            done += part;
        }
        self.remaining -= done;
        done
    }
}

impl Sink for Gathering {
    fn remaining(&self) -> usize {
        let last = self.buffers.back().filter(|last| last.is_own).map_or(0, |last| PAGE_SIZE - last.end);
        self.remaining.min((self.room - self.buffers.len()) * PAGE_SIZE + last)
    }

    fn put(&mut self, bytes: &[u8]) -> usize {
        self.add(bytes.len(), |page, at, from, len| page.write(at, &bytes[from..from + len]))
    }

    fn put_page(&mut self, page: &Page, offset: usize, len: usize) -> usize {
        let len = len.min(self.remaining).min(PAGE_SIZE - offset);
        if self.shares && len > 0 {
            if self.buffers.len() >= self.room {
                return 0;
            }
            self.buffers.push_back(Buffer { page: page.clone(), start: offset, end: offset + len, is_own: false });
            self.remaining -= len;
            return len;
        }
        let mut bytes = [0; 256];
        let mut done = 0;
        while done < len {
            let part = bytes.len().min(len - done);
            page.read(offset + done, &mut bytes[..part]);
            let moved = self.put(&bytes[..part]);
            done += moved;
            if moved < part {
                break;
            }
        }
        done
    }

    fn put_zeros(&mut self, len: usize) -> usize {
        let mut done = 0;
        while done < len {
            let part = len.min(256 + done) - done;
            let moved = self.put(&[0; 256][..part]);
            done += moved;
            if moved < part {
                break;
            }
        }
        done
    }

    fn give_back(&mut self, len: usize) {
        let mut left = len;
        while left > 0 {
            let Some(last) = self.buffers.back_mut() else { return };
            let part = left.min(last.end - last.start);
            last.end -= part;
            left -= part;
            self.remaining += part;
            if last.start == last.end {
                self.buffers.pop_back();
            }
        }
    }

    fn faulted(&self) -> bool {
        false
    }
}

/// Gives the bytes of buffers that were taken out of a pipe.
struct Scattering<'a> {
    buffers: &'a VecDeque<Buffer>,
    /// How many bytes were given, and may be.
    given: usize,
    most: usize,
}

impl Scattering<'_> {
    fn give(&mut self, len: usize, mut copy: impl FnMut(&Page, usize, usize, usize)) -> usize {
        let len = len.min(self.most - self.given);
        let (mut skip, mut done) = (self.given, 0);
        for buffer in self.buffers {
            let held = buffer.end - buffer.start;
            if skip >= held {
                skip -= held;
                continue;
            }
            let part = (held - skip).min(len - done);
            copy(&buffer.page, buffer.start + skip, done, part);
            (skip, done) = (0, done + part);
            if done == len {
                break;
            }
        }
        self.given += done;
        done
    }
}

impl Source for Scattering<'_> {
    fn remaining(&self) -> usize {
        self.most - self.given
    }

    fn take(&mut self, into: &mut [u8]) -> usize {
        self.give(into.len(), |page, at, to, len| page.read(at, &mut into[to..to + len]))
    }

    fn take_page(&mut self, page: &Page, offset: usize, len: usize) -> usize {
        let mut bytes = [0; 256];
        let (len, mut done) = (len.min(PAGE_SIZE - offset), 0);
        while done < len {
            let part = bytes.len().min(len - done);
            let moved = self.take(&mut bytes[..part]);
            page.write(offset + done, &bytes[..moved]);
            done += moved;
            if moved < part {
                break;
            }
        }
        done
    }

    fn skip(&mut self, len: usize) -> usize {
        self.give(len, |_, _, _, _| {})
    }

    fn give_back(&mut self, len: usize) {
        self.given -= len;
    }

    fn faulted(&self) -> bool {
        false
    }
}

/// Which of two pipes a step has to wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blocked {
    /// Nothing is in the one.
    Input,
    /// No room is in the other.
    Output,
}

impl Buffer {
    /// Its first `len` bytes; the page is shared from now on.
    fn first(&mut self, len: usize) -> Buffer {
        self.is_own = false;
        Buffer { page: self.page.clone(), start: self.start, end: self.start + len, is_own: false }
    }
}

impl State {
    /// Takes the first buffer out, or its first `most` bytes.
    fn take_first(&mut self, most: usize) -> Option<Buffer> {
        let front = self.buffers.front_mut()?;
        if front.end - front.start <= most {
            return self.buffers.pop_front();
        }
        let first = front.first(most);
        front.start += most;
        Some(first)
    }

    /// Takes up to `most` bytes from the front, with their pages.
    fn take_out(&mut self, most: usize) -> VecDeque<Buffer> {
        let (mut taken, mut left) = (VecDeque::new(), most);
        while left > 0 {
            let Some(buffer) = self.take_first(left) else { break };
            left -= buffer.end - buffer.start;
            taken.push_back(buffer);
        }
        taken
    }

    /// Puts back what is left of it when `done` bytes of it are gone.
    fn put_back(&mut self, mut taken: VecDeque<Buffer>, mut done: usize) {
        while done > 0 {
            let Some(front) = taken.front_mut() else { return };
            let part = done.min(front.end - front.start);
            front.start += part;
            done -= part;
            if front.start == front.end {
                taken.pop_front();
            }
        }
        while let Some(buffer) = taken.pop_back() {
            self.buffers.push_front(buffer);
        }
    }
}

impl PipeEnd {
    /// Whether it is there to write to and has room for a page.
    ///
    /// # Errors
    ///
    /// `EPIPE`: nobody reads.
    pub fn has_room(&self) -> Result<bool> {
        let state = self.pipe.state.lock();
        if state.readers == 0 { Err(Errno::EPIPE) } else { Ok(!state.is_full()) }
    }

    /// Where those wait who want room. Only the end for reading and writing has another place.
    pub fn room_queue(&self) -> &executor::sync::WaitQueue {
        &self.pipe.writable
    }

    /// Fills the pipe with up to `most` bytes that `read` puts into the sink it is given; pages of the page cache are shared if `shares`.
    /// `None`: there is no room, and nothing was read.
    ///
    /// # Errors
    ///
    /// What `read` says. `EPIPE`.
    pub fn try_fill(
        &self,
        most: usize,
        shares: bool,
        read: &mut dyn FnMut(&mut dyn Sink) -> Result<usize, Stop>,
    ) -> Result<Option<usize>, Stop> {
        let room = {
            let state = self.pipe.state.lock();
            if state.readers == 0 {
                return Err(Errno::EPIPE.into());
            }
            state.capacity.saturating_sub(state.buffers.len())
        };
        if room == 0 {
            return Ok(None);
        }
        let buffers = VecDeque::new();
        let mut gathering = Gathering { pages: self.pipe.source, buffers, room, remaining: most, shares };
        let done = read(&mut gathering)?;
        if done > 0 {
            let (has_room, both) = {
                let mut state = self.pipe.state.lock();
                // Others may have written meanwhile: the pipe holds a little more than it should then.
                state.buffers.append(&mut gathering.buffers);
                (!state.is_full(), state.both)
            };
            self.pipe.readable.wake_one();
            if has_room {
                self.pipe.wake_writer(both);
            }
        }
        Ok(Some(done))
    }

    /// Lets `write` take up to `most` bytes of the pipe from the source it is given. What it does not take stays.
    ///
    /// # Errors
    ///
    /// What `write` says. `WouldBlock`: nothing is there; 0 if nobody writes.
    pub fn try_drain(
        &self,
        most: usize,
        write: &mut dyn FnMut(&mut dyn Source) -> Result<usize, Stop>,
    ) -> Result<usize, Stop> {
        let taken = {
            let mut state = self.pipe.state.lock();
            match state.buffers.is_empty() {
                true if state.writers == 0 => return Ok(0),
                true => return Err(Stop::WouldBlock),
                false => state.take_out(most),
            }
        };
        let held = taken.iter().map(|buffer| buffer.end - buffer.start).sum();
        let outcome = write(&mut Scattering { buffers: &taken, given: 0, most: held });
        let (has_room, is_left, both) = {
            let mut state = self.pipe.state.lock();
            state.put_back(taken, *outcome.as_ref().unwrap_or(&0));
            (!state.is_full(), !state.buffers.is_empty(), state.both)
        };
        if has_room {
            self.pipe.wake_writer(both);
        }
        if is_left {
            self.pipe.readable.wake_one();
        }
        outcome
    }

    /// Moves up to `most` bytes to another pipe, or copies them if `stays`, by their pages.
    ///
    /// # Errors
    ///
    /// Inside: which of the two is to be waited for. `EINVAL`: it is the same pipe. `EPIPE`: nobody reads there. `ENOMEM`.
    pub fn try_move(&self, to: &PipeEnd, most: usize, stays: bool) -> Result<Result<usize, Blocked>> {
        let (from, to) = (&self.pipe, &to.pipe);
        if Arc::ptr_eq(from, to) {
            return Err(Errno::EINVAL);
        }
        let (done, news, both) = {
            let [mut input, mut output] = Pipe::lock_both(from, to);
            if output.readers == 0 {
                return Err(Errno::EPIPE);
            }
            if input.buffers.is_empty() {
                return Ok(if input.writers == 0 { Ok(0) } else { Err(Blocked::Input) });
            }
            if output.is_full() {
                return Ok(Err(Blocked::Output));
            }
            let room = output.capacity - output.buffers.len();
            output.buffers.try_reserve(room.min(input.buffers.len())).map_err(|_| Errno::ENOMEM)?;
            let (mut left, mut moved) = (most, 0);
            while left > 0 && moved < room {
                let next = match stays {
                    true => input.buffers.get_mut(moved).map(|buffer| {
                        let len = left.min(buffer.end - buffer.start);
                        buffer.first(len)
                    }),
                    false => input.take_first(left),
                };
                let Some(buffer) = next else { break };
                left -= buffer.end - buffer.start;
                moved += 1;
                output.buffers.push_back(buffer);
            }
            let news = [!input.is_full(), !input.buffers.is_empty(), !output.is_full()];
            (most - left, news, [input.both, output.both])
        };
        let [has_room, is_left, has_room_there] = news;
        to.readable.wake_one();
        if has_room {
            from.wake_writer(both[0]);
        }
        if is_left {
            from.readable.wake_one();
        }
        if has_room_there {
            to.wake_writer(both[1]);
        }
        Ok(Ok(done))
    }
}

impl Pipe {
    /// Both locks, always in the order of their addresses.
    fn lock_both<'a>(from: &'a Arc<Pipe>, to: &'a Arc<Pipe>) -> [executor::sync::SpinGuard<'a, State>; 2] {
        if Arc::as_ptr(from) < Arc::as_ptr(to) {
            let from = from.state.lock();
            [from, to.state.lock()]
        } else {
            let to = to.state.lock();
            [from.state.lock(), to]
        }
    }
}
