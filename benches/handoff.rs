//! Proxy CPU per handed-off connection, policy included: the release binary, two Node workers, and
//! 64 clients that each open a connection, ask once and close.
//!
//!     cargo bench --bench handoff
//!     cargo bench --bench handoff -- --connections 50000 --rounds 9
//!     cargo bench --bench handoff -- --watched
//!     cargo bench --bench handoff -- --against /path/to/another/sidetrack
//!
//! The figure is the CPU time that the kernel has charged to sidetrack's process (`schedstat`)
//! divided by the connections, median over the rounds. Rounds alternate between the policies, so
//! that a noisy moment meets all of them; the rate is printed for orientation only.
//!
//! Whoever closes a connection's last descriptor has the kernel's work of ending it. A worker that answers
//! and closes at once has done so before sidetrack hears that it has the connection, so that work falls to
//! sidetrack (`calls` shows how much it is). The column `lasting` is for connections that their clients keep
//! for a few milliseconds, as nearly all are: what the hand-off alone costs.
//!
//! With `--watched` it compares sidetrack alone with sidetrack that has a shadow policy, one whose
//! decisions are recorded, and ones with an access log of all decisions or one in a hundred. The column `routing` is the CPU time of the thread that routes: what somebody
//! who watches costs there is what connections pay.
//!
//! CPU time too depends on the machine and its neighbours. So each round also measures the *floor*
//! there and then: a tight loop of the four system calls that no hand-off can do without (accept,
//! peek, sendmsg with the descriptor, close), in this process. What carries over from machine to
//! machine is the ratio.

#![allow(clippy::print_stdout, reason = "a benchmark speaks on stdout and stops when something is wrong")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sidetrack::sys::socket::peek;
use sidetrack_worker::wire::{self, encode};
use support::option;
use support::peers::{Peer, file};
use support::process::{cpu, first_thread_cpu};

const CLIENTS: usize = 64;
const WORKERS: usize = 2;
/// What is compared: a name, and how it is run.
const POLICIES: [Row; 3] =
    [Row::policy("least-connection"), Row::policy("native:least-connection"), Row::policy("round-robin")];
const WATCHED: [Row; 5] = [
    Row::policy("least-connection"),
    Row { name: "and a shadow", shadow: Some("power-of-two"), ..Row::policy("least-connection") },
    Row { name: "and a recording", recorded: true, ..Row::policy("least-connection") },
    Row { name: "and an access log", logged: Some("1"), ..Row::policy("least-connection") },
    Row { name: "and 1 % of one", logged: Some("0.01"), ..Row::policy("least-connection") },
];
/// How long a client keeps a connection that lasts.
const LASTS: Duration = Duration::from_millis(5);
const REQUEST: &[u8] = b"GET /socket.io/?EIO=4&transport=polling&t=abc HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\nConnection: close\r\n\r\n";
const KEPT: &[u8] = b"GET /socket.io/?EIO=4&transport=polling&t=abc HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n";

const VERSIONS: [Row; 2] = [
    Row { name: "the other", other: true, ..Row::policy("least-connection") },
    Row { name: "this", ..Row::policy("least-connection") },
];
const OWN: &str = env!("CARGO_BIN_EXE_sidetrack");

#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    policy: &'static str,
    shadow: Option<&'static str>,
    recorded: bool,
    /// The share of decisions in an access log.
    logged: Option<&'static str>,
    /// This program, or the other one.
    other: bool,
}

impl Row {
    const fn policy(policy: &'static str) -> Self {
        Self { name: policy, policy, shadow: None, recorded: false, logged: None, other: false }
    }
}

/// A sidetrack, and whoever records it.
struct Running {
    sidetrack: Peer,
    recorder: Option<Child>,
    _folder: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            let _ = recorder.kill();
            let _ = recorder.wait();
        }
    }
}

struct Round {
    cpu: Duration,
    routing: Duration,
    lasting: Duration,
    wall: Duration,
}

