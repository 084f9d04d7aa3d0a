//! What a program may rely on of execve(2): each case executes something and looks, from inside, at what came of it.
//!
//! Without arguments the program runs all cases and prints a line for each, the same on Linux; a case that fails is printed with
//! its reason, and their number is the exit status. `exec only WORDS` runs those that have the words in their names. Cases, or parts of
//! them, that Linux has no answer for are left out there (`is_rouse`).
//!
//! With `role` as its argument (or called `show`) it is the program that the cases execute: it prints what it finds. `exec allocations`
//! and `exec disk FOLDER` are for Rouse alone (`faults.rs`), and `exec make FOLDER THERE` makes the files that they want.
//!
//! Next: `support.rs`, then any of the others: each is a list of cases.
#![allow(unsafe_code, reason = "a program that tries raw system calls has no safe form")]

mod elf;
mod failures;
mod faults;
mod files;
mod formats;
mod identity;
mod inherited;
mod places;
mod roles;
mod scripts;
mod start;
mod support;
mod threads;

use support::{Case, is_rouse};

fn main() {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let Some(role) = roles::wanted(&arguments) {
        role();
        return;
    }
    match arguments.get(1).and_then(|word| word.to_str()) {
        Some("make") => return files::make(arguments[2].as_ref(), &arguments[3].to_string_lossy()),
        Some("allocations") => return finish(faults::allocations()),
        Some("disk") => return finish(faults::disk(&arguments[2].to_string_lossy())),
        _ => support::prepare(),
    }
    let wanted = arguments.get(2).map(|name| name.to_string_lossy().into_owned());
    let lists: [&[Case]; 8] = [
        scripts::CASES,
        formats::CASES,
        start::CASES,
        failures::CASES,
        threads::CASES,
        inherited::CASES,
        identity::CASES,
        places::CASES,
    ];
    let (mut failed, mut count) = (0, 0);
    for (name, case) in lists.into_iter().flatten() {
        if wanted.as_ref().is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        count += 1;
        match case() {
            Ok(()) => println!("{name}: holds"),
            Err(why) => {
                println!("{name}: FAILED: {why}");
                failed += 1;
            }
        }
    }
    eprintln!("{count} cases, {failed} failed, on {}", if is_rouse() { "Rouse" } else { "Linux" });
    std::process::exit(failed);
}

fn finish(outcome: support::Outcome) {
    if let Err(why) = outcome {
        println!("FAILED: {why}");
        std::process::exit(1);
    }
}
