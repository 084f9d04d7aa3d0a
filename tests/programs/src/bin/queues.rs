//! What programs rely on of POSIX message queues: names, priorities, limits, waiting, notifications, the file system.
//!
//! Each case is a function; the program runs them all, says which have failed, and exits with their number. It passes on Linux, as root.
#![allow(unsafe_code, reason = "std has no safe form of message queues")]

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, ptr, thread};

use test_programs::children::{becomes, child, drop_privileges, in_child, status_of};
use test_programs::{Case, Outcome, ensure, errno};

/// A queue that is closed, and whose name is removed, when the case ends.
struct Queue {
    fd: i32,
    name: CString,
}

type Received = Result<(u32, String), i32>;

fn name(text: &str) -> CString {
    CString::new(format!("/{text}-{}", std::process::id())).unwrap_or_default()
}

/// A descriptor, or the number of the error.
fn open(name: &CString, flags: i32, mode: u32, capacity: Option<(i64, i64)>) -> Result<i32, i32> {
    let attributes = capacity.map(|(messages, bytes)| {
        // SAFETY: all zeros is valid.
        let mut attributes: libc::mq_attr = unsafe { MaybeUninit::zeroed().assume_init() };
        attributes.mq_maxmsg = messages;
        attributes.mq_msgsize = bytes;
        attributes
    });
    let attributes = attributes.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the name and the attributes outlive the call.
    let fd = unsafe { libc::mq_open(name.as_ptr(), flags, mode, attributes) };
    if fd >= 0 { Ok(fd) } else { Err(errno()) }
}

const MAKE: i32 = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;

impl Queue {
    fn new(text: &str, messages: i64, bytes: i64) -> Result<Queue, String> {
        let name = name(text);
        let fd = open(&name, MAKE, 0o600, Some((messages, bytes))).map_err(|errno| format!("errno {errno}"))?;
        Ok(Queue { fd, name })
    }

    /// 0, or the number of the error.
    fn send(&self, text: &str, priority: u32) -> i32 {
        self.send_until(text, priority, None)
    }

    fn send_until(&self, text: &str, priority: u32, end: Option<libc::timespec>) -> i32 {
        let end = end.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: text and time outlive the call.
        let answer =
            unsafe { libc::syscall(libc::SYS_mq_timedsend, self.fd, text.as_ptr(), text.len(), priority, end) };
        if answer == 0 { 0 } else { errno() }
    }

    fn receive(&self) -> Received {
        self.receive_until(None)
    }

    fn receive_until(&self, end: Option<libc::timespec>) -> Received {
        let (mut buffer, mut priority) = ([0_u8; 8192], 0_u32);
        let end = end.as_ref().map_or(ptr::null(), ptr::from_ref);
        let (at, room, priority_at) = (buffer.as_mut_ptr(), buffer.len(), &raw mut priority);
        // SAFETY: buffer, priority and time outlive the call.
        let len = unsafe { libc::syscall(libc::SYS_mq_timedreceive, self.fd, at, room, priority_at, end) };
        let len = usize::try_from(len).map_err(|_| errno())?;
        Ok((priority, String::from_utf8_lossy(&buffer[..len]).into_owned()))
    }

    /// Flags, most messages, longest message, messages now.
    fn attributes(&self) -> [i64; 4] {
        // SAFETY: all zeros is valid, and the kernel fills it.
        let attributes = unsafe {
            let mut attributes: libc::mq_attr = MaybeUninit::zeroed().assume_init();
            libc::mq_getattr(self.fd, &raw mut attributes);
            attributes
        };
        [attributes.mq_flags, attributes.mq_maxmsg, attributes.mq_msgsize, attributes.mq_curmsgs]
    }

    fn set_flags(&self, flags: i64) -> i32 {
        // SAFETY: all zeros is valid; it outlives the call.
        unsafe {
            let mut attributes: libc::mq_attr = MaybeUninit::zeroed().assume_init();
            attributes.mq_flags = flags;
            if libc::mq_setattr(self.fd, &raw const attributes, ptr::null_mut()) == 0 { 0 } else { errno() }
        }
    }

    fn events(&self) -> i16 {
        let mut entry = libc::pollfd { fd: self.fd, events: libc::POLLIN | libc::POLLOUT, revents: 0 };
        // SAFETY: one entry, which outlives the call.
        unsafe { libc::poll(&raw mut entry, 1, 0) };
        entry.revents
    }

