//! The image is taken apart as loaders do, and its functions run here, on the developer's machine.

use std::time::Duration;
use std::vec::Vec;

use elf::abi;
use elf::endian::LittleEndian;

use super::super::tsc_scale::{SHIFT, TscParameters};
use super::*;

const PAGE: usize = 4096;
const FUNCTIONS: [&str; 5] = ["clock_gettime", "gettimeofday", "time", "getcpu", "clock_getres"];

fn parsed() -> elf::ElfBytes<'static, LittleEndian> {
    elf::ElfBytes::minimal_parse(image()).expect("an ELF file")
}

/// Name, version, address and length of each symbol.
fn symbols() -> Vec<(std::string::String, std::string::String, u64, u64)> {
    let file = parsed();
    let (table, strings) = file.dynamic_symbol_table().expect("readable").expect("there is one");
    let versions = file.symbol_version_table().expect("readable").expect("there is one");
    let names = |(index, symbol): (usize, elf::symbol::Symbol)| {
        let version = versions.get_definition(index).expect("readable").expect("it has one");
        let version = version.names.map(|name| name.expect("a string")).collect::<Vec<_>>().join(" ");
        let name = strings.get(symbol.st_name as usize).expect("a string");
        (name.into(), version, symbol.st_value, symbol.st_size)
    };
    table.iter().enumerate().skip(1).map(names).collect()
}

#[test]
fn the_image_is_a_shared_object_of_one_segment() {
    let file = parsed();
    assert_eq!((file.ehdr.e_type, file.ehdr.e_machine), (abi::ET_DYN, abi::EM_X86_64));
    let segments = file.segments().expect("there are some");
    let loads: Vec<_> = segments.iter().filter(|segment| segment.p_type == abi::PT_LOAD).collect();
    assert_eq!(loads.len(), 1);
    assert_eq!((loads[0].p_offset, loads[0].p_vaddr, loads[0].p_flags), (0, 0, abi::PF_R | abi::PF_X));
    assert!(loads[0].p_filesz as usize <= image().len() && image().len().is_multiple_of(PAGE));
    assert_eq!(loads[0].p_filesz, loads[0].p_memsz);
    for segment in segments.iter() {
        assert!(segment.p_offset + segment.p_filesz <= loads[0].p_filesz, "{segment:?}");
        assert_eq!(segment.p_offset % segment.p_align.max(1), segment.p_vaddr % segment.p_align.max(1), "{segment:?}");
    }
}

#[test]
fn every_function_has_its_two_names_and_the_version_that_libraries_ask_for() {
    let symbols = symbols();
    assert_eq!(symbols.len(), 2 * FUNCTIONS.len());
    for function in FUNCTIONS {
        let place = |name: &str| symbols.iter().find(|symbol| symbol.0 == name).expect("a symbol");
        let (plain, prefixed) = (place(function), place(&std::format!("__vdso_{function}")));
        assert_eq!((plain.2, plain.3), (prefixed.2, prefixed.3));
        assert!(plain.2 > 0 && plain.3 > 0 && plain.2 + plain.3 <= image().len() as u64);
        assert_eq!((plain.1.as_str(), prefixed.1.as_str()), ("LINUX_2.6", "LINUX_2.6"));
    }
}

#[test]
fn the_dynamic_section_leads_to_what_the_section_headers_name() {
    let file = parsed();
    let dynamic = file.dynamic().expect("readable").expect("there is one");
    let value = |tag| dynamic.iter().find(|entry| entry.d_tag == tag).expect("a dynamic entry").d_val();
    let section = |name: &str| file.section_header_by_name(name).expect("readable").expect("a section");
    for (tag, name) in [
        (abi::DT_HASH, ".hash"),
        (abi::DT_SYMTAB, ".dynsym"),
        (abi::DT_STRTAB, ".dynstr"),
        (abi::DT_VERSYM, ".gnu.version"),
        (abi::DT_VERDEF, ".gnu.version_d"),
    ] {
        assert_eq!(value(tag), section(name).sh_addr, "{name}");
    }
    assert_eq!(value(abi::DT_STRSZ), section(".dynstr").sh_size);
    let strings = file.section_data_as_strtab(&section(".dynstr")).expect("strings");
    assert_eq!(strings.get(value(abi::DT_SONAME) as usize).expect("a string"), "linux-vdso.so.1");
    let common = file.find_common_data().expect("readable");
    let (hash, table, strings) = (
        common.sysv_hash.expect("a hash table"),
        common.dynsyms.expect("symbols"),
        common.dynsyms_strs.expect("strings"),
    );
    for function in FUNCTIONS {
        let name = std::format!("__vdso_{function}");
        let found = hash.find(name.as_bytes(), &table, &strings).expect("readable").expect("it is found by its hash");
        assert_eq!(strings.get(found.1.st_name as usize).expect("a string"), name);
    }
    assert!(hash.find(b"gettime", &table, &strings).expect("readable").is_none());
}

