//! The folder of a process: /proc/PID, and /proc/PID/task/TID of each of its threads.
//!
//! What is in it stands in one table, `ENTRIES`. A node holds the process weakly: an open file of one that has gone says
//! `ESRCH`, and keeps nothing alive.
//!
//! Next: `status.rs`, `memory.rs`, `descriptors.rs`. Exercise: why is the name of a process's folder never remembered?

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::Ordering;

use abi::{Errno, Result};
use fs::{Io, Kind, Path};
use procfs::{Content, File, Folder, Link, Listed, Node};

use super::text::Text;
use super::{access, descriptors, memory, mounts, status};
use crate::process::image::Image;
use crate::process::thread::View;
use crate::process::{Process, Thread, current, table};

/// A process, or one thread of it, that files in its folder are about.
#[derive(Clone)]
pub struct Subject {
    process: Weak<Process>,
    pid: i32,
    /// The thread, if it is not about the process as a whole.
    tid: Option<i32>,
}

impl Subject {
    /// A process as a whole.
    pub fn of_process(process: &Arc<Process>) -> Subject {
        Subject { process: Arc::downgrade(process), pid: process.pid, tid: None }
    }

    /// One thread of it.
    fn of_thread(process: &Arc<Process>, tid: i32) -> Subject {
        Subject { process: Arc::downgrade(process), pid: process.pid, tid: Some(tid) }
    }

    /// The process.
    ///
    /// # Errors
    ///
    /// `ESRCH`: it has gone.
    pub fn process(&self) -> Result<Arc<Process>> {
        self.process.upgrade().ok_or(Errno::ESRCH)
    }

    /// The thread it is about; of a process, its first.
    ///
    /// # Errors
    ///
    /// `ESRCH`: it has ended.
    pub fn thread(&self) -> Result<Arc<Thread>> {
        let process = self.process()?;
        match self.tid {
            None => process.any_thread(),
            Some(tid) => process.threads().into_iter().find(|thread| thread.tid() == tid),
        }
        .ok_or(Errno::ESRCH)
    }

    /// What can be seen of the thread. Not to be held over an await: it keeps open files from being closed.
    ///
    /// # Errors
    ///
    /// `ESRCH`: it has ended.
    pub fn view(&self) -> Result<View> {
        self.thread()?.view.lock().clone().ok_or(Errno::ESRCH)
    }

    /// Its number: the thread's, or the process's.
    pub fn id(&self) -> i32 {
        self.tid.unwrap_or(self.pid)
    }

    /// Whether it is about one thread only.
    pub fn is_thread(&self) -> bool {
        self.tid.is_some()
    }

    /// Checks that the caller may look into it.
    ///
    /// # Errors
    ///
    /// `EACCES`; `ESRCH`.
    pub fn check_access(&self) -> Result<()> {
        let process = self.process()?;
        access::check(&process)
    }

    /// The number of an inode in its folder: above all that procfs counts up.
    pub fn inode_number(&self, place: u64) -> u64 {
        1 << 62 | u64::from(self.id().unsigned_abs()) << 36 | u64::from(self.is_thread()) << 35 | place
    }

    /// Its user and group: root's if nobody else is to look into it.
    fn owner(&self) -> (u32, u32) {
        let Ok(process) = self.process() else { return (0, 0) };
        if process.dumpable.load(Ordering::Relaxed) != 1 {
            return (0, 0);
        }
        match status::credentials(self, &process) {
            Some(credentials) => (credentials.euid, credentials.egid),
            None => (process.image.lock().owner, 0),
        }
    }

    /// A node that is its user's.
    pub fn node(&self, place: u64, mode: u32, content: Content) -> Node {
        let (uid, gid) = self.owner();
        Node { number: self.inode_number(place), mode, uid, gid, content }
    }
}

/// What an entry is made of.
enum Entry {
    /// A text.
    Text(fn(&Subject) -> Result<Vec<u8>>),
    /// A text for those only who may look into the process.
    Private(fn(&Subject) -> Result<Vec<u8>>),
    /// A text that can be written.
    Setting(fn(&Subject) -> Result<Vec<u8>>, fn(&Subject, &[u8]) -> Result<()>),
    /// A part of its memory.
    Arguments,
    /// A part of its memory for those only who may look into the process.
    Environment,
    /// A way to a place.
    Link(fn(&View, &Image) -> Option<Path>),
    /// A folder.
    Folder(fn(Subject) -> Content),
}

