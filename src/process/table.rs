//! The process table: which numbers are taken, by whom, and who is whose child.
//!
//! One lock guards the whole tree, so that a fork, an exit and a wait never see it half changed. It is held for a few map
//! look-ups, never over an await, and before any lock of a single process.
//!
//! Next: `thread.rs`.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use abi::{Errno, Result};
use executor::sync::SpinLock;

use super::process::Process;
use super::thread::Thread;

/// The first number that is never given out: the value of /proc/sys/kernel/pid_max.
pub const PID_MAX: i32 = 4_194_304;
/// The most threads there may ever be at once.
const THREADS_MAX: usize = 1 << 20;
/// Numbers below this one are not used again after the first round, as on Linux.
const RESERVED_PIDS: i32 = 300;

static TABLE: SpinLock<ProcessTable> = SpinLock::ordered(super::rank::TABLE, ProcessTable::new());
static THREADS: AtomicUsize = AtomicUsize::new(0);
static THREADS_OF_USERS: SpinLock<BTreeMap<u32, u64>> = SpinLock::new(BTreeMap::new());

/// What a number stands for. It is free again when it stands for nothing.
#[derive(Default)]
struct Entry {
    thread: Option<Arc<Thread>>,
    /// Most threads are not the first of their process.
    more: Option<Box<More>>,
}

/// What the number of a thread can stand for besides.
#[derive(Default)]
struct More {
    process: Option<Arc<Process>>,
    children: Vec<i32>,
    group_members: Vec<i32>,
    session_members: u32,
}

impl Entry {
    fn is_free(&self) -> bool {
        let is_empty =
            |more: &More| more.process.is_none() && more.group_members.is_empty() && more.session_members == 0;
        self.thread.is_none() && self.more.as_deref().is_none_or(is_empty)
    }

    fn process(&self) -> Option<&Arc<Process>> {
        self.more.as_ref()?.process.as_ref()
    }

    fn children(&self) -> &[i32] {
        self.more.as_ref().map(|more| more.children.as_slice()).unwrap_or_default()
    }

    fn group_members(&self) -> &[i32] {
        self.more.as_ref().map(|more| more.group_members.as_slice()).unwrap_or_default()
    }

    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }
}

/// All processes; reached through [`with`].
pub struct ProcessTable {
    entries: BTreeMap<i32, Entry>,
    last: i32,
}

/// Works with the table, which nobody else changes meanwhile.
pub fn with<R>(work: impl FnOnce(&mut ProcessTable) -> R) -> R {
    work(&mut TABLE.lock())
}

/// The process of this number, zombies included.
pub fn process(pid: i32) -> Option<Arc<Process>> {
    TABLE.lock().process(pid)
}

/// The thread of this number.
pub fn thread(tid: i32) -> Option<Arc<Thread>> {
    TABLE.lock().entries.get(&tid)?.thread.clone()
}

/// Shows all threads to `look`, by number; without the table's lock, so it may take its time. Threads that come or go meanwhile may be
/// shown, or not.
pub fn for_each_thread(mut look: impl FnMut(&Arc<Thread>)) {
    let mut after = 0;
    loop {
        let mut portion: [Option<Arc<Thread>>; 32] = [const { None }; 32];
        let mut places = portion.iter_mut();
        for (number, entry) in TABLE.lock().entries.range(after + 1..) {
            let Some(thread) = &entry.thread else { continue };
            let Some(place) = places.next() else { break };
            *place = Some(thread.clone());
            after = *number;
        }
        let is_last = places.next().is_some();
        portion.iter().flatten().for_each(&mut look);
        if is_last {
            return;
        }
    }
}

/// The thread that is this task of the executor.
pub fn thread_of_task(task: u64) -> Option<Arc<Thread>> {
    let mut found = None;
    for_each_thread(|thread| {
        if thread.task().is_some_and(|own| own.id() == task) {
            found = Some(thread.clone());
        }
    });
    found
}

/// The most threads there may be at once in the whole system, /proc/sys/kernel/threads-max: those that sleep and share their stacks
/// then take half of the memory.
pub fn threads_at_most() -> usize {
    crate::mm::frames::total().min(THREADS_MAX)
}

/// How many threads there are.
pub fn thread_count() -> usize {
    THREADS.load(Ordering::Relaxed)
}

/// The right to one more thread, taken before anything is allocated for it, so that no limit can be overrun by a race.
pub struct ThreadPermit {
    uid: u32,
}

