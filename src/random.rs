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
