//! What the kernel charges for a hand-off, by the way it is asked: the four system calls one by one, many
//! descriptors in one `sendmmsg`, and all of it through `io_uring`. Decides whether another way would pay.
//!
//!     cargo bench --bench calls
//!     cargo bench --bench calls -- --rounds 50 --batch 8
//!
//! A batch of connections is ready, each with a request that has arrived, and a worker that takes descriptors
//! and closes them. Timed is the CPU time of the thread that accepts, peeks, sends and closes; rounds go around
//! among the ways, and each is compared with the first in the same round. Kernel threads that work for
//! `io_uring` would not be in that figure, so the ring has none: everything here completes at once.

#![allow(clippy::print_stdout, reason = "a benchmark speaks on stdout and stops when something is wrong")]

mod support;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};
use nix::libc::{
    CMSG_DATA, CMSG_FIRSTHDR, CMSG_LEN, CMSG_SPACE, MSG_NOSIGNAL, MSG_PEEK, SCM_RIGHTS, SOCK_CLOEXEC,
    SOCK_NONBLOCK, SOL_SOCKET, iovec, mmsghdr, msghdr, sendmmsg,
};
use sidetrack::sys::socket::{accept, peek};
use sidetrack_worker::wire::encode;
use support::arguments::{self, given, number};
use support::channel::{clients, cpu, give, take};
use support::median;

const REQUEST: &[u8] = b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: bench\r\n\r\n";
/// What a head may have.
const HEAD: usize = 16 * 1024;
/// Batches of one round.
const BATCHES: usize = 64;

/// Where connections come from and go to.
struct Place {
    listener: TcpListener,
    address: SocketAddr,
    worker: UnixStream,
    batch: usize,
}

