//! Which CPUs may remember translations of which address space, and how they are made to forget them.
//!
//! Each CPU publishes one word: the root table that it has loaded, marked as *lazy* once it runs none of its threads any more (it
//! idles, and may find the same program again when it wakes). Each address space counts the changes that take translations away: its
//! *generation*; each CPU remembers the generation up to which it has flushed.
//!
//! ```text
//!   who changes the tables                          a CPU that begins to use the space
//!   clear or replace entries (under the lock)       word ← root
//!   generation + 1                                  fence(SeqCst)
//!   fence(SeqCst)                                   read the generation; another than it knows? flush all
//!   read all words:                                 load CR3, unless it is loaded already
//!     root, in use    → request, interrupt
//!     root, lazy      → nothing, or request if tables are to be freed
//!     other           → nothing
//!   wait until all have answered (no lock held, interrupts on)
//!   free what was taken out
//! ```
//!
//! Of "change, then read the words" and "write the word, then walk the tables" the fences make one see the other: either the changer
//! sees the word and asks, or the CPU walks tables, and reads a generation, that are changed already.
//!
//! A request lies in the asker's own record, one at a time, since the asker waits; the bit of the asker in the other CPU's `inbox` says that
//! it is there. An interrupt is sent only when the inbox was empty, so that askers who come together are served by one. A CPU that
//! is asked flushes the pages named if the change is the next after those it knows, else all; a CPU that holds the space lazily leaves it,
//! so that it is asked once and not again. Before its tables are freed everybody leaves an address space ([`Shootdown::evict`]).
//!
//! The wait ends: who is asked answers in its interrupt handler, interrupts are off for a few instructions only, and who waits has them on.
//!
//! `shootdown/tests.rs` runs all of it on threads whose translations are simulated. Next: `page_table.rs`. Exercise: which translation
//! survives if a CPU reads the generation before it writes its word?

#[cfg(test)]
mod tests;
mod this_machine;

use core::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
    fence,
};

use crate::arch::MAX_CPUS;

pub use this_machine::SHOOTDOWN;

/// More pages than this are not named: everything is flushed.
pub const PAGES: usize = 16;
/// In a CPU's word: none of the space's threads runs there. Roots are page-aligned.
const LAZY: u64 = 1;
/// How often who waits looks before it pauses. The answer mostly comes soon; and for an emulated CPU a pause is dear, to the one that is to
/// answer, too: both want the emulator's lock.
const LOOKS: u32 = 4096;
/// In place of a root in a request: the kernel's own translations.
const KERNEL: u64 = 2;

/// What this needs of the machine; all of it about the executing CPU, except `interrupt`.
pub trait Hardware {
    /// Its number.
    fn here(&self) -> usize;
    /// How many CPUs run.
    fn count(&self) -> usize;
    /// The root table it has loaded.
    fn loaded(&self) -> u64;
    /// Loads a root table, which forgets all translations of user addresses and of the kernel's window.
    fn load(&self, root: u64);
    /// Forgets the translation of a page.
    fn flush_page(&self, address: usize);
    /// The root that maps nothing of any program.
    fn kernel_root(&self) -> u64;
    /// Has another CPU call [`Shootdown::serve`].
    fn interrupt(&self, cpu: usize);
    /// What a CPU does while it waits for others; interrupts come in here.
    fn pause(&self);
}

/// The pages whose translations are to be forgotten.
#[derive(Clone, Copy)]
pub struct Pages {
    pages: [usize; PAGES],
    count: usize,
}

impl Pages {
    /// None.
    pub const NONE: Pages = Pages { pages: [0; PAGES], count: 0 };

    /// One more.
    #[inline]
    pub fn push(&mut self, address: usize) {
        if let Some(place) = self.pages.get_mut(self.count) {
            *place = address;
        }
        self.count = self.count.saturating_add(1);
    }

    /// All of the address space.
    pub fn push_all(&mut self) {
        self.count = usize::MAX;
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Each of them, or `None` for all of the address space.
    #[inline]
    pub fn named(&self) -> Option<&[usize]> {
        self.pages.get(..self.count)
    }
}

/// One CPU, in cache lines of its own.
#[repr(align(128))]
struct Cpu {
    /// The root it has loaded, perhaps [`LAZY`]; 0 for the kernel's.
    word: AtomicU64,
    /// While it turns from one space to another, the root that may still be loaded; else 0.
    leaving: AtomicU64,
    /// The generation of its space up to which it has flushed.
    seen: AtomicU64,
    /// Who asks it for something, a bit each.
    inbox: AtomicU64,
    request: Request,
}

/// What a CPU asks of others. Written by it while `pending` is 0.
struct Request {
    root: AtomicU64,
    generation: AtomicU64,
    /// How many pages are named; more than there is room for means all, and 0 that only the order of memory accesses matters.
    count: AtomicUsize,
    pages: [AtomicUsize; PAGES],
    /// Who has not answered yet, a bit each.
    pending: AtomicU64,
}

impl Cpu {
    const fn new() -> Cpu {
        Cpu {
            word: AtomicU64::new(0),
            leaving: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            inbox: AtomicU64::new(0),
            request: Request {
                root: AtomicU64::new(0),
                generation: AtomicU64::new(0),
                count: AtomicUsize::new(0),
                pages: [const { AtomicUsize::new(0) }; PAGES],
                pending: AtomicU64::new(0),
            },
        }
    }
}

/// All CPUs.
pub struct Shootdown<H> {
    hardware: H,
    cpus: [Cpu; MAX_CPUS],
}

/// A generation in a request that leaves no choice: the CPU leaves the space.
const LEAVE: u64 = u64::MAX;

impl<H: Hardware> Shootdown<H> {
    /// CPUs that have loaded nothing but the kernel's table.
    pub const fn new(hardware: H) -> Shootdown<H> {
        Shootdown { hardware, cpus: [const { Cpu::new() }; MAX_CPUS] }
    }

