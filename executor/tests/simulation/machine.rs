//! A machine of several CPUs on one thread of the host: which CPU makes the next step, when an interrupt arrives, when a store
//! reaches memory and what time it is are drawn from one seed.
//!
//! ```text
//!   run(): pick a CPU that can go on ─► resume its stack ─► executor code, step by step ─┐
//!     ▲        none? turn the clock to the next event                                    │ step(): interrupts that are due,
//!     └──────────────────────────────── switch away, now and then ◄──────────────────────┘ then perhaps somebody else
//! ```
//!
//! Each CPU is a stack of its own (the `generator` crate) on which the real `Executor::run_until` runs. The executor's atomics and
//! locks call [`step`] before each access. A CPU is in the kernel, halted, or in user mode; the last two end with an interrupt, and
//! interrupt handlers run on the stack of the CPU that they interrupt, between any two of its steps. next: work.rs.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    mem,
    rc::Rc,
};

use executor::{
    Duration, Executor, Instant, Machine,
    testing::simulation::{Step, buffered, drain, drain_one, exchange_held_locks, play, simulate},
};
use generator::{Generator, Gn};

/// In words: 256 KiB.
const STACK: usize = 32 * 1024;
/// More steps than any seed needs: then something goes round in circles.
const STEP_LIMIT: u64 = 3_000_000;
const NEVER: u64 = u64::MAX;
/// The vector of every device.
const DEVICE: u8 = 0x40;

thread_local! {
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

/// The machine, as the executor sees it.
pub struct Simulated;

/// What an interrupt does.
type Handler = Box<dyn FnOnce()>;

/// What a CPU is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Kernel,
    Halted,
    /// In user mode, until it makes a system call by itself, if ever.
    User(u64),
    Finished,
}

struct Processor {
    doing: Cell<Doing>,
    /// It makes no step before this: a hypervisor has taken the real processor away, or it spins.
    paused_until: Cell<u64>,
    accepts_interrupts: Cell<bool>,
    alarm: Cell<u64>,
    /// When the kick that is on its way arrives.
    kick: Cell<u64>,
    /// What devices have to say, by time and number.
    device: RefCell<BTreeMap<(u64, u64), Handler>>,
    held_locks: Cell<u64>,
}

/// How a simulation is disturbed. All of it comes from the seed but the faults, which a machine must not have.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Every so many kicks, one is lost.
    pub lost_kick: Option<u64>,
    /// Every so many alarms, one is lost.
    pub lost_alarm: Option<u64>,
}

pub struct World {
    random: Cell<u64>,
    /// How often a CPU goes on without another's turn: one switch in so many steps.
    patience: u64,
    now: Cell<u64>,
    steps: Cell<u64>,
    serial: Cell<u64>,
    current: Cell<usize>,
    is_over: Cell<bool>,
    cpus: Vec<Processor>,
    executor: Cell<Option<Executor<Simulated>>>,
    faults: Faults,
    kicks: Cell<u64>,
    alarms: Cell<u64>,
}

/// The simulation that this thread plays.
pub fn world() -> Rc<World> {
    WORLD.with_borrow(|world| Rc::clone(world.as_ref().expect("a simulation is under way")))
}

impl Machine for Simulated {
    fn now(&self) -> Instant {
        Instant::from_nanos(world().now.get())
    }

    fn current_cpu(&self) -> usize {
        world().current.get()
    }

    fn kick(&self, cpu: usize) {
        let world = world();
        // The interrupt is sent by a store that waits for all before it.
        step(Step::Next);
        drain();
        world.kicks.set(world.kicks.get() + 1);
        if world.faults.lost_kick.is_some_and(|every| world.kicks.get().is_multiple_of(every)) {
            return;
        }
        let delay = if world.one_in(16) { world.up_to(100_000) } else { world.up_to(3_000) };
        let arrival = world.now.get() + delay;
        // One of a kind is remembered.
        world.cpus[cpu].kick.set(world.cpus[cpu].kick.get().min(arrival));
    }

    fn idle(&self, nothing_to_do: &dyn Fn() -> bool) {
        let world = world();
        let cpu = world.cpu();
        cpu.accepts_interrupts.set(false);
        let is_idle = nothing_to_do();
        if is_idle {
            cpu.doing.set(Doing::Halted);
        }
        cpu.accepts_interrupts.set(true);
        if is_idle {
            switch_away();
            cpu.doing.set(Doing::Kernel);
        }
        world.take_interrupts();
    }

    fn set_alarm(&self, at: Option<Instant>) {
        let world = world();
        let late = world.up_to(2_000);
        world.cpu().alarm.set(at.map_or(NEVER, |at| at.as_nanos().max(world.now.get()).saturating_add(late)));
    }
}

