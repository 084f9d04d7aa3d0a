//! /proc/sysvipc: the System V objects that there are (sysvipc(7)).
//!
//! Next: `process.rs`.

use alloc::vec::Vec;

use fs::PAGE_SIZE;
use procfs::{Node, Table, file};

use super::text::Text;
use crate::ipc::identifiers::{Identified, Ownership};
use crate::ipc::messages::QUEUES;
use crate::ipc::semaphores::SETS;
use crate::ipc::shared_memory::SEGMENTS;

/// The folder.
pub fn folder() -> Node {
    Table::new().with("msg", file(messages)).with("sem", file(semaphores)).with("shm", file(shared_memory)).node()
}

/// The queues of messages.
fn messages() -> Vec<u8> {
    let mut text = Text::new();
    text.bytes(b"       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid");
    text.bytes(b"      stime      rtime      ctime\n");
    for queue in QUEUES.lock().iter() {
        let about = queue.describe();
        let Ownership { key, uid, gid, creator_uid, creator_gid, mode } = about.ownership;
        text.add(format_args!(
            "{key:10} {:10}  {mode:4o}  {:10} {:10} {:5} {:5} ",
            queue.id(),
            about.bytes,
            about.count,
            about.sender,
            about.receiver
        ));
        text.add(format_args!(
            "{uid:5} {gid:5} {creator_uid:5} {creator_gid:5} {:10} {:10} {:10}\n",
            about.sent, about.received, about.changed
        ));
    }
    text.into_bytes()
}

/// The sets of semaphores.
fn semaphores() -> Vec<u8> {
    let mut text = Text::new();
    text.bytes(b"       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n");
    for set in SETS.lock().iter() {
        let about = set.describe();
        let Ownership { key, uid, gid, creator_uid, creator_gid, mode } = about.ownership;
        text.add(format_args!(
            "{key:10} {:10}  {mode:4o} {:10} {uid:5} {gid:5} {creator_uid:5} {creator_gid:5} {:10} {:10}\n",
            set.id(),
            about.count,
            about.operated,
            about.changed
        ));
    }
    text.into_bytes()
}

/// The segments of shared memory.
fn shared_memory() -> Vec<u8> {
    let mut text = Text::new();
    text.bytes(b"       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime");
    text.bytes(b"      ctime                   rss                  swap\n");
    for segment in SEGMENTS.lock().iter() {
        let about = segment.describe();
        let Ownership { key, uid, gid, creator_uid, creator_gid, mode } = about.ownership;
        text.add(format_args!(
            "{key:10} {:10}  {mode:4o} {:21} {:5} {:5}  {:5} {uid:5} {gid:5} {creator_uid:5} {creator_gid:5} ",
            segment.id(),
            about.size,
            about.creator_pid,
            about.last_pid,
            about.attached
        ));
        text.add(format_args!(
            "{:10} {:10} {:10} {:21} {:21}\n",
            about.attached_at,
            about.detached_at,
            about.changed_at,
            about.resident * PAGE_SIZE,
            0
        ));
    }
    text.into_bytes()
}
