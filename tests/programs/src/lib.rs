//! What the programs that test the kernel share: a program is a list of cases, each a name and a function, of which it runs all and
//! says which have failed. Its exit status is their number.
//!
//! next: `bin/memory.rs`, a plain one; `bin/exec/main.rs`, the largest.

pub mod children;

use std::time::Instant;

/// What becomes of a case: where it failed, and how.
pub type Outcome = Result<(), String>;

/// What must hold, and the function that tries it.
pub type Case<F = fn() -> Outcome> = (&'static str, F);

/// Ends the function with what has failed, and where, unless the condition holds. More arguments, as for `format!`, say what was found.
#[macro_export]
macro_rules! ensure {
    ($condition:expr $(,)?) => {
        if !$condition {
            return Err(format!("{}:{}: {}", $crate::name_of(file!()), line!(), stringify!($condition)));
        }
    };
    ($condition:expr, $($found:tt)+) => {
        if !$condition {
            let found = format!($($found)+);
            return Err(format!("{}:{}: {}: {found}", $crate::name_of(file!()), line!(), stringify!($condition)));
        }
    };
}

/// The last part of a path.
pub fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Why the last call of the C library failed.
pub fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Runs one case with `call`, and says what became of it: how many have failed.
pub fn run_one<C>(name: &str, case: C, call: impl FnOnce(C) -> Outcome) -> i32 {
    let began = Instant::now();
    match call(case) {
        Ok(()) => {
            println!("{name}: ok, {} ms", began.elapsed().as_millis());
            0
        }
        Err(why) => {
            println!("{name}: FAILED: {why}");
            1
        }
    }
}

/// Runs all cases: how many have failed.
pub fn run(cases: &[Case]) -> i32 {
    cases.iter().map(|(name, case)| run_one(name, case, |case| case())).sum()
}
