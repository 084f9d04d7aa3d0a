//! The stack that a program starts with: arguments, environment, auxiliary vector (System V ABI for AMD64, section 3.4.1).
//!
//! ```text
//!   top          eight zero bytes
//!                the program's path, for AT_EXECFN
//!                environment strings ─┐
//!                argument strings    ─┤ in this order downwards, each list upwards
//!                "x86_64", 16 random bytes
//!                auxiliary vector, pairs of words, the last AT_NULL
//!                environment pointers, NULL
//!                argument pointers, NULL
//!   SP ────────► argc                      (16-byte aligned)
//! ```

use alloc::vec::Vec;
use core::ops::Range;

use crate::mm::MakeRoom;
use abi::{Errno, Result, auxvec};

/// The longest string, with its NUL: MAX_ARG_STRLEN.
pub const STRING_MAX: usize = 128 * 1024;
/// What all may take at most, however large the stack: three quarters of the stack that Linux assumes.
const TOTAL_MAX: u64 = 6 * 1024 * 1024;
/// What all may take at least, however small the stack.
const TOTAL_MIN: u64 = 128 * 1024;

/// Strings, each ended by a NUL, one behind the other: arguments or environment.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Strings {
    bytes: Vec<u8>,
    count: usize,
}

impl Strings {
    /// Adds one, without its NUL.
    ///
    /// # Errors
    ///
    /// `E2BIG`: longer than [`STRING_MAX`]. `ENOMEM`.
    pub fn push(&mut self, string: &[u8]) -> Result<()> {
        if string.len() >= STRING_MAX {
            return Err(Errno::E2BIG);
        }
        self.bytes.make_room(string.len() + 1)?;
        self.bytes.extend_from_slice(string);
        self.bytes.push(0);
        self.count += 1;
        Ok(())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What they take on the stack, with their pointers, in bytes.
    pub fn cost(&self) -> u64 {
        (self.bytes.len() + self.count * 8) as u64
    }

    /// Each, without its NUL.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.split_inclusive(|byte| *byte == 0).map(|string| &string[..string.len() - 1])
    }

    /// Puts others in place of the first: a script's interpreter, its argument, and the script.
    ///
    /// # Errors
    ///
    /// `E2BIG`, `ENOMEM`.
    pub fn replace_first(&self, front: &[&[u8]]) -> Result<Strings> {
        let mut new = Strings::default();
        for string in front {
            new.push(string)?;
        }
        for string in self.iter().skip(1) {
            new.push(string)?;
        }
        Ok(new)
    }
}

/// Checks what arguments and environment take against what they may.
///
/// # Errors
///
/// `E2BIG`.
pub fn check_total(arguments: &Strings, environment: &Strings, stack_limit: u64) -> Result<()> {
    let most = (stack_limit / 4).clamp(TOTAL_MIN, TOTAL_MAX);
    if arguments.cost() + environment.cost() > most { Err(Errno::E2BIG) } else { Ok(()) }
}

/// What the auxiliary vector tells, the addresses on the stack aside.
#[derive(Clone, Copy, Debug, Default)]
pub struct Auxiliary {
    /// AT_PHDR, AT_PHNUM.
    pub table: (u64, u64),
    /// AT_BASE: where the interpreter was loaded; 0 without one.
    pub base: u64,
    /// AT_ENTRY: of the program, not of the interpreter.
    pub entry: u64,
    /// AT_UID, AT_EUID, AT_GID, AT_EGID.
    pub ids: [u32; 4],
    /// AT_SECURE.
    pub is_secure: bool,
    /// AT_HWCAP, AT_HWCAP2.
    pub capabilities: (u64, u64),
    /// AT_SYSINFO_EHDR: the vDSO; 0 if there is none.
    pub vdso: u64,
    /// AT_MINSIGSTKSZ.
    pub signal_stack: u64,
    /// The bytes behind AT_RANDOM.
    pub random: [u8; 16],
}

