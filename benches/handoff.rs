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
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sidetrack::sys::socket::peek;
use support::arguments::{self, given, number, switch, word};
use support::awake::Awake;
use support::peers::{Peer, SIDETRACK, file};
use support::process::{cpu, first_thread_cpu};
use support::{channel, cores};

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

#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    policy: &'static str,
    shadow: Option<&'static str>,
    recorded: bool,
    /// The share of decisions in an access log.
    logged: Option<&'static str>,
}

impl Row {
    const fn policy(policy: &'static str) -> Self {
        Self { name: policy, policy, shadow: None, recorded: false, logged: None }
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

/// Connections that end at once, and those that last.
struct Round {
    once: Spent,
    lasting: Spent,
}

/// What a load has taken.
struct Spent {
    cpu: Duration,
    routing: Duration,
    wall: Duration,
}

fn main() {
    let asked = arguments::read(
        "Proxy CPU per handed-off connection, policy included",
        [
            number("connections", "Connections of a round", "20000"),
            number("rounds", "Rounds of each row", "5"),
            switch("watched", "Compare ways of watching decisions instead of policies"),
            word("against", "FILE", "Compare with another sidetrack instead"),
        ],
    );
    let (connections, rounds) = (given(&asked, "connections"), given(&asked, "rounds"));
    cores::of_servers();
    let own = |row: &Row| (*row, SIDETRACK.to_owned());
    let version = |name, program| (Row { name, ..Row::policy("least-connection") }, program);
    let rows: Vec<(Row, String)> = match asked.get_one::<String>("against") {
        Some(other) => vec![version("the other", other.clone()), version("this", SIDETRACK.to_owned())],
        None if asked.get_flag("watched") => WATCHED.iter().map(own).collect(),
        None => POLICIES.iter().map(own).collect(),
    };
    let running: Vec<Running> = rows.iter().map(|(row, program)| start(*row, Path::new(program))).collect();
    for Running { sidetrack, .. } in &running {
        load(sidetrack.address, connections / 10);
    }
    let mut floors = Vec::new();
    let mut results: Vec<Vec<Round>> = rows.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        floors.push(floor(2_000).as_secs_f64() * 1e6);
        for (Running { sidetrack, .. }, results) in running.iter().zip(&mut results) {
            let once = spent(sidetrack, || load(sidetrack.address, connections));
            let lasting = spent(sidetrack, || load_lasting(sidetrack.address, connections));
            results.push(Round { once, lasting });
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
    for ((Row { name, .. }, _), mut results) in rows.iter().zip(results) {
        results.sort_by_key(|round| round.once.cpu);
        let each = |time: Duration| time.as_secs_f64() * 1e6 / connections as f64;
        let per = |round: &Round| each(round.once.cpu);
        let (median, best) = (&results[results.len() / 2], &results[0]);
        let rate = connections as f64 / median.once.wall.as_secs_f64();
        let ratio = per(median) / floor;
        let (all, least, routing) = (per(median), per(best), each(median.once.routing));
        let lasting = support::median(results.iter().map(|round| each(round.lasting.cpu)).collect());
        println!(
            "{name:<26} {all:>11.2} µs {ratio:>8.2}x {least:>11.2} µs {routing:>11.2} µs {lasting:>11.2} µs {rate:>14.0}"
        );
    }
}

fn spent(sidetrack: &Peer, load: impl FnOnce()) -> Spent {
    let pid = sidetrack.front()[0];
    let (before, routed, start) = (cpu(pid), first_thread_cpu(pid), Instant::now());
    load();
    let wall = start.elapsed();
    // The last acknowledgements are on their way; they belong to it.
    std::thread::sleep(Duration::from_millis(100));
    Spent { cpu: cpu(pid) - before, routing: first_thread_cpu(pid) - routed, wall }
}

/// The release binary with two workers that answer and close.
fn start(row: Row, program: &Path) -> Running {
    let folder = tempfile::tempdir().expect("a folder for the admin socket");
    let admin = folder.path().join("admin.sock").display().to_string();
    let mut words = vec!["--policy", row.policy, "--admin", &admin];
    words.extend(row.shadow.iter().flat_map(|shadow| ["--shadow", shadow]));
    let log = folder.path().join("access.log").display().to_string();
    words.extend(row.logged.iter().flat_map(|share| ["--access-log", &log, "--access-log-sample", share]));
    let sidetrack = Peer::sidetrack_of(program, row.name, &file("workers/tiny.js"), WORKERS, &words);
    let recorder = row.recorded.then(|| {
        let mut command = Command::new(SIDETRACK);
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
    let request = request("close");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("it is a socket");
    let address = listener.local_addr().expect("it is bound");
    let (ours, theirs) = UnixStream::pair().expect("a channel");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            cores::of_clients();
            channel::take(&theirs);
        });
        let mut spent = Duration::ZERO;
        let mut head = [0; 16 * 1024];
        for _ in 0..connections / CLIENTS {
            let _clients = channel::clients(address, CLIENTS, request.as_bytes());
            let before = channel::cpu();
            for _ in 0..CLIENTS {
                let (client, _) = listener.accept().expect("it is connected");
                let length = peek(&client, &mut head).expect("the request is there");
                assert_eq!(length, request.len());
                channel::give(&ours, &client);
            }
            spent += channel::cpu() - before;
        }
        drop(ours);
        spent / u32::try_from(connections / CLIENTS * CLIENTS).expect("a small number")
    })
}

/// Connections that the worker closes behind its answer.
fn load(address: SocketAddr, connections: usize) {
    let request = request("close");
    by_clients(connections, || {
        let mut answer = Vec::new();
        let mut stream = connect(address);
        stream.write_all(request.as_bytes()).expect("the request goes out");
        stream.read_to_end(&mut answer).expect("an answer comes");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    });
}

/// Connections that the client closes, a while after the answer.
fn load_lasting(address: SocketAddr, connections: usize) {
    let request = request("keep-alive");
    by_clients(connections, || {
        let (mut answer, mut length) = ([0; 1024], 0);
        let mut stream = connect(address);
        stream.write_all(request.as_bytes()).expect("the request goes out");
        while !answer[..length].ends_with(b"\r\n\r\nok") {
            let more = stream.read(&mut answer[length..]).expect("an answer comes");
            assert!(more > 0, "{}", String::from_utf8_lossy(&answer[..length]));
            length += more;
        }
        std::thread::sleep(LASTS);
    });
}

fn connect(address: SocketAddr) -> Awake {
    TcpStream::connect(address).and_then(Awake::new).expect("sidetrack accepts")
}

fn request(connection: &str) -> String {
    format!(
        "GET /socket.io/?EIO=4&transport=polling&t=abc HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\n\
         Accept: */*\r\nConnection: {connection}\r\n\r\n"
    )
}

fn by_clients(connections: usize, connection: impl Fn() + Sync) {
    let left = AtomicUsize::new(connections);
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                cores::of_clients();
                while take() {
                    connection();
                }
            });
        }
    });
}
