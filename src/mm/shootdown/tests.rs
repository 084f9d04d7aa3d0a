//! The shoot-down on threads whose translations are simulated: no CPU reads a frame that was freed.

use super::*;
use core::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const CPUS: usize = 4;
const SPACES: usize = 3;
const PAGES_USED: usize = 8;
const KERNEL_ROOT: u64 = 0x1000;

std::thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
    static LOADED: Cell<u64> = const { Cell::new(KERNEL_ROOT) };
    /// What this CPU remembers: of the loaded table's pages, the frames.
    static REMEMBERED: RefCell<HashMap<usize, usize>> = RefCell::new(HashMap::new());
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

static INTERRUPTS: [AtomicBool; CPUS] = [const { AtomicBool::new(false) }; CPUS];
static MACHINE: Shootdown<Simulated> = Shootdown::new(Simulated);

struct Simulated;

impl Hardware for Simulated {
    fn here(&self) -> usize {
        CPU.get()
    }
    fn count(&self) -> usize {
        CPUS
    }
    fn loaded(&self) -> u64 {
        LOADED.get()
    }
    fn load(&self, root: u64) {
        LOADED.set(root);
        REMEMBERED.with_borrow_mut(HashMap::clear);
    }
    fn flush_page(&self, address: usize) {
        REMEMBERED.with_borrow_mut(|remembered| remembered.remove(&address));
    }
    fn kernel_root(&self) -> u64 {
        KERNEL_ROOT
    }
    fn interrupt(&self, cpu: usize) {
        INTERRUPTS[cpu].store(true, SeqCst);
    }
    fn pause(&self) {
        interrupts_come_in();
        std::thread::yield_now();
    }
}

fn interrupts_come_in() {
    if INTERRUPTS[CPU.get()].swap(false, SeqCst) {
        ASKED.set(ASKED.get() + 1);
        MACHINE.serve();
    }
}

/// An address space: which frame each page maps, and how often translations were taken away.
struct Space {
    generation: AtomicU64,
    table: [AtomicUsize; PAGES_USED],
    lock: Mutex<()>,
}

static SPACES_THERE: [Space; SPACES] = [const {
    Space { generation: AtomicU64::new(0), table: [const { AtomicUsize::new(0) }; PAGES_USED], lock: Mutex::new(()) }
}; SPACES];
/// Whether a frame is in use; each is used once.
static FRAMES: Mutex<Vec<&'static AtomicBool>> = Mutex::new(Vec::new());

fn new_frame() -> usize {
    let mut frames = FRAMES.lock().unwrap();
    frames.push(Box::leak(Box::new(AtomicBool::new(true))));
    frames.len() - 1
}

fn in_use(frame: usize) -> &'static AtomicBool {
    FRAMES.lock().unwrap()[frame]
}

fn root(space: usize) -> u64 {
    (space as u64 + 2) << 12
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// Reads a page as a program does: through what the CPU remembers, else through the table.
fn touch(number: usize, page: usize) {
    let space = &SPACES_THERE[number];
    assert_eq!(LOADED.get(), root(number), "the table of another program is loaded");
    let remembered = REMEMBERED.with_borrow(|remembered| remembered.get(&page).copied());
    let frame = remembered.unwrap_or_else(|| space.table[page].load(SeqCst));
    REMEMBERED.with_borrow_mut(|all| all.insert(page, frame));
    assert!(in_use(frame).load(SeqCst), "CPU {} reads a frame that was freed", CPU.get());
}

/// Puts other frames behind some pages, and frees the old ones.
fn change(number: usize, random: &mut Random) {
    let space = &SPACES_THERE[number];
    let guard = loop {
        match space.lock.try_lock() {
            Ok(guard) => break guard,
            Err(_) => MACHINE.hardware.pause(),
        }
    };
    let mut pages = Pages::NONE;
    let mut old = Vec::new();
    for _ in 0..=random.below(3) {
        let page = random.below(PAGES_USED);
        old.push(space.table[page].swap(new_frame(), SeqCst));
        pages.push(page);
    }
    if random.below(8) == 0 {
        pages.push_all();
    }
    drop(guard);
    MACHINE.flush(root(number), &space.generation, &pages, random.below(4) == 0);
    old.into_iter().for_each(|frame| in_use(frame).store(false, SeqCst));
}

fn run(cpu: usize, seed: u64, is_over: &AtomicBool) -> (usize, usize) {
    CPU.set(cpu);
    let mut random = Random(seed);
    let mut steps = 0;
    while !is_over.load(SeqCst) {
        let number = random.below(SPACES);
        match random.below(10) {
            0 => MACHINE.idle(),
            1 => change(number, &mut random),
            2 => MACHINE.barrier(Some(root(number))),
            _ => {
                MACHINE.activate(root(number), &SPACES_THERE[number].generation);
                for _ in 0..4 {
                    interrupts_come_in();
                    if LOADED.get() == root(number) {
                        touch(number, random.below(PAGES_USED));
                    }
                }
            }
        }
        interrupts_come_in();
        steps += 1;
    }
    (steps, ASKED.get())
}

#[test]
fn no_cpu_reads_a_frame_that_was_freed_whoever_holds_which_space() {
    for space in &SPACES_THERE {
        space.table.iter().for_each(|entry| entry.store(new_frame(), SeqCst));
    }
    let is_over = AtomicBool::new(false);
    let running = AtomicUsize::new(CPUS);
    std::thread::scope(|scope| {
        let cpus: Vec<_> = (0..CPUS)
            .map(|cpu| {
                let (is_over, running) = (&is_over, &running);
                scope.spawn(move || {
                    let did = run(cpu, 77 + cpu as u64, is_over);
                    // Interrupts go on being served until all are done, as on a CPU that idles.
                    running.fetch_sub(1, SeqCst);
                    while running.load(SeqCst) != 0 {
                        MACHINE.hardware.pause();
                    }
                    did
                })
            })
            .collect();
        let end = Instant::now() + Duration::from_millis(600);
        while Instant::now() < end && !cpus.iter().any(|cpu| cpu.is_finished()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        is_over.store(true, SeqCst);
        let did: Vec<_> = cpus.into_iter().map(|cpu| cpu.join().expect("no CPU fails")).collect();
        assert!(did.iter().all(|(steps, _)| *steps > 50), "{did:?}");
        assert!(did.iter().map(|(_, asked)| asked).sum::<usize>() > 20, "somebody was asked: {did:?}");
    });
}

#[test]
fn more_pages_than_there_is_room_for_are_all_pages() {
    let mut pages = Pages::NONE;
    (0..PAGES).for_each(|page| pages.push(page));
    assert_eq!(pages.named().map(<[usize]>::len), Some(PAGES));
    pages.push(PAGES);
    assert!(pages.named().is_none() && !pages.is_empty());
}
