//! Making texts: bytes that can be written with `write!`, and the ways in which Linux writes names that hold odd characters.

use alloc::vec::Vec;
use core::fmt;

/// A text that grows.
#[derive(Default)]
pub struct Text(Vec<u8>);

impl Text {
    /// An empty one.
    pub fn new() -> Text {
        Text::default()
    }

    /// Adds formatted text: `text.add(format_args!(…))`.
    pub fn add(&mut self, arguments: fmt::Arguments<'_>) -> &mut Text {
        // Writing to memory cannot fail, and what is formatted here does not refuse.
        let _ = fmt::Write::write_fmt(self, arguments);
        self
    }

    /// Adds bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Text {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds a name, with the characters in `odd` and the backslash as octal escapes (`\040`).
    pub fn escaped(&mut self, name: &[u8], odd: &[u8]) -> &mut Text {
        for &byte in name {
            if byte == b'\\' || odd.contains(&byte) {
                self.add(format_args!("\\{byte:03o}"));
            } else {
                self.0.push(byte);
            }
        }
        self
    }

    /// How long it is.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds blanks up to a length.
    pub fn pad(&mut self, len: usize) -> &mut Text {
        if self.0.len() < len {
            self.0.resize(len, b' ');
        }
        self
    }

    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
