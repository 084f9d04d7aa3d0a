//! A first seed for the kernel's random numbers.
//!
//! RDSEED or RDRAND where the CPU has them; the clock and the irregular time that port accesses take everywhere. The generator that
//! stretches the seed lives elsewhere; this only gathers.
//!
//! Next: whoever seeds the generator.

use core::arch::asm;

use super::cpu_features::cpu_features;
use super::instructions::{inb, rdtsc};
use super::{clock, rtc};

/// 32 bytes that an outsider cannot guess, as well as this machine can.
pub fn random_seed() -> [u8; 32] {
    let mut state = [0x6a09_e667_f3bc_c908, 0xbb67_ae85_84ca_a73b, 0x3c6e_f372_fe94_f82b, 0xa54f_f53a_5f1d_36f1];
    let mut stir = |value: u64| {
        state[0] ^= value;
        for _ in 0..2 {
            mix(&mut state);
        }
    };
    stir(rtc::read(0).unwrap_or(0));
    stir(clock::now_nanoseconds());
    for _ in 0..256 {
        stir(hardware().unwrap_or(0));
        // A port takes a trip over the bus, or through the emulator.
        inb(0x80);
        stir(rdtsc());
    }
    let mut seed = [0; 32];
    for (bytes, word) in seed.chunks_exact_mut(8).zip(state) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    seed
}

/// One round of a permutation of four words: add, rotate, xor (SipHash's, by Aumasson and Bernstein).
fn mix(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

/// A word from the CPU's generator.
pub fn hardware() -> Option<u64> {
    let (value, ok): (u64, u8);
    // SAFETY: each instruction is used only where CPUID has it; neither touches memory.
    unsafe {
        if cpu_features().rdseed {
            asm!("rdseed {}", "setc {}", out(reg) value, out(reg_byte) ok, options(nomem, nostack));
        } else if cpu_features().rdrand {
            asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) ok, options(nomem, nostack));
        } else {
            return None;
        }
    }
    (ok == 1).then_some(value)
}
