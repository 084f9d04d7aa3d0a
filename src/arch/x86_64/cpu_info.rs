//! What this CPU is, in the words of /proc/cpuinfo.
//!
//! Next: `cpu_features.rs`.

use alloc::format;
use alloc::string::String;
use core::fmt::Write;

use raw_cpuid::{CpuId, cpuid};

use super::clock;

/// The register that a feature's bit is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    /// CPUID 1, EDX.
    Basic,
    /// CPUID 1, ECX.
    More,
    /// CPUID 7, EBX.
    Structured,
    /// CPUID 8000_0001, EDX.
    Extended,
    /// CPUID 8000_0001, ECX.
    ExtendedMore,
}

/// The features that Linux names, in its order: word, bit, name.
const FLAGS: &[(Word, u32, &str)] = &[
    (Word::Basic, 0, "fpu"),
    (Word::Basic, 1, "vme"),
    (Word::Basic, 2, "de"),
    (Word::Basic, 3, "pse"),
    (Word::Basic, 4, "tsc"),
    (Word::Basic, 5, "msr"),
    (Word::Basic, 6, "pae"),
    (Word::Basic, 7, "mce"),
    (Word::Basic, 8, "cx8"),
    (Word::Basic, 9, "apic"),
    (Word::Basic, 11, "sep"),
    (Word::Basic, 12, "mtrr"),
    (Word::Basic, 13, "pge"),
    (Word::Basic, 14, "mca"),
    (Word::Basic, 15, "cmov"),
    (Word::Basic, 16, "pat"),
    (Word::Basic, 17, "pse36"),
    (Word::Basic, 19, "clflush"),
    (Word::Basic, 23, "mmx"),
    (Word::Basic, 24, "fxsr"),
    (Word::Basic, 25, "sse"),
    (Word::Basic, 26, "sse2"),
    (Word::Basic, 28, "ht"),
    (Word::Extended, 11, "syscall"),
    (Word::Extended, 20, "nx"),
    (Word::Extended, 26, "pdpe1gb"),
    (Word::Extended, 27, "rdtscp"),
    (Word::Extended, 29, "lm"),
    (Word::More, 0, "pni"),
    (Word::More, 1, "pclmulqdq"),
    (Word::More, 9, "ssse3"),
    (Word::More, 12, "fma"),
    (Word::More, 13, "cx16"),
    (Word::More, 19, "sse4_1"),
    (Word::More, 20, "sse4_2"),
    (Word::More, 21, "x2apic"),
    (Word::More, 22, "movbe"),
    (Word::More, 23, "popcnt"),
    (Word::More, 24, "tsc_deadline_timer"),
    (Word::More, 25, "aes"),
    (Word::More, 26, "xsave"),
    (Word::More, 28, "avx"),
    (Word::More, 29, "f16c"),
    (Word::More, 30, "rdrand"),
    (Word::More, 31, "hypervisor"),
    (Word::ExtendedMore, 0, "lahf_lm"),
    (Word::ExtendedMore, 2, "svm"),
    (Word::ExtendedMore, 5, "abm"),
    (Word::ExtendedMore, 6, "sse4a"),
    (Word::ExtendedMore, 8, "3dnowprefetch"),
    (Word::Structured, 3, "bmi1"),
    (Word::Structured, 5, "avx2"),
    (Word::Structured, 7, "smep"),
    (Word::Structured, 8, "bmi2"),
    (Word::Structured, 9, "erms"),
    (Word::Structured, 18, "rdseed"),
    (Word::Structured, 19, "adx"),
    (Word::Structured, 20, "smap"),
    (Word::Structured, 29, "sha_ni"),
];

fn word(which: Word) -> u32 {
    match which {
        Word::Basic => cpuid!(1).edx,
        Word::More => cpuid!(1).ecx,
        Word::Structured if cpuid!(0).eax >= 7 => cpuid!(7, 0).ebx,
        Word::Structured => 0,
        Word::Extended => cpuid!(0x8000_0001).edx,
        Word::ExtendedMore => cpuid!(0x8000_0001).ecx,
    }
}

/// The lines about a CPU, behind that with its number. All CPUs are taken to be alike.
pub fn describe(cpu: usize, cpus: usize) -> String {
    let id = CpuId::new();
    let vendor = id.get_vendor_info();
    let brand = id.get_processor_brand_string();
    let features = id.get_feature_info();
    let (family, model, stepping) =
        features.as_ref().map_or((0, 0, 0), |f| (f.family_id(), f.model_id(), f.stepping_id()));
    // Ticks a second: how many nanoseconds a million ticks take.
    let khz = (1_000_000u64 * 1_000_000).checked_div(clock::nanoseconds_of(1_000_000)).unwrap_or(0);
    let (mhz, thousandths) = (khz / 1000, khz % 1000);
    let mut text = format!(
        "vendor_id\t: {}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: {}\nstepping\t: {stepping}\n\
         cpu MHz\t\t: {mhz}.{thousandths:03}\nphysical id\t: 0\nsiblings\t: {cpus}\ncore id\t\t: {cpu}\ncpu cores\t: {cpus}\n\
         fpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: {}\nwp\t\t: yes\nflags\t\t:",
        vendor.as_ref().map_or("unknown", |vendor| vendor.as_str()),
        brand.as_ref().map_or("unknown", |brand| brand.as_str().trim()),
        cpuid!(0).eax,
    );
    for (_, _, name) in FLAGS.iter().filter(|(which, bit, _)| word(*which) >> bit & 1 == 1) {
        // Writing to a string cannot fail.
        let _ = write!(text, " {name}");
    }
    let bogomips = khz / 5; // twice the frequency, in hundredths
    let sizes = cpuid!(0x8000_0008).eax;
    let _ = write!(
        text,
        "\nbogomips\t: {}.{:02}\nclflush size\t: {}\naddress sizes\t: {} bits physical, {} bits virtual\n",
        bogomips / 100,
        bogomips % 100,
        features.as_ref().map_or(64, |f| u32::from(f.cflush_cache_line_size()) * 8),
        sizes & 0xff,
        sizes >> 8 & 0xff,
    );
    text
}