type Way = (&'static str, fn(&Place, &mut Ring));

const WAYS: [Way; 3] = [
    ("four system calls", one_by_one),
    ("one sendmmsg for all of a batch", sent_together),
    ("io_uring, a submission for each step", by_ring),
];

/// What `io_uring` needs, kept between batches.
struct Ring {
    ring: IoUring,
    heads: Vec<Vec<u8>>,
}

fn main() {
    let asked = arguments::read(
        "What the kernel charges for a hand-off, by the way it is asked",
        [
            number("rounds", "How often each way is timed", "25"),
            number("batch", "Connections that are ready at once", "16"),
        ],
    );
    let (rounds, batch) = (given(&asked, "rounds"), given(&asked, "batch"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("it is a socket");
    let address = listener.local_addr().expect("it is bound");
    let (ours, theirs) = UnixStream::pair().expect("a channel");
    let place = Place { listener, address, worker: ours, batch };
    let ring = IoUring::new(256).expect("this kernel has io_uring, and it is allowed");
    let mut ring = Ring { ring, heads: vec![vec![0; HEAD]; batch] };
    let mut times = WAYS.map(|_| Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(move || take(&theirs));
        for round in 0..=rounds {
            for ((_, way), times) in WAYS.into_iter().zip(&mut times) {
                let time: Duration = (0..BATCHES).map(|_| timed(&place, &mut ring, way)).sum();
                // The first round warms everything up.
                if round > 0 {
                    times.push(time.as_secs_f64() * 1e6 / (BATCHES * batch) as f64);
                }
            }
        }
        drop(place);
    });
    println!("{rounds} rounds of {} connections, {batch} at a time", BATCHES * batch);
    println!("{:<40} {:>14} {:>14}", "", "CPU/connection", "to the first");
    for ((name, _), own) in WAYS.into_iter().zip(&times) {
        let ratios = own.iter().zip(&times[0]).map(|(own, first)| own / first).collect();
        println!("{name:<40} {:>11.2} µs {:>14.2}", median(own.clone()), median(ratios));
    }
}

/// CPU time of one batch.
fn timed(place: &Place, ring: &mut Ring, way: fn(&Place, &mut Ring)) -> Duration {
    let _clients = clients(place.address, place.batch, REQUEST);
    let before = cpu();
    way(place, ring);
    cpu() - before
}

fn one_by_one(place: &Place, ring: &mut Ring) {
    let clients = accepted(place, ring);
    clients.iter().for_each(|client| give(&place.worker, client));
}

/// A batch of connections, accepted and looked at. Those who take them close them when all are sent, as
/// sidetrack does on acknowledgement: whoever closes last has the kernel's work of ending the connection.
fn accepted(place: &Place, ring: &mut Ring) -> Vec<OwnedFd> {
    let accept = |_| {
        let (client, _) = accept(place.listener.as_fd()).expect("it is connected");
        let length = peek(&client, &mut ring.heads[0]).expect("the request is there");
        assert_eq!(length, REQUEST.len());
        client
    };
    (0..place.batch).map(accept).collect()
}

#[allow(unsafe_code, reason = "nix sends the same descriptors with each message")]
fn sent_together(place: &Place, ring: &mut Ring) {
    let clients = accepted(place, ring);
    let messages: Vec<Message> = clients.iter().map(Message::new).collect();
    let mut headers: Vec<mmsghdr> =
        messages.iter().map(|message| mmsghdr { msg_hdr: *message.header, msg_len: 0 }).collect();
    let mut sent = 0;
    while sent < headers.len() {
        let rest = &mut headers[sent..];
        let number = u32::try_from(rest.len()).expect("a small batch");
        // SAFETY: the headers are ours, and all they point to lives on.
        let more = unsafe { sendmmsg(place.worker.as_raw_fd(), rest.as_mut_ptr(), number, MSG_NOSIGNAL) };
        sent += usize::try_from(more).unwrap_or(0);
    }
}

#[allow(unsafe_code, reason = "whoever submits promises that what an entry points to stays until it is done")]
fn by_ring(place: &Place, ring: &mut Ring) {
    let Ring { ring, heads } = ring;
    let null = std::ptr::null_mut();
    let listener = types::Fd(place.listener.as_raw_fd());
    let flags = SOCK_CLOEXEC | SOCK_NONBLOCK;
    let entries =
        (0..place.batch).map(|_| opcode::Accept::new(listener, null, null.cast()).flags(flags).build());
    let numbers = complete(ring, entries);
    // SAFETY: the kernel has just given these to us, and nobody else knows of them.
    let clients: Vec<OwnedFd> =
        numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect();

    let entries = clients.iter().zip(heads.iter_mut()).map(|(client, head)| {
        let length = u32::try_from(head.len()).expect("a small buffer");
        opcode::Recv::new(types::Fd(client.as_raw_fd()), head.as_mut_ptr(), length).flags(MSG_PEEK).build()
    });
    let lengths = complete(ring, entries);
    assert!(lengths.iter().all(|length| usize::try_from(*length) == Ok(REQUEST.len())));

    let messages: Vec<Message> = clients.iter().map(Message::new).collect();
    let channel = types::Fd(place.worker.as_raw_fd());
    let entries =
        messages.iter().map(|message| opcode::SendMsg::new(channel, &raw const *message.header).build());
    let sent = complete(ring, entries);
    assert!(sent.iter().all(|sent| usize::try_from(*sent) == Ok(encode::CONNECTION.len())));

    let entries =
        clients.into_iter().map(|client| opcode::Close::new(types::Fd(client.into_raw_fd())).build());
    complete(ring, entries);
}

/// Submits all of them at once, and waits: what came of each, in their order.
#[allow(unsafe_code, reason = "what an entry points to stays until it is done")]
fn complete(ring: &mut IoUring, entries: impl Iterator<Item = squeue::Entry>) -> Vec<i32> {
    let mut number = 0;
    for (place, entry) in (0..).zip(entries) {
        // SAFETY: this returns when all of them are done, and their callers wait for it.
        unsafe { ring.submission().push(&entry.user_data(place)).expect("a batch fits") };
        number += 1;
    }
    ring.submit_and_wait(number).expect("the kernel takes them");
    let mut done: Vec<(u64, i32)> =
        ring.completion().map(|entry| (entry.user_data(), entry.result())).collect();
    done.sort_unstable();
    assert!(done.len() == number && done.iter().all(|(_, result)| *result >= 0), "{done:?}");
    done.into_iter().map(|(_, result)| result).collect()
}

/// A message with a descriptor. What it points to is on the heap and stays there.
struct Message {
    header: Box<msghdr>,
    _text: Box<iovec>,
    _control: Box<[u64; 4]>,
}

impl Message {
    #[allow(
        unsafe_code,
        clippy::multiple_unsafe_ops_per_block,
        reason = "control messages are laid out by hand"
    )]
    fn new(client: &OwnedFd) -> Self {
        let bytes = encode::CONNECTION;
        let mut text = Box::new(iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
        let mut control = Box::new([0_u64; 4]);
        let size = u32::try_from(size_of::<RawFd>()).expect("a small number");
        // SAFETY: all bits zero is a header of nothing.
        let mut header: Box<msghdr> = Box::new(unsafe { std::mem::zeroed() });
        (header.msg_iov, header.msg_iovlen) = (&raw mut *text, 1);
        // SAFETY: a computation.
        header.msg_controllen = unsafe { CMSG_SPACE(size) } as usize;
        header.msg_control = (&raw mut *control).cast();
        // SAFETY: the header has room for this one, as computed.
        unsafe {
            let message = CMSG_FIRSTHDR(&raw const *header);
            (*message).cmsg_level = SOL_SOCKET;
            (*message).cmsg_type = SCM_RIGHTS;
            (*message).cmsg_len = CMSG_LEN(size) as usize;
            CMSG_DATA(message).cast::<RawFd>().write_unaligned(client.as_raw_fd());
        }
        Self { header, _text: text, _control: control }
    }
}
