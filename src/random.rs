//! Randomness: a ChaCha20 stream, seeded from the CPU and from the times of interrupts.
//!
//! One generator for all, behind a lock: asked for a few bytes by exec, and for any number by getrandom(2) and /dev/urandom.

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use executor::sync::SpinLock;

static GENERATOR: SpinLock<Option<ChaCha20Rng>> = SpinLock::new(None);

/// Seeds the generator; done once at boot.
pub fn init() {
    *GENERATOR.lock() = Some(ChaCha20Rng::from_seed(crate::arch::random_seed()));
}

/// Fills a buffer.
///
/// # Panics
///
/// Before [`init`].
pub fn fill(bytes: &mut [u8]) {
    GENERATOR.lock().as_mut().expect("seeded at boot").fill_bytes(bytes);
}

/// Stirs in what a program wrote to /dev/random: the generator goes on from a new seed made of its own output and these bytes.
pub fn mix(bytes: &[u8]) {
    let mut generator = GENERATOR.lock();
    if let Some(generator) = generator.as_mut() {
        let mut seed = [0; 32];
        generator.fill_bytes(&mut seed);
        for (index, byte) in bytes.iter().enumerate() {
            seed[index % 32] ^= byte.rotate_left((index / 32) as u32 % 8);
        }
        *generator = ChaCha20Rng::from_seed(seed);
    }
}

/// So many random bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

/// 64 random bits.
pub fn number() -> u64 {
    u64::from_ne_bytes(bytes())
}
