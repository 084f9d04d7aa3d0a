//! The options of `mount -t overlay`: `lowerdir=/a,upperdir=/b,workdir=/c`.
//!
//! Next: `volume.rs`.

use alloc::vec::Vec;

use fs::{Errno, Result};

/// The paths that the options name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// The folder that is only read.
    pub lower: Vec<u8>,
    /// The folder that is written.
    pub upper: Vec<u8>,
    /// An empty folder beside the upper one.
    pub work: Vec<u8>,
}

/// Options of Linux's overlayfs that change nothing that can be seen here.
const HARMLESS: [&[u8]; 9] = [
    b"redirect_dir=on",
    b"redirect_dir=off",
    b"redirect_dir=follow",
    b"redirect_dir=nofollow",
    b"index=on",
    b"index=off",
    b"metacopy=off",
    b"xino=auto",
    b"volatile",
];

impl Options {
    /// Takes the options apart. A backslash takes the meaning from a comma or colon behind it.
    ///
    /// # Errors
    ///
    /// `EINVAL`: an option that is not known, a missing folder, or several lower ones.
    pub fn parse(text: &[u8]) -> Result<Options> {
        let mut options = Options::default();
        for option in split(text) {
            let place = match option.split(|byte| *byte == b'=').next() {
                _ if option.is_empty() || HARMLESS.contains(&option) => continue,
                Some(b"lowerdir") => &mut options.lower,
                Some(b"upperdir") => &mut options.upper,
                Some(b"workdir") => &mut options.work,
                _ => return refuse("an option that is not known", option),
            };
            let value = option.iter().position(|byte| *byte == b'=').map_or(&[][..], |at| &option[at + 1..]);
            *place = unescaped(value).ok_or(Errno::EINVAL).or_else(|_| refuse("several lower folders", option))?;
        }
        if options.lower.is_empty() || options.upper.is_empty() || options.work.is_empty() {
            return refuse("lowerdir, upperdir and workdir must be given", text);
        }
        Ok(options)
    }
}

/// The options between commas without a backslash before them.
fn split(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut is_escaped = false;
    text.split(move |byte| {
        let is_end = *byte == b',' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        is_end
    })
}

/// The value without its backslashes; `None` if it holds a colon, which separates folders.
fn unescaped(value: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => plain.extend(bytes.next()),
            b':' => return None,
            byte => plain.push(*byte),
        }
    }
    Some(plain)
}

fn refuse<T>(why: &str, what: &[u8]) -> Result<T> {
    log::warn!("overlay: {why}: {}", alloc::string::String::from_utf8_lossy(what));
    Err(Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_folders_are_found_whatever_their_order() {
        let options = Options::parse(b"upperdir=/b,index=off,workdir=/c,lowerdir=/a=a\\,x\\:y").expect("right");
        assert_eq!((&*options.lower, &*options.upper, &*options.work), (&b"/a=a,x:y"[..], &b"/b"[..], &b"/c"[..]));
    }

    #[test]
    fn what_is_missing_or_not_known_is_refused() {
        for text in
            ["", "lowerdir=/a", "lowerdir=/a:/b,upperdir=/c,workdir=/d", "lowerdir=/a,upperdir=/b,workdir=/c,x=y"]
        {
            assert_eq!(Options::parse(text.as_bytes()), Err(Errno::EINVAL), "{text}");
        }
    }
}