/// The finished stack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartStack {
    /// Its lowest address: the initial stack pointer.
    pub pointer: usize,
    /// Its bytes, from there to the top.
    pub bytes: Vec<u8>,
    /// Where the argument strings lie.
    pub arguments: Range<usize>,
    /// Where the environment strings lie.
    pub environment: Range<usize>,
    /// The auxiliary vector, as it lies in `bytes`.
    pub auxiliary: Range<usize>,
}

/// Lays a stack out below `top`.
///
/// # Errors
///
/// `ENOMEM`. `E2BIG`: `top` is too low for it.
pub fn build(
    top: usize,
    path: &[u8],
    arguments: &Strings,
    environment: &Strings,
    facts: &Auxiliary,
) -> Result<StartStack> {
    let below = |from: usize, len: usize| from.checked_sub(len).ok_or(Errno::E2BIG);
    let path_at = below(top, 8 + path.len() + 1)?;
    let environment_at = below(path_at, environment.bytes.len())?;
    let arguments_at = below(environment_at, arguments.bytes.len())?;
    let platform_at = below(arguments_at, PLATFORM.len())?;
    let random_at = below(platform_at, 16)? & !15;
    let pairs = pairs(facts, path_at as u64, platform_at as u64, random_at as u64);
    let words = 1 + arguments.count + 1 + environment.count + 1 + 2 * pairs.len();
    let pointer = below(random_at, words * 8)? & !15;
    let mut bytes = Vec::new();
    bytes.make_exact_room(top - pointer)?;
    let mut word = |word: u64| bytes.extend_from_slice(&word.to_ne_bytes());
    word(arguments.count as u64);
    for (strings, at) in [(arguments, arguments_at), (environment, environment_at)] {
        let mut at = at as u64;
        for string in strings.iter() {
            word(at);
            at += string.len() as u64 + 1;
        }
        word(0);
    }
    for (key, value) in &pairs {
        word(u64::from(*key));
        word(*value);
    }
    let auxiliary = bytes.len() - pairs.len() * 16..bytes.len();
    let parts = [
        (random_at, &facts.random[..]),
        (platform_at, PLATFORM),
        (arguments_at, &arguments.bytes),
        (environment_at, &environment.bytes),
        (path_at, path),
    ];
    for (at, part) in parts {
        bytes.resize(at - pointer, 0);
        bytes.extend_from_slice(part);
    }
    bytes.resize(top - pointer, 0);
    let arguments = arguments_at..environment_at;
    Ok(StartStack { pointer, bytes, arguments, environment: environment_at..path_at, auxiliary })
}

/// AT_PLATFORM.
const PLATFORM: &[u8] = b"x86_64\0";

