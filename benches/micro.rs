//! The parts of a decision one by one: reading a head, finding its session, the table of sessions, and the
//! lines of the worker channel. What policies cost is in `policy`.
//!
//!     cargo bench --bench micro
//!     cargo bench --bench micro -- table     # only what has this in its name
//!
//! First, for 10³ to 10⁶ sessions: how much memory the process has for each (heap overhead included), and how
//! long looking one up takes, each timed by itself. A clock reading is part of that, and is printed beside it.

#![allow(clippy::print_stdout, reason = "a benchmark speaks on stdout and stops when something is wrong")]

mod support;

use std::hint::black_box;
use std::time::{Duration, Instant};

use divan::Bencher;
use sidetrack::session::{Found, SessionKey, SessionTable};
use sidetrack::types::{Head, Progress, WorkerId};
use sidetrack_worker::wire::{Decoder, FromWorker, Luggage, encode};
use support::process;

const WORKERS: u32 = 64;
/// An hour: nothing is idle here.
const IDLE: Duration = Duration::from_secs(3600);

/// What a client of Socket.IO sends, and what a browser makes of it.
const HEADS: [&str; 2] = ["short", "browser"];

fn main() {
    // Filters, and questions such as `--help`, mean divan's benchmarks. Cargo adds a flag of its own.
    if std::env::args().skip(1).all(|word| word == "--bench") {
        sessions();
    }
    divan::main();
}

fn sessions() {
    println!(
        "{:<12} {:>16} {:>10} {:>10} {:>10}",
        "sessions", "bytes for each", "p50 ns", "p99 ns", "p99.9 ns"
    );
    let own = std::process::id();
    for number in [1_000, 10_000, 100_000, 1_000_000] {
        let before = process::memory(own).0;
        let table = table(number);
        let bytes = (process::memory(own).0 - before) as f64 * 1024.0 / number as f64;
        let mut random = fastrand::Rng::with_seed(7);
        let mut times: Vec<u128> = (0..200_000)
            .map(|_| {
                let sid = sid(random.usize(..number));
                let start = Instant::now();
                assert!(black_box(table.owner(&sid)).is_some(), "it was opened");
                start.elapsed().as_nanos()
            })
            .collect();
        let [half, most, nearly_all] = percentiles(&mut times);
        println!("{number:<12} {bytes:>16.0} {half:>10} {most:>10} {nearly_all:>10}");
    }
    let mut clock: Vec<u128> = (0..200_000).map(|_| Instant::now().elapsed().as_nanos()).collect();
    let [half, most, nearly_all] = percentiles(&mut clock);
    println!("{:<12} {:>16} {half:>10} {most:>10} {nearly_all:>10}\n", "(the clock)", "");
}

fn percentiles(times: &mut [u128]) -> [u128; 3] {
    times.sort_unstable();
    [500, 990, 999].map(|share| times[(times.len() - 1) * share / 1000])
}

/// Twenty characters, as Engine.IO makes them.
fn sid(number: usize) -> String {
    format!("{:x>20}", format!("{:x}", number.wrapping_mul(0x9E37_79B9)))
}

fn table(number: usize) -> SessionTable {
    let table = SessionTable::new(number + 1_000_000, IDLE);
    for (place, worker) in (0..number).zip((0..WORKERS).cycle()) {
        table.open(&sid(place), WorkerId(worker));
    }
    table
}

fn head(kind: &str) -> Vec<u8> {
    let target = "/socket.io/?EIO=4&transport=polling&t=PSKz3qX&sid=Q6jAC9nYF0GfLZ3zAAAB";
    let browser = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/147.0.0.0 Safari/537.36\r\nAccept: */*\r\nAccept-Language: en-GB,en;q=0.9,de;q=0.8\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nReferer: http://localhost:3000/\r\nCookie: theme=dark; session=0123456789abcdef0123456789abcdef; consent=yes\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-origin\r\nConnection: keep-alive\r\n";
    let fields = if kind == "browser" { browser } else { "Accept: */*\r\nConnection: close\r\n" };
    format!("GET {target} HTTP/1.1\r\nHost: localhost:3000\r\n{fields}\r\n").into_bytes()
}

fn parsed(bytes: &[u8]) -> Head {
    match Head::parse(bytes) {
        Ok(Progress::Complete(head)) => head,
        other => unreachable!("that is a head: {other:?}"),
    }
}

#[divan::bench(args = HEADS)]
fn head_parse(bencher: Bencher, kind: &str) {
    let bytes = head(kind);
    bencher.bench(|| parsed(black_box(&bytes)));
}

#[divan::bench(args = ["query:sid", "cookie:session", "header:X-Session", "path:1"])]
fn session_found(bencher: Bencher, key: &str) {
    let key: SessionKey = key.parse().expect("a key");
    let head = parsed(&head("browser"));
    bencher.bench(|| matches!(key.find(black_box(&head)), Found::Id(_)));
}

#[divan::bench(args = [1_000, 1_000_000])]
fn table_lookup(bencher: Bencher, number: usize) {
    let table = table(number);
    let mut random = fastrand::Rng::with_seed(1);
    bencher.with_inputs(|| sid(random.usize(..number))).bench_local_refs(|sid| table.owner(sid));
}

#[divan::bench(args = [1_000, 1_000_000])]
fn table_miss(bencher: Bencher, number: usize) {
    let table = table(number);
    bencher.bench(|| table.owner(black_box("nobody-has-this-one!")));
}

#[divan::bench(args = [1_000, 1_000_000])]
fn table_open_and_close(bencher: Bencher, number: usize) {
    let table = table(number);
    let mut next = number;
    bencher
        .with_inputs(|| {
            next += 1;
            sid(next)
        })
        .bench_local_refs(|sid| {
            table.open(sid, WorkerId(1));
            table.close(sid, WorkerId(1))
        });
}

#[divan::bench]
fn frame_new_connection(bencher: Bencher) {
    let mut out = Vec::with_capacity(256);
    let luggage = Luggage::default();
    bencher.bench_local(|| {
        out.clear();
        encode::new_connection(&mut out, black_box("1:0.0.0.0:3000:4::0"), 12_345, &luggage);
        out.len()
    });
}

#[divan::bench(args = ["acknowledgement", "session opened"])]
fn frame_from_worker(bencher: Bencher, kind: &str) {
    let line = match kind {
        "acknowledgement" => b"{\"cmd\":\"NODE_HANDLE_ACK\"}\n".to_vec(),
        _ => encode::session_opened("Q6jAC9nYF0GfLZ3zAAAB"),
    };
    let mut decoder = Decoder::new(64 * 1024);
    bencher.bench_local(|| {
        decoder.push(black_box(&line), []);
        let line = decoder.next_line().expect("it is short").expect("it is whole");
        FromWorker::parse(line).is_ok()
    });
}