/// Runs user code on this CPU, as the kernel does for the thread that is being polled: until an interrupt after which it must come back,
/// or until it makes a system call at `until`. True if it made the call.
pub fn enter_user(executor: Executor<Simulated>, until: Option<Instant>) -> bool {
    let (world, until) = (world(), until.map_or(NEVER, Instant::as_nanos));
    let cpu = world.cpu();
    executor.user_mode().visit(|visit| {
        cpu.accepts_interrupts.set(false);
        let mut has_called = false;
        while !has_called && !visit.must_end() {
            cpu.doing.set(Doing::User(until));
            cpu.accepts_interrupts.set(true);
            switch_away();
            cpu.doing.set(Doing::Kernel);
            world.take_interrupts();
            // The end of the interrupt handler, or the system call's entry.
            cpu.accepts_interrupts.set(false);
            has_called = until <= world.now.get();
        }
        cpu.accepts_interrupts.set(true);
        has_called
    })
}

/// Has `handler` run as an interrupt of some CPU, after `delay`.
pub fn interrupt_in(delay: Duration, handler: impl FnOnce() + 'static) {
    let world = world();
    let at = world.now.get() + delay.as_nanos() as u64;
    world.serial.set(world.serial.get() + 1);
    let cpu = &world.cpus[world.up_to(world.cpus.len() as u64) as usize];
    cpu.device.borrow_mut().insert((at, world.serial.get()), Box::new(handler));
}

/// How many CPUs there are.
pub fn cpu_count() -> u64 {
    world().cpus.len() as u64
}

/// A number below `limit`, drawn from the seed.
pub fn draw(limit: u64) -> u64 {
    world().up_to(limit)
}

/// Called by the executor before each step that others can see.
fn step(kind: Step) {
    let world = world();
    world.steps.set(world.steps.get() + 1);
    assert!(world.steps.get() < STEP_LIMIT, "it goes round in circles: {}", world.report());
    world.now.set(world.now.get() + 5 + world.up_to(40));
    world.take_interrupts();
    world.drain_some();
    let cpu = world.cpu();
    if kind == Step::Spin {
        cpu.paused_until.set(world.now.get() + world.up_to(500));
        switch_away();
    } else if world.one_in(400) {
        cpu.paused_until.set(world.now.get() + world.up_to(200_000));
        switch_away();
    } else if world.one_in(world.patience) {
        switch_away();
    }
    world.take_interrupts();
}

/// Lets the machine choose who goes on.
#[allow(deprecated, reason = "the way that needs no handle to be passed down to here")]
fn switch_away() {
    generator::yield_with(());
}

impl World {
    fn new(cpus: usize, seed: u64, faults: Faults) -> Self {
        let processor = |_| Processor {
            doing: Cell::new(Doing::Kernel),
            paused_until: Cell::new(0),
            accepts_interrupts: Cell::new(true),
            alarm: Cell::new(NEVER),
            kick: Cell::new(NEVER),
            device: RefCell::new(BTreeMap::new()),
            held_locks: Cell::new(0),
        };
        let world = Self {
            random: Cell::new(seed),
            patience: 0,
            now: Cell::new(0),
            steps: Cell::new(0),
            serial: Cell::new(0),
            current: Cell::new(0),
            is_over: Cell::new(false),
            cpus: (0..cpus).map(processor).collect(),
            executor: Cell::new(None),
            faults,
            kicks: Cell::new(0),
            alarms: Cell::new(0),
        };
        // Some seeds switch at every other step, some let a CPU run far while the others stand still.
        let patience = [2, 4, 16, 64][world.up_to(4) as usize];
        Self { patience, ..world }
    }

    fn cpu(&self) -> &Processor {
        &self.cpus[self.current.get()]
    }

