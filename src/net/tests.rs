//! What users of the sockets see, on the host.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use abi::{Errno, net};
use fs::buffer::{SliceSink, SliceSource};
use fs::{FileOps, OpenFile, OpenFlags, PollEvents, Stop};

use super::*;
use crate::mm::{FRAMES, init_on_host};

const ME: Sender = Sender { pid: 7, uid: 1000, gid: 100 };
const OTHER: Sender = Sender { pid: 8, uid: 1001, gid: 100 };

fn pair(kind: Type) -> (Arc<Socket>, Arc<Socket>) {
    init_on_host();
    Socket::pair(kind, ME)
}

fn send_as(socket: &Arc<Socket>, bytes: &[u8], sender: Sender, rights: Option<Rights>) -> Result<usize, Stop> {
    socket.try_send(&FRAMES, None, &mut SliceSource::new(bytes), &mut Outgoing { sender, rights })
}

fn send(socket: &Arc<Socket>, bytes: &[u8]) -> Result<usize, Stop> {
    send_as(socket, bytes, ME, None)
}

fn receive_into(socket: &Socket, room: usize, incoming: &mut Incoming) -> Result<Vec<u8>, Stop> {
    let mut bytes = vec![0; room];
    let mut sink = SliceSink::new(&mut bytes);
    let done = socket.try_receive(&mut sink, incoming)?;
    bytes.truncate(done);
    Ok(bytes)
}

fn receive(socket: &Socket, room: usize) -> Result<Vec<u8>, Stop> {
    receive_into(socket, room, &mut Incoming::default())
}

fn listener(name: &[u8], backlog: usize) -> Arc<Socket> {
    init_on_host();
    let socket = Socket::new(Type::Stream, OTHER);
    socket.begin_binding().expect("no name yet");
    socket.bind_abstract(Some(name.to_vec())).expect("the name is free");
    socket.listen(backlog, OTHER).expect("it has a name");
    socket
}

