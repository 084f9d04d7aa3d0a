//! What programs rely on of System V messages: types, limits, waiting, fairness, ends.
//!
//! Each case is a function; the program runs them all, says which have failed, and exits with their number. It passes on Linux, as root.
#![allow(unsafe_code, reason = "std has no safe form of message queues")]

use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use test_programs::children::{becomes, child, drop_privileges, in_child, status_of};
use test_programs::{Case, Outcome, ensure, errno};

const MSG_STAT: i32 = 11;
const MSG_COPY: i32 = 0o40_000;
const LONGEST: usize = 8192;

/// A queue that is removed when the case ends.
struct Queue(i32);

/// What msgrcv answers: the type and the text, or the number of the error.
type Received = Result<(i64, Vec<u8>), i32>;

impl Queue {
    fn new() -> Result<Queue, String> {
        let id = get(libc::IPC_PRIVATE, libc::IPC_CREAT | 0o600);
        ensure!(id >= 0, "errno {}", errno());
        Ok(Queue(id))
    }

    fn control<T>(&self, command: i32, argument: *mut T) -> i32 {
        // SAFETY: whoever passes an address passes one of room enough for the command.
        unsafe { libc::msgctl(self.0, command, argument.cast()) }
    }

    fn about(&self) -> Result<libc::msqid_ds, String> {
        let mut about = MaybeUninit::<libc::msqid_ds>::zeroed();
        ensure!(self.control(libc::IPC_STAT, about.as_mut_ptr()) == 0, "errno {}", errno());
        // SAFETY: all zeros is valid, and the kernel has filled it.
        Ok(unsafe { about.assume_init() })
    }

    fn count(&self) -> u64 {
        self.about().map_or(u64::MAX, |about| about.msg_qnum)
    }

    /// 0, or the number of the error.
    fn send(&self, kind: i64, text: &[u8], flags: i32) -> i32 {
        let mut buffer = kind.to_ne_bytes().to_vec();
        buffer.extend_from_slice(text);
        // SAFETY: the buffer outlives the call and is as long as that says.
        if unsafe { libc::msgsnd(self.0, buffer.as_ptr().cast(), text.len(), flags) } == 0 { 0 } else { errno() }
    }

    fn receive(&self, kind: i64, room: usize, flags: i32) -> Received {
        let mut buffer = vec![0_u8; 8 + room];
        // SAFETY: the buffer outlives the call and is as long as that says.
        let len = unsafe { libc::msgrcv(self.0, buffer.as_mut_ptr().cast(), room, kind, flags) };
        let Ok(len) = usize::try_from(len) else { return Err(errno()) };
        let kind = buffer[..8].try_into().map_or(0, i64::from_ne_bytes);
        Ok((kind, buffer[8..8 + len].to_vec()))
    }

    /// The first of a type, without waiting: its text.
    fn now(&self, kind: i64, flags: i32) -> Result<String, i32> {
        let (_, text) = self.receive(kind, LONGEST, flags | libc::IPC_NOWAIT)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.control::<u8>(libc::IPC_RMID, ptr::null_mut());
    }
}

fn get(key: i32, flags: i32) -> i32 {
    // SAFETY: plain numbers.
    unsafe { libc::msgget(key, flags) }
}