    fn notify(&self, kind: i32, signal: i32, value: usize) -> i32 {
        // SAFETY: all zeros is valid; it outlives the call.
        unsafe {
            let mut event: libc::sigevent = MaybeUninit::zeroed().assume_init();
            event.sigev_notify = kind;
            event.sigev_signo = signal;
            event.sigev_value.sival_ptr = ptr::without_provenance_mut(value);
            if libc::syscall(libc::SYS_mq_notify, self.fd, &raw const event) == 0 { 0 } else { errno() }
        }
    }

    fn notify_no_more(&self) -> i32 {
        // SAFETY: no event is an event.
        if unsafe { libc::mq_notify(self.fd, ptr::null()) } == 0 { 0 } else { errno() }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: its own descriptor and name.
        unsafe {
            libc::mq_close(self.fd);
            libc::mq_unlink(self.name.as_ptr());
        }
    }
}

fn unlink(name: &CString) -> i32 {
    // SAFETY: the name outlives the call.
    if unsafe { libc::mq_unlink(name.as_ptr()) } == 0 { 0 } else { errno() }
}

/// So many milliseconds from now.
fn in_ms(ms: u64) -> Option<libc::timespec> {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).ok()? + std::time::Duration::from_millis(ms);
    Some(libc::timespec { tv_sec: at.as_secs() as i64, tv_nsec: i64::from(at.subsec_nanos()) })
}