impl ThreadPermit {
    /// Takes it on the account of a user, who may have `limit` threads.
    ///
    /// # Errors
    ///
    /// `EAGAIN`: the system, or the user, has as many threads as it may.
    pub fn take(uid: u32, limit: Option<u64>) -> Result<ThreadPermit> {
        crate::counters::THREADS_MADE.add();
        let taken = THREADS.fetch_add(1, Ordering::Relaxed);
        let mut users = THREADS_OF_USERS.lock();
        let own = users.entry(uid).or_insert(0);
        *own += 1;
        let is_over = taken >= threads_at_most() || limit.is_some_and(|limit| *own > limit);
        drop(users);
        let permit = ThreadPermit { uid };
        if is_over { Err(Errno::EAGAIN) } else { Ok(permit) }
    }

    /// Moves it to another user's account, as setuid(2) does; never fails.
    pub fn change_user(&mut self, uid: u32) {
        if uid != self.uid {
            let mut users = THREADS_OF_USERS.lock();
            give_back(&mut users, self.uid);
            *users.entry(uid).or_insert(0) += 1;
            self.uid = uid;
        }
    }
}

fn give_back(users: &mut BTreeMap<u32, u64>, uid: u32) {
    if let Some(own) = users.get_mut(&uid) {
        *own -= 1;
        if *own == 0 {
            users.remove(&uid);
        }
    }
}