fn pairs(facts: &Auxiliary, path: u64, platform: u64, random: u64) -> [(u32, u64); 21] {
    let [uid, euid, gid, egid] = facts.ids.map(u64::from);
    [
        (auxvec::AT_SYSINFO_EHDR, facts.vdso),
        (auxvec::AT_HWCAP, facts.capabilities.0),
        (auxvec::AT_PAGESZ, 4096),
        (auxvec::AT_CLKTCK, 100),
        (auxvec::AT_PHDR, facts.table.0),
        (auxvec::AT_PHENT, 56),
        (auxvec::AT_PHNUM, facts.table.1),
        (auxvec::AT_BASE, facts.base),
        (auxvec::AT_FLAGS, 0),
        (auxvec::AT_ENTRY, facts.entry),
        (auxvec::AT_UID, uid),
        (auxvec::AT_EUID, euid),
        (auxvec::AT_GID, gid),
        (auxvec::AT_EGID, egid),
        (auxvec::AT_SECURE, u64::from(facts.is_secure)),
        (auxvec::AT_RANDOM, random),
        (auxvec::AT_HWCAP2, facts.capabilities.1),
        (auxvec::AT_EXECFN, path),
        (auxvec::AT_PLATFORM, platform),
        (auxvec::AT_MINSIGSTKSZ, facts.signal_stack),
        (auxvec::AT_NULL, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn strings(list: &[&[u8]]) -> Strings {
        let mut strings = Strings::default();
        list.iter().for_each(|string| strings.push(string).unwrap());
        strings
    }

    fn word(stack: &StartStack, index: usize) -> usize {
        usize::from_ne_bytes(stack.bytes[index * 8..index * 8 + 8].try_into().unwrap())
    }

    fn string(stack: &StartStack, at: usize) -> &[u8] {
        stack.bytes[at - stack.pointer..].split(|byte| *byte == 0).next().unwrap()
    }

    #[test]
    fn a_program_finds_its_arguments_environment_and_vector() {
        let facts = Auxiliary { entry: 0x1234, random: [7; 16], ..Auxiliary::default() };
        let (arguments, environment) = (strings(&[b"prog", b"", b"\xff x"]), strings(&[b"A=1"]));
        let stack = build(0x7fff_f000, b"/bin/prog", &arguments, &environment, &facts).unwrap();
        assert_eq!(stack.pointer % 16, 0);
        assert_eq!(stack.pointer + stack.bytes.len(), 0x7fff_f000);
        assert_eq!(word(&stack, 0), 3);
        let found: vec::Vec<&[u8]> = (1..4).map(|index| string(&stack, word(&stack, index))).collect();
        assert_eq!(found, [&b"prog"[..], b"", b"\xff x"]);
        assert_eq!((word(&stack, 4), word(&stack, 6)), (0, 0));
        assert_eq!(string(&stack, word(&stack, 5)), b"A=1");
        let vector: std::collections::BTreeMap<usize, usize> =
            (0..21).map(|pair| (word(&stack, 7 + 2 * pair), word(&stack, 8 + 2 * pair))).collect();
        assert_eq!(vector[&(auxvec::AT_ENTRY as usize)], 0x1234);
        assert_eq!(string(&stack, vector[&(auxvec::AT_EXECFN as usize)]), b"/bin/prog");
        assert_eq!(string(&stack, vector[&(auxvec::AT_PLATFORM as usize)]), b"x86_64");
        let random = vector[&(auxvec::AT_RANDOM as usize)] - stack.pointer;
        assert_eq!(&stack.bytes[random..random + 16], [7; 16]);
        assert_eq!(word(&stack, 7 + 2 * 20), auxvec::AT_NULL as usize);
    }

    #[test]
    fn the_stack_pointer_is_aligned_whatever_stands_above_it() {
        for len in 0..40 {
            let arguments = strings(&[&vec![b'a'; len]]);
            for count in 0..3 {
                let environment = strings(&vec![&b"x"[..]; count]);
                let stack = build(0x10_0000, b"p", &arguments, &environment, &Auxiliary::default()).unwrap();
                assert_eq!(stack.pointer % 16, 0);
                assert_eq!(word(&stack, 0), 1);
            }
        }
    }

    #[test]
    fn too_much_is_refused_before_anything_is_written() {
        let mut arguments = Strings::default();
        assert_eq!(arguments.push(&vec![b'x'; STRING_MAX]), Err(Errno::E2BIG));
        assert_eq!(arguments.push(&vec![b'x'; STRING_MAX - 1]), Ok(()));
        let none = Strings::default();
        assert_eq!(check_total(&arguments, &none, 0), Err(Errno::E2BIG), "the pointer counts too");
        assert_eq!(check_total(&arguments, &none, 8 << 20), Ok(()));
        let mut many = Strings::default();
        (0..100).for_each(|_| many.push(&vec![b'x'; 100_000]).unwrap());
        assert_eq!(check_total(&many, &none, u64::MAX), Err(Errno::E2BIG));
    }

    #[test]
    fn a_script_takes_the_place_of_the_first_argument() {
        let arguments = strings(&[b"x", b"1", b"2"]);
        let new = arguments.replace_first(&[b"/bin/sh", b"-e", b"./x"]).unwrap();
        assert_eq!(new, strings(&[b"/bin/sh", b"-e", b"./x", b"1", b"2"]));
        assert_eq!(Strings::default().replace_first(&[b"a", b"b"]).unwrap().count(), 2);
    }
}
