//! Requests on kept connections, side by side: a server by itself, the same behind sidetrack,
//! behind @socket.io/sticky 2.0.1, and behind HAProxy.
//!
//!     cargo bench --bench keepalive
//!     cargo bench --bench keepalive -- --rounds 9 --seconds 3
//!
//! One worker of each kind serves a small GET and a 64 KiB POST of a session it owns; then two workers
//! and connections on which every request belongs to another session than the one before. Rounds
//! alternate between the peers, so that a noisy moment meets all of them, and each rate is taken as a
//! ratio to the direct one of its own round. So is the CPU time of the workers for each request, which
//! is steadier: it leaves out whoever else wants the cores. Needs `npm ci` in tests/node (the tests do
//! it) and, for that row, HAProxy.

#![allow(clippy::print_stdout, reason = "a benchmark speaks on stdout and stops when something is wrong")]

mod support;

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::{Peer, cpu, option};

const CLIENTS: usize = 16;
const POST: usize = 64 * 1024;

fn main() {
    // As many short rounds as make that time: a noisy moment then meets few of any peer's.
    let rounds = option("--rounds", 5) * option("--seconds", 2) * 2;
    let time = Duration::from_millis(500);

    let mut peers = vec![
        Peer::direct(),
        Peer::sidetrack("sidetrack", 1, &[]),
        Peer::sidetrack("sidetrack --keepalive worker", 1, &["--keepalive", "worker"]),
        Peer::sidetrack("sidetrack --keepalive close", 1, &["--keepalive", "close"]),
        Peer::sticky2(1),
    ];
    match Peer::haproxy(peers[0].address) {
        Ok(peer) => peers.push(peer),
        Err(error) => println!("HAProxy is left out: {error}; apt-get install haproxy"),
    }
    compare("GET /pid, one session on each connection", &peers, rounds, time, |_, sids| get(&sids[0]));
    compare("POST 64 KiB, one session on each connection", &peers, rounds, time, |_, sids| post(&sids[0]));
    drop(peers);

    let peers = [
        Peer::sidetrack("sidetrack", 2, &[]),
        Peer::sidetrack("sidetrack --keepalive close", 2, &["--keepalive", "close"]),
        Peer::sticky2(2),
    ];
    let other = |turn: usize, sids: &[String]| get(&sids[turn % 2]);
    compare("GET, every request of another worker's session", &peers, rounds, time, other);
}

/// Rates and their ratios to the first peer, medians over the rounds.
fn compare(
    title: &str,
    peers: &[Peer],
    rounds: usize,
    time: Duration,
    request: impl Fn(usize, &[String]) -> Vec<u8> + Sync,
) {
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); peers.len()];
    let mut costs = rates.clone();
    let mut connections = vec![0.0; peers.len()];
    for _ in 0..rounds {
        for (place, peer) in peers.iter().enumerate() {
            let Load { requests, opened, cpu } = load(peer, time, &request);
            rates[place].push(requests as f64 / time.as_secs_f64());
            costs[place].push(cpu.as_secs_f64() * 1e6 / requests as f64);
            connections[place] = opened as f64 / requests as f64;
        }
    }
    println!(
        "\n{title}\n{:<30} {:>11} {:>9} {:>18} {:>9} {:>20}",
        "", "requests/s", "to first", "worker us/request", "to first", "connections/request"
    );
    for (place, peer) in peers.iter().enumerate() {
        let (rate, more) = to_first(&rates, place);
        let (cost, dearer) = to_first(&costs, place);
        let opened = connections[place];
        println!("{:<30} {rate:>11.0} {more:>8.2}x {cost:>18.1} {dearer:>8.2}x {opened:>20.2}", peer.name);
    }
}

