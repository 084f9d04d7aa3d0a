//! What the tests of system calls stand on: threads with some memory, programs of steps, the clock.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::sync::Arc;
use core::cell::RefCell;
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::Once;

use fs::{Credentials, FsContext, MountNamespace};

use crate::arch::host_machine::{self, Step, apic, clock};
use crate::arch::{Trap, UserContext, VectorState, host};
use crate::mm::{Access, FRAMES, MapRequest, Placement, Rights};
use crate::process::clone::{self, ReservedNumber};
use crate::process::fd_table::FdTable;
use crate::process::limits::Limits;
use crate::process::signal::SignalSet;
use crate::process::spawn::{SpawnOptions, empty_process};
use crate::process::table::ThreadPermit;
use crate::process::{Process, RunningThread, Thread, thread};
use crate::syscall::table;
use crate::{devices, mm, random, tasks};

/// Where a program's memory begins.
pub const DATA: usize = 0x4000_0000;
const LEN: usize = 0x2_0000;
/// The top of its stack.
const STACK: u64 = (DATA + LEN - 0x1000) as u64;

/// What a program has noted.
pub type Notes = Rc<RefCell<Vec<i64>>>;

fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        mm::init_on_host();
        random::init();
        devices::prepare();
        // Number 1 is init's, whose end would be the system's.
        ReservedNumber::take().expect("a number").keep();
    });
}

/// A thread of a new process, with memory at [`DATA`] and no files; nobody knows of it yet.
pub fn new_thread(entry: u64) -> Box<RunningThread> {
    prepare();
    let root = tmpfs::Tmpfs::named("rootfs", &FRAMES, tmpfs::Limits::NONE, 0o755);
    let options = SpawnOptions {
        program: b"test".to_vec(),
        arguments: vec![],
        environment: vec![],
        nice: 0,
        fs: Arc::new(FsContext::new(MountNamespace::new(root, b"rootfs"))),
        credentials: Arc::new(Credentials::root()),
        files: FdTable::default(),
        limits: Limits::initial(1_000),
    };
    let mut thread = empty_process(options).expect("memory");
    thread.context = UserContext::new(entry, STACK);
    let rights = Rights { read: true, write: true, execute: false };
    thread.space.map(MapRequest::anonymous(LEN, rights).at(Placement::Fixed(DATA))).expect("room");
    at_once(thread.space.populate(DATA..DATA + LEN, Some(Access::Write))).expect("memory");
    thread
}

/// Another thread of the same process, which shares everything; nobody knows of it.
pub fn sibling(of: &RunningThread) -> Box<RunningThread> {
    let number = ReservedNumber::take().expect("a number").keep();
    let view = thread::View {
        space: of.space.clone(),
        files: of.files.clone(),
        fs: of.fs.clone(),
        credentials: of.credentials.clone(),
    };
    let vector = VectorState::fresh().expect("memory");
    let shared = Thread::new(number, of.process.clone(), SignalSet::EMPTY, [0; 16], 0, view.clone(), vector);
    RunningThread::new(shared, of.context, view, ThreadPermit::take(0, None).expect("no limit")).expect("memory")
}

/// Starts a process that runs a program.
pub fn start(entry: u64) -> Arc<Process> {
    let thread = new_thread(entry);
    let process = thread.process.clone();
    clone::start_with(thread, async |thread| thread).expect("memory");
    settle();
    process
}

/// Runs all threads until they wait.
pub fn settle() {
    tasks::executor().run_until_idle();
}

/// Moves the clock, from alarm to alarm, and runs what wakes up at each.
pub fn advance(by: Duration) {
    let end = clock::now() + by;
    settle();
    loop {
        match apic::take_alarm() {
            Some(at) if at <= end => {
                clock::advance(at.saturating_duration_since(clock::now()));
                tasks::executor().alarm();
                settle();
            }
            later => {
                apic::set_alarm(later);
                break;
            }
        }
    }
    clock::advance(end.saturating_duration_since(clock::now()));
    settle();
}

/// The result of a future that need not wait.
pub fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

/// Makes a system call that need not wait.
pub fn perform(thread: &mut RunningThread, number: usize, args: &[usize]) -> abi::Result<usize> {
    thread.space.activate();
    set_call(&mut thread.context, number, args);
    match table::answer_now(thread, number) {
        Some(result) => result,
        None => at_once(table::answer(thread, number)),
    }
}

/// Puts a system call into the registers; the arguments that are not given are zero.
pub fn set_call(context: &mut UserContext, number: usize, args: &[usize]) {
    let argument = |index: usize| args.get(index).copied().unwrap_or(0) as u64;
    let registers = &mut context.general;
    registers.rax = number as u64;
    [registers.rdi, registers.rsi, registers.rdx] = [0, 1, 2].map(argument);
    [registers.r10, registers.r8, registers.r9] = [3, 4, 5].map(argument);
}

/// A program under construction.
#[derive(Default)]
pub struct Program(Vec<Step>);

impl Program {
    fn step(mut self, step: impl Fn(&mut UserContext) -> Trap + 'static) -> Program {
        self.0.push(Box::new(step));
        self
    }

    /// Makes a system call.
    pub fn call<const N: usize>(self, number: usize, args: [usize; N]) -> Program {
        self.step(move |context| {
            set_call(context, number, &args);
            Trap::Syscall
        })
    }

    /// Notes what the last system call returned.
    pub fn note(self, notes: &Notes) -> Program {
        let notes = notes.clone();
        self.step(move |context| {
            notes.borrow_mut().push(context.general.rax as i64);
            Trap::Tick
        })
    }

    /// Notes a word of memory.
    pub fn note_memory(self, notes: &Notes, address: usize) -> Program {
        let notes = notes.clone();
        self.step(move |_| {
            let word = host::peek::<8>(address).expect("the program's memory");
            notes.borrow_mut().push(i64::from_le_bytes(word));
            Trap::Tick
        })
    }

    /// Notes a number.
    pub fn note_number(self, notes: &Notes, number: i64) -> Program {
        let notes = notes.clone();
        self.step(move |_| {
            notes.borrow_mut().push(number);
            Trap::Tick
        })
    }

    /// Writes words to memory. (Not after a fork: then memory is shared until the kernel copies it.)
    pub fn write<const N: usize>(self, address: usize, words: [u64; N]) -> Program {
        self.step(move |_| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            assert!(host::poke(address, &bytes), "the program's memory");
            Trap::Tick
        })
    }

    /// Goes elsewhere if the last system call returned 0: as a child does.
    pub fn if_zero(self, entry: u64) -> Program {
        self.step(move |context| {
            if context.general.rax == 0 {
                context.rip = entry;
            }
            Trap::Tick
        })
    }

    /// Returns from a signal handler, as the C library's restorer does.
    pub fn return_from_handler(self) -> Program {
        self.step(|context| {
            context.rsp += 8;
            context.general.rax = table::numbers::RT_SIGRETURN as u64;
            Trap::Syscall
        })
    }

    /// Ends the process; returns the program's entry point.
    pub fn exit(self, code: usize) -> u64 {
        host_machine::program(self.call(table::numbers::EXIT_GROUP, [code]).0)
    }

    /// Returns the program's entry point.
    pub fn entry(self) -> u64 {
        host_machine::program(self.0)
    }
}