/// Waits until a thread or process sleeps.
fn sleeps(tid: i32) -> bool {
    becomes(|| {
        let stat = std::fs::read_to_string(format!("/proc/{tid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
    })
}

fn own_tid() -> i32 {
    // SAFETY: a plain call.
    unsafe { libc::gettid() }
}

fn a_key_finds_its_queue_until_it_is_removed() -> Outcome {
    let key = 0x526f_0000 | std::process::id() as i32 & 0xffff;
    ensure!(get(key, 0o600) == -1 && errno() == libc::ENOENT);
    let queue = Queue(get(key, libc::IPC_CREAT | 0o640));
    ensure!(queue.0 >= 0, "errno {}", errno());
    ensure!(get(key, 0) == queue.0 && get(key, libc::IPC_CREAT) == queue.0);
    ensure!(get(key, libc::IPC_CREAT | libc::IPC_EXCL) == -1 && errno() == libc::EEXIST);
    let about = queue.about()?;
    ensure!((about.msg_qnum, about.__msg_cbytes, about.msg_qbytes) == (0, 0, 16_384));
    ensure!(
        (about.msg_stime, about.msg_rtime, about.msg_lspid, about.msg_lrpid) == (0, 0, 0, 0) && about.msg_ctime > 0
    );
    ensure!(queue.control::<u8>(libc::IPC_RMID, ptr::null_mut()) == 0);
    ensure!(queue.send(1, b"", 0) == libc::EINVAL && queue.now(0, 0) == Err(libc::EINVAL));
    ensure!(get(key, 0) == -1 && errno() == libc::ENOENT);
    Ok(())
}

fn types_choose_messages() -> Outcome {
    let queue = Queue::new()?;
    for (kind, text) in [(5, "a"), (2, "b"), (7, "c"), (2, "d"), (9, "e"), (5, "f")] {
        ensure!(queue.send(kind, text.as_bytes(), 0) == 0);
    }
    let about = queue.about()?;
    ensure!((about.msg_qnum, about.__msg_cbytes, about.msg_lspid) == (6, 6, std::process::id() as i32));
    ensure!(queue.now(3, 0) == Err(libc::ENOMSG) && queue.now(-1, 0) == Err(libc::ENOMSG));
    ensure!(queue.now(7, 0) == Ok("c".into()));
    ensure!(queue.now(5, libc::MSG_EXCEPT) == Ok("b".into()));
    ensure!(queue.now(-6, 0) == Ok("d".into()), "the lowest type comes first");
    ensure!(queue.now(-6, 0) == Ok("a".into()));
    ensure!(queue.now(i64::MIN, 0) == Ok("f".into()));
    ensure!(queue.receive(0, 10, 0) == Ok((9, b"e".to_vec())));
    ensure!(queue.now(0, 0) == Err(libc::ENOMSG));
    let about = queue.about()?;
    ensure!((about.msg_qnum, about.__msg_cbytes, about.msg_lrpid) == (0, 0, std::process::id() as i32));
    Ok(())
}

fn lengths_and_types_have_limits() -> Outcome {
    let queue = Queue::new()?;
    ensure!(queue.send(0, b"x", 0) == libc::EINVAL && queue.send(-1, b"x", 0) == libc::EINVAL);
    ensure!(queue.send(1, &[7; LONGEST + 1], 0) == libc::EINVAL);
    ensure!(queue.send(1, &[7; LONGEST], 0) == 0 && queue.send(1, &[8; LONGEST], 0) == 0);
    ensure!(queue.send(1, b"x", libc::IPC_NOWAIT) == libc::EAGAIN);
    ensure!(queue.send(1, b"", libc::IPC_NOWAIT) == 0, "nothing has room");
    ensure!(queue.receive(0, 100, 0) == Err(libc::E2BIG) && queue.count() == 3);
    ensure!(queue.receive(0, 100, libc::MSG_NOERROR) == Ok((1, vec![7; 100])) && queue.count() == 2);
    ensure!(queue.receive(0, LONGEST + 5, 0) == Ok((1, vec![8; LONGEST])));
    ensure!(queue.receive(0, 0, 0) == Ok((1, vec![])));
    // SAFETY: there is nothing at these addresses, which the kernel is to say.
    unsafe {
        ensure!(libc::msgsnd(queue.0, ptr::without_provenance(8), 1, 0) == -1 && errno() == libc::EFAULT);
        ensure!(queue.send(1, b"x", 0) == 0);
        ensure!(libc::msgrcv(queue.0, ptr::without_provenance_mut(8), 1, 0, 0) == -1 && errno() == libc::EFAULT);
        ensure!(
            libc::msgrcv(queue.0, ptr::without_provenance_mut(8), usize::MAX, 0, 0) == -1 && errno() == libc::EINVAL
        );
    }
    ensure!(queue.count() == 0);
    Ok(())
}

fn a_copy_leaves_the_message() -> Outcome {
    let queue = Queue::new()?;
    ensure!(queue.send(4, b"first", 0) == 0 && queue.send(3, b"second", 0) == 0);
    ensure!(queue.receive(1, 100, MSG_COPY | libc::IPC_NOWAIT) == Ok((3, b"second".to_vec())));
    ensure!(queue.now(0, MSG_COPY) == Ok("first".into()) && queue.count() == 2);
    ensure!(queue.now(2, MSG_COPY) == Err(libc::ENOMSG) && queue.now(-1, MSG_COPY) == Err(libc::ENOMSG));
    ensure!(queue.receive(0, 100, MSG_COPY) == Err(libc::EINVAL));
    ensure!(queue.now(0, MSG_COPY | libc::MSG_EXCEPT) == Err(libc::EINVAL));
    ensure!(queue.receive(0, 2, MSG_COPY | libc::IPC_NOWAIT) == Err(libc::E2BIG));
    ensure!(queue.receive(0, 2, MSG_COPY | libc::IPC_NOWAIT | libc::MSG_NOERROR) == Err(libc::EINVAL));
    Ok(())
}

fn a_receiver_waits_for_what_it_wants() -> Outcome {
    let queue = Queue::new()?;
    let tid = AtomicUsize::new(0);
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            tid.store(own_tid() as usize, Ordering::SeqCst);
            queue.receive(7, 100, 0)
        });
        ensure!(becomes(|| tid.load(Ordering::SeqCst) != 0) && sleeps(tid.load(Ordering::SeqCst) as i32));
        ensure!(queue.send(6, b"other", 0) == 0 && queue.count() == 1);
        ensure!(queue.send(7, b"wanted", 0) == 0 && queue.count() == 1, "it is handed over");
        ensure!(queue.now(7, 0) == Err(libc::ENOMSG));
        ensure!(receiver.join().is_ok_and(|received| received == Ok((7, b"wanted".to_vec()))));
        tid.store(0, Ordering::SeqCst);
        let receiver = scope.spawn(|| {
            tid.store(own_tid() as usize, Ordering::SeqCst);
            queue.receive(7, 3, 0)
        });
        ensure!(becomes(|| tid.load(Ordering::SeqCst) != 0) && sleeps(tid.load(Ordering::SeqCst) as i32));
        ensure!(queue.send(7, b"long", 0) == 0 && queue.count() == 2, "what does not fit stays");
        ensure!(receiver.join().is_ok_and(|received| received == Err(libc::E2BIG)));
        Ok(())
    })
}

