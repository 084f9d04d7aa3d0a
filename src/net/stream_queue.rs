//! The bytes that wait in a stream socket.
//!
//! Pages, as in a pipe: a write fills the last page if it comes from the same sender, else it begins a new one. Files that go with a
//! write hang on its first page; a read hands them over with the first byte, and does not go on from that write into the next.
//!
//! Next: `message_queue.rs`.

use alloc::collections::VecDeque;

use fs::{Errno, PAGE_SIZE, Page, PageSource, Sink, Source, Stop};

use super::BUFFER_SIZE;
use super::rights::Rights;
use super::socket::Sender;
use super::transfer::{Incoming, Outgoing};
use crate::mm::MakeRoom;

/// So many pages may wait.
const PAGES_MAX: usize = BUFFER_SIZE / PAGE_SIZE;
/// A writer is told of room when no more than these are left.
const PAGES_WRITABLE: usize = PAGES_MAX / 4;

/// See the module.
#[derive(Default)]
pub struct StreamQueue {
    chunks: VecDeque<Chunk>,
    /// Kept for the next write, so that a stream in use allocates nothing.
    spare: Option<Page>,
}

struct Chunk {
    page: Page,
    start: usize,
    end: usize,
    sender: Sender,
    rights: Option<Rights>,
    /// Part of a write that files went with.
    is_of_rights: bool,
}

impl StreamQueue {
    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.end - chunk.start).sum()
    }

    /// Whether none do.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether a writer is to be told that there is room.
    pub fn is_writable(&self) -> bool {
        self.chunks.len() <= PAGES_WRITABLE
    }

    /// Takes in as much as there is room for.
    ///
    /// # Errors
    ///
    /// `WouldBlock`: none. `Fault`. `ENOMEM`.
    pub fn push(
        &mut self,
        pages: &'static dyn PageSource,
        source: &mut dyn Source,
        outgoing: &mut Outgoing,
    ) -> Result<usize, Stop> {
        let is_of_rights = outgoing.rights.is_some();
        let mut done = 0;
        while source.remaining() > 0 {
            let may_append = outgoing.rights.is_none();
            let is_full = self.chunks.len() >= PAGES_MAX;
            let (moved, room) = match self.chunks.back_mut() {
                Some(last)
                    if may_append
                        && last.end < PAGE_SIZE
                        && last.sender == outgoing.sender
                        && last.is_of_rights == is_of_rights =>
                {
                    let room = (PAGE_SIZE - last.end).min(source.remaining());
                    let moved = source.take_page(&last.page, last.end, room);
                    last.end += moved;
                    (moved, room)
                }
                _ if is_full => break,
                _ => match self.begin(pages, source, outgoing, is_of_rights) {
                    Ok(result) => result,
                    Err(_) if done > 0 => break,
                    Err(stop) => return Err(stop),
                },
            };
            done += moved;
            if moved < room {
                break;
            }
        }
        match done {
            0 if source.faulted() => Err(Stop::Fault),
            0 => Err(Stop::WouldBlock),
            _ => Ok(done),
        }
    }

    /// Begins a new page.
    fn begin(
        &mut self,
        pages: &'static dyn PageSource,
        source: &mut dyn Source,
        outgoing: &mut Outgoing,
        is_of_rights: bool,
    ) -> Result<(usize, usize), Stop> {
        self.chunks.make_room(1)?;
        let page = self.spare.take().or_else(|| Page::allocate(pages)).ok_or(Errno::ENOMEM)?;
        let room = PAGE_SIZE.min(source.remaining());
        let moved = source.take_page(&page, 0, room);
        if moved == 0 {
            self.spare = Some(page);
        } else {
            let (sender, rights) = (outgoing.sender, outgoing.rights.take());
            self.chunks.push_back(Chunk { page, start: 0, end: moved, sender, rights, is_of_rights });
        }
        Ok((moved, room))
    }

    /// Hands out what is there, as far as the sink takes it; with `incoming.peeks`, without consuming it. Nothing if there is nothing
    /// that may follow what `incoming` has received before.
    pub fn pull(&mut self, sink: &mut dyn Sink, incoming: &mut Incoming) -> usize {
        let mut done = 0;
        let mut index = 0;
        while sink.remaining() > 0
            && let Some(chunk) = self.chunks.get_mut(index)
        {
            let continues_rights = chunk.is_of_rights && chunk.rights.is_none();
            let is_of_another = incoming.sender.is_some_and(|sender| sender != chunk.sender);
            if incoming.rights.is_some() && !continues_rights || incoming.wants_credentials && is_of_another {
                break;
            }
            let len = (chunk.end - chunk.start).min(sink.remaining());
            let moved = sink.put_page(&chunk.page, chunk.start, len);
            if moved == 0 {
                break;
            }
            done += moved;
            incoming.sender = Some(chunk.sender);
            if chunk.rights.is_some() {
                incoming.rights =
                    if incoming.peeks { chunk.rights.as_ref().and_then(Rights::copy) } else { chunk.rights.take() };
            }
            if incoming.peeks {
                index += 1;
            } else {
                chunk.start += moved;
            }
            if moved < len {
                break;
            }
            if !incoming.peeks && chunk.start == chunk.end {
                self.spare = self.chunks.pop_front().map(|chunk| chunk.page);
            }
        }
        done
    }
}