struct Row {
    name: &'static str,
    mode: u32,
    entry: Entry,
    /// Whether the folders of threads have it too.
    is_for_threads: bool,
}

const fn row(name: &'static str, mode: u32, entry: Entry) -> Row {
    Row { name, mode, entry, is_for_threads: true }
}

/// All entries of a process's folder.
static ENTRIES: &[Row] = &[
    row("auxv", 0o400, Entry::Private(memory::auxiliary_vector)),
    row("children", 0o444, Entry::Text(status::children)),
    row("cmdline", 0o444, Entry::Arguments),
    row("comm", 0o644, Entry::Setting(status::comm, status::set_comm)),
    row("cwd", 0o777, Entry::Link(|view, _| Some(view.fs.working_directory()))),
    row("environ", 0o400, Entry::Environment),
    row("exe", 0o777, Entry::Link(|_, image| image.executable.clone())),
    row("fd", 0o500, Entry::Folder(descriptors::links)),
    row("fdinfo", 0o500, Entry::Folder(descriptors::infos)),
    row("limits", 0o444, Entry::Text(status::limits)),
    row("maps", 0o444, Entry::Private(memory::maps)),
    row("mountinfo", 0o444, Entry::Text(mounts::mountinfo)),
    row("mounts", 0o444, Entry::Text(mounts::mounts)),
    row("oom_score_adj", 0o644, Entry::Setting(status::oom_score_adjustment, status::set_oom_score_adjustment)),
    row("root", 0o777, Entry::Link(|view, _| Some(view.fs.root()))),
    row("schedstat", 0o444, Entry::Text(status::schedule)),
    row("stat", 0o444, Entry::Text(status::stat)),
    row("statm", 0o444, Entry::Text(memory::statm)),
    row("status", 0o444, Entry::Text(status::status)),
    Row { name: "task", mode: 0o555, entry: Entry::Folder(threads), is_for_threads: false },
    row("wchan", 0o444, Entry::Text(status::wait_channel)),
];

impl Row {
    fn node(&'static self, subject: &Subject, place: u64) -> Node {
        let content = match &self.entry {
            Entry::Link(place) => Content::Link(Arc::new(PlaceLink { subject: subject.clone(), place: *place })),
            Entry::Folder(folder) => folder(subject.clone()),
            _ => Content::File(Arc::new(EntryFile { subject: subject.clone(), entry: &self.entry })),
        };
        subject.node(place, self.mode, content)
    }

    fn kind(&self) -> Kind {
        match self.entry {
            Entry::Link(_) => Kind::Symlink,
            Entry::Folder(_) => Kind::Directory,
            _ => Kind::Regular,
        }
    }
}

struct EntryFile {
    subject: Subject,
    entry: &'static Entry,
}

impl File for EntryFile {
    fn read(&self) -> Io<'_, Vec<u8>> {
        let subject = &self.subject;
        match self.entry {
            Entry::Text(make) | Entry::Setting(make, _) => Io::ready(make(subject)),
            Entry::Private(make) => Io::ready(subject.check_access().and_then(|()| make(subject))),
            Entry::Arguments => Io::wait(memory::arguments(subject)),
            Entry::Environment => match subject.check_access() {
                Ok(()) => Io::wait(memory::environment(subject)),
                Err(errno) => Io::ready(Err(errno)),
            },
            Entry::Link(_) | Entry::Folder(_) => Io::ready(Err(Errno::EINVAL)),
        }
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        match self.entry {
            Entry::Setting(_, write) => write(&self.subject, bytes),
            _ => Err(Errno::EIO),
        }
    }
}

/// `exe`, `cwd`, `root`.
struct PlaceLink {
    subject: Subject,
    place: fn(&View, &Image) -> Option<Path>,
}

impl PlaceLink {
    fn find(&self) -> Result<Path> {
        self.subject.check_access()?;
        let image = self.subject.process()?.image.lock().clone();
        let view = self.subject.view().map_err(|_| Errno::ENOENT)?;
        (self.place)(&view, &image).ok_or(Errno::ENOENT)
    }
}

impl Link for PlaceLink {
    fn target(&self) -> Result<Vec<u8>> {
        Ok(display(&self.find()?))
    }

    fn place(&self) -> Option<Result<Path>> {
        Some(self.find())
    }
}