    /// Splitmix64 (Steele, Lea and Flood, 2014): every seed is a good one.
    fn next(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.set(state);
        let mixed = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn up_to(&self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn one_in(&self, count: u64) -> bool {
        self.up_to(count) == 0
    }

    /// Stores reach memory by themselves, some time.
    fn drain_some(&self) {
        if self.one_in(3) {
            drain_one(self.up_to(self.cpus.len() as u64) as usize);
        }
    }

    /// Runs the handlers of the interrupts that have arrived at this CPU, if it accepts any.
    fn take_interrupts(&self) {
        let cpu = self.cpu();
        if !cpu.accepts_interrupts.get() {
            return;
        }
        cpu.accepts_interrupts.set(false);
        loop {
            let now = self.now.get();
            let device =
                cpu.device.borrow_mut().first_entry().filter(|first| first.key().0 <= now).map(|first| first.remove());
            if let Some(handler) = device {
                self.executor.get().expect("it runs").in_interrupt(DEVICE, handler);
            } else if cpu.alarm.get() <= now {
                cpu.alarm.set(NEVER);
                self.alarms.set(self.alarms.get() + 1);
                if !self.faults.lost_alarm.is_some_and(|every| self.alarms.get().is_multiple_of(every)) {
                    self.executor.get().expect("it runs").alarm();
                }
            } else if cpu.kick.get() <= now {
                // There is nothing to do: that the CPU was interrupted is enough.
                cpu.kick.set(NEVER);
            } else {
                break;
            }
        }
        cpu.accepts_interrupts.set(true);
    }

    /// When `cpu` can make its next step, as far as is known.
    fn ready_at(&self, cpu: &Processor) -> u64 {
        let interrupt = || {
            let device = cpu.device.borrow().first_key_value().map_or(NEVER, |(key, _)| key.0);
            device.min(cpu.alarm.get()).min(cpu.kick.get())
        };
        match cpu.doing.get() {
            Doing::Finished => NEVER,
            Doing::Kernel => cpu.paused_until.get(),
            Doing::Halted if self.is_over.get() => 0,
            Doing::Halted => interrupt(),
            Doing::User(until) => interrupt().min(until),
        }
    }

    /// Nobody can go on without an interrupt: then nobody may sleep who has something to do.
    fn check_rest(&self) {
        let executor = self.executor.get().expect("it runs");
        for (index, cpu) in self.cpus.iter().enumerate() {
            self.play(index);
            if cpu.doing.get() == Doing::Halted && cpu.kick.get() == NEVER {
                assert!(executor.is_at_rest(index), "CPU {index} sleeps with work to do: {}", self.report());
            }
        }
    }

    fn play(&self, index: usize) {
        self.current.set(index);
        play(index);
    }

    /// What everybody does, for a failure's report.
    fn report(&self) -> String {
        let executor = self.executor.get().expect("it runs");
        let mut text = format!("at {} ns", self.now.get());
        for (index, cpu) in self.cpus.iter().enumerate() {
            let (doing, waiting) = (cpu.doing.get(), executor.statistics(index).waiting);
            text += &format!(
                "\nCPU {index}: {doing:?}, {waiting} waiting, alarm {}, {} buffered",
                cpu.alarm.get(),
                buffered(index)
            );
        }
        executor.for_each_task(|task| text += &format!("\n{task:?} on CPU {}", task.cpu()));
        text
    }

    fn run(&self, stacks: &mut [Generator<'static, (), ()>]) {
        loop {
            let now = self.now.get();
            let ready: Vec<usize> =
                (0..self.cpus.len()).filter(|&index| self.ready_at(&self.cpus[index]) <= now).collect();
            if let Some(&index) = ready.get(self.up_to(ready.len() as u64) as usize) {
                self.resume(index, &mut stacks[index]);
                continue;
            }
            for index in 0..self.cpus.len() {
                while drain_one(index) {}
            }
            let next = self.cpus.iter().map(|cpu| self.ready_at(cpu)).min().expect("there are CPUs");
            if self.cpus.iter().all(|cpu| cpu.doing.get() != Doing::Kernel) {
                self.check_rest();
            }
            if next != NEVER {
                self.now.set(next);
            } else if self.cpus.iter().all(|cpu| cpu.doing.get() == Doing::Finished) {
                return;
            } else {
                let executor = self.executor.get().expect("it runs");
                assert_eq!(executor.task_count(), 0, "all sleep, for ever: {}", self.report());
                self.is_over.set(true);
            }
        }
    }

    fn resume(&self, index: usize, stack: &mut Generator<'static, (), ()>) {
        self.play(index);
        let cpu = &self.cpus[index];
        cpu.paused_until.set(0);
        let outside = exchange_held_locks(cpu.held_locks.get());
        stack.resume();
        cpu.held_locks.set(exchange_held_locks(outside));
        if stack.is_done() {
            cpu.doing.set(Doing::Finished);
        }
    }
}

/// Runs a machine of `cpus` CPUs with what `prepare` spawns, until all of that has ended and all CPUs sleep; then `check`s.
pub fn run(cpus: usize, seed: u64, faults: Faults, prepare: impl FnOnce(Executor<Simulated>)) -> Rc<World> {
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            WORLD.take();
        }
    }
    // A simulation that failed may have left some.
    exchange_held_locks(0);
    let world = Rc::new(World::new(cpus, seed, faults));
    WORLD.set(Some(Rc::clone(&world)));
    let _over = Over;
    let executor = Executor::new(Simulated, cpus);
    world.executor.set(Some(executor));
    let mut stacks: Vec<_> = (0..cpus)
        .map(|index| Gn::new_opt(STACK, move || executor.run_until(index, || self::world().is_over.get())))
        .collect();
    let is_running = Rc::new(Cell::new(false));
    let hook = {
        let is_running = Rc::clone(&is_running);
        // What is done outside of the CPUs' stacks is done at once.
        move |kind| {
            if is_running.get() && generator::is_generator() {
                step(kind)
            }
        }
    };
    simulate(cpus, hook, || {
        prepare(executor);
        is_running.set(true);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run(&mut stacks)));
        is_running.set(false);
        if let Err(cause) = outcome {
            // Half-run stacks hold locks and point at each other: they are left as they are.
            mem::forget(stacks);
            std::panic::resume_unwind(cause);
        }
        for index in 0..cpus {
            while drain_one(index) {}
            assert!(executor.is_at_rest(index), "CPU {index} has something left to do");
        }
        assert_eq!(executor.task_count(), 0);
    });
    Rc::clone(&world)
}

impl World {
    /// How many steps were made.
    pub fn steps(&self) -> u64 {
        self.steps.get()
    }
}
