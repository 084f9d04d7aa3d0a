//! Busybox's own test suite, from the source that Debian built busybox-static from, as a folder for a guest's root.
//!
//! The suite's driver (`runtest`) makes four hundred links for each applet; here the root has them, and the applets are run one
//! by one from outside, each with a time limit. The tests themselves are as they came.
//!
//! ```text
//! /suite/testsuite        *.tests: scripts that print PASS: and FAIL:; folders: scripts that fail or do not
//! /suite/ash_test         folders of scripts for the shell, beside what each must print
//! /suite/.config          what busybox-static was built with; the tests ask for features in it
//! ```

use crate::guest::Guest;
use crate::{packages, paths};
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the suite is in the guest.
pub const IN_GUEST: &str = "/suite";

/// So long may the tests of one applet take, and so long one test of the shell, in seconds.
const LIMIT_OF_AN_APPLET: u32 = 60;
const LIMIT_OF_A_SCRIPT: u32 = 20;

/// Parts that are left out: the first looks at the source tree, which is not in the guest; the others calculate for minutes on an
/// emulated processor, and ask nothing of the kernel that the rest does not.
const LEFT_OUT: [&str; 10] =
    ["all_sourcecode", "bc", "dc", "factor", "md5sum", "sha1sum", "sha256sum", "sha3sum", "sha512sum", "ash-z_slow"];

/// Some of the suite's tests, which are run together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The applet, or the folder of the shell's tests.
    pub name: String,
    script: String,
}

/// One test's outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The part and the test, and which of those with the same name it is.
    pub test: String,
    /// Whether it passed.
    pub has_passed: bool,
}

/// The suite.
#[derive(Clone, Debug)]
pub struct Suite {
    folder: PathBuf,
    /// Its parts.
    pub parts: Vec<Part>,
}

impl Suite {
    /// Downloads the suite, unless that was done before.
    ///
    /// # Errors
    /// It cannot be downloaded, or is not as it was.
    pub fn get() -> Result<Self> {
        let folder = paths::made("packages")?.join("busybox-suite");
        if !folder.exists() {
            let draft = paths::draft_of(&folder);
            let _ = fs::remove_dir_all(&draft);
            assemble(&packages::source("busybox")?, &draft)?;
            if fs::rename(&draft, &folder).is_err() && !folder.exists() {
                anyhow::bail!("{} cannot be made", folder.display());
            }
        }
        let parts = [applets(&folder.join("testsuite"))?, shell_tests(&folder.join("ash_test"))?].concat();
        Ok(Self { folder, parts })
    }

    /// What `--add` takes to put it into a root.
    #[must_use]
    pub fn addition(&self) -> OsString {
        let mut addition = self.folder.clone().into_os_string();
        addition.push("=");
        addition.push(IN_GUEST);
        addition
    }
}

impl Part {
    /// Runs it, and answers what came of each test.
    ///
    /// # Errors
    /// The machine is lost.
    pub fn run(&self, guest: &mut Guest) -> Result<Vec<Outcome>> {
        let output = guest.shell(&self.script)?;
        let mut outcomes: Vec<Outcome> = Vec::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let (name, has_passed) = match line.split_once(": ") {
                Some(("PASS", name)) => (name, true),
                Some(("FAIL", name)) => (name, false),
                _ => continue,
            };
            let test = format!("{}: {name}", self.name);
            let namesakes = outcomes.iter().filter(|other| other.test.split('#').next() == Some(&test)).count();
            let test = if namesakes == 0 { test } else { format!("{test}#{}", namesakes + 1) };
            outcomes.push(Outcome { test, has_passed });
        }
        Ok(outcomes)
    }
}

fn assemble(source: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    let copy = |from: &str, to: &str| {
        packages::run_quietly(Command::new("cp").arg("-r").arg(source.join(from)).arg(into.join(to)))
    };
    copy("testsuite", "testsuite")?;
    copy("shell/ash_test", "ash_test")?;
    copy("debian/config/pkg/static", ".config")?;
    std::os::unix::fs::symlink("/bin/busybox", into.join("busybox"))?;
    let config = fs::read_to_string(into.join(".config"))?;
    let features = config.lines().filter_map(|line| Some(line.strip_prefix("CONFIG_")?.split_once('=')?.0));
    let features: String = features.map(|feature| format!("{feature}:")).collect();
    // The only two that the shell's tests ask for in the environment.
    let asked = ["CONFIG_FEATURE_FANCY_ECHO=", "CONFIG_FEATURE_PREFER_APPLETS="];
    let asked: Vec<&str> = config.lines().filter(|line| asked.iter().any(|name| line.starts_with(name))).collect();
    let environment = format!(
        "cd {IN_GUEST}/testsuite\nexport bindir={IN_GUEST} tsdir={IN_GUEST}/testsuite SKIP_INTERNET_TESTS=1 \
         OPTIONFLAGS=:{features} PATH={IN_GUEST}/testsuite:{IN_GUEST}:$PATH THIS_SH=/bin/ash {}\n",
        asked.join(" ")
    );
    fs::write(into.join("environment"), environment)?;
    Ok(())
}

fn names_in(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut names =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// The scripts for single applets, of both kinds.
fn applets(folder: &Path) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for name in names_in(folder)? {
        if let Some(applet) = name.strip_suffix(".tests").filter(|applet| !LEFT_OUT.contains(applet)) {
            let script = format!(". {IN_GUEST}/environment\ntimeout -k 1 {LIMIT_OF_AN_APPLET} ./{name} 2>/dev/null");
            parts.push(Part { name: applet.to_owned(), script });
        } else if folder.join(&name).is_dir() && !name.contains('.') {
            parts.push(Part { name: format!("{name}/"), script: script_for_a_folder(&name) });
        }
    }
    Ok(parts)
}

/// A test of the older kind is a script that fails or does not, in an empty folder.
fn script_for_a_folder(applet: &str) -> String {
    let option = applet.to_uppercase();
    format!(
        r#". {IN_GUEST}/environment
        grep -q '^# CONFIG_{option} is not set' $bindir/.config && exit
        for case in $tsdir/{applet}/*; do
            for feature in $(sed -n 's/^# FEATURE: //p' $case); do
                grep -q "^# $feature is not set" $bindir/.config && continue 2
            done
            mkdir $tsdir/.work && cd $tsdir/.work
            if d=$tsdir timeout -k 1 {LIMIT_OF_AN_APPLET} sh -x -e $case >output 2>&1; then echo PASS: ${{case##*/}}; else echo FAIL: ${{case##*/}}; fi
            cd .. && rm -rf .work
        done"#
    )
}

/// The shell's tests compare what a script prints with a file beside it. A few want programs in C, or bash: they fail on Linux too.
fn shell_tests(folder: &Path) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for name in
        names_in(folder)?.into_iter().filter(|name| folder.join(name).is_dir() && !LEFT_OUT.contains(&name.as_str()))
    {
        let script = format!(
            r#". {IN_GUEST}/environment
            cd {IN_GUEST}/ash_test/{name} || exit
            for case in *.tests; do
                [ -f ${{case%.tests}}.right ] || continue
                {{ timeout -k 1 {LIMIT_OF_A_SCRIPT} ash ./$case; }} >/tmp/output 2>&1 </dev/null
                if cmp -s /tmp/output ${{case%.tests}}.right; then echo PASS: $case; else echo FAIL: $case; fi
            done"#
        );
        parts.push(Part { name, script });
    }
    Ok(parts)
}