/// The median of a peer's rounds, and of their ratios to the first peer's.
fn to_first(rounds: &[Vec<f64>], place: usize) -> (f64, f64) {
    let ratios = rounds[place].iter().zip(&rounds[0]).map(|(own, first)| own / first).collect();
    (median(rounds[place].clone()), median(ratios))
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Requests answered and connections opened within a time, and what they cost the workers.
struct Load {
    requests: u64,
    opened: u64,
    cpu: Duration,
}

fn load(peer: &Peer, time: Duration, request: &(impl Fn(usize, &[String]) -> Vec<u8> + Sync)) -> Load {
    let (pids, sids) = sessions(peer);
    let cpu = || pids.iter().map(|&pid| cpu(pid)).sum::<Duration>();
    let before = cpu();
    let (requests, opened) = (AtomicU64::new(0), AtomicU64::new(0));
    let end = Instant::now() + time;
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut connection = None;
                for turn in 0.. {
                    if Instant::now() >= end {
                        return;
                    }
                    let stream = connection.get_or_insert_with(|| {
                        opened.fetch_add(1, Ordering::Relaxed);
                        Connection::open(peer.address)
                    });
                    let stays = stream.exchange(&request(turn, &sids));
                    requests.fetch_add(1, Ordering::Relaxed);
                    if !stays {
                        connection = None;
                    }
                }
            });
        }
    });
    Load { requests: requests.into_inner(), opened: opened.into_inner(), cpu: cpu() - before }
}

/// The workers' processes and a session of each. They are asked for again in each round: idle ones end.
fn sessions(peer: &Peer) -> (Vec<u32>, Vec<String>) {
    let mut found: Vec<(u32, String)> = Vec::new();
    for _ in 0..1000 {
        let mut connection = Connection::open(peer.address);
        connection.exchange(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: bench\r\n\r\n");
        let answer = String::from_utf8_lossy(&connection.answer).into_owned();
        // HAProxy writes header names in lower case.
        let header = answer.to_ascii_lowercase().find("x-worker-pid: ").map(|start| start + 14);
        let value = |start: usize, end: char| answer[start..].split(end).next().map(str::to_owned);
        let pid = header.and_then(|start| value(start, '\r')?.parse().ok()).expect("the worker's header");
        let sid = answer.find("\"sid\":\"").and_then(|start| value(start + 7, '"')).expect("a session id");
        if !found.iter().any(|&(known, _)| known == pid) {
            found.push((pid, sid));
        }
        if found.len() == peer.workers {
            break;
        }
    }
    assert_eq!(found.len(), peer.workers, "{}: a session of each worker", peer.name);
    found.into_iter().unzip()
}

fn get(sid: &str) -> Vec<u8> {
    format!("GET /pid?sid={sid} HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
        .into_bytes()
}

fn post(sid: &str) -> Vec<u8> {
    let head = format!("POST /upload?sid={sid} HTTP/1.1\r\nHost: bench\r\nContent-Length: {POST}\r\n\r\n");
    let mut bytes = head.into_bytes();
    bytes.resize(bytes.len() + POST, b'x');
    bytes
}

struct Connection {
    stream: BufReader<TcpStream>,
    answer: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the peer accepts");
        stream.set_nodelay(true).expect("it is a socket");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("it is a socket");
        Self { stream: BufReader::new(stream), answer: Vec::new() }
    }

    /// Sends and reads one answer. False when the connection ends with it.
    fn exchange(&mut self, request: &[u8]) -> bool {
        self.stream.get_mut().write_all(request).expect("the request goes out");
        self.read().expect("an answer")
    }

    fn read(&mut self) -> io::Result<bool> {
        self.answer.clear();
        let (mut length, mut stays) = (0, true);
        loop {
            let start = self.answer.len();
            if self.stream.read_until(b'\n', &mut self.answer)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = String::from_utf8_lossy(&self.answer[start..]).to_ascii_lowercase();
            let line = line.trim_end();
            match line.split_once(": ") {
                Some(("content-length", text)) => length = text.parse().map_err(io::Error::other)?,
                Some(("connection", "close")) => stays = false,
                _ if line.is_empty() => break,
                _ => {}
            }
        }
        assert!(self.answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.answer));
        let head = self.answer.len();
        self.answer.resize(head + length, 0);
        self.stream.read_exact(&mut self.answer[head..])?;
        Ok(stays)
    }
}
