//! How the kernel dies: each promise of the memory layout is broken on purpose, and the report must name what happened.
//!
//! These start the kernel alone, without a root: it crashes before it would look for one.

use std::process::Command;
use xtask::kernel::{Profile, build};
use xtask::packages;

/// Twice what the kernel writes to the exit device, plus one.
const STATUS_OF_A_PANIC: i32 = 225;

/// Starts the kernel with `rouse.crash=kind`, and returns what it wrote to the serial line.
fn report(kind: &str, machine: &[&str]) -> String {
    packages::ensure(&[packages::QEMU]).expect("QEMU");
    let kernel = build(Profile::Checked).expect("a kernel");
    let output = Command::new("timeout")
        .args(["60", "qemu-system-x86_64", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-append", &format!("quiet rouse.crash={kind}")])
        .arg("-kernel")
        .arg(kernel)
        .args(machine)
        .output()
        .expect("QEMU starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(STATUS_OF_A_PANIC), "{text}\n{errors}");
    assert!(text.contains("end of report"), "{text}");
    text
}

#[test]
fn a_panic_names_its_place_and_its_callers() {
    let text = report("panic", &[]);
    assert!(text.contains("kernel panic: provoked"), "{text}");
    assert!(text.contains("at src/arch/x86_64/provoke.rs:"), "{text}");
    assert!(text.contains("rouse::arch::x86_64::boot::on_the_kernel_stack"), "{text}");
}

#[test]
fn a_stack_overflow_hits_the_guard_page_and_is_named() {
    let text = report("stack", &[]);
    assert!(text.contains("kernel panic: double fault"), "{text}");
    assert!(text.contains("is beyond the end of the kernel stack of CPU 0"), "{text}");
    assert!(text.contains("rouse::arch::x86_64::provoke::recurse"), "{text}");
    assert!(text.contains("times more from there"), "{text}");
}

#[test]
fn a_stray_pointer_is_a_reported_page_fault() {
    let text = report("null", &[]);
    assert!(text.contains("kernel panic: page fault") && text.contains("address 0x0000000000000008"), "{text}");
    assert!(text.contains("rouse::arch::x86_64::provoke::"), "{text}");
}

#[test]
fn text_and_constants_cannot_be_written_even_through_the_direct_map() {
    for kind in ["text", "alias", "constant"] {
        let text = report(kind, &[]);
        // Code 3: a write to a page that is there.
        assert!(text.contains("kernel panic: page fault in the kernel, code 0x3"), "{kind}: {text}");
    }
}

#[test]
fn data_cannot_be_executed() {
    // Code 0x11: an instruction fetch from a page that is there.
    let text = report("data", &[]);
    assert!(text.contains("kernel panic: page fault in the kernel, code 0x11"), "{text}");
}

#[test]
fn all_memory_of_any_size_is_mapped() {
    for (size, cpu, end) in
        [("32M", "qemu64", 31), ("3G", "max", 5_120), ("64G", "qemu64", 67_584), ("64G", "max", 67_584)]
    {
        // Not reserved on the host: the kernel touches little of it.
        let backend = format!("memory-backend-ram,id=memory,size={size},reserve=off");
        let machine = ["-M", "q35,memory-backend=memory", "-object", &backend, "-m", size, "-cpu", cpu];
        let text = report("memory", &machine);
        let stated = text.split("memory ends at ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        assert_eq!(stated, Some(end), "{size}, {cpu}: {text}");
    }
}