fn sleeps(tid: i32) -> bool {
    becomes(|| {
        let stat = fs::read_to_string(format!("/proc/{tid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
    })
}

fn a_name_finds_its_queue_until_it_is_removed() -> Outcome {
    let own = name("name");
    ensure!(open(&own, libc::O_RDWR, 0, None) == Err(libc::ENOENT) && unlink(&own) == libc::ENOENT);
    let queue = Queue::new("name", 3, 100)?;
    ensure!(open(&own, MAKE, 0o600, None) == Err(libc::EEXIST));
    let second = open(&own, libc::O_CREAT | libc::O_RDONLY, 0, Some((-1, -1))).map_err(|errno| format!("{errno}"))?;
    ensure!(queue.send("hello", 0) == 0);
    let reader = Queue { fd: second, name: name("none") };
    ensure!(reader.send("x", 0) == libc::EBADF && reader.receive() == Ok((0, "hello".into())));
    // SAFETY: plain numbers.
    ensure!(unsafe { libc::fcntl(second, libc::F_GETFD) } == libc::FD_CLOEXEC);
    ensure!(unlink(&own) == 0 && unlink(&own) == libc::ENOENT);
    // It lives on for those who have it open.
    ensure!(queue.send("still", 0) == 0 && reader.receive() == Ok((0, "still".into())));
    ensure!(open(&own, libc::O_RDWR, 0, None) == Err(libc::ENOENT));
    for (bad, wanted) in [("/", libc::ENOENT), ("/a/b", libc::EACCES), ("/..", libc::EACCES)] {
        ensure!(open(&CString::new(bad).unwrap_or_default(), MAKE, 0o600, None) == Err(wanted), "{bad}");
    }
    let long = CString::new(format!("/{}", "x".repeat(256))).unwrap_or_default();
    ensure!(open(&long, MAKE, 0o600, None) == Err(libc::ENAMETOOLONG));
    let file = Queue { fd: 0, name: name("none") };
    ensure!(file.send("x", 0) == libc::EBADF && Queue { fd: 999, name: name("none") }.receive() == Err(libc::EBADF));
    std::mem::forget(file);
    Ok(())
}

fn the_highest_priority_goes_first() -> Outcome {
    let queue = Queue::new("priority", 10, 8192)?;
    for (text, priority) in [("a", 1), ("b", 5), ("c", 1), ("d", 32_767), ("e", 5), ("f", 0)] {
        ensure!(queue.send(text, priority) == 0);
    }
    ensure!(queue.send("x", 32_768) == libc::EINVAL && queue.attributes() == [0, 10, 8192, 6]);
    let mut order = String::new();
    for _ in 0..6 {
        order += &queue.receive().map_err(|errno| format!("{errno}"))?.1;
    }
    ensure!(order == "dbeacf", "{order}");
    Ok(())
}

fn what_is_asked_for_has_limits() -> Outcome {
    let own = name("limits");
    for capacity in [(0, 10), (10, 0), (-1, 10), (65_537, 1), (1, (16 << 20) + 1)] {
        ensure!(open(&own, MAKE, 0o600, Some(capacity)) == Err(libc::EINVAL), "{capacity:?}");
    }
    let queue = Queue::new("limits", 2, 8192)?;
    ensure!(queue.send(&"x".repeat(8193), 0) == libc::EMSGSIZE && queue.send(&"x".repeat(8192), 0) == 0);
    // SAFETY: a buffer of that length.
    let answer = unsafe { libc::mq_receive(queue.fd, [0; 10].as_mut_ptr(), 10, ptr::null_mut()) };
    ensure!(answer == -1 && errno() == libc::EMSGSIZE);
    // SAFETY: there is nothing there, which the kernel is to say.
    ensure!(unsafe { libc::mq_send(queue.fd, ptr::without_provenance(8), 1, 0) } == -1 && errno() == libc::EFAULT);
    // What a user may have is limited, too.
    let outcome = in_child(|| {
        drop_privileges(4321, 4321);
        let open_one = |number: usize| open(&name(&format!("limit{number}")), MAKE, 0o600, Some((10, 8192)));
        // A queue of ten messages of 8192 bytes is counted as 82,880 bytes, and 819,200 are allowed.
        let opened = (0..20).take_while(|number| open_one(*number).is_ok()).count();
        let is_full =
            open_one(opened) == Err(libc::EMFILE) && open(&own, MAKE, 0o600, Some((11, 1))) != Err(libc::EMFILE);
        let is_bounded = open(&name("bound"), MAKE, 0o600, Some((11, 1))) == Err(libc::EINVAL);
        let failed = (0..opened).filter(|number| unlink(&name(&format!("limit{number}"))) != 0).count();
        i32::from(!(opened == 9 && failed == 0 && is_full && is_bounded)) * (100 + opened as i32)
    })?;
    ensure!(outcome == 0, "{outcome}");
    Ok(())
}

fn who_may_not_wait_is_told_so() -> Outcome {
    let queue = Queue::new("nonblock", 1, 10)?;
    ensure!(queue.set_flags(1) == libc::EINVAL && queue.set_flags(libc::O_NONBLOCK.into()) == 0);
    ensure!(queue.attributes() == [libc::O_NONBLOCK.into(), 1, 10, 0]);
    let receiver = Queue { fd: queue.fd, name: name("none") };
    let receive = || {
        let mut buffer = [0_u8; 10];
        // SAFETY: a buffer of that length.
        let len = unsafe { libc::mq_receive(receiver.fd, buffer.as_mut_ptr().cast(), 10, ptr::null_mut()) };
        if len >= 0 { Ok(len) } else { Err(errno()) }
    };
    ensure!(receive() == Err(libc::EAGAIN) && queue.events() == libc::POLLOUT);
    ensure!(queue.send("x", 0) == 0 && queue.send("y", 0) == libc::EAGAIN && queue.events() == libc::POLLIN);
    ensure!(receive() == Ok(1));
    std::mem::forget(receiver);
    Ok(())
}

fn a_wait_ends_with_what_it_is_for_or_its_time() -> Outcome {
    let queue = Queue::new("wait", 1, 8192)?;
    ensure!(queue.receive_until(in_ms(20)) == Err(libc::ETIMEDOUT));
    ensure!(queue.receive_until(Some(libc::timespec { tv_sec: 1, tv_nsec: 0 })) == Err(libc::ETIMEDOUT));
    ensure!(queue.receive_until(Some(libc::timespec { tv_sec: 0, tv_nsec: -1 })) == Err(libc::EINVAL));
    let pid = child(|| i32::from(queue.receive() != Ok((3, "for you".into()))))?;
    ensure!(sleeps(pid) && queue.send("for you", 3) == 0 && status_of(pid) == 0);
    ensure!(queue.send("full", 0) == 0 && queue.send_until("x", 0, in_ms(20)) == libc::ETIMEDOUT);
    let pid = child(|| queue.send("second", 0))?;
    ensure!(sleeps(pid) && queue.receive() == Ok((0, "full".into())) && status_of(pid) == 0);
    ensure!(queue.receive() == Ok((0, "second".into())));
    // A signal: EINTR, or on again.
    for (flags, wanted) in [(0, libc::EINTR), (libc::SA_RESTART, 0)] {
        let pid = child(|| {
            extern "C" fn nothing(_signal: libc::c_int) {}
            // SAFETY: all zeros is a valid sigaction; the handler does nothing.
            unsafe {
                let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
                action.sa_sigaction = nothing as *const () as libc::sighandler_t;
                action.sa_flags = flags;
                libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut());
            }
            queue.receive().err().unwrap_or(0)
        })?;
        ensure!(sleeps(pid));
        // SAFETY: our own child.
        unsafe { libc::kill(pid, libc::SIGUSR1) };
        if wanted == 0 {
            ensure!(queue.send("again", 0) == 0);
        }
        ensure!(status_of(pid) == wanted);
    }
    Ok(())
}

fn poll_waits_for_messages() -> Outcome {
    let queue = Queue::new("poll", 1, 8192)?;
    let pid = child(|| {
        let mut entry = libc::pollfd { fd: queue.fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, which outlives the call.
        let count = unsafe { libc::poll(&raw mut entry, 1, 100_000) };
        i32::from(count != 1 || entry.revents != libc::POLLIN)
    })?;
    ensure!(sleeps(pid) && queue.send("x", 0) == 0 && status_of(pid) == 0);
    Ok(())
}

fn the_first_message_is_told_of_once() -> Outcome {
    static SEEN: [AtomicI32; 4] = [const { AtomicI32::new(0) }; 4];
    extern "C" fn note(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
        // SAFETY: the kernel hands over a valid siginfo.
        let (code, pid, value) = unsafe { ((*info).si_code, (*info).si_pid(), (*info).si_value().sival_ptr.addr()) };
        SEEN[1].store(code, Ordering::SeqCst);
        SEEN[2].store(pid, Ordering::SeqCst);
        SEEN[3].store(value as i32, Ordering::SeqCst);
        SEEN[0].fetch_add(signal, Ordering::SeqCst);
    }
    let queue = Queue::new("notify", 3, 8192)?;
    // SAFETY: all zeros is a valid sigaction; the handler only stores numbers.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = note as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGUSR2, &raw const action, ptr::null_mut());
    }
    let (signal, seen) = (libc::SIGUSR2, |index: usize| SEEN[index].load(Ordering::SeqCst));
    ensure!(queue.notify(99, signal, 0) == libc::EINVAL && queue.notify(libc::SIGEV_SIGNAL, 99, 0) == libc::EINVAL);
    ensure!(queue.notify(libc::SIGEV_SIGNAL, signal, 42) == 0);
    ensure!(queue.notify(libc::SIGEV_SIGNAL, signal, 42) == libc::EBUSY);
    ensure!(in_child(|| queue.notify(libc::SIGEV_NONE, 0, 0))? == libc::EBUSY);
    ensure!(in_child(|| queue.notify_no_more())? == 0, "another's stays");
    let pid = child(|| queue.send("first", 0))?;
    ensure!(status_of(pid) == 0 && becomes(|| seen(0) == signal));
    ensure!((seen(1), seen(2), seen(3)) == (-3, pid, 42));
    ensure!(queue.send("second", 0) == 0 && queue.receive().is_ok() && queue.receive().is_ok());
    ensure!(queue.send("third", 0) == 0 && seen(0) == signal, "only once");
    // Only of a message into the empty queue, and not if somebody waits for it.
    ensure!(queue.notify(libc::SIGEV_SIGNAL, signal, 43) == 0 && queue.send("fourth", 0) == 0 && seen(0) == signal);
    ensure!(queue.receive().is_ok() && queue.receive().is_ok());
    let pid = child(|| queue.receive().err().unwrap_or(0))?;
    ensure!(sleeps(pid) && queue.send("fifth", 0) == 0 && status_of(pid) == 0 && seen(0) == signal);
    ensure!(queue.send("sixth", 0) == 0 && becomes(|| seen(0) == 2 * signal) && seen(3) == 43);
    ensure!(
        queue.receive().is_ok() && queue.notify(libc::SIGEV_SIGNAL, signal, 44) == 0 && queue.notify_no_more() == 0
    );
    ensure!(queue.send("seventh", 0) == 0 && seen(0) == 2 * signal);
    ensure!(queue.notify(libc::SIGEV_NONE, 0, 0) == 0 && queue.notify_no_more() == 0);
    Ok(())
}

fn permissions_are_those_of_the_mode() -> Outcome {
    let queue = Queue::new("mode", 3, 100)?;
    let as_stranger = |work: &dyn Fn() -> bool| {
        in_child(|| {
            drop_privileges(4321, 4321);
            i32::from(!work())
        })
    };
    let refused = Err(libc::EACCES);
    ensure!(
        as_stranger(&|| open(&queue.name, libc::O_RDONLY, 0, None) == refused
            && open(&queue.name, libc::O_WRONLY, 0, None) == refused)?
            == 0
    );
    ensure!(as_stranger(&|| [libc::EACCES, libc::EPERM].contains(&unlink(&queue.name)))? == 0);
    // SAFETY: plain numbers.
    ensure!(unsafe { libc::fchmod(queue.fd, 0o604) } == 0);
    ensure!(
        as_stranger(&|| open(&queue.name, libc::O_RDONLY, 0, None).is_ok()
            && open(&queue.name, libc::O_RDWR, 0, None) == refused)?
            == 0
    );
    ensure!(as_stranger(&|| open(&name("own"), MAKE, 0o666, None).is_ok() && unlink(&name("own")) == 0)? == 0);
    Ok(())
}

fn the_file_system_shows_them() -> Outcome {
    let queue = Queue::new("shown", 3, 100)?;
    ensure!(queue.send("12345", 0) == 0 && queue.notify(libc::SIGEV_SIGNAL, libc::SIGUSR2, 0) == 0);
    let place = std::env::temp_dir().join(format!("mqueue-{}", std::process::id()));
    fs::create_dir(&place).map_err(|error| error.to_string())?;
    let target = CString::new(place.as_os_str().as_encoded_bytes()).unwrap_or_default();
    // SAFETY: the names outlive the call.
    let mounted = unsafe { libc::mount(c"none".as_ptr(), target.as_ptr(), c"mqueue".as_ptr(), 0, ptr::null()) };
    ensure!(mounted == 0, "errno {}", errno());
    let outcome = look_around(&queue, &place);
    // SAFETY: the name outlives the call.
    unsafe { libc::umount(target.as_ptr()) };
    let _ = fs::remove_dir(&place);
    outcome
}

fn look_around(queue: &Queue, place: &std::path::Path) -> Outcome {
    let said = |error: std::io::Error| error.to_string();
    let own = queue.name.to_string_lossy()[1..].to_string();
    let text = fs::read_to_string(place.join(&own)).map_err(said)?;
    let pid = std::process::id();
    ensure!(
        text == format!("QSIZE:5          NOTIFY:0     SIGNO:{:<5} NOTIFY_PID:{pid:<6}\n", libc::SIGUSR2),
        "{text}"
    );
    let about = fs::metadata(place.join(&own)).map_err(said)?;
    ensure!(about.is_file() && about.len() == 80 && about.permissions().mode() & 0o7777 == 0o600);
    ensure!(fs::metadata(place).map_err(said)?.permissions().mode() & 0o7777 == 0o1777);
    fs::File::create_new(place.join("made")).map_err(said)?;
    let made = CString::new("/made").unwrap_or_default();
    let fd = open(&made, libc::O_RDWR, 0, None).map_err(|errno| format!("errno {errno}"))?;
    let made = Queue { fd, name: made };
    ensure!(made.attributes() == [0, 10, 8192, 0]);
    let names =
        |_| fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect::<Vec<_>>();
    ensure!(names(()).contains(&"made".into()) && names(()).contains(&own.clone().into()));
    fs::remove_file(place.join("made")).map_err(said)?;
    ensure!(unlink(&made.name) == libc::ENOENT && !names(()).contains(&"made".into()));
    ensure!(fs::create_dir(place.join("folder")).is_err());
    Ok(())
}

fn nothing_is_lost_among_many() -> Outcome {
    const MESSAGES: usize = 1000;
    let queue = Queue::new("many", 3, 8192)?;
    let total: usize = thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..MESSAGES).map(|number| queue.send("x", (number % 3) as u32)).max());
        }
        let receivers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..MESSAGES).filter(|_| queue.receive().is_ok()).count())).collect();
        receivers.into_iter().map(|receiver| receiver.join().unwrap_or(0)).sum()
    });
    ensure!(total == 4 * MESSAGES && queue.attributes()[3] == 0, "{total}");
    Ok(())
}

const CASES: &[Case] = &[
    ("a name finds its queue until it is removed", a_name_finds_its_queue_until_it_is_removed),
    ("the highest priority goes first", the_highest_priority_goes_first),
    ("what is asked for has limits", what_is_asked_for_has_limits),
    ("who may not wait is told so", who_may_not_wait_is_told_so),
    ("a wait ends with what it is for, or its time", a_wait_ends_with_what_it_is_for_or_its_time),
    ("poll waits for messages", poll_waits_for_messages),
    ("the first message is told of once", the_first_message_is_told_of_once),
    ("permissions are those of the mode", permissions_are_those_of_the_mode),
    ("the file system shows them", the_file_system_shows_them),
    ("nothing is lost among many", nothing_is_lost_among_many),
];

fn main() {
    std::process::exit(test_programs::run(CASES));
}
