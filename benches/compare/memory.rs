//! What stands in front, asked for its memory and descriptors: many idle WebSockets, and an upload that
//! nobody reads.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};

use crate::Effort;
use crate::client::{connect, idle_socket};
use crate::support::peers::{Peer, wait};
use crate::support::process;
use crate::table::{Column, Table};

const MIB: usize = 1 << 20;
/// What the client would like to send.
const UPLOAD: usize = 300 * MIB;
/// An upload that does not move for this long is one that waits for its reader.
const STALLED: Duration = Duration::from_millis(1500);

fn peers() -> Vec<fn() -> io::Result<Peer>> {
    vec![
        || Ok(Peer::sidetrack("sidetrack", 2, &[])),
        || Ok(Peer::sticky1(2)),
        || Ok(Peer::sticky2(2)),
        || Ok(Peer::cluster(2)),
        || Peer::nginx(2),
        || Peer::haproxy(2),
    ]
}

/// Memory in KiB and descriptors of all processes in front.
fn front(peer: &Peer) -> (u64, usize) {
    let pids = peer.front();
    let memory = pids.iter().map(|&pid| process::memory(pid).0).sum();
    (memory, pids.iter().map(|&pid| process::descriptors(pid)).sum())
}

pub fn idle(effort: Effort) -> Table {
    let columns = [
        Column::new("proxy memory before, KiB", 0),
        Column::new("more with them, KiB", 0),
        Column::new("bytes each", 0),
        Column::new("descriptors before", 0),
        Column::new("more with them", 0),
    ];
    let mut table = Table::new(&format!("{} idle WebSockets, 2 workers", effort.idle), columns.to_vec());
    for start in peers() {
        let Ok(peer) = start() else { continue };
        // A few, so that what is made once has been made.
        let warm: Vec<_> = (0..100).map(|client| idle_socket(peer.address, client)).collect();
        drop(warm);
        sleep(Duration::from_millis(500));
        let (memory, descriptors) = front(&peer);
        // One process with two descriptors for each cannot hold as many as it may have descriptors.
        let number = if peer.name == "HAProxy" { effort.idle.min(most()) } else { effort.idle };
        let sockets: Vec<TcpStream> =
            (0..number).map(|client| idle_socket(peer.address, client).expect("a WebSocket")).collect();
        // What is not acknowledged yet, is soon.
        sleep(Duration::from_millis(500));
        let (more, open) = front(&peer);
        let grown = more as f64 - memory as f64;
        table.row(
            &peer.name,
            vec![
                Some(memory as f64),
                Some(grown),
                Some(grown * 1024.0 / sockets.len() as f64),
                Some(descriptors as f64),
                Some(open as f64 - descriptors as f64),
            ],
        );
    }
    table
}

/// Connections that a process in the data path can hold.
fn most() -> usize {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    usize::try_from(limit).unwrap_or(usize::MAX) * 9 / 20
}

pub fn upload(_: Effort) -> Table {
    let columns = [
        Column::new("taken from the client, MiB", 1),
        Column::new("proxy memory before, MiB", 1),
        Column::new("most during it", 1),
        Column::new("workers before", 1),
        Column::new("most during it", 1),
    ];
    let mut table = Table::new("An upload of 300 MiB that the worker does not read", columns.to_vec());
    for start in peers() {
        let Ok(peer) = start() else { continue };
        let pids = [peer.front(), peer.backs()];
        let sum = |pids: &[u32], peak: bool| {
            let kib = |&pid| if peak { process::memory(pid).1 } else { process::memory(pid).0 };
            Some(pids.iter().map(kib).sum::<u64>() as f64 / 1024.0)
        };
        let before = pids.each_ref().map(|pids| sum(pids, false));
        pids.iter().flatten().for_each(|&pid| process::forget_peak(pid));
        let taken = send(&peer).expect("the client is connected") as f64 / MIB as f64;
        let most = pids.each_ref().map(|pids| sum(pids, true));
        table.row(&peer.name, vec![Some(taken), before[0], most[0], before[1], most[1]]);
    }
    table
        .notes
        .push("A proxy that takes more than the kernel's buffers hold must keep it somewhere.".to_owned());
    table
}

/// How much of an upload is taken until it stalls.
fn send(peer: &Peer) -> io::Result<usize> {
    let mut stream = wait(|| connect(peer.address, 0).ok());
    stream.set_write_timeout(Some(STALLED))?;
    write!(stream, "POST /stall HTTP/1.1\r\nHost: bench\r\nContent-Length: {UPLOAD}\r\n\r\n")?;
    let piece = vec![b'x'; MIB / 4];
    let mut sent = 0;
    while sent < UPLOAD {
        match stream.write(&piece[..piece.len().min(UPLOAD - sent)]) {
            Ok(bytes) => sent += bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