fn receivers_are_served_in_turn() -> Outcome {
    let queue = Queue::new()?;
    let tids: Vec<AtomicUsize> = (0..4).map(|_| AtomicUsize::new(0)).collect();
    thread::scope(|scope| {
        let mut receivers = Vec::new();
        for tid in &tids {
            let queue = &queue;
            receivers.push(scope.spawn(move || {
                tid.store(own_tid() as usize, Ordering::SeqCst);
                queue.receive(0, 1, 0)
            }));
            ensure!(becomes(|| tid.load(Ordering::SeqCst) != 0) && sleeps(tid.load(Ordering::SeqCst) as i32));
        }
        for number in 0..4_u8 {
            ensure!(queue.send(1, &[number], 0) == 0);
        }
        for (number, receiver) in receivers.into_iter().enumerate() {
            ensure!(receiver.join().is_ok_and(|received| received == Ok((1, vec![number as u8]))));
        }
        Ok(())
    })
}

fn a_sender_waits_for_room() -> Outcome {
    let queue = Queue::new()?;
    ensure!(queue.send(1, &[1; LONGEST], 0) == 0 && queue.send(1, &[2; LONGEST], 0) == 0);
    let pid = child(|| queue.send(2, &[3; 1000], 0))?;
    ensure!(sleeps(pid) && queue.count() == 2);
    ensure!(queue.receive(0, LONGEST, 0) == Ok((1, vec![1; LONGEST])));
    ensure!(status_of(pid) == 0 && queue.count() == 2);
    ensure!(queue.now(1, 0).is_ok() && queue.receive(0, LONGEST, 0) == Ok((2, vec![3; 1000])));
    // The limit of a queue can be changed, upwards only by who may.
    let mut about = queue.about()?;
    about.msg_qbytes = 10;
    ensure!(queue.control(libc::IPC_SET, &raw mut about) == 0);
    ensure!(queue.send(1, &[0; 11], libc::IPC_NOWAIT) == libc::EAGAIN && queue.send(1, &[0; 10], 0) == 0);
    let pid = child(|| queue.send(2, b"x", 0))?;
    ensure!(sleeps(pid));
    about.msg_qbytes = 20_000;
    ensure!(queue.control(libc::IPC_SET, &raw mut about) == 0 && status_of(pid) == 0 && queue.count() == 2);
    about.msg_perm.uid = 1234;
    ensure!(queue.control(libc::IPC_SET, &raw mut about) == 0);
    let outcome = in_child(|| {
        drop_privileges(1234, 1234);
        about.msg_qbytes = 16_385;
        let is_refused = queue.control(libc::IPC_SET, &raw mut about) == -1 && errno() == libc::EPERM;
        about.msg_qbytes = 16_384;
        i32::from(!(is_refused && queue.control(libc::IPC_SET, &raw mut about) == 0))
    });
    ensure!(outcome? == 0);
    Ok(())
}