fn main() {
    let connections = option("--connections", 20_000);
    let rounds = option("--rounds", 5);
    let other = support::word("--against");
    let rows: &[Row] = match &other {
        Some(_) => &VERSIONS,
        None if support::flag("--watched") => &WATCHED,
        None => &POLICIES,
    };
    let other = other.map_or_else(|| OWN.into(), PathBuf::from);
    let running: Vec<Running> = rows.iter().map(|row| start(*row, &other)).collect();
    for Running { sidetrack, .. } in &running {
        load(sidetrack.address, connections / 10);
    }
    let mut floors = Vec::new();
    let mut results: Vec<Vec<Round>> = rows.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        floors.push(floor(2_000).as_secs_f64() * 1e6);
        for (Running { sidetrack, .. }, results) in running.iter().zip(&mut results) {
            let pid = sidetrack.front()[0];
            let (before, routed, start) = (cpu(pid), first_thread_cpu(pid), Instant::now());
            load(sidetrack.address, connections);
            let wall = start.elapsed();
            // The last acknowledgements are on their way; they belong to this round.
            std::thread::sleep(Duration::from_millis(100));
            let (cpu_used, routing) = (cpu(pid) - before, first_thread_cpu(pid) - routed);
            let before = cpu(pid);
            load_lasting(sidetrack.address, connections);
            std::thread::sleep(Duration::from_millis(100));
            results.push(Round { cpu: cpu_used, routing, lasting: cpu(pid) - before, wall });
        }
    }
    floors.sort_by(f64::total_cmp);
    let floor = floors[floors.len() / 2];
    println!("{rounds} rounds of {connections} connections, {CLIENTS} clients, {WORKERS} Node workers");
    println!("floor: {floor:.2} µs (best {:.2} µs)", floors[0]);
    println!(
        "{:<26} {:>14} {:>9} {:>14} {:>14} {:>14} {:>14}",
        "policy", "CPU/connection", "to floor", "best", "routing", "lasting", "connections/s"
    );
    for (Row { name, .. }, mut results) in rows.iter().zip(results) {
        results.sort_by_key(|round| round.cpu);
        let each = |time: Duration| time.as_secs_f64() * 1e6 / connections as f64;
        let per = |round: &Round| each(round.cpu);
        let (median, best) = (&results[results.len() / 2], &results[0]);
        let rate = connections as f64 / median.wall.as_secs_f64();
        let ratio = per(median) / floor;
        let (all, least, routing) = (per(median), per(best), each(median.routing));
        let lasting = support::median(results.iter().map(|round| each(round.lasting)).collect());
        println!(
            "{name:<26} {all:>11.2} µs {ratio:>8.2}x {least:>11.2} µs {routing:>11.2} µs {lasting:>11.2} µs {rate:>14.0}"
        );
    }
}

/// The release binary with two workers that answer and close.
fn start(row: Row, other: &Path) -> Running {
    let folder = tempfile::tempdir().expect("a folder for the admin socket");
    let admin = folder.path().join("admin.sock").display().to_string();
    let mut words = vec!["--policy", row.policy, "--admin", &admin];
    words.extend(row.shadow.iter().flat_map(|shadow| ["--shadow", shadow]));
    let log = folder.path().join("access.log").display().to_string();
    words.extend(row.logged.iter().flat_map(|share| ["--access-log", &log, "--access-log-sample", share]));
    let program = if row.other { other } else { Path::new(OWN) };
    let sidetrack = Peer::sidetrack_of(program, row.name, &file("workers/tiny.js"), WORKERS, &words);
    let recorder = row.recorded.then(|| {
        let mut command = Command::new(OWN);
        command.args(["record", "--out", "-", "--admin", &admin]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the recorder starts");
        // Its first bytes say that it records; what follows is read and forgotten.
        let mut lines = child.stdout.take().expect("it is piped");
        lines.read_exact(&mut [0]).expect("it records");
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        child
    });
    Running { sidetrack, recorder, _folder: folder }
}

/// CPU time per connection of the system calls alone.
fn floor(connections: usize) -> Duration {
    let cpu = || nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("it is a socket");
    let address = listener.local_addr().expect("it is bound");
    let (ours, theirs) = UnixStream::pair().expect("a channel");
    std::thread::scope(|scope| {
        // The worker's part: take the descriptors and close them.
        scope.spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                match wire::receive(&theirs, &mut buffer) {
                    Ok(received) if received.bytes == 0 => return,
                    Ok(_) => {}
                    Err(_) => std::thread::yield_now(),
                }
            }
        });
        let mut spent = Duration::ZERO;
        let mut head = [0; 16 * 1024];
        for _ in 0..connections / CLIENTS {
            let mut clients: Vec<_> =
                (0..CLIENTS).map(|_| TcpStream::connect(address).expect("the backlog has room")).collect();
            for client in &mut clients {
                client.write_all(REQUEST).expect("the request goes out");
            }
            let before = Duration::from(cpu());
            for _ in 0..CLIENTS {
                let (client, _) = listener.accept().expect("it is connected");
                let length = peek(&client, &mut head).expect("the request is there");
                assert_eq!(length, REQUEST.len());
                while wire::send(&ours, encode::CONNECTION, Some(client.as_fd())).is_err() {
                    std::thread::yield_now();
                }
            }
            spent += Duration::from(cpu()) - before;
        }
        drop(ours);
        spent / u32::try_from(connections / CLIENTS * CLIENTS).expect("a small number")
    })
}

/// Connections that the worker closes behind its answer.
fn load(address: SocketAddr, connections: usize) {
    by_clients(connections, || {
        let mut answer = Vec::new();
        let mut stream = TcpStream::connect(address).expect("sidetrack accepts");
        stream.write_all(REQUEST).expect("the request goes out");
        stream.read_to_end(&mut answer).expect("an answer comes");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    });
}

/// Connections that the client closes, a while after the answer.
fn load_lasting(address: SocketAddr, connections: usize) {
    by_clients(connections, || {
        let (mut answer, mut length) = ([0; 1024], 0);
        let mut stream = TcpStream::connect(address).expect("sidetrack accepts");
        stream.write_all(KEPT).expect("the request goes out");
        while !answer[..length].ends_with(b"\r\n\r\nok") {
            let more = stream.read(&mut answer[length..]).expect("an answer comes");
            assert!(more > 0, "{}", String::from_utf8_lossy(&answer[..length]));
            length += more;
        }
        std::thread::sleep(LASTS);
    });
}

fn by_clients(connections: usize, connection: impl Fn() + Sync) {
    let left = AtomicUsize::new(connections);
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while take() {
                    connection();
                }
            });
        }
    });
}