/// A file that counts when it goes.
struct Counted(&'static AtomicUsize);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl FileOps for Counted {
    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

fn file_counted_by(count: &'static AtomicUsize) -> Arc<OpenFile> {
    Arc::new(OpenFile::new(Arc::new(Counted(count)), None, None, OpenFlags::RDWR))
}

#[test]
fn a_stream_carries_bytes_both_ways_whatever_the_pieces() {
    let (one, other) = pair(Type::Stream);
    assert_eq!(receive(&other, 10), Err(Stop::WouldBlock));
    assert_eq!(send(&one, b"hello "), Ok(6));
    assert_eq!(send(&one, b"world"), Ok(5));
    assert_eq!(receive(&other, 3), Ok(b"hel".to_vec()));
    assert_eq!(other.readable(), 8);
    assert_eq!(receive(&other, 100), Ok(b"lo world".to_vec()));
    assert_eq!(send(&other, b"back"), Ok(4));
    assert_eq!(receive(&one, 100), Ok(b"back".to_vec()));
}

#[test]
fn a_full_stream_takes_no_more_until_enough_was_read() {
    let (one, other) = pair(Type::Stream);
    let bytes: Vec<u8> = (0..BUFFER_SIZE * 2).map(|byte| (byte % 251) as u8).collect();
    assert_eq!(send(&one, &bytes), Ok(BUFFER_SIZE));
    assert_eq!(send(&one, b"x"), Err(Stop::WouldBlock));
    assert!(!one.poll().contains(PollEvents::OUT));
    let read = receive(&other, BUFFER_SIZE * 4 / 5).expect("it is full");
    assert_eq!(read, bytes[..read.len()]);
    assert!(one.poll().contains(PollEvents::OUT));
    assert_eq!(send(&one, b"x"), Ok(1));
}

#[test]
fn what_was_sent_before_the_end_is_received_and_then_the_end() {
    let (one, other) = pair(Type::Stream);
    send(&one, b"last").expect("room");
    one.shut_down(Direction::Send).expect("connected");
    assert_eq!(send(&one, b"more"), Err(Stop::Errno(Errno::EPIPE)));
    assert!(other.poll().contains(PollEvents::IN | PollEvents::RDHUP));
    assert!(!other.poll().contains(PollEvents::HUP));
    assert_eq!(receive(&other, 10), Ok(b"last".to_vec()));
    assert_eq!(receive(&other, 10), Ok(vec![]));
    assert_eq!(send(&other, b"still"), Ok(5));
    assert_eq!(receive(&one, 10), Ok(b"still".to_vec()));
}

#[test]
fn a_peer_that_closes_with_unread_bytes_resets_the_connection_once() {
    let (one, other) = pair(Type::Stream);
    send(&one, b"unread").expect("room");
    other.close();
    assert!(one.poll().contains(PollEvents::HUP | PollEvents::ERR));
    assert_eq!(receive(&one, 10), Err(Stop::Errno(Errno::ECONNRESET)));
    assert_eq!(receive(&one, 10), Ok(vec![]));
    assert_eq!(send(&one, b"x"), Err(Stop::Errno(Errno::EPIPE)));
}

#[test]
fn peeking_leaves_everything_where_it_is() {
    let (one, other) = pair(Type::Stream);
    let bytes = vec![5; 10_000];
    send(&one, &bytes).expect("room");
    let mut peek = Incoming { peeks: true, ..Incoming::default() };
    assert_eq!(receive_into(&other, 20_000, &mut peek), Ok(bytes.clone()));
    assert_eq!(receive(&other, 20_000), Ok(bytes));
}

#[test]
fn a_client_may_send_before_it_is_accepted() {
    let server = listener(b"early", 5);
    let client = Socket::new(Type::Stream, ME);
    assert_eq!(server.try_accept().err(), Some(Stop::WouldBlock));
    client.try_connect(&find(b"early", Type::Stream).expect("it listens"), ME).expect("room");
    assert_eq!(client.try_connect(&server, ME), Err(Stop::Errno(Errno::EISCONN)));
    send(&client, b"hi").expect("room");
    assert!(server.poll().contains(PollEvents::IN));
    let accepted = server.try_accept().expect("one waits");
    assert_eq!(receive(&accepted, 10), Ok(b"hi".to_vec()));
    assert_eq!((accepted.peer_credentials(), client.peer_credentials()), (ME, OTHER));
    assert_eq!(accepted.name().as_deref(), Some(&Name::Abstract(b"early".to_vec())));
    server.close();
    assert_eq!(find(b"early", Type::Stream).err(), Some(Errno::ECONNREFUSED));
    assert_eq!(send(&client, b"still"), Ok(5));
}

#[test]
fn more_clients_than_the_backlog_wait_and_are_refused_when_the_listener_goes() {
    let server = listener(b"crowded", 1);
    let clients: Vec<_> = (0..3).map(|_| Socket::new(Type::Stream, ME)).collect();
    for client in &clients[..2] {
        client.try_connect(&server, ME).expect("room");
    }
    assert_eq!(clients[2].try_connect(&server, ME), Err(Stop::WouldBlock));
    server.try_accept().expect("two wait");
    assert_eq!(clients[2].try_connect(&server, ME), Ok(()));
    server.close();
    assert_eq!(receive(&clients[1], 1), Err(Stop::Errno(Errno::ECONNRESET)));
    assert_eq!(Socket::new(Type::Stream, ME).try_connect(&server, ME), Err(Stop::Errno(Errno::ECONNREFUSED)));
}

#[test]
fn files_arrive_with_the_first_byte_and_end_a_read() {
    static GONE: AtomicUsize = AtomicUsize::new(0);
    let (one, other) = pair(Type::Stream);
    let rights = |uid| Rights::new(vec![file_counted_by(&GONE)], uid, 10).ok();
    send(&one, b"plain").expect("room");
    send_as(&one, b"first", ME, rights(1)).expect("room");
    send_as(&one, b"second", ME, rights(1)).expect("room");
    let mut incoming = Incoming::default();
    assert_eq!(receive_into(&other, 100, &mut incoming), Ok(b"plainfirst".to_vec()));
    assert_eq!(incoming.rights.map(|rights| rights.into_files().len()), Some(1));
    assert_eq!(GONE.load(Ordering::Relaxed), 1);
    other.close();
    assert_eq!(GONE.load(Ordering::Relaxed), 2);
}

#[test]
fn a_user_has_no_more_files_under_way_than_allowed() {
    static GONE: AtomicUsize = AtomicUsize::new(0);
    let files = |count| (0..count).map(|_| file_counted_by(&GONE)).collect::<Vec<_>>();
    let first = Rights::new(files(3), 4242, 4).expect("below the limit");
    assert_eq!(Rights::new(files(2), 4242, 4).err(), Some(Errno::ETOOMANYREFS));
    drop(first);
    assert!(Rights::new(files(4), 4242, 4).is_ok());
}

#[test]
fn a_long_chain_of_sockets_in_sockets_is_dropped_without_going_deep() {
    let nobody = fs::Credentials::root();
    let run = move || {
        init_on_host();
        let mut last: Option<Arc<OpenFile>> = None;
        for _ in 0..3000 {
            let (one, other) = Socket::pair(Type::Stream, ME);
            let rights = last.take().and_then(|file| Rights::new(vec![file], 4343, usize::MAX).ok());
            send_as(&one, b"x", ME, rights).expect("room");
            last = Some(open(other, &nobody, OpenFlags::empty()));
            drop(open(one, &nobody, OpenFlags::empty()));
        }
        drop(last);
    };
    let thread = std::thread::Builder::new().stack_size(128 * 1024).spawn(run).expect("a thread");
    thread.join().expect("the stack was deep enough");
}

#[test]
fn bytes_of_different_senders_do_not_mix_where_that_matters() {
    let (one, other) = pair(Type::Stream);
    send_as(&one, b"mine", ME, None).expect("room");
    send_as(&one, b"his", OTHER, None).expect("room");
    let mut incoming = Incoming { wants_credentials: true, ..Incoming::default() };
    assert_eq!(receive_into(&other, 100, &mut incoming), Ok(b"mine".to_vec()));
    assert_eq!(incoming.sender, Some(ME));
    assert_eq!(receive(&other, 100), Ok(b"his".to_vec()));
}

#[test]
fn packets_keep_their_bounds_and_lose_what_does_not_fit() {
    for kind in [Type::Datagram, Type::SequencedPacket] {
        let (one, other) = pair(kind);
        send(&one, b"first").expect("room");
        send(&one, b"").expect("room");
        send(&one, b"third").expect("room");
        let mut incoming = Incoming::default();
        assert_eq!(receive_into(&other, 2, &mut incoming), Ok(b"fi".to_vec()));
        assert!(incoming.is_truncated && incoming.len == 5);
        assert_eq!(receive(&other, 10), Ok(vec![]));
        assert_eq!(receive(&other, 10), Ok(b"third".to_vec()));
        assert_eq!(receive(&other, 10), Err(Stop::WouldBlock));
        assert_eq!(send(&one, &vec![0; BUFFER_SIZE]), Err(Stop::Errno(Errno::EMSGSIZE)));
    }
}

#[test]
fn a_datagram_goes_to_whom_it_is_sent_and_tells_where_from() {
    init_on_host();
    let bound = |name: &[u8]| {
        let socket = Socket::new(Type::Datagram, ME);
        socket.begin_binding().and_then(|()| socket.bind_abstract(Some(name.to_vec()))).expect("the name is free");
        socket
    };
    let (one, other) = (bound(b"datagram-one"), bound(b"datagram-other"));
    let to = find(b"datagram-other", Type::Datagram).expect("bound");
    let mut outgoing = Outgoing { sender: ME, rights: None };
    assert_eq!(send(&one, b"x"), Err(Stop::Errno(Errno::ENOTCONN)));
    let mut sent = 0;
    while one.try_send(&FRAMES, Some(&to), &mut SliceSource::new(b"x"), &mut outgoing).is_ok() {
        sent += 1;
    }
    assert_eq!(sent, 11);
    let mut incoming = Incoming::default();
    assert_eq!(receive_into(&other, 10, &mut incoming), Ok(b"x".to_vec()));
    assert_eq!(incoming.from.as_deref(), Some(&Name::Abstract(b"datagram-one".to_vec())));
    one.set_peer(Some(to)).expect("it has no peer");
    other.close();
    assert_eq!(send(&one, b"x"), Err(Stop::Errno(Errno::ECONNREFUSED)));
    assert_eq!(send(&one, b"x"), Err(Stop::Errno(Errno::ENOTCONN)));
}

#[test]
fn a_connection_of_packets_ends_as_a_stream_does() {
    let (one, other) = pair(Type::SequencedPacket);
    send(&one, b"last").expect("room");
    one.close();
    assert_eq!(receive(&other, 10), Ok(b"last".to_vec()));
    assert_eq!(receive(&other, 10), Ok(vec![]));
    assert_eq!(send(&other, b"x"), Err(Stop::Errno(Errno::EPIPE)));
}

#[test]
fn a_socket_may_be_its_own_peer() {
    init_on_host();
    let socket = Socket::new(Type::Datagram, ME);
    socket.set_peer(Some(socket.clone())).expect("it has no peer");
    assert_eq!(send(&socket, b"me"), Ok(2));
    assert!(socket.poll().contains(PollEvents::IN | PollEvents::OUT));
    assert_eq!(receive(&socket, 10), Ok(b"me".to_vec()));
    socket.close();
    assert_eq!(Arc::strong_count(&socket), 1);
}

#[test]
fn an_address_is_read_and_shown_as_unix_7_says() {
    let address = |path: &[u8]| [&(net::AF_UNIX as u16).to_ne_bytes()[..], path].concat();
    assert_eq!(Name::parse(&address(b"")), Ok(None));
    assert_eq!(Name::parse(&address(b"/tmp/x\0junk")), Ok(Some(Name::Path(b"/tmp/x".to_vec()))));
    assert_eq!(Name::parse(&address(b"\0ab\0c")), Ok(Some(Name::Abstract(b"ab\0c".to_vec()))));
    for wrong in [&b""[..], b"\x01", b"\x02\0/x", &address(&[b'x'; 109])] {
        assert_eq!(Name::parse(wrong), Err(Errno::EINVAL));
    }
    let shown = |name: Option<Name>| {
        let (bytes, len) = Name::address(name.as_ref());
        bytes[..len].to_vec()
    };
    assert_eq!(shown(None), address(b""));
    assert_eq!(shown(Some(Name::Path(b"/x".to_vec()))), address(b"/x\0"));
    assert_eq!(shown(Some(Name::Abstract(b"x".to_vec()))), address(b"\0x"));
    assert_eq!(shown(Some(Name::Path(vec![b'x'; 108]))).len(), 111);
}
