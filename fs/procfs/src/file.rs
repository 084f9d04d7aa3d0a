//! An open file of text.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::any::Any;

use executor::sync::SpinLock;
use fs::{Errno, FileOps, Io, OpenFlags, Result, Sink, Source, Stop};

use crate::{File, WRITE_AT_MOST};

/// See the head of the crate: a read at position 0 makes the text, others read on in it.
pub(crate) struct TextFile {
    file: Arc<dyn File>,
    text: SpinLock<Text>,
}

#[derive(Default)]
struct Text {
    bytes: Option<Arc<[u8]>>,
    /// Made by `prepare` for a read that has not come yet.
    is_fresh: bool,
}

impl TextFile {
    pub(crate) fn new(file: Arc<dyn File>) -> TextFile {
        TextFile { file, text: SpinLock::new(Text::default()) }
    }

    /// The text to read from `position` on, if it need not be waited for.
    fn text_for(&self, position: u64) -> Result<Arc<[u8]>, Stop> {
        {
            let mut text = self.text.lock();
            if let Some(bytes) = &text.bytes
                && (position > 0 || text.is_fresh)
            {
                let bytes = bytes.clone();
                text.is_fresh = false;
                return Ok(bytes);
            }
        }
        match self.file.read().now() {
            Ok(made) => Ok(self.keep(made?, false)),
            Err(_) => Err(Stop::Miss(0)),
        }
    }

    fn keep(&self, made: Vec<u8>, is_fresh: bool) -> Arc<[u8]> {
        let bytes: Arc<[u8]> = made.into();
        let before = core::mem::replace(&mut *self.text.lock(), Text { bytes: Some(bytes.clone()), is_fresh });
        drop(before);
        bytes
    }
}

impl FileOps for TextFile {
    fn try_read(&self, position: &mut u64, sink: &mut dyn Sink) -> Result<usize, Stop> {
        if sink.remaining() == 0 {
            return Ok(0);
        }
        let text = self.text_for(*position)?;
        let rest = usize::try_from(*position).ok().and_then(|position| text.get(position..)).unwrap_or_default();
        let moved = sink.put(rest);
        if moved == 0 && !rest.is_empty() && sink.faulted() {
            // The next attempt at the beginning goes on with this text.
            self.text.lock().is_fresh = true;
            return Err(Stop::Fault);
        }
        *position += moved as u64;
        Ok(moved)
    }

    fn try_write(&self, position: &mut u64, _flags: OpenFlags, source: &mut dyn Source) -> Result<usize, Stop> {
        let len = source.remaining().min(WRITE_AT_MOST);
        let mut bytes = vec![0; len];
        let moved = source.take(&mut bytes);
        if moved < len {
            // Half a number is another number: all of it, or the page first.
            source.give_back(moved);
            return Err(Stop::Fault);
        }
        self.file.write(&bytes)?;
        *position += len as u64;
        Ok(len)
    }

    fn prepare(&self, _miss: u64) -> Io<'_, ()> {
        match self.file.read().now() {
            Ok(made) => Io::ready(made.map(|made| drop(self.keep(made, true)))),
            Err(waiting) => Io::wait(async move {
                self.keep(waiting.await?, true);
                Ok(())
            }),
        }
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn sync(&self, _data_only: bool) -> Io<'_, ()> {
        Io::ready(Err(Errno::EINVAL))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
