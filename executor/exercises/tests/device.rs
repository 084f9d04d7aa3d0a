//! Exercise 4: a driver, on the real executor, with a disk that does what it likes.

use executor::testing::Bench;
use executor::{JoinHandle, TaskRef};
use exercises::world::disk::{DESCRIPTORS, Disk, SECTOR, content};
#[cfg(not(feature = "mine"))]
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

macro_rules! machine {
    ($name:ident, $driver:ty) => {
        /// A disk with its driver's task, and what starts a read.
        struct $name {
            bench: Bench,
            disk: Arc<Disk>,
            driver: Arc<$driver>,
            task: TaskRef,
        }

        impl $name {
            fn new(disk: Disk) -> $name {
                let (bench, disk) = (Bench::new(), Arc::new(disk));
                let driver = Arc::new(<$driver>::new(Arc::clone(&disk)));
                let running = Arc::clone(&driver);
                let task = bench.spawn(async move { running.run().await });
                bench.settle();
                $name { bench, disk, driver, task }
            }

            fn read(&self, sector: u64) -> JoinHandle<[u8; SECTOR]> {
                let driver = Arc::clone(&self.driver);
                let read = self.bench.start(async move { driver.read(sector).await });
                self.bench.settle();
                read
            }

            /// Starts a read, and drops it after its first poll.
            fn read_and_give_up(&self, sector: u64) {
                let driver = Arc::clone(&self.driver);
                self.bench.spawn(async move {
                    let mut read = Box::pin(driver.read(sector));
                    let is_pending = std::future::poll_fn(|context| {
                        std::task::Poll::Ready(read.as_mut().poll(context).is_pending())
                    });
                    assert!(is_pending.await, "the disk is not done yet");
                });
                self.bench.settle();
            }

            fn finish(&self, sector: u64) {
                self.disk.finish(self.disk.descriptor_of(sector).expect("it is being read"));
                self.bench.settle();
            }
        }
    };
}

#[cfg(feature = "mine")]
machine!(Machine, exercises::exercise::device::Driver);
#[cfg(not(feature = "mine"))]
machine!(Machine, exercises::solution::device::Driver);

#[test]
fn each_read_gets_its_own_sector_whatever_the_order_in_which_the_disk_is_done() {
    let machine = Machine::new(Disk::new());
    let reads: Vec<_> = (0..DESCRIPTORS as u64).map(|sector| (sector, machine.read(sector))).collect();
    for (sector, read) in reads.iter().rev() {
        assert_eq!(read.try_take(), None, "sector {sector} is not there yet");
        machine.finish(*sector);
        assert_eq!(read.try_take(), Some(content(*sector)));
    }
}

#[test]
fn a_disk_that_is_done_within_the_doorbell_is_waited_for_in_vain_by_nobody() {
    let machine = Machine::new(Disk::quick());
    for sector in 0..10 {
        assert_eq!(machine.read(sector).try_take(), Some(content(sector)));
    }
}

#[test]
fn more_reads_than_descriptors_wait_their_turn() {
    let machine = Machine::new(Disk::new());
    let reads: Vec<_> = (0..3 * DESCRIPTORS as u64).map(|sector| (sector, machine.read(sector))).collect();
    for (sector, read) in &reads {
        machine.finish(*sector);
        assert_eq!(read.try_take(), Some(content(*sector)));
    }
}

#[test]
fn a_dropped_read_keeps_its_memory_until_the_disk_is_done() {
    let machine = Machine::new(Disk::new());
    (0..DESCRIPTORS as u64).for_each(|sector| machine.read_and_give_up(sector));
    let late = machine.read(100);
    assert_eq!(machine.disk.descriptor_of(100), None, "all descriptors are the disk's");
    machine.finish(2);
    assert!(machine.disk.descriptor_of(100).is_some(), "the orphan's descriptor is free again");
    machine.finish(0);
    assert_eq!(late.try_take(), None, "another one's completion is not its own");
    machine.finish(100);
    assert_eq!(late.try_take(), Some(content(100)));
}

#[test]
fn a_read_that_is_dropped_once_it_is_done_frees_its_descriptor_once() {
    let machine = Machine::new(Disk::quick());
    for sector in 0..4 * DESCRIPTORS as u64 {
        let driver = Arc::clone(&machine.driver);
        // Done, but never looked at.
        machine.bench.spawn(async move {
            let mut read = Box::pin(driver.read(sector));
            std::future::poll_fn(|context| std::task::Poll::Ready(read.as_mut().poll(context).is_pending())).await;
            executor::yield_now().await;
        });
        machine.bench.settle();
    }
    assert_eq!(machine.read(7).try_take(), Some(content(7)));
}

#[test]
fn the_driver_sleeps_while_there_is_nothing_to_do() {
    let machine = Machine::new(Disk::new());
    let read = machine.read(1);
    let before = machine.task.polls();
    machine.bench.settle();
    assert_eq!(machine.task.polls(), before);
    machine.finish(1);
    assert_eq!(machine.task.polls(), before + 1);
    assert!(read.try_take().is_some());
}

/// Left out when you try your own work.
#[test]
#[cfg(not(feature = "mine"))]
fn the_starting_point_mixes_reads_up_and_uses_memory_that_is_the_disks() {
    machine!(Naive, exercises::exercise::device::Driver);

    let machine = Naive::new(Disk::new());
    let (first, second) = (machine.read(1), machine.read(2));
    machine.finish(2);
    assert_eq!((first.try_take(), second.try_take()), (Some(content(2)), None), "the wrong read has the data");
    assert_eq!(machine.task.polls(), 2, "once to begin with, once for the interrupt");

    let machine = Naive::new(Disk::new());
    machine.read_and_give_up(1);
    let panic = catch_unwind(AssertUnwindSafe(|| machine.read(2)))
        .expect_err("the doorbell is rung for a descriptor in flight");
    assert!(panic.downcast_ref::<String>().is_some_and(|text| text.contains("is in flight")));
}