/// The name of a place, as the caller sees it from its root.
pub fn display(path: &Path) -> Vec<u8> {
    let own_root = current::get().and_then(|thread| Some(thread.view.lock().as_ref()?.fs.root()));
    match own_root {
        Some(root) => path.display(&root),
        None => path.display(path),
    }
}

/// The folder of a process or a thread.
struct OwnFolder(Subject);

impl OwnFolder {
    fn entries(&self) -> impl Iterator<Item = (u64, &'static Row)> + use<> {
        let is_thread = self.0.is_thread();
        (1..).zip(ENTRIES).filter(move |(_, row)| row.is_for_threads || !is_thread)
    }
}

impl Folder for OwnFolder {
    fn lookup(&self, name: &[u8]) -> Result<Node> {
        let (place, row) = self.entries().find(|(_, row)| row.name.as_bytes() == name).ok_or(Errno::ENOENT)?;
        self.0.process().map_err(|_| Errno::ENOENT)?;
        Ok(row.node(&self.0, place))
    }

    fn list(&self, position: u64, tell: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<()> {
        self.0.process().map_err(|_| Errno::ENOENT)?;
        for (place, row) in self.entries().filter(|(place, _)| *place > position) {
            let number = self.0.inode_number(place);
            if !tell(Listed { position: place, name: row.name.as_bytes(), number, kind: row.kind() }) {
                break;
            }
        }
        Ok(())
    }
}

fn folder_of(subject: Subject) -> Node {
    let content = Content::Folder(Arc::new(OwnFolder(subject.clone())));
    subject.node(0, 0o555, content)
}

/// The changing part of /proc: a folder for each process.
pub struct Processes;

/// A number as the name of an entry: without sign, leading zeros or anything else.
pub fn parse_number(name: &[u8]) -> Result<i32> {
    let text = core::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
    let is_plain = text == "0" || text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    if is_plain { text.parse().map_err(|_| Errno::ENOENT) } else { Err(Errno::ENOENT) }
}

impl Folder for Processes {
    fn lookup(&self, name: &[u8]) -> Result<Node> {
        let number = parse_number(name)?;
        if let Some(process) = table::process(number) {
            return Ok(folder_of(Subject::of_process(&process)));
        }
        // Threads are found under their numbers too, though they are not listed.
        let thread = table::thread(number).ok_or(Errno::ENOENT)?;
        Ok(folder_of(Subject::of_thread(&thread.process, number)))
    }

    fn list(&self, position: u64, tell: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<()> {
        let after = i32::try_from(position).unwrap_or(i32::MAX);
        let processes: Vec<_> = table::with(|table| {
            let numbers = table.numbers_after(after);
            numbers.take(NUMBERS_AT_ONCE).filter_map(|number| table.process(number)).collect()
        });
        tell_numbers(processes.iter().map(Subject::of_process), tell);
        Ok(())
    }
}

/// How many processes are looked up at once: more than are ever told at once.
const NUMBERS_AT_ONCE: usize = 256;

fn tell_numbers(subjects: impl Iterator<Item = Subject>, tell: &mut dyn FnMut(Listed<'_>) -> bool) {
    for subject in subjects {
        let mut name = Text::new();
        // Writing to memory cannot fail.
        let _ = write!(name, "{}", subject.id());
        let position = u64::from(subject.id().unsigned_abs());
        let (name, number) = (name.into_bytes(), subject.inode_number(0));
        if !tell(Listed { position, name: &name, number, kind: Kind::Directory }) {
            break;
        }
    }
}

/// /proc/PID/task.
fn threads(subject: Subject) -> Content {
    Content::Folder(Arc::new(Threads(subject)))
}

struct Threads(Subject);

impl Folder for Threads {
    fn lookup(&self, name: &[u8]) -> Result<Node> {
        let tid = parse_number(name)?;
        let process = self.0.process().map_err(|_| Errno::ENOENT)?;
        let subject = Subject::of_thread(&process, tid);
        subject.thread().map_err(|_| Errno::ENOENT)?;
        Ok(folder_of(subject))
    }

    fn list(&self, position: u64, tell: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<()> {
        let process = self.0.process().map_err(|_| Errno::ENOENT)?;
        let mut numbers: Vec<i32> = process.threads().iter().map(|thread| thread.tid()).collect();
        numbers.sort_unstable();
        let rest = numbers.into_iter().filter(|tid| u64::from(tid.unsigned_abs()) > position);
        tell_numbers(rest.map(|tid| Subject::of_thread(&process, tid)), tell);
        Ok(())
    }
}