#[test]
fn the_image_needs_no_relocation() {
    let dynamic = parsed().dynamic().expect("readable").expect("there is one");
    let relocates = [abi::DT_REL, abi::DT_RELA, abi::DT_JMPREL, abi::DT_TEXTREL, abi::DT_NEEDED];
    assert!(dynamic.iter().all(|entry| !relocates.contains(&entry.d_tag)));
}

/// The image behind a page of data, as in a program.
struct Mapped(*mut u8, Vec<(std::string::String, std::string::String, u64, u64)>);

// SAFETY: the page of data is only used through atomics, the image is only executed, and both stay mapped as long as this lives.
unsafe impl Sync for Mapped {}

impl Mapped {
    fn new() -> Mapped {
        use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
        let len = PAGE + image().len();
        // SAFETY: fresh memory; then the image is copied into it, which nobody writes to from then on.
        unsafe {
            let rights = ProtFlags::READ | ProtFlags::WRITE;
            let at = rustix::mm::mmap_anonymous(core::ptr::null_mut(), len, rights, MapFlags::PRIVATE).expect("memory");
            let at = at.cast::<u8>();
            core::ptr::copy_nonoverlapping(image().as_ptr(), at.add(PAGE), image().len());
            rustix::mm::mprotect(at.add(PAGE).cast(), image().len(), MprotectFlags::READ | MprotectFlags::EXEC)
                .expect("it may run");
            Mapped(at, symbols())
        }
    }

    fn data(&self) -> &Data {
        // SAFETY: the first page is zeros, aligned, and used as this only.
        unsafe { &*self.0.cast::<Data>() }
    }

    /// Calls a function of two pointers or numbers.
    fn call(&self, function: &str, first: usize, second: usize) -> i64 {
        let (_, _, address, _) = self.1.iter().find(|symbol| symbol.0 == function).expect("a symbol");
        // SAFETY: all functions follow C's calling convention, take at most three words and return one; a third word is unused.
        unsafe {
            let function: extern "C" fn(usize, usize, usize) -> i64 =
                core::mem::transmute(self.0.add(PAGE + *address as usize));
            function(first, second, 0)
        }
    }

    fn clock_gettime(&self, clock: u32) -> (i64, Duration) {
        let mut time = [0_i64; 2];
        let result = self.call("clock_gettime", clock as usize, (&raw mut time).addr());
        (result, Duration::new(time[0] as u64, time[1] as u32))
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the whole of what `new` has mapped; nothing refers to it any more.
        unsafe { rustix::mm::munmap(self.0.cast(), PAGE + image().len()).expect("it was mapped") };
    }
}

fn counter() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}

const WALL: u64 = 1_700_000_000_123_456_789;

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

#[test]
fn the_functions_tell_the_time_that_the_kernel_would() {
    let mapped = Mapped::new();
    let clock = TscParameters { tsc_at_boot: counter(), multiplier: (5 << SHIFT) / 2 };
    mapped.data().publish(Some(clock), WALL);
    let kernel = || (((counter() - clock.tsc_at_boot) as u128 * clock.multiplier as u128) >> SHIFT) as u64;
    for (id, wall) in [(0, WALL), (1, 0), (4, 0), (5, WALL), (6, 0), (7, 0), (11, WALL)] {
        let before = kernel();
        let (result, time) = mapped.clock_gettime(id);
        let after = kernel();
        assert_eq!(result, 0);
        assert!((before + wall..=after + wall).contains(&nanoseconds(time)), "clock {id}: {before} {time:?} {after}");
    }
    let (mut time, mut zone) = ([0_i64; 2], [7_i32; 2]);
    let before = kernel() + WALL;
    assert_eq!(mapped.call("gettimeofday", (&raw mut time).addr(), (&raw mut zone).addr()), 0);
    let after = kernel() + WALL;
    let told = time[0] as u64 * 1_000_000 + time[1] as u64;
    assert!((before / 1000..=after / 1000).contains(&told) && time[1] < 1_000_000);
    assert_eq!(zone, [0, 0]);
    let mut stored = 0_i64;
    let seconds = mapped.call("time", (&raw mut stored).addr(), 0);
    assert_eq!(seconds, stored);
    assert!((after / 1_000_000_000..=(kernel() + WALL) / 1_000_000_000).contains(&(seconds as u64)));
    assert_eq!(mapped.call("time", 0, 0), seconds);
    let mut resolution = [9_i64; 2];
    assert_eq!(mapped.call("clock_getres", 1, (&raw mut resolution).addr()), 0);
    assert_eq!(resolution, [0, 1]);
}