fn a_removal_wakes_all_who_wait() -> Outcome {
    let queue = Queue::new()?;
    ensure!(queue.send(1, &[1; LONGEST], 0) == 0 && queue.send(1, &[2; LONGEST], 0) == 0);
    let sender = child(|| queue.send(2, b"x", 0))?;
    let receiver = child(|| queue.receive(9, 1, 0).err().unwrap_or(0))?;
    ensure!(sleeps(sender) && sleeps(receiver));
    ensure!(queue.control::<u8>(libc::IPC_RMID, ptr::null_mut()) == 0);
    ensure!(status_of(sender) == libc::EIDRM && status_of(receiver) == libc::EIDRM);
    Ok(())
}

fn a_signal_with_a_handler_interrupts_for_good() -> Outcome {
    extern "C" fn nothing(_signal: libc::c_int) {}
    let queue = Queue::new()?;
    let handle = || {
        // SAFETY: all zeros is a valid sigaction; the handler does nothing.
        unsafe {
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            action.sa_sigaction = nothing as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut());
        }
    };
    let pid = child(|| {
        handle();
        queue.receive(1, 1, 0).err().unwrap_or(0)
    })?;
    ensure!(sleeps(pid));
    // SAFETY: our own child.
    unsafe { libc::kill(pid, libc::SIGUSR1) };
    ensure!(status_of(pid) == libc::EINTR);
    // A stop does not show.
    let pid = child(|| queue.receive(1, 1, 0).map_or(99, |(_, text)| text[0].into()))?;
    ensure!(sleeps(pid));
    // SAFETY: our own child.
    unsafe {
        libc::kill(pid, libc::SIGSTOP);
        let mut status = 0;
        libc::waitpid(pid, &raw mut status, libc::WUNTRACED);
        libc::kill(pid, libc::SIGCONT);
    }
    ensure!(queue.send(1, &[42], 0) == 0 && status_of(pid) == 42);
    // Who is killed leaves the line, and takes nothing along.
    let pid = child(|| queue.receive(1, 1, 0).map_or(99, |_| 0))?;
    ensure!(sleeps(pid));
    // SAFETY: our own child.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    ensure!(status_of(pid) == 1000 + libc::SIGKILL);
    ensure!(queue.send(1, b"x", 0) == 0 && queue.now(0, 0) == Ok("x".into()));
    Ok(())
}

fn the_owner_decides_who_may_do_what() -> Outcome {
    let queue = Queue::new()?;
    let mut about = queue.about()?;
    let as_stranger = |work: &dyn Fn() -> bool| {
        in_child(|| {
            drop_privileges(1234, 1234);
            i32::from(!work())
        })
    };
    ensure!(as_stranger(&|| queue.send(1, b"x", 0) == libc::EACCES && queue.now(0, 0) == Err(libc::EACCES))? == 0);
    ensure!(
        as_stranger(&|| queue.control::<u8>(libc::IPC_RMID, ptr::null_mut()) == -1 && errno() == libc::EPERM)? == 0
    );
    about.msg_perm.mode = 0o604;
    ensure!(queue.control(libc::IPC_SET, &raw mut about) == 0 && queue.about()?.msg_perm.mode == 0o604);
    ensure!(queue.send(1, b"x", 0) == 0);
    ensure!(as_stranger(&|| queue.send(1, b"x", 0) == libc::EACCES && queue.now(0, 0) == Ok("x".into()))? == 0);
    // Who waits loses the right to it.
    let pid = child(|| {
        drop_privileges(1234, 1234);
        queue.receive(0, 1, 0).err().unwrap_or(0)
    })?;
    ensure!(sleeps(pid));
    about.msg_perm.mode = 0o600;
    ensure!(queue.control(libc::IPC_SET, &raw mut about) == 0 && status_of(pid) == libc::EACCES);
    Ok(())
}

