//! Finding a program by a bare name, for the kernel's own spawns: execve(2) itself never searches, that is the C library's work.
//!
//! The rules are execvp(3)'s, as a shell follows them too.

use alloc::boxed::Box;
use alloc::vec::Vec;

use abi::{Errno, Result};
use fs::{At, Caller, Path, WalkFlags};

use super::executable::is_executable;

/// Where bare names are searched if the environment has no PATH.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin:/usr/local/bin";

/// Finds a program, and the name it is called by: a name with a slash is a path; a bare one is searched in PATH. An empty element of PATH
/// is the working directory; a folder, or a file that may not be executed, does not match, but makes the answer `EACCES` if
/// nothing else does.
///
/// # Errors
///
/// `ENOENT`, `EACCES`; others as of a walk.
pub async fn find(caller: &Caller<'_>, program: &[u8], environment: &[Vec<u8>]) -> Result<(Path, Vec<u8>)> {
    if program.contains(&b'/') {
        let path = Box::pin(caller.walk(At::working_directory(program), WalkFlags::FOLLOW)).await?;
        return Ok((path, program.to_vec()));
    }
    if program.is_empty() {
        return Err(Errno::ENOENT);
    }
    let list = environment.iter().find_map(|entry| entry.strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
    let mut answer = Errno::ENOENT;
    for folder in list.split(|byte| *byte == b':') {
        let name = if folder.is_empty() { program.to_vec() } else { [folder, b"/", program].concat() };
        match Box::pin(caller.walk(At::working_directory(&name), WalkFlags::FOLLOW)).await {
            Ok(path) if is_executable(caller, &path) => return Ok((path, name)),
            Ok(_) | Err(Errno::EACCES) => answer = Errno::EACCES,
            Err(_) => {}
        }
    }
    Err(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    use fs::{Credentials, FsContext, MountNamespace, OpenFlags};
    use futures_util::FutureExt;

    /// A tree in memory with these programs, each with its mode.
    fn tree(programs: &[(&str, u32)]) -> FsContext {
        crate::mm::init_on_host();
        let root = tmpfs::Tmpfs::new(&crate::mm::FRAMES, tmpfs::Limits::NONE, 0o755);
        let context = FsContext::new(MountNamespace::new(root, b"rootfs"));
        for (program, mode) in programs {
            let caller = Caller { context: &context, credentials: &Credentials::root() };
            for (end, _) in program.match_indices('/').skip(1) {
                let _ = caller.mkdir(At::working_directory(&program.as_bytes()[..end]), 0o755).now_or_never();
            }
            let at = At::working_directory(program.as_bytes());
            let flags = OpenFlags::CREAT | OpenFlags::WRONLY;
            let made = caller.open(at, flags, *mode, WalkFlags::FOLLOW).now_or_never().expect("in memory");
            made.map(drop).expect("it can be made");
        }
        context
    }

    fn found_by(credentials: &Credentials, context: &FsContext, program: &str, environment: &[&str]) -> Result<String> {
        let caller = Caller { context, credentials };
        let environment: Vec<Vec<u8>> = environment.iter().map(|entry| entry.as_bytes().to_vec()).collect();
        let found = find(&caller, program.as_bytes(), &environment).now_or_never().expect("in memory");
        found.map(|(_, name)| String::from_utf8(name).expect("the test's names are text"))
    }

    fn found(context: &FsContext, program: &str, environment: &[&str]) -> Result<String> {
        found_by(&Credentials::root(), context, program, environment)
    }

    #[test]
    fn a_bare_name_is_searched_in_the_path_of_the_environment() {
        let tree = tree(&[("/a/x", 0o755), ("/b/x", 0o755), ("/b/y", 0o755)]);
        assert_eq!(found(&tree, "x", &["A=1", "PATH=/none:/a:/b"]).as_deref(), Ok("/a/x"));
        assert_eq!(found(&tree, "y", &["PATH=/none:/a:/b"]).as_deref(), Ok("/b/y"));
        assert_eq!(found(&tree, "z", &["PATH=/none:/a:/b"]), Err(Errno::ENOENT));
        assert_eq!(found(&tree, "", &["PATH=/a"]), Err(Errno::ENOENT));
    }

    #[test]
    fn without_a_path_the_usual_places_are_searched_in_their_order() {
        let tree =
            tree(&[("/usr/local/bin/x", 0o755), ("/usr/bin/x", 0o755), ("/usr/local/bin/y", 0o755), ("/bin/z", 0o755)]);
        assert_eq!(found(&tree, "x", &[]).as_deref(), Ok("/usr/bin/x"));
        assert_eq!(found(&tree, "y", &["PATHS=/bin"]).as_deref(), Ok("/usr/local/bin/y"));
        assert_eq!(found(&tree, "z", &[]).as_deref(), Ok("/bin/z"));
    }

    #[test]
    fn an_empty_element_is_the_working_directory() {
        let tree = tree(&[("/x", 0o755), ("/a/y", 0o755)]);
        assert_eq!(found(&tree, "x", &["PATH=/a:"]).as_deref(), Ok("x"));
        assert_eq!(found(&tree, "x", &["PATH=:/a"]).as_deref(), Ok("x"));
        assert_eq!(found(&tree, "x", &["PATH="]).as_deref(), Ok("x"));
        assert_eq!(found(&tree, "x", &["PATH=/a"]), Err(Errno::ENOENT));
    }

    #[test]
    fn what_cannot_be_executed_is_passed_over_and_remembered() {
        let tree = tree(&[("/a/x", 0o644), ("/b/x/file", 0o755), ("/c/x", 0o755), ("/d", 0o755)]);
        assert_eq!(found(&tree, "x", &["PATH=/a:/b:/d:/c"]).as_deref(), Ok("/c/x"));
        assert_eq!(found(&tree, "x", &["PATH=/a:/none"]), Err(Errno::EACCES));
        assert_eq!(found(&tree, "x", &["PATH=/b:/none"]), Err(Errno::EACCES), "a folder");
        assert_eq!(found(&tree, "x", &["PATH=/d:/none"]), Err(Errno::ENOENT), "a file is no folder");
    }

    #[test]
    fn a_folder_that_may_not_be_searched_is_passed_over_and_remembered() {
        let tree = tree(&[("/a/x", 0o755), ("/b/x", 0o755)]);
        let root = Caller { context: &tree, credentials: &Credentials::root() };
        let folder = root.walk(At::working_directory(b"/a"), WalkFlags::FOLLOW).now_or_never().expect("in memory");
        let closed = root.chmod(&folder.expect("it is there"), 0o700).now_or_never();
        closed.expect("in memory").expect("root may");
        let none = fs::permission::Capabilities::empty();
        let somebody = Credentials { fsuid: 7, fsgid: 7, effective: none, ..Credentials::root() };
        assert_eq!(found_by(&somebody, &tree, "x", &["PATH=/a:/b"]).as_deref(), Ok("/b/x"));
        assert_eq!(found_by(&somebody, &tree, "x", &["PATH=/a"]), Err(Errno::EACCES));
    }

    #[test]
    fn a_name_with_a_slash_is_a_path() {
        let tree = tree(&[("/a/x", 0o755)]);
        assert_eq!(found(&tree, "a/x", &["PATH=/b"]).as_deref(), Ok("a/x"));
        assert_eq!(found(&tree, "./x", &["PATH=/a"]), Err(Errno::ENOENT));
    }
}
