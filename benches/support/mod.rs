//! What the benchmarks share: the servers they compare, started and ended.

#![allow(dead_code, reason = "no benchmark needs all of it")]

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Node copies each piece of a body into memory of its own. Where glibc happens to give and take back
/// that memory at the end of its heap, 5 to 8 page faults come with each 64 KiB, and a request costs 10
/// to 20 % more: in some processes and not in others, whatever is in front of them. So none gives back.
const MALLOC: [(&str, &str); 2] = [("MALLOC_TRIM_THRESHOLD_", "268435456"), ("MALLOC_TOP_PAD_", "16777216")];

/// How long a server may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server under test. It ends with the value.
pub struct Peer {
    pub name: String,
    pub address: SocketAddr,
    pub workers: usize,
    child: Child,
    _folder: Option<tempfile::TempDir>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn worker(file: &str) -> PathBuf {
    root().join("tests/node/workers").join(file)
}

impl Peer {
    /// The server by itself.
    pub fn direct() -> Self {
        let mut command = Command::new("node");
        command.arg(worker("listen.js")).env("PORT", "0");
        Self::announcing("direct", 1, command)
    }

    /// Behind the primary of @socket.io/sticky 2.0.1.
    pub fn sticky2(workers: usize) -> Self {
        let mut command = Command::new("node");
        command.arg(root().join("benches/peers/sticky2-primary.js"));
        command.arg(workers.to_string()).arg(worker("sticky2.js"));
        Self::announcing("@socket.io/sticky 2.0.1", workers, command)
    }

    /// The same server behind sidetrack.
    pub fn sidetrack(name: &str, workers: usize, words: &[&str]) -> Self {
        Self::sidetrack_with(name, &worker("listen.js"), workers, words)
    }

    /// Sidetrack with this Node program.
    pub fn sidetrack_with(name: &str, program: &Path, workers: usize, words: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the ready file");
        let ready = folder.path().join("ready.json");
        let child = Command::new(env!("CARGO_BIN_EXE_sidetrack"))
            .args(["run", "--listen", "127.0.0.1:0", "--log", "warn"])
            .args(["--workers", &workers.to_string(), "--ready-file"])
            .arg(&ready)
            .args(words)
            .args(["--", "node"])
            .arg(program)
            .envs(MALLOC)
            .stdout(Stdio::null())
            .spawn()
            .expect("sidetrack starts");
        let address = wait(|| {
            let text = std::fs::read_to_string(&ready).ok()?;
            let ready: serde_json::Value = serde_json::from_str(&text).ok()?;
            let all = ready["workers"].as_array()?.len() == workers;
            ready["addresses"][0].as_str()?.parse().ok().filter(|_| all)
        });
        Self { name: name.to_owned(), address, workers, child, _folder: Some(folder) }
    }

    /// Behind HAProxy, in front of another server.
    ///
    /// # Errors
    /// When HAProxy is not there.
    pub fn haproxy(behind: SocketAddr) -> std::io::Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let child = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(root().join("benches/peers/haproxy.cfg"))
            .env("FRONT", port.to_string())
            .env("BACK", behind.port().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        wait(|| TcpStream::connect(address).ok());
        Ok(Self { name: "HAProxy".to_owned(), address, workers: 1, child, _folder: None })
    }

    /// CPU time of the process so far.
    pub fn cpu(&self) -> Duration {
        cpu(self.child.id())
    }

    /// CPU time of its first thread so far: the one that routes, when it is sidetrack.
    pub fn first_thread_cpu(&self) -> Duration {
        let pid = self.child.id();
        spent(Path::new(&format!("/proc/{pid}/task/{pid}")))
    }

    /// A Node program that prints its port, alone or at the end of a line.
    fn announcing(name: &str, workers: usize, mut command: Command) -> Self {
        let mut child = command.envs(MALLOC).stdout(Stdio::piped()).spawn().expect("node starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line with the port");
        let port: u16 = line.trim().rsplit(' ').next().and_then(|text| text.parse().ok()).expect("a port");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self { name: name.to_owned(), address, workers, child, _folder: None }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// CPU time of every thread of a process so far.
pub fn cpu(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    threads.flatten().map(|thread| spent(&thread.path())).sum()
}

/// CPU time of one thread so far; none when it has ended.
fn spent(thread: &Path) -> Duration {
    let line = std::fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    let nanos = line.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

/// Asks until there is an answer.
pub fn wait<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "a server is not ready after {PATIENCE:?}; is Node installed?");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A number behind a flag.
pub fn option(name: &str, default: usize) -> usize {
    let mut words = std::env::args().skip_while(|word| word != name).skip(1);
    words.next().map_or(default, |text| text.parse().expect("a number"))
}