    #[inline]
    fn here(&self) -> &Cpu {
        // The remainder says to the compiler that there is such a CPU.
        &self.cpus[self.hardware.here() % MAX_CPUS]
    }

    /// Makes `root` the table of this CPU, for one of its threads; costs one comparison if it is that already.
    #[inline]
    pub fn activate(&self, root: u64, generation: &AtomicU64) {
        // Relaxed: only this CPU writes it.
        if self.here().word.load(Relaxed) != root {
            self.turn_to(root, generation);
        }
    }

    #[cold]
    fn turn_to(&self, root: u64, generation: &AtomicU64) {
        let cpu = self.here();
        // An interrupt may come at any point and make this CPU leave what it holds lazily: hence the exchange.
        if cpu.word.compare_exchange(root | LAZY, root, SeqCst, Relaxed).is_ok() {
            // Pairs with the fence in flush(): it sees that we use the space, or we see its generation.
            fence(SeqCst);
            let now = generation.load(Acquire);
            if cpu.seen.load(Relaxed) != now {
                self.hardware.load(root);
                cpu.seen.store(now, Relaxed);
            }
            return;
        }
        // Until the other table is loaded, the old one counts as held: whoever reads our word first looks here next.
        cpu.leaving.store(cpu.word.load(Relaxed) & !LAZY, Release);
        cpu.word.store(root, Release);
        // As above.
        fence(SeqCst);
        cpu.seen.store(generation.load(Acquire), Relaxed);
        self.hardware.load(root);
        // Release: the old table is not used any more.
        cpu.leaving.store(0, Release);
    }

    /// Whether this CPU uses `root`, or holds it lazily.
    #[inline]
    pub fn is_here(&self, root: u64) -> bool {
        self.here().word.load(Relaxed) & !LAZY == root
    }

    /// Whether another CPU uses `root` or holds it lazily. Changes made before are seen by those who begin to use it later.
    pub fn is_elsewhere(&self, root: u64) -> bool {
        let count = self.hardware.count();
        if count == 1 {
            return false;
        }
        // Pairs with the fences in turn_to().
        fence(SeqCst);
        let here = self.hardware.here();
        (0..count).any(|cpu| cpu != here && self.holds(cpu, root).is_some())
    }

    /// How a CPU holds `root`.
    fn holds(&self, cpu: usize, root: u64) -> Option<Hold> {
        // In this order: see turn_to().
        let word = self.cpus[cpu].word.load(Acquire);
        if word == root || self.cpus[cpu].leaving.load(Acquire) == root {
            Some(Hold::InUse)
        } else {
            (word == root | LAZY).then_some(Hold::Lazy)
        }
    }

    /// This CPU runs no thread from now on, until [`Shootdown::activate`] says otherwise.
    pub fn idle(&self) {
        if self.hardware.count() > 1 {
            let cpu = self.here();
            let word = cpu.word.load(Relaxed);
            if word != 0 {
                // Fails if an interrupt made us leave.
                let _ = cpu.word.compare_exchange(word, word | LAZY, Release, Relaxed);
            }
        }
    }

    /// Makes all CPUs forget what was taken out of the tables below `root`. The caller holds no lock and has interrupts on, and the changes
    /// are made; `frees_tables`: tables are among what was taken out.
    pub fn flush(&self, root: u64, generation: &AtomicU64, pages: &Pages, frees_tables: bool) {
        let new = generation.fetch_add(1, AcqRel) + 1;
        match self.here().word.load(Relaxed) {
            word if word == root => self.forget(self.here(), root, new, pages.named()),
            word if word == root | LAZY => self.leave(self.here()),
            _ => {}
        }
        let skips = if frees_tables { None } else { Some(Hold::Lazy) };
        self.ask(root, new, pages, |hold| Some(hold) != skips);
    }

