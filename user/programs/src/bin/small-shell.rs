//! A shell for a root without one: starts programs, and can look around. No pipes, no variables, no job control.
//!
//! It is what a host without Debian's packages boots to; with busybox or Debian in the root, nobody needs it.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::process::Command;

const HELP: &str = "cd FOLDER   ls [FOLDER]   cat FILE   echo WORD…   help   exit   poweroff   or the name of a program\n\
     Programs of your own come in with: cargo run -- --add PROGRAM";

fn main() {
    println!("Rouse's small shell; type help");
    loop {
        let place = env::current_dir().map_or_else(|_| "?".into(), |folder| folder.display().to_string());
        print!("{place}> ");
        // A console that cannot be written to will not be read from either.
        let _ = io::stdout().flush();
        let mut line = String::new();
        match io::stdin().read_line(&mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            ["exit" | "poweroff"] => return,
            [name, arguments @ ..] => {
                if let Err(error) = run(name, arguments) {
                    eprintln!("{name}: {error}");
                }
            }
        }
    }
}

fn run(name: &str, arguments: &[&str]) -> io::Result<()> {
    match (name, arguments) {
        ("help", _) => println!("{HELP}"),
        ("cd", [folder]) => env::set_current_dir(folder)?,
        ("cd", _) => env::set_current_dir("/")?,
        ("ls", []) => list(".")?,
        ("ls", folders) => folders.iter().try_for_each(|folder| list(folder))?,
        ("cat", files) => {
            for file in files {
                io::copy(&mut fs::File::open(file)?, &mut io::stdout())?;
            }
        }
        ("echo", words) => println!("{}", words.join(" ")),
        (program, arguments) => {
            let status = Command::new(program).args(arguments).status()?;
            if !status.success() {
                println!("{program}: {status}");
            }
        }
    }
    Ok(())
}

fn list(folder: &str) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let metadata = entry.metadata()?;
        let mark = if metadata.is_dir() { "/" } else { "" };
        println!("{:>10}  {}{mark}", metadata.len(), entry.file_name().display());
    }
    Ok(())
}
