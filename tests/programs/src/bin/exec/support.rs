//! What the cases share: executing something in a child, and hearing from it what became of it.

use std::ffi::{CString, OsStr};
use std::io::Read;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

pub use test_programs::{Case, Outcome, ensure, errno};

/// Where the cases keep their files.
pub const FOLDER: &str = "/tmp/exec-test";
/// This program, by another name: it prints its arguments and its environment.
pub const SHOW: &str = "/tmp/exec-test/show";
/// A copy of this program.
pub const SELF: &str = "/tmp/exec-test/self";

/// Fails with both values if they are not the same.
macro_rules! same {
    ($found:expr, $wanted:expr) => {
        // A match, so that what the values borrow from lives long enough.
        match ($found, $wanted) {
            (found, wanted) => {
                if found != wanted {
                    return Err(format!(
                        "{}:{}: {} is {found:?}, not {wanted:?}",
                        test_programs::name_of(file!()),
                        line!(),
                        stringify!($found)
                    ));
                }
            }
        }
    };
}
pub(crate) use same;

/// Whether this is Rouse: then there are cases that Linux has no answer for.
pub fn is_rouse() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").is_ok_and(|release| release.contains("rouse"))
}

/// Makes the folder with what most cases need.
pub fn prepare() {
    let _ = std::fs::remove_dir_all(FOLDER);
    std::fs::create_dir_all(FOLDER).expect("a folder");
    // A file system of their own, whose set-user-ID bits count.
    let folder = c_string(FOLDER);
    // SAFETY: strings that end with NUL.
    let mounted = unsafe { libc::mount(c"none".as_ptr(), folder.as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null()) };
    assert_eq!(mounted, 0, "a mount");
    let own = std::fs::read("/proc/self/exe").expect("this program");
    write("self", &own, 0o755);
    std::os::unix::fs::symlink(SELF, SHOW).expect("a link");
    std::env::set_current_dir(FOLDER).expect("it is there");
}

/// Writes a file into the folder.
pub fn write(name: impl AsRef<OsStr>, content: &[u8], mode: u32) -> PathBuf {
    let path = PathBuf::from(FOLDER).join(name.as_ref());
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, content).expect("a file");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("its mode");
    path
}

/// How an execution ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// execve(2) said so.
    Refused(i32),
    /// The program ran, and exited.
    Exited(i32),
    /// A signal ended it.
    Killed(i32),
}

impl End {
    /// In words that do not depend on the kernel.
    pub fn words(self) -> String {
        match self {
            End::Refused(errno) => errno_name(errno),
            End::Exited(status) => format!("exit {status}"),
            End::Killed(signal) => format!("signal {signal}"),
        }
    }
}

/// What is to be executed.
pub struct Execution {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    /// The call, if it is not execve(2).
    call: Option<Box<dyn Fn(*const *const libc::c_char, *const *const libc::c_char)>>,
    /// Done in the child before.
    before: Vec<Box<dyn Fn()>>,
}

pub fn c_string(bytes: impl AsRef<[u8]>) -> CString {
    CString::new(bytes.as_ref()).expect("no NUL inside")
}

/// Pointers to strings, ended by a null pointer.
pub fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

impl Execution {
    pub fn of(path: impl AsRef<OsStr>) -> Execution {
        let path = c_string(path.as_ref().as_bytes());
        Execution { arguments: vec![path.clone()], path, environment: vec![], call: None, before: vec![] }
    }

    /// This program in one of its roles.
    pub fn role(name: &str) -> Execution {
        Execution::of(SELF).arguments([SELF, "role", name])
    }

    pub fn arguments<A: AsRef<[u8]>>(mut self, arguments: impl IntoIterator<Item = A>) -> Execution {
        self.arguments = arguments.into_iter().map(c_string).collect();
        self
    }

    pub fn argument(mut self, argument: impl AsRef<[u8]>) -> Execution {
        self.arguments.push(c_string(argument));
        self
    }

    pub fn environment<A: AsRef<[u8]>>(mut self, environment: impl IntoIterator<Item = A>) -> Execution {
        self.environment = environment.into_iter().map(c_string).collect();
        self
    }

    pub fn before(mut self, work: impl Fn() + 'static) -> Execution {
        self.before.push(Box::new(work));
        self
    }

    pub fn by(mut self, call: impl Fn(*const *const libc::c_char, *const *const libc::c_char) + 'static) -> Execution {
        self.call = Some(Box::new(call));
        self
    }

    /// Does the call, here and now; returns only if it failed, with the errno.
    pub fn here(&self) -> i32 {
        let (arguments, environment) = (pointers(&self.arguments), pointers(&self.environment));
        match &self.call {
            Some(call) => call(arguments.as_ptr(), environment.as_ptr()),
            // SAFETY: strings ended by NUL, lists ended by null pointers.
            None => unsafe {
                libc::execve(self.path.as_ptr(), arguments.as_ptr(), environment.as_ptr());
            },
        }
        errno()
    }

