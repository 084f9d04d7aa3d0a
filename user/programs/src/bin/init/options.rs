//! The `init.` options of the kernel's command line, read from `/proc/cmdline`.
//!
//! A kernel without `/proc/cmdline` gives the same words as arguments to init.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// What init is asked to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Serve the host over virtio ports instead of starting a shell.
    pub exec: bool,
    /// The block device that holds the root file system.
    pub root: Option<PathBuf>,
    /// Rows and columns of the console.
    pub size: Option<(u16, u16)>,
    /// The shell to start.
    pub shell: Option<PathBuf>,
    /// The terminal's kind, for `TERM`.
    pub term: Option<OsString>,
}

impl Options {
    /// The options this system was started with.
    pub fn read() -> Self {
        let line = std::fs::read("/proc/cmdline").unwrap_or_else(|_| {
            let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
            arguments.join(OsStr::new(" ")).into_vec()
        });
        Self::parse(&line)
    }

    fn parse(line: &[u8]) -> Self {
        let mut options = Self::default();
        for word in line.split(u8::is_ascii_whitespace) {
            let Some(word) = word.strip_prefix(b"init.") else { continue };
            let Some(equals) = word.iter().position(|&byte| byte == b'=') else { continue };
            let value = OsStr::from_bytes(&word[equals + 1..]);
            match &word[..equals] {
                b"mode" => options.exec = value == "exec",
                b"root" => options.root = Some(value.into()),
                b"size" => options.size = value.to_str().and_then(rows_and_columns),
                b"shell" => options.shell = Some(value.into()),
                b"term" => options.term = Some(value.into()),
                _ => {}
            }
        }
        options
    }
}

fn rows_and_columns(size: &str) -> Option<(u16, u16)> {
    let (rows, columns) = size.split_once('x')?;
    Some((rows.parse().ok()?, columns.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_words_meant_for_init_are_read() {
        let options =
            Options::parse(b"console=ttyS0 quiet init.mode=exec init.root=/dev/vda init.size=24x80 mode=shell\n");
        let root = Some("/dev/vda".into());
        assert_eq!(options, Options { exec: true, root, size: Some((24, 80)), ..Options::default() });
    }

    #[test]
    fn a_size_that_is_none_is_ignored() {
        for size in ["24", "ax80", "24x", "70000x1"] {
            assert_eq!(rows_and_columns(size), None, "{size}");
        }
    }
}