impl Drop for ThreadPermit {
    fn drop(&mut self) {
        give_back(&mut THREADS_OF_USERS.lock(), self.uid);
        THREADS.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ProcessTable {
    const fn new() -> ProcessTable {
        ProcessTable { entries: BTreeMap::new(), last: 0 }
    }

    /// The number that was given out last: the end of /proc/loadavg.
    pub fn last_number(&self) -> i32 {
        self.last
    }

    /// Reserves a free number by an empty entry; [`ProcessTable::forget`] gives it back.
    ///
    /// # Errors
    ///
    /// `EAGAIN`: all are taken.
    pub fn reserve(&mut self) -> Result<i32> {
        for _ in 0..PID_MAX {
            self.last += 1;
            if self.last >= PID_MAX {
                self.last = RESERVED_PIDS;
            }
            if let alloc::collections::btree_map::Entry::Vacant(vacant) = self.entries.entry(self.last) {
                vacant.insert(Entry::default());
                return Ok(self.last);
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Gives a reserved number back that was not used after all.
    pub fn forget(&mut self, number: i32) {
        if self.entries.get(&number).is_some_and(Entry::is_free) {
            self.entries.remove(&number);
        }
    }

    /// The process of this number, zombies included.
    pub fn process(&self, pid: i32) -> Option<Arc<Process>> {
        self.entries.get(&pid)?.process().cloned()
    }

    /// Enters a thread under its number.
    pub fn add_thread(&mut self, tid: i32, thread: Arc<Thread>) {
        self.entries.entry(tid).or_default().thread = Some(thread);
    }

    /// Takes a thread out.
    pub fn remove_thread(&mut self, tid: i32) -> Option<Arc<Thread>> {
        let thread = self.entries.get_mut(&tid)?.thread.take();
        self.forget(tid);
        thread
    }

    /// Enters a process: as its parent's child, and into its group and session.
    pub fn add_process(&mut self, process: Arc<Process>) {
        let (pid, parent, group, session) = (process.pid, process.parent(), process.group(), process.session());
        self.entry(pid).process = Some(process);
        if let Some(parent) = self.existing(parent) {
            parent.children.push(pid);
        }
        self.entry(group).group_members.push(pid);
        self.entry(session).session_members += 1;
    }

    /// Takes a zombie out: its number is free again unless a group or session bears it.
    pub fn remove_process(&mut self, pid: i32) -> Option<Arc<Process>> {
        let process = self.existing(pid)?.process.take()?;
        if let Some(parent) = self.existing(process.parent()) {
            parent.children.retain(|child| *child != pid);
        }
        self.leave_group(pid, process.group());
        self.leave_session(process.session());
        self.forget(pid);
        Some(process)
    }

    /// What a number stands for besides a thread: to be changed.
    fn entry(&mut self, number: i32) -> &mut More {
        self.entries.entry(number).or_default().more()
    }

    /// The same, if the number stands for anything.
    fn existing(&mut self, number: i32) -> Option<&mut More> {
        self.entries.get_mut(&number).map(Entry::more)
    }

    fn leave_group(&mut self, pid: i32, group: i32) {
        if let Some(entry) = self.existing(group) {
            entry.group_members.retain(|member| *member != pid);
        }
        self.forget(group);
    }

    fn leave_session(&mut self, session: i32) {
        if let Some(entry) = self.existing(session) {
            entry.session_members -= 1;
        }
        self.forget(session);
    }

    /// Moves a process to another group of its session.
    pub fn set_group(&mut self, process: &Process, group: i32) {
        let old = process.group.swap(group, Ordering::Relaxed);
        self.entry(group).group_members.push(process.pid);
        if old != group {
            self.leave_group(process.pid, old);
        } else if let Some(entry) = self.existing(group) {
            entry.group_members.pop();
        }
    }

    /// Makes a process the leader of a new session and group of its own number.
    pub fn start_session(&mut self, process: &Process) {
        self.set_group(process, process.pid);
        let old = process.session.swap(process.pid, Ordering::Relaxed);
        self.entry(process.pid).session_members += 1;
        self.leave_session(old);
    }

    /// The processes of a group.
    pub fn group(&self, group: i32) -> Vec<Arc<Process>> {
        self.members(group).cloned().collect()
    }

    fn members(&self, group: i32) -> impl Iterator<Item = &Arc<Process>> {
        let members = self.entries.get(&group).map(Entry::group_members).unwrap_or_default();
        members.iter().filter_map(|pid| self.entries.get(pid)?.process())
    }

    /// Whether a group of that number exists.
    pub fn has_group(&self, group: i32) -> bool {
        self.entries.get(&group).is_some_and(|entry| !entry.group_members().is_empty())
    }

    /// The children of a process.
    pub fn children(&self, pid: i32) -> impl Iterator<Item = &Arc<Process>> {
        let children = self.entries.get(&pid).map(Entry::children).unwrap_or_default();
        children.iter().filter_map(|child| self.entries.get(child)?.process())
    }

    /// Whether it has any children.
    pub fn has_children(&self, pid: i32) -> bool {
        self.entries.get(&pid).is_some_and(|entry| !entry.children().is_empty())
    }

    /// Gives the children of a process that ends to another; returns them.
    pub fn adopt_children(&mut self, from: i32, to: i32) -> Vec<Arc<Process>> {
        let children = self.existing(from).map(|entry| core::mem::take(&mut entry.children)).unwrap_or_default();
        let adopted: Vec<_> = children.iter().filter_map(|child| self.process(*child)).collect();
        for child in &adopted {
            child.parent.store(to, Ordering::Relaxed);
        }
        if let Some(entry) = self.existing(to) {
            entry.children.extend(children);
        }
        adopted
    }

    /// Who adopts the children of a process: its nearest living ancestor that asked for it (PR_SET_CHILD_SUBREAPER), else init.
    pub fn reaper_of(&self, process: &Process) -> i32 {
        let mut ancestor = self.process(process.parent());
        for _ in 0..self.entries.len() {
            match ancestor {
                Some(candidate) if candidate.is_subreaper.load(Ordering::Relaxed) && !candidate.is_zombie() => {
                    return candidate.pid;
                }
                Some(candidate) if candidate.pid != 1 => ancestor = self.process(candidate.parent()),
                _ => break,
            }
        }
        1
    }

    /// Whether a group is orphaned: no member has a parent in the same session but outside the group (setpgid(2)). Terminals do
    /// not stop orphaned groups, for nobody could let them go on. `leaving` is taken as gone already.
    pub fn is_orphaned(&self, group: i32, leaving: Option<i32>) -> bool {
        !self.members(group).any(|member| {
            Some(member.pid) != leaving
                && !member.is_zombie()
                && self.entries.get(&member.parent()).and_then(Entry::process).is_some_and(|parent| {
                    parent.session() == member.session() && parent.group() != group && Some(parent.pid) != leaving
                })
        })
    }

    /// All processes, by number.
    pub fn processes(&self) -> impl Iterator<Item = &Arc<Process>> {
        self.entries.values().filter_map(Entry::process)
    }

    /// All process numbers above `after`, in order, for reading /proc a part at a time.
    pub fn numbers_after(&self, after: i32) -> impl Iterator<Item = i32> + '_ {
        let from = after.saturating_add(1);
        self.entries.range(from..).filter(|(_, entry)| entry.process().is_some()).map(|(pid, _)| *pid)
    }
}