    /// Executes it in a child; how that ended, and what was written to standard output.
    pub fn run(&self) -> (End, Vec<u8>) {
        let (mut from_child, to_here) = pipe();
        let (mut news, tell) = pipe();
        // SAFETY: the child only makes system calls, or this program's own work, and this program has one thread here.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: the child's own descriptors. The end of the second pipe closes with a successful exec.
            unsafe {
                libc::dup2(to_here, 1);
                libc::fcntl(tell, libc::F_SETFD, libc::FD_CLOEXEC);
                libc::close(to_here);
            }
            drop((from_child, news));
            self.before.iter().for_each(|work| work());
            let errno = self.here().to_ne_bytes();
            // SAFETY: four bytes; the child ends without unwinding.
            unsafe {
                libc::write(tell, errno.as_ptr().cast(), 4);
                libc::_exit(0);
            }
        }
        // SAFETY: the child's ends of the pipes, which nobody uses here.
        unsafe { (libc::close(to_here), libc::close(tell)) };
        let (mut output, mut said) = (vec![], vec![]);
        let _ = from_child.read_to_end(&mut output);
        let _ = news.read_to_end(&mut said);
        let end = wait(child);
        match <[u8; 4]>::try_from(said) {
            Ok(errno) => (End::Refused(i32::from_ne_bytes(errno)), output),
            Err(_) => (end, output),
        }
    }

    /// Executes it in a child, which must exit with 0; what it wrote.
    pub fn output(&self) -> Result<Vec<u8>, String> {
        match self.run() {
            (End::Exited(0), output) => Ok(output),
            (end, output) => Err(format!("{:?}: {} ({})", self.path, end.words(), text(&output))),
        }
    }

    /// The same, as text.
    pub fn text(&self) -> Result<String, String> {
        self.output().map(|output| text(&output))
    }

    /// Executes it in a child, which is refused or ends; how.
    pub fn end(&self) -> End {
        self.run().0
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits for a child.
pub fn wait(child: i32) -> End {
    let mut status = 0;
    // SAFETY: room for a status.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 && errno() == libc::EINTR {}
    if libc::WIFSIGNALED(status) { End::Killed(libc::WTERMSIG(status)) } else { End::Exited(libc::WEXITSTATUS(status)) }
}

/// Runs `work` in a child; what it says, or why not.
pub fn case_in_child(work: impl FnOnce() -> Outcome) -> Outcome {
    let (mut from_child, to_here) = pipe();
    let end = {
        // SAFETY: this program has one thread where this is called; the child ends without unwinding.
        match unsafe { libc::fork() } {
            0 => {
                let outcome = work();
                let why = outcome.as_ref().err().cloned().unwrap_or_default();
                // SAFETY: the bytes live on; the child ends without unwinding.
                unsafe {
                    libc::write(to_here, why.as_ptr().cast(), why.len());
                    libc::_exit(i32::from(outcome.is_err()));
                }
            }
            child => {
                // SAFETY: nobody uses it here.
                unsafe { libc::close(to_here) };
                let mut why = String::new();
                let _ = from_child.read_to_string(&mut why);
                (wait(child), why)
            }
        }
    };
    match end {
        (End::Exited(0), _) => Ok(()),
        (End::Exited(_), why) => Err(why),
        (end, _) => Err(format!("the child ended: {}", end.words())),
    }
}

/// A pipe: to read from, and the descriptor to write to.
pub fn pipe() -> (std::fs::File, RawFd) {
    let mut ends = [0; 2];
    // SAFETY: room for two; both are fresh.
    unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0, "a pipe");
        (std::fs::File::from_raw_fd(ends[0]), ends[1])
    }
}

/// The value of a line `NAME: value`, or of a word `NAME=value`, in what a role printed.
pub fn value<'a>(text: &'a str, name: &str) -> Result<&'a str, String> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(['=', ':']))
        .map(str::trim)
        .ok_or_else(|| format!("no {name} in {text:?}"))
}

/// The same, as a number.
pub fn number(text: &str, name: &str) -> Result<u64, String> {
    let value = value(text, name)?;
    let parsed = match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => value.parse(),
    };
    parsed.map_err(|_| format!("{name} is {value}"))
}

pub fn errno_name(errno: i32) -> String {
    let name = match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::EIO => "EIO",
        libc::E2BIG => "E2BIG",
        libc::ENOEXEC => "ENOEXEC",
        libc::EBADF => "EBADF",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::ENOTDIR => "ENOTDIR",
        libc::EISDIR => "EISDIR",
        libc::EINVAL => "EINVAL",
        libc::ETXTBSY => "ETXTBSY",
        libc::ELOOP => "ELOOP",
        libc::ENAMETOOLONG => "ENAMETOOLONG",
        libc::ELIBBAD => "ELIBBAD",
        libc::ENOSYS => "ENOSYS",
        other => return format!("errno {other}"),
    };
    name.to_owned()
}
