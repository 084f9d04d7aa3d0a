//! The system as a whole: its name, its log, randomness, and how to turn it off.

use abi::{Errno, Result, general};
use executor::sync::SpinLock;
use fs::permission::Capabilities;

use crate::arch;
use crate::mm::user::UserPtr;
use crate::process::RunningThread;

/// Bytes of each field of `struct utsname`.
const FIELD: usize = 65;
/// The longest host name.
pub const HOST_NAME_MAX: usize = 64;

struct Name {
    bytes: [u8; FIELD],
}

impl Name {
    const fn new(text: &[u8]) -> Name {
        let mut bytes = [0; FIELD];
        let mut index = 0;
        while index < text.len() {
            bytes[index] = text[index];
            index += 1;
        }
        Name { bytes }
    }
}

static HOST_NAME: SpinLock<Name> = SpinLock::new(Name::new(b"rouse"));
static DOMAIN_NAME: SpinLock<Name> = SpinLock::new(Name::new(b"(none)"));

/// What uname(2) calls this kernel's version: programs compare the numbers with Linux's.
pub const RELEASE: &str = "6.1.0-rouse";

/// What uname(2) says of the build.
pub const VERSION: &str = concat!("#1 SMP Rouse ", env!("CARGO_PKG_VERSION"));

/// The host's name, for /proc/sys/kernel/hostname.
pub fn host_name() -> alloc::vec::Vec<u8> {
    text_of(&HOST_NAME)
}

/// The domain's name, for /proc/sys/kernel/domainname.
pub fn domain_name() -> alloc::vec::Vec<u8> {
    text_of(&DOMAIN_NAME)
}

fn text_of(name: &SpinLock<Name>) -> alloc::vec::Vec<u8> {
    name.lock().bytes.iter().copied().take_while(|byte| *byte != 0).collect()
}

/// Names the host, for /proc/sys/kernel/hostname.
///
/// # Errors
///
/// `EINVAL`: too long.
pub fn set_host_name(name: &[u8]) -> Result<()> {
    replace_name(&HOST_NAME, name)
}

/// Names the domain, for /proc/sys/kernel/domainname.
///
/// # Errors
///
/// `EINVAL`: too long.
pub fn set_domain_name(name: &[u8]) -> Result<()> {
    replace_name(&DOMAIN_NAME, name)
}

fn replace_name(place: &SpinLock<Name>, name: &[u8]) -> Result<()> {
    if name.len() > HOST_NAME_MAX {
        return Err(Errno::EINVAL);
    }
    *place.lock() = Name::new(name);
    Ok(())
}

/// What uname(2) tells.
fn names() -> [[u8; FIELD]; 6] {
    [
        Name::new(b"Linux").bytes,
        HOST_NAME.lock().bytes,
        Name::new(RELEASE.as_bytes()).bytes,
        Name::new(VERSION.as_bytes()).bytes,
        Name::new(b"x86_64").bytes,
        DOMAIN_NAME.lock().bytes,
    ]
}

/// uname(2), if there is memory where the names go.
pub fn uname_now(thread: &mut RunningThread, result: UserPtr<[u8; 6 * FIELD]>) -> Option<Result<usize>> {
    thread.try_put(UserPtr::new(result.address()), &names()).then_some(Ok(0))
}

/// uname(2). `EFAULT`.
pub async fn uname(thread: &mut RunningThread, result: UserPtr<[u8; 6 * FIELD]>) -> Result<usize> {
    for (index, field) in names().iter().enumerate() {
        let address = result.address().checked_add(index * FIELD).ok_or(Errno::EFAULT)?;
        thread.put(UserPtr::new(address), field).await?;
    }
    Ok(0)
}

