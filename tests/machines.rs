//! Rouse starts on every machine that QEMU plays for it, large and small.

use xtask::guest::Guest;
use xtask::machine::{Firmware, Medium, Model, Options};
use xtask::testing::under_test;

fn starts_on(options: &Options) {
    let options = under_test(Options { timeout: Some(120), ..options.clone() });
    let mut guest = Guest::start(&options).unwrap_or_else(|error| panic!("{options:?}: {error:#}"));
    let output = guest.shell("echo up").unwrap_or_else(|error| panic!("{options:?}: {error:#}"));
    assert_eq!(output.text(), "up\n", "{options:?}");
}

#[test]
fn a_pc_with_pci_starts() {
    starts_on(&Options { machine: Model::Pc, ..Options::default() });
}

#[test]
fn a_microvm_starts() {
    starts_on(&Options { machine: Model::Microvm, ..Options::default() });
}

#[test]
fn thirty_two_megabytes_are_enough() {
    starts_on(&Options { memory: "32M".into(), ..Options::default() });
}

#[test]
fn memory_above_four_gigabytes_is_used() {
    starts_on(&Options { memory: "6G".into(), ..Options::default() });
}

#[test]
fn a_processor_with_all_that_qemu_has_starts() {
    starts_on(&Options { cpu: Some("max".into()), ..Options::default() });
}

#[test]
fn a_usb_stick_starts_an_old_pc_with_a_bios() {
    starts_on(&Options { medium: Medium::Usb, machine: Model::Pc, ..Options::default() });
}

#[test]
fn a_cd_starts_a_pc_with_uefi() {
    starts_on(&Options { medium: Medium::Cd, firmware: Firmware::Uefi, ..Options::default() });
}
