//! Frames and what is made of them, on the developer's machine.

use super::*;

static PAGES: HostPages = HostPages::new();

#[test]
fn a_page_lives_as_long_as_its_last_clone() {
    let pages: &'static HostPages = Box::leak(Box::new(HostPages::new()));
    let page = Page::allocate_zeroed(pages).expect("no limit");
    page.write(4090, b"abcdef");
    let clone = page.clone();
    drop(page);
    let mut bytes = [0; 6];
    clone.read(4090, &mut bytes);
    assert_eq!(&bytes, b"abcdef");
    assert_eq!(pages.live(), 1);
    drop(clone);
    assert_eq!(pages.live(), 0);
}

#[test]
fn contiguous_memory_is_one_window_and_is_given_back_whole() {
    let pages: &'static HostPages = Box::leak(Box::new(HostPages::new()));
    let buffer = Dma::new(pages).allocate(PAGE_SIZE + 1).expect("no limit");
    assert_eq!(buffer.len(), 2 * PAGE_SIZE);
    buffer.write32(PAGE_SIZE, 7);
    assert_eq!(buffer.read8(PAGE_SIZE), 7);
    drop(buffer);
    assert_eq!(pages.live(), 0);
}

#[test]
fn a_device_finds_only_frames_that_are_in_use() {
    let pages: &'static HostPages = Box::leak(Box::new(HostPages::new()));
    let page = Page::allocate_zeroed(pages).expect("no limit");
    let address = DmaAddr(page.device_address().0 + 100);
    pages.page_at(address).expect("in use").write(100, b"x");
    let mut byte = [0];
    page.read(100, &mut byte);
    assert_eq!((&byte, page.references()), (b"x", 1));
    drop(page);
    assert!(pages.page_at(address).is_none());
}

#[test]
fn a_limit_makes_allocation_fail() {
    let pages: &'static HostPages = Box::leak(Box::new(HostPages::new()));
    pages.set_limit(1);
    let first = Page::allocate(pages);
    assert!(first.is_some() && Page::allocate(pages).is_none());
}

#[test]
#[should_panic(expected = "range leaves the page")]
fn a_copy_beyond_the_page_is_refused() {
    Page::allocate(&PAGES).expect("no limit").write(4095, b"ab");
}
