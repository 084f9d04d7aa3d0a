//! The hashes of names by which large directories are sorted: Rouse only reads, so it must compute what the writer did.
//!
//! Layout: "ext4 Data Structures and Algorithms", Hash Tree Directories. The half-MD4 is the first rounds of MD4 (RFC 1320)
//! with fewer words, TEA is Wheeler and Needham's Tiny Encryption Algorithm with 16 cycles.
//!
//! Next: `hash_tree.rs`.

/// How a directory's names are hashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Algorithm {
    Legacy,
    HalfMd4,
    Tea,
}

/// What a hash starts from when the volume has no seed of its own: MD4's.
const DEFAULT_SEED: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// The hash of a name: even, because the lowest bit of a hash in an index says that the one before goes on there.
pub(crate) fn hash(name: &[u8], algorithm: Algorithm, is_unsigned: bool, seed: &[u32; 4]) -> u32 {
    /// Marks the end in a directory's positions, so no name may have it.
    const END: u32 = 0x7fff_ffff << 1;
    let seed = if *seed == [0; 4] { DEFAULT_SEED } else { *seed };
    let widen = |byte: u8| if is_unsigned { u32::from(byte) } else { byte as i8 as u32 };
    let hash = match algorithm {
        Algorithm::Legacy => legacy(name, widen),
        Algorithm::HalfMd4 => rest_of(name, 32).fold(seed, |state, rest| half_md4(state, &words(rest, widen)))[1],
        Algorithm::Tea => rest_of(name, 16).fold(seed, |state, rest| tea(state, &words(rest, widen)))[0],
    } & !1;
    if hash == END { END - 2 } else { hash }
}

/// What is left of a name before each round of `step` bytes.
fn rest_of(name: &[u8], step: usize) -> impl Iterator<Item = &[u8]> {
    (0..name.len()).step_by(step).map(|at| &name[at..])
}

/// The first bytes of `rest` as numbers, padded with its length.
fn words<const N: usize>(rest: &[u8], widen: impl Fn(u8) -> u32) -> [u32; N] {
    let len = rest.len() as u32;
    let padding = len | len << 8;
    let padding = padding | padding << 16;
    let mut words = [padding; N];
    for (word, bytes) in words.iter_mut().zip(rest.chunks(4)) {
        *word = bytes.iter().fold(padding, |word, byte| widen(*byte).wrapping_add(word << 8));
    }
    words
}

fn legacy(name: &[u8], widen: impl Fn(u8) -> u32) -> u32 {
    let (mut last, mut before) = (0x12a3_fe2du32, 0x37ab_e8f9u32);
    for byte in name {
        let mut next = before.wrapping_add(last ^ widen(*byte).wrapping_mul(7_152_373));
        if next & 0x8000_0000 != 0 {
            next = next.wrapping_sub(0x7fff_ffff);
        }
        (before, last) = (last, next);
    }
    last << 1
}

fn half_md4(state: [u32; 4], words: &[u32; 8]) -> [u32; 4] {
    type Mix = fn(u32, u32, u32) -> u32;
    /// Each round: how it mixes, its constant, the order of the words, the rotations.
    const ROUNDS: [(Mix, u32, [usize; 8], [u32; 4]); 3] = [
        (|x, y, z| z ^ x & (y ^ z), 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (|x, y, z| (x & y).wrapping_add((x ^ y) & z), 0x5a82_7999, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]),
        (|x, y, z| x ^ y ^ z, 0x6ed9_eba1, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    let [mut a, mut b, mut c, mut d] = state;
    for (mix, constant, order, rotations) in ROUNDS {
        for (step, word) in order.into_iter().enumerate() {
            let sum = a.wrapping_add(mix(b, c, d)).wrapping_add(words[word]).wrapping_add(constant);
            (a, b, c, d) = (d, sum.rotate_left(rotations[step % 4]), b, c);
        }
    }
    [state[0].wrapping_add(a), state[1].wrapping_add(b), state[2].wrapping_add(c), state[3].wrapping_add(d)]
}

fn tea(state: [u32; 4], words: &[u32; 4]) -> [u32; 4] {
    let (mut x, mut y, mut sum) = (state[0], state[1], 0u32);
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9e37_79b9);
        let mix = |value: u32, low: u32, high: u32| {
            (value << 4).wrapping_add(low) ^ value.wrapping_add(sum) ^ (value >> 5).wrapping_add(high)
        };
        x = x.wrapping_add(mix(y, words[0], words[1]));
        y = y.wrapping_add(mix(x, words[2], words[3]));
    }
    [state[0].wrapping_add(x), state[1].wrapping_add(y), state[2], state[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What e2fsprogs' `debugfs -R "dx_hash -h ALGORITHM NAME"` says.
    #[test]
    fn hashes_are_those_of_e2fsprogs() {
        let long: &[u8] = b"a name that is longer than thirty-two bytes, to take two rounds";
        let names = [b"a", b"hello world".as_slice(), long, "grüße".as_bytes()];
        for (algorithm, expected) in [
            (Algorithm::Legacy, [0xe74b_53e2, 0xe0a6_a922, 0xe686_88b6, 0xcc69_faba]),
            (Algorithm::HalfMd4, [0xd5fa_7d7a, 0x36f1_5d9e, 0x732c_df46, 0xd75e_0ad8]),
            (Algorithm::Tea, [0x6d0e_a4c0, 0x0901_2b8e, 0xd0dc_92be, 0xc271_df04]),
        ] {
            for (name, expected) in names.into_iter().zip(expected) {
                assert_eq!(hash(name, algorithm, false, &[0; 4]), expected, "{algorithm:?} of {name:?}");
            }
        }
    }

    #[test]
    fn signedness_matters_only_beyond_ascii() {
        for algorithm in [Algorithm::Legacy, Algorithm::HalfMd4, Algorithm::Tea] {
            let of = |name: &str, is_unsigned| hash(name.as_bytes(), algorithm, is_unsigned, &[1, 2, 3, 4]);
            assert_eq!(of("plain", true), of("plain", false));
            assert_ne!(of("grüße", true), of("grüße", false));
        }
    }
}