#[test]
fn a_counter_before_boot_is_the_moment_of_boot() {
    let mapped = Mapped::new();
    mapped.data().publish(Some(TscParameters { tsc_at_boot: u64::MAX, multiplier: 1 << SHIFT }), WALL);
    assert_eq!(nanoseconds(mapped.clock_gettime(1).1), 0);
    assert_eq!(nanoseconds(mapped.clock_gettime(0).1), WALL);
}

#[test]
fn what_the_page_cannot_tell_becomes_a_system_call() {
    use rustix::time::{ClockId, clock_gettime};
    let mapped = Mapped::new();
    mapped.data().publish(None, 0);
    let host = |clock| {
        let time = clock_gettime(clock);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    for (id, clock) in [(0, ClockId::Realtime), (1, ClockId::Monotonic), (2, ClockId::ProcessCPUTime)] {
        let before = host(clock);
        let (result, time) = mapped.clock_gettime(id);
        assert_eq!(result, 0);
        assert!((before..=host(clock)).contains(&time), "clock {id}");
    }
    assert!(mapped.call("time", 0, 0) as u64 >= 1_600_000_000);
    mapped.data().publish(Some(TscParameters { tsc_at_boot: 0, multiplier: 1 << SHIFT }), 0);
    let einval = -22;
    for unknown in [10, 12, 31, 32, 100, u32::MAX] {
        assert_eq!(mapped.clock_gettime(unknown).0 as i32, einval, "clock {unknown}");
        assert_eq!(mapped.call("clock_getres", unknown as usize, 0) as i32, einval, "clock {unknown}");
    }
}

#[test]
fn a_program_never_reads_half_of_a_change() {
    const FIRST: u64 = 1_000_000_000_000_000_000;
    const SECOND: u64 = 2_000_000_000_000_000_000;
    const HEAD_START: u64 = 1_000_000;
    use std::sync::atomic::{AtomicBool, Ordering};
    let mapped = Mapped::new();
    let stop = AtomicBool::new(false);
    // One clock stands, the other runs: a reader of parts of both would be far from either.
    let standing = TscParameters { tsc_at_boot: 0, multiplier: 0 };
    let running = TscParameters { tsc_at_boot: counter() - HEAD_START, multiplier: 1 << SHIFT };
    mapped.data().publish(Some(standing), FIRST);
    // On one CPU, the writer goes on when the reader's time is up, which mostly is in the middle of reading.
    let one_cpu = || {
        let mut cpus = rustix::thread::CpuSet::new();
        let may = rustix::thread::sched_getaffinity(None).expect("the host tells");
        cpus.set((0..1024).find(|cpu| may.is_set(*cpu)).expect("it runs somewhere"));
        rustix::thread::sched_setaffinity(None, &cpus).expect("it may run there");
    };
    let wrong = std::thread::scope(|scope| {
        let (data, mapped, stop) = (mapped.data(), &mapped, &stop);
        scope.spawn(move || {
            one_cpu();
            while !stop.load(Ordering::Relaxed) {
                data.publish(Some(running), SECOND);
                data.publish(Some(standing), FIRST);
            }
        });
        let reader = scope.spawn(move || {
            one_cpu();
            let end = std::time::Instant::now() + Duration::from_millis(400);
            let mut wrong = None;
            while wrong.is_none() && std::time::Instant::now() < end {
                let now = nanoseconds(mapped.clock_gettime(0).1);
                let limit = SECOND + (counter() - running.tsc_at_boot);
                wrong = (now != FIRST && !(SECOND + HEAD_START..limit).contains(&now)).then_some(now);
            }
            stop.store(true, Ordering::Relaxed);
            wrong
        });
        reader.join().expect("it does not panic")
    });
    assert_eq!(wrong, None);
}

#[test]
fn a_program_waits_while_the_page_is_written() {
    use std::sync::atomic::Ordering;
    let mapped = Mapped::new();
    let standing = TscParameters { tsc_at_boot: 0, multiplier: 0 };
    mapped.data().publish(Some(standing), 1);
    mapped.data().sequence.fetch_add(1, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| nanoseconds(mapped.clock_gettime(0).1));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!reader.is_finished());
        mapped.data().wall_at_boot.store(2, Ordering::SeqCst);
        mapped.data().sequence.fetch_add(1, Ordering::SeqCst);
        assert_eq!(reader.join().expect("it does not panic"), 2);
    });
}

#[test]
fn the_cpu_is_one_that_the_thread_may_run_on() {
    let mapped = Mapped::new();
    let (mut cpu, mut node) = (u32::MAX, u32::MAX);
    assert_eq!(mapped.call("getcpu", (&raw mut cpu).addr(), (&raw mut node).addr()), 0);
    let may = rustix::thread::sched_getaffinity(None).expect("the host tells");
    assert!(may.is_set(cpu as usize), "CPU {cpu}");
    assert_eq!(mapped.call("getcpu", 0, 0), 0);
}
