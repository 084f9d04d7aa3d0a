//! Copies from and to user memory, on a program of the host.

use fs::{Sink, Source};

use super::*;
use crate::mm::{Layout, Limits, MapRequest, Placement, Rights, init_on_host};

const RW: Rights = Rights { read: true, write: true, execute: false };
const BASE: usize = 0x10_0000;

fn space_with(pages: usize) -> alloc::sync::Arc<AddressSpace> {
    init_on_host();
    let space = AddressSpace::new(Layout::new(8 << 20, None), Limits::default()).expect("memory");
    space.map(MapRequest::anonymous(pages * PAGE_SIZE, RW).at(Placement::Fixed(BASE))).expect("room");
    space
}

#[test]
fn a_copy_brings_in_the_pages_it_needs_and_finds_zeros_in_fresh_ones() {
    let space = space_with(3);
    let user = space.active();
    user.write_bytes(BASE + PAGE_SIZE - 2, b"abcd").expect("mapped");
    let mut bytes = [1; 8];
    user.read_bytes(BASE + PAGE_SIZE - 4, &mut bytes).expect("mapped");
    assert_eq!(&bytes, b"\0\0abcd\0\0");
    assert_eq!(user.read(UserPtr::<u16>::new(BASE + 2 * PAGE_SIZE)), Ok(0));
}

#[test]
fn a_copy_that_leaves_the_mapping_says_how_far_it_came() {
    let space = space_with(1);
    let stopped = space.active().write_bytes(BASE + PAGE_SIZE - 3, b"abcdef").expect_err("only three fit");
    assert_eq!(stopped, Stopped { done: 3, why: Obstacle::Refused });
}

#[test]
fn addresses_beyond_the_user_half_are_refused_without_being_touched() {
    let space = space_with(1);
    for address in [USER_END, usize::MAX - 1, 0xffff_8000_0000_0000] {
        let stopped = space.active().read(UserPtr::<u64>::new(address)).expect_err("not user memory");
        assert_eq!(stopped.why, Obstacle::Refused);
    }
    assert_eq!(UserSlice::new(USER_END - 1, 2).checked(), Err(Errno::EFAULT));
    assert_eq!(UserSlice::new(usize::MAX, 2).checked(), Err(Errno::EFAULT));
}

#[test]
fn a_string_may_end_with_the_last_mapped_byte() {
    let space = space_with(1);
    let user = space.active();
    user.write_bytes(BASE + PAGE_SIZE - 6, b"hello\0").expect("mapped");
    let mut string = Vec::new();
    let read = |longest, string: &mut Vec<u8>| user.read_c_string(UserPtr::new(BASE + PAGE_SIZE - 6), longest, string);
    assert_eq!(read(5, &mut string), Ok(Ok(())));
    assert_eq!(string, b"hello");
    assert_eq!(read(4, &mut Vec::new()), Ok(Err(Errno::ENAMETOOLONG)));
    user.write_bytes(BASE + PAGE_SIZE - 1, b"!").expect("mapped");
    let stopped = read(100, &mut Vec::new()).expect_err("it runs out of the mapping");
    assert_eq!(stopped.why, Obstacle::Refused);
}

#[test]
fn what_was_given_back_is_given_again_across_stretches() {
    let space = space_with(2);
    space.active().write_bytes(BASE, b"abcdefghij").expect("mapped");
    let slices = [UserSlice::new(BASE, 3), UserSlice::new(BASE + 3, 0), UserSlice::new(BASE + 3, 7)];
    let mut buffer = UserBuffer::vectored(&space, &slices).expect("in the user half");
    let mut bytes = [0; 5];
    assert_eq!(buffer.take(&mut bytes), 5);
    Source::give_back(&mut buffer, 4);
    assert_eq!(Source::remaining(&buffer), 9);
    let mut rest = [0; 9];
    assert_eq!(buffer.take(&mut rest), 9);
    assert_eq!(&rest, b"bcdefghij");
}

#[test]
fn several_stretches_are_filled_one_after_the_other() {
    let space = space_with(2);
    let slices = [UserSlice::new(BASE, 3), UserSlice::new(0, 0), UserSlice::new(BASE + 100, 5)];
    let mut buffer = UserBuffer::vectored(&space, &slices).expect("in the user half");
    assert_eq!(buffer.put(b"abcdef"), 6);
    assert_eq!(buffer.put_zeros(10), 2);
    assert!(buffer.is_empty() && !Sink::faulted(&buffer));
    let mut back = [9; 5];
    space.active().read_bytes(BASE + 100, &mut back).expect("mapped");
    assert_eq!(&back, b"def\0\0");
    let mut source = UserBuffer::vectored(&space, &slices).expect("in the user half");
    let mut bytes = [0; 8];
    assert_eq!(source.take(&mut bytes), 8);
    assert_eq!(&bytes, b"abcdef\0\0");
}

#[test]
fn a_buffer_that_is_not_mapped_faults_and_keeps_its_place() {
    let space = space_with(1);
    let mut buffer = UserBuffer::new(&space, UserSlice::new(BASE + PAGE_SIZE - 2, 4)).expect("in the user half");
    assert_eq!(buffer.put(b"wxyz"), 2);
    assert!(Sink::faulted(&buffer));
    assert_eq!((buffer.len(), buffer.obstacle()), (2, Some(Obstacle::Refused)));
    assert!(UserBuffer::new(&space, UserSlice::new(usize::MAX, 4)).is_err());
}

#[test]
fn a_futex_word_is_read_only_if_it_is_there() {
    let space = space_with(1);
    let user = space.active();
    let word = UserPtr::<u32>::new(BASE + 8);
    assert_eq!(user.load_u32(word), None);
    user.write(word, &7_u32).expect("mapped");
    assert_eq!(user.load_u32(word), Some(7));
    assert_eq!(user.compare_exchange_u32(word, 6, 9), Some(Err(7)));
    assert_eq!(user.fetch_op_u32(word, |old| old + 1), Some(7));
    assert_eq!(user.load_u32(word), Some(8));
    assert_eq!(user.load_u32(UserPtr::new(BASE + 9)), None);
}
