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

/// One image, for old and new PCs, as a stick and as a CD: all eight ways, two at a time.
#[test]
fn the_image_starts_every_pc() {
    let of = |machine, firmware| {
        for medium in [Medium::Usb, Medium::Cd] {
            starts_on(&Options { machine, firmware, medium, ..Options::default() });
        }
    };
    std::thread::scope(|scope| {
        for firmware in [Firmware::Bios, Firmware::Uefi] {
            scope.spawn(move || [Model::Pc, Model::Q35].map(|machine| of(machine, firmware)));
        }
    });
}