async fn set_name(thread: &mut RunningThread, place: &SpinLock<Name>, text: usize, len: usize) -> Result<usize> {
    if !thread.credentials.can(Capabilities::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    if len > HOST_NAME_MAX {
        return Err(Errno::EINVAL);
    }
    let mut name = Name::new(b"");
    thread.space.read_user_bytes(text, &mut name.bytes[..len]).await?;
    *place.lock() = name;
    Ok(0)
}

/// sethostname(2). `EPERM`, `EINVAL`: too long. `EFAULT`.
pub async fn sethostname(thread: &mut RunningThread, text: usize, len: usize) -> Result<usize> {
    set_name(thread, &HOST_NAME, text, len).await
}

/// setdomainname(2). As sethostname(2).
pub async fn setdomainname(thread: &mut RunningThread, text: usize, len: usize) -> Result<usize> {
    set_name(thread, &DOMAIN_NAME, text, len).await
}

/// getrandom(2). `EINVAL`: unknown flags. `EFAULT`.
pub async fn getrandom(thread: &mut RunningThread, buffer: usize, len: usize, flags: u32) -> Result<usize> {
    let known = general::GRND_NONBLOCK | general::GRND_RANDOM | general::GRND_INSECURE;
    if flags & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let len = len.min(i32::MAX as usize);
    let mut done = 0;
    while done < len {
        let mut bytes = [0; 256];
        let part = (len - done).min(bytes.len());
        crate::random::fill(&mut bytes[..part]);
        match thread.space.write_user_bytes(buffer.wrapping_add(done), &bytes[..part]).await {
            Ok(()) => done += part,
            Err(errno) => return if done > 0 { Ok(done) } else { Err(errno) },
        }
        if done < len {
            executor::yield_now().await;
            if thread.is_interrupted(crate::process::wait_event::Interruptible::BySignals) {
                break;
            }
        }
    }
    Ok(done)
}

/// The two numbers that reboot(2) wants to see.
const MAGIC: u32 = 0xfee1_dead;
const MAGIC_2: [u32; 4] = [672_274_793, 85_072_278, 369_367_448, 537_993_216];

/// reboot(2). `EPERM`: without CAP_SYS_BOOT. `EINVAL`: wrong magic numbers, or a command that there is not.
pub fn reboot(thread: &mut RunningThread, magic: u32, magic_2: u32, command: u32, _argument: usize) -> Result<usize> {
    if !thread.credentials.can(Capabilities::SYS_BOOT) {
        return Err(Errno::EPERM);
    }
    if magic != MAGIC || !MAGIC_2.contains(&magic_2) {
        return Err(Errno::EINVAL);
    }
    match command {
        general::LINUX_REBOOT_CMD_POWER_OFF => arch::power::off(),
        general::LINUX_REBOOT_CMD_RESTART | general::LINUX_REBOOT_CMD_RESTART2 => arch::power::reboot(),
        general::LINUX_REBOOT_CMD_HALT => arch::power::halt(),
        // Ctrl-Alt-Delete is only ever told to the terminal.
        general::LINUX_REBOOT_CMD_CAD_ON | general::LINUX_REBOOT_CMD_CAD_OFF => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// syslog(2). `EPERM`, `EINVAL`, `EFAULT`; `EINTR`.
pub async fn syslog(thread: &mut RunningThread, action: i32, buffer: usize, len: i32) -> Result<usize> {
    use crate::log::syslog::{needs_privilege, syslog};
    use crate::mm::{UserBuffer, UserSlice};
    use fs::Stop;
    if needs_privilege(action) && !thread.credentials.can(Capabilities::SYSLOG) {
        return Err(Errno::EPERM);
    }
    let size = usize::try_from(len).unwrap_or(0);
    let mut sink = UserBuffer::new(&thread.space, UserSlice::new(buffer, size))?;
    loop {
        let outcome = {
            let attempt = || match syslog(action, len, (buffer != 0).then_some(&mut sink as &mut dyn fs::Sink)) {
                Err(Stop::WouldBlock) => None,
                outcome => Some(outcome),
            };
            let interruptible = crate::process::wait_event::Interruptible::BySignals;
            thread.wait_event(crate::log::wait_queue(), interruptible, None, attempt).await?
        };
        match outcome {
            Ok(done) => return Ok(done),
            Err(Stop::Errno(errno)) => return Err(errno),
            Err(Stop::Fault) => sink.resolve().await?,
            Err(_) => return Err(Errno::EIO),
        }
    }
}
