//! Requests, handshakes and messages through each peer.

use std::io;
use std::net::SocketAddr;

use crate::Effort;
use crate::client::{EngineIo, Http, get as get_request, open_session, post as post_request};
use crate::load::{Rounds, Work, compare};
use crate::support::peers::{Peer, file};
use crate::table::Table;

/// For scenarios of many connections.
const CLIENTS: usize = 64;
/// For scenarios of kept ones.
const FEW: usize = 16;

/// Those that are installed; it is said who is not.
fn installed(peers: &mut Vec<Peer>, workers: usize) {
    for (name, peer) in [("nginx", Peer::nginx(workers)), ("haproxy", Peer::haproxy(workers))] {
        match peer {
            Ok(peer) => peers.push(peer),
            Err(error) => println!("{name} is left out: {error}; apt-get install {name}"),
        }
    }
}

/// One worker by itself, and behind each.
fn everybody() -> Vec<Peer> {
    let mut peers = vec![
        Peer::direct(),
        Peer::sidetrack("sidetrack", 1, &[]),
        Peer::sticky1(1),
        Peer::sticky2(1),
        Peer::cluster(1),
    ];
    installed(&mut peers, 1);
    peers
}

/// Two workers behind each, and one that needs nobody.
fn pairs() -> Vec<Peer> {
    let mut peers = vec![
        Peer::sidetrack("sidetrack", 2, &[]),
        Peer::sidetrack_with("sidetrack, worker of sticky 2.x", &file("workers/sticky2.js"), 2, &[]),
        Peer::sticky1(2),
        Peer::sticky2(2),
        Peer::cluster(2),
        Peer::direct(),
    ];
    installed(&mut peers, 2);
    peers
}

/// New connections, an answer of two bytes each.
pub fn connections(effort: Effort) -> Table {
    let title = "New connections with tiny answers, 2 workers, 64 clients";
    let mut table = compare(title, "connection", pairs, effort, &one_each());
    table.notes.push(
        "Direct is one process that accepts for itself and shares its core with nobody. nginx keeps connections \
         to the workers, which see few new ones."
            .to_owned(),
    );
    table
}

/// The same, but no more than everybody can serve: how long one takes when nobody is busy.
pub fn arrivals(effort: Effort) -> Table {
    let title = "New connections with tiny answers, 1,000 each second, 2 workers";
    compare(title, "connection", pairs, effort, &Work { clients: FEW, rate: Some(1_000), ..one_each() })
}

/// Requests of one session on each kept connection.
fn kept(title: &str, effort: Effort, request: impl Fn(&str) -> Vec<u8> + Sync) -> Table {
    let work = Work {
        clients: FEW,
        rate: None,
        begin: |peer: &Peer, client| {
            let mut http = Http::new(peer.address, client);
            let (sid, _) = open_session(&mut http).expect("a session");
            (http, request(&sid))
        },
        step: |(http, request): &mut (Http, Vec<u8>)| http.exchange(request).map(drop),
    };
    compare(title, "request", everybody, effort, &work)
}

pub fn get(effort: Effort) -> Table {
    let request = |sid: &str| get_request(&format!("/?sid={sid}"));
    kept("GET on kept connections, 1 worker, 16 clients", effort, request)
}

pub fn post(effort: Effort) -> Table {
    let request = |sid: &str| post_request(&format!("/?sid={sid}"), &[b'x'; 64 * 1024]);
    kept("POST of 64 KiB on kept connections, 1 worker, 16 clients", effort, request)
}

pub fn large_post(effort: Effort) -> Table {
    let body = vec![b'x'; 1 << 20];
    let request = move |sid: &str| post_request(&format!("/?sid={sid}"), &body);
    kept("POST of 1 MiB on kept connections, 1 worker, 16 clients", effort, request)
}

/// A session by polling, joined, and upgraded to a WebSocket: all that a page does before it begins.
pub fn handshakes(effort: Effort) -> Table {
    let start = || {
        let mut peers = vec![Peer::sidetrack("sidetrack", 2, &[]), Peer::sticky1(2), Peer::sticky2(2)];
        installed(&mut peers, 2);
        peers
    };
    let work = Work {
        clients: FEW,
        rate: None,
        begin: |peer: &Peer, client| (peer.address, client),
        step: |(address, client): &mut (SocketAddr, usize)| handshake(*address, *client),
    };
    let mut table = compare(
        "Socket.IO handshakes, polling then WebSocket, 2 workers, 16 clients",
        "handshake",
        start,
        effort,
        &work,
    );
    table.notes.push("Node cluster sticks to nothing, so it cannot do this with two workers.".to_owned());
    table
}

fn handshake(server: SocketAddr, client: usize) -> io::Result<()> {
    let mut http = Http::new(server, client);
    let (sid, _) = open_session(&mut http)?;
    let target = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
    http.exchange(&post_request(&target, b"40"))?;
    let joined = http.exchange(&get_request(&target))?;
    if !joined.starts_with(b"40") {
        return Err(io::Error::other(String::from_utf8_lossy(joined).into_owned()));
    }
    let mut socket = EngineIo::open(server, client, Some(&sid))?;
    socket.send("2probe")?;
    socket.expect("3probe")?;
    socket.send("5")
}

/// Messages to and fro over WebSockets that are open.
pub fn echo(effort: Effort) -> Table {
    let work = Work {
        clients: FEW,
        rate: None,
        begin: |peer: &Peer, client| {
            let join = || {
                let mut socket = EngineIo::open(peer.address, client, None)?;
                socket.expect("0")?;
                socket.send("40")?;
                socket.expect("40")?;
                Ok::<_, io::Error>(socket)
            };
            // Behind @socket.io/sticky 1.0.4 a first message is lost now and then.
            join().or_else(|_| join()).expect(&peer.name)
        },
        step: |socket: &mut EngineIo| {
            socket.send("421[\"echo\",\"0123456789abcdef0123456789abcdef\"]")?;
            socket.expect("431")
        },
    };
    compare(
        "Socket.IO messages echoed over open WebSockets, 1 worker, 16 clients",
        "message",
        everybody,
        effort,
        &work,
    )
}

/// New connections through sidetracks that run.
pub fn connections_through(title: &str, peers: &[Peer], effort: Effort) -> Table {
    let mut rounds = Rounds::default();
    rounds.add(peers, effort.rounds, effort.round, &one_each());
    rounds.table(title, "connection")
}

/// Each client opens a connection, asks once and is answered, again and again.
fn one_each() -> Work<impl Fn(&Peer, usize) -> Http + Sync, impl Fn(&mut Http) -> io::Result<()> + Sync> {
    let request: &[u8] =
        b"GET / HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\nAccept: */*\r\nConnection: close\r\n\r\n";
    Work {
        clients: CLIENTS,
        rate: None,
        begin: |peer: &Peer, client| Http::new(peer.address, client),
        step: |http: &mut Http| http.exchange(request).map(drop),
    }
}
