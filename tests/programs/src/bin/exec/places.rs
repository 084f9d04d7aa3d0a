//! Where things lie: by chance, unless the caller asks otherwise.

use std::collections::BTreeSet;

use crate::elf::{CODE, Code, Dump, Elf};
use crate::support::{Case, Execution, Outcome, ensure, number, same, value};

pub const CASES: &[Case] = &[
    ("every base differs from run to run", every_base_differs),
    ("without chance every base is the same", without_chance),
    ("the bases have the entropy of Linux", entropy),
];

const NAMES: [&str; 4] = ["program", "stack", "mapping", "brk"];

fn every_base_differs() -> Outcome {
    let (one, other) = (Execution::role("places").text()?, Execution::role("places").text()?);
    for name in NAMES {
        ensure!(value(&one, name)? != value(&other, name)?);
    }
    ensure!(value(&one, "vdso")? == "0x0" || value(&one, "vdso")? != value(&other, "vdso")?);
    // Bases of a program, and of its interpreter.
    Elf::interpreter(Code::Dump).write("interpreter");
    let program = || Elf::relocatable(Code::Exit).interpreted_by(b"/tmp/exec-test/interpreter").execution();
    let (one, other) = (Dump::of(program())?, Dump::of(program())?);
    ensure!(one.code != other.code && one.auxiliary(9) != other.auxiliary(9));
    Ok(())
}

fn without_chance() -> Outcome {
    let places = || {
        Execution::role("places").before(|| {
            // SAFETY: no memory is involved.
            unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) };
        })
    };
    let (one, other) = (places().text()?, places().text()?);
    same!(&one, &other);
    // It is inherited, and seen.
    let state = Execution::role("state").before(|| {
        // SAFETY: as above.
        unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) };
    });
    same!(number(&state.text()?, "persona")?, libc::ADDR_NO_RANDOMIZE as u64);
    Ok(())
}

fn entropy() -> Outcome {
    let (mut bits, mut first) = ([0_u64; 4], [0_u64; 4]);
    let mut offsets = BTreeSet::new();
    for round in 0..24 {
        let text = Execution::role("places").text()?;
        for (index, name) in NAMES.into_iter().enumerate() {
            let place = number(&text, name)?;
            if round == 0 {
                first[index] = place;
            }
            bits[index] |= place ^ first[index];
        }
        offsets.insert(Dump::of(Elf::relocatable(Code::Dump).execution())?.stack_pointer % 4096);
        same!(Dump::of(Elf::relocatable(Code::Dump).execution())?.code % 4096, CODE);
    }
    // How many bits have changed at all. Linux: 28 bits of pages, 22 and some below for the stack, 13 for brk behind the program.
    for ((name, bits), least) in NAMES.into_iter().zip(bits).zip([26, 24, 26, 12]) {
        let count = (bits >> 4).count_ones();
        if count < least {
            return Err(format!("{name}: only {count} bits move"));
        }
    }
    ensure!(offsets.len() > 10);
    Ok(())
}