    /// Makes all CPUs leave `root`, which no thread uses any more. As for [`Shootdown::flush`].
    pub fn evict(&self, root: u64) {
        let cpu = self.here();
        if self.is_here(root) {
            self.leave(cpu);
        }
        if self.is_elsewhere(root) {
            self.ask(root, LEAVE, &Pages::NONE, |_| true);
        }
    }

    /// Makes all CPUs forget the kernel's own translations that may change.
    #[cfg(target_os = "none")]
    pub fn flush_kernel(&self) {
        self.hardware.load(self.hardware.loaded());
        self.send(KERNEL, 0, &Pages::NONE, |_| true);
    }

    /// Lets every CPU that runs a thread of `root` pass a memory barrier (every CPU at all, without one).
    pub fn barrier(&self, root: Option<u64>) {
        fence(SeqCst);
        match root {
            Some(root) => self.ask(root, 0, &Pages::NONE, |hold| hold == Hold::InUse),
            None => self.send(0, 0, &Pages::NONE, |_| true),
        }
    }

    /// Asks those who hold `root` in a way that `is_meant` accepts.
    fn ask(&self, root: u64, generation: u64, pages: &Pages, is_meant: impl Fn(Hold) -> bool) {
        // Pairs with the fences in turn_to().
        fence(SeqCst);
        self.send(root, generation, pages, |cpu| self.holds(cpu, root).is_some_and(&is_meant));
    }

    fn send(&self, root: u64, generation: u64, pages: &Pages, is_meant: impl Fn(usize) -> bool) {
        let here = self.hardware.here();
        let targets = (0..self.hardware.count()).filter(|&cpu| cpu != here && is_meant(cpu));
        let targets = targets.fold(0, |mask, cpu| mask | 1 << cpu);
        if targets == 0 {
            return;
        }
        let request = &self.cpus[here].request;
        // Relaxed: ordered by the Release of the inboxes.
        request.root.store(root, Relaxed);
        request.generation.store(generation, Relaxed);
        request.count.store(pages.count, Relaxed);
        for (place, &page) in request.pages.iter().zip(pages.named().unwrap_or(&[])) {
            place.store(page, Relaxed);
        }
        request.pending.store(targets, Relaxed);
        for cpu in bits(targets) {
            // Release: pairs with the Acquire in serve(). If others asked before us, their interrupt is on its way.
            if self.cpus[cpu].inbox.fetch_or(1 << here, SeqCst) == 0 {
                self.hardware.interrupt(cpu);
            }
        }
        // Acquire: pairs with the Release of the answers.
        while (0..LOOKS).all(|_| request.pending.load(Acquire) != 0) {
            self.hardware.pause();
        }
    }

    /// Does what others ask of this CPU: its interrupt handler, with interrupts off.
    pub fn serve(&self) {
        let here = self.hardware.here();
        let cpu = &self.cpus[here];
        for asker in bits(cpu.inbox.swap(0, SeqCst)) {
            let request = &self.cpus[asker].request;
            self.obey(cpu, request);
            // A barrier may be all that was asked for.
            fence(SeqCst);
            // Release: the asker frees what we have forgotten.
            request.pending.fetch_and(!(1 << here), Release);
        }
    }

    fn obey(&self, cpu: &Cpu, request: &Request) {
        let (root, generation) = (request.root.load(Relaxed), request.generation.load(Relaxed));
        let word = cpu.word.load(Relaxed);
        if root == KERNEL {
            return self.hardware.load(self.hardware.loaded());
        }
        if generation == 0 {
            return;
        }
        if word == root | LAZY || word == root && generation == LEAVE {
            return self.leave(cpu);
        }
        if word != root {
            // In the midst of turn_to(), which is about to load another one.
            if self.hardware.loaded() == root {
                self.hardware.load(self.hardware.kernel_root());
            }
            return;
        }
        let count = request.count.load(Relaxed);
        let mut pages = Pages { pages: [0; PAGES], count };
        for (page, place) in pages.pages.iter_mut().zip(&request.pages).take(count) {
            *page = place.load(Relaxed);
        }
        self.forget(cpu, root, generation, pages.named());
    }

    /// Brings this CPU, which uses `root`, up to a generation.
    fn forget(&self, cpu: &Cpu, root: u64, generation: u64, pages: Option<&[usize]>) {
        let seen = cpu.seen.load(Relaxed);
        if seen >= generation {
            return;
        }
        match pages {
            Some(pages) if seen + 1 == generation => pages.iter().for_each(|&page| self.hardware.flush_page(page)),
            _ => self.hardware.load(root),
        }
        cpu.seen.fetch_max(generation, Relaxed);
    }

    fn leave(&self, cpu: &Cpu) {
        self.hardware.load(self.hardware.kernel_root());
        // Release: pairs with the Acquire in holds().
        cpu.word.store(0, Release);
    }
}

/// How a CPU holds an address space.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    InUse,
    Lazy,
}

/// The numbers of the bits that are set.
fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let bit = (mask != 0).then(|| mask.trailing_zeros() as usize)?;
        mask &= mask - 1;
        Some(bit)
    })
}