fn what_there_is_can_be_looked_up() -> Outcome {
    let queue = Queue::new()?;
    ensure!(queue.send(3, b"hello", 0) == 0);
    let mut limits = [0_i32; 8];
    ensure!(queue.control(libc::IPC_INFO, limits.as_mut_ptr()) >= 0);
    ensure!(
        limits[..7] == [512_000, 16_384, 8192, 16_384, 32_000, 16, 16_384] && limits[7] as u16 == 0xffff,
        "{limits:?}"
    );
    let largest = queue.control(12, limits.as_mut_ptr());
    ensure!(largest >= 0 && limits[0] >= 1 && limits[1] >= 1 && limits[6] >= 5, "{limits:?}");
    let mut about = MaybeUninit::<libc::msqid_ds>::zeroed();
    let mut by_index = |index: i32| ManuallyDrop::new(Queue(index)).control(MSG_STAT, about.as_mut_ptr());
    ensure!((0..=largest).any(|index| by_index(index) == queue.0));
    ensure!(by_index(largest + 1) == -1 && errno() == libc::EINVAL);
    let read = |path: &str| std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    for (name, value) in [("msgmax", "8192\n"), ("msgmnb", "16384\n"), ("msgmni", "32000\n")] {
        ensure!(read(&format!("/proc/sys/kernel/{name}"))? == value);
    }
    let table = read("/proc/sysvipc/msg")?;
    let head = "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime";
    ensure!(table.lines().next() == Some(head), "{table}");
    let id = queue.0.to_string();
    let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&id)).unwrap_or_default();
    let own = std::process::id();
    ensure!(
        line[21..].starts_with(&format!("   600           5          1 {own:5}     0     0     0     0     0 ")),
        "{table}"
    );
    Ok(())
}

fn nothing_is_lost_among_many() -> Outcome {
    const MESSAGES: u64 = 2000;
    let queue = Queue::new()?;
    let sum = thread::scope(|scope| {
        for sender in 0..4 {
            let queue = &queue;
            scope.spawn(move || (0..MESSAGES).filter(|i| queue.send(1 + sender, &i.to_ne_bytes(), 0) != 0).count());
        }
        let receivers: Vec<_> = (0..4)
            .map(|receiver| {
                let queue = &queue;
                scope.spawn(move || {
                    let number = |received: Received| received.ok().and_then(|(_, text)| text.try_into().ok());
                    let one = || number(queue.receive(if receiver % 2 == 0 { 0 } else { -9 }, 8, 0));
                    (0..MESSAGES).filter_map(|_| one().map(u64::from_ne_bytes)).sum::<u64>()
                })
            })
            .collect();
        receivers.into_iter().map(|receiver| receiver.join().unwrap_or(0)).sum::<u64>()
    });
    ensure!(sum == 4 * (MESSAGES * (MESSAGES - 1) / 2) && queue.count() == 0, "{sum}");
    Ok(())
}

const CASES: &[Case] = &[
    ("a key finds its queue until it is removed", a_key_finds_its_queue_until_it_is_removed),
    ("types choose messages", types_choose_messages),
    ("lengths and types have limits", lengths_and_types_have_limits),
    ("a copy leaves the message", a_copy_leaves_the_message),
    ("a receiver waits for what it wants", a_receiver_waits_for_what_it_wants),
    ("receivers are served in turn", receivers_are_served_in_turn),
    ("a sender waits for room", a_sender_waits_for_room),
    ("a removal wakes all who wait", a_removal_wakes_all_who_wait),
    ("a signal with a handler interrupts for good", a_signal_with_a_handler_interrupts_for_good),
    ("the owner decides who may do what", the_owner_decides_who_may_do_what),
    ("what there is can be looked up", what_there_is_can_be_looked_up),
    ("nothing is lost among many", nothing_is_lost_among_many),
];

fn main() {
    std::process::exit(test_programs::run(CASES));
}
