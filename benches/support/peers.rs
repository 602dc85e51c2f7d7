//! The servers that are compared: sidetrack and what stands in the same place, started and ended.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::process;

/// Node copies each piece of a body into memory of its own. Where glibc happens to give and take back
/// that memory at the end of its heap, 5 to 8 page faults come with each 64 KiB, and a request costs 10
/// to 20 % more: in some processes and not in others, whatever is in front of them. So none gives back.
const MALLOC: [(&str, &str); 2] = [("MALLOC_TRIM_THRESHOLD_", "268435456"), ("MALLOC_TOP_PAD_", "16777216")];

/// The program of this build.
pub const SIDETRACK: &str = env!("CARGO_BIN_EXE_sidetrack");

/// How long a server may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server under test. Its processes end with the value.
pub struct Peer {
    pub name: String,
    pub address: SocketAddr,
    pub workers: usize,
    /// What stands in front; none for a server by itself.
    front: Option<Process>,
    /// Workers that whatever is in front has not started itself.
    behind: Vec<Process>,
    _folder: Option<TempDir>,
}

/// A process that is asked to end with the value.
pub struct Process(pub Child);

impl Process {
    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// A file of this folder.
pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join(name)
}

impl Peer {
    /// One worker by itself.
    pub fn direct() -> Self {
        let (worker, address) = Self::worker();
        Self {
            name: "direct".to_owned(),
            address,
            workers: 1,
            front: None,
            behind: vec![worker],
            _folder: None,
        }
    }

    /// Behind the primary of @socket.io/sticky 1.0.4.
    pub fn sticky1(workers: usize) -> Self {
        Self::primary("@socket.io/sticky 1.0.4", workers, "sticky-primary.js", &["sticky1"], "sticky1.js")
    }

    /// Behind the primary of @socket.io/sticky 2.0.1.
    pub fn sticky2(workers: usize) -> Self {
        Self::primary("@socket.io/sticky 2.0.1", workers, "sticky-primary.js", &["sticky2"], "sticky2.js")
    }

    /// Behind Node's own round-robin, which sticks to nothing.
    pub fn cluster(workers: usize) -> Self {
        Self::primary("Node cluster", workers, "cluster-primary.js", &[], "listen.js")
    }

    /// The same server behind sidetrack.
    pub fn sidetrack(name: &str, workers: usize, words: &[&str]) -> Self {
        Self::sidetrack_with(name, &file("workers/listen.js"), workers, words)
    }

    /// Sidetrack with this Node program.
    pub fn sidetrack_with(name: &str, program: &Path, workers: usize, words: &[&str]) -> Self {
        Self::sidetrack_of(Path::new(SIDETRACK), name, program, workers, words)
    }

    /// Another version of sidetrack, perhaps.
    pub fn sidetrack_of(
        sidetrack: &Path,
        name: &str,
        program: &Path,
        workers: usize,
        words: &[&str],
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the ready file");
        let mut command = Self::run(sidetrack, workers, &folder);
        let front =
            Process(command.args(words).args(["--", "node"]).arg(program).spawn().expect("sidetrack starts"));
        Self::behind_sidetrack(name, workers, front, folder)
    }

    /// Sidetrack with workers of the caller's, which `join` at the socket it is given.
    pub fn sidetrack_joined<W>(name: &str, workers: usize, join: impl FnOnce(&Path) -> W) -> (Self, W) {
        let folder = tempfile::tempdir().expect("a folder for its files");
        let socket = folder.path().join("join.sock");
        let mut command = Self::run(Path::new(SIDETRACK), 0, &folder);
        let front = Process(command.arg("--join-socket").arg(&socket).spawn().expect("sidetrack starts"));
        wait(|| socket.exists().then_some(()));
        let joined = join(&socket);
        (Self::behind_sidetrack(name, workers, front, folder), joined)
    }

    /// A sidetrack that is there when so many workers are.
    fn behind_sidetrack(name: &str, workers: usize, front: Process, folder: TempDir) -> Self {
        let ready = folder.path().join("ready.json");
        let address = wait(|| serving(&ready, workers));
        let name = name.to_owned();
        Self { name, address, workers, front: Some(front), behind: Vec::new(), _folder: Some(folder) }
    }

    fn run(sidetrack: &Path, workers: usize, folder: &TempDir) -> Command {
        let mut command = Command::new(sidetrack);
        command
            .args(["run", "--listen", "127.0.0.1:0", "--log", "error"])
            .args(["--workers", &workers.to_string(), "--ready-file"])
            .arg(folder.path().join("ready.json"))
            .envs(MALLOC)
            .stdout(Stdio::null());
        command
    }

    /// Behind HAProxy, which learns sessions from the answers that open them.
    ///
    /// # Errors
    /// When HAProxy is not there.
    pub fn haproxy(workers: usize) -> io::Result<Self> {
        let text = fs::read_to_string(file("peers/haproxy.cfg"))?;
        let server = |(number, address): (usize, &SocketAddr)| format!("    server w{number} {address}\n");
        let configuration = |_front: u16, workers: &[SocketAddr]| {
            text.clone() + &workers.iter().enumerate().map(server).collect::<String>()
        };
        Self::proxy("HAProxy", workers, configuration, |front, file, _| {
            let mut command = Command::new("haproxy");
            command.args(["-q", "-db", "-f"]).arg(file).env("FRONT", front.to_string());
            command
        })
    }

    /// Behind nginx, with clients kept apart by their addresses.
    ///
    /// # Errors
    /// When nginx is not there.
    pub fn nginx(workers: usize) -> io::Result<Self> {
        let text = fs::read_to_string(file("peers/nginx.conf"))?;
        let server = |address: &SocketAddr| format!("        server {address};\n");
        let configuration = |front: u16, workers: &[SocketAddr]| {
            let servers: String = workers.iter().map(server).collect();
            text.replace("SERVERS\n", &servers).replace("FRONT", &front.to_string())
        };
        Self::proxy("nginx", workers, configuration, |_, file, folder| {
            let mut command = Command::new("nginx");
            command.arg("-p").arg(folder).arg("-c").arg(file);
            command
        })
    }

    /// What stands in front and the processes it needs to do so; nobody when there is only a server.
    pub fn front(&self) -> Vec<u32> {
        let Some(front) = &self.front else { return Vec::new() };
        // The workers that a primary has started are its children too; nginx has made these itself.
        let own = if self.behind.is_empty() { Vec::new() } else { process::children(front.pid()) };
        [front.pid()].into_iter().chain(own).collect()
    }

    /// The processes that answer.
    pub fn backs(&self) -> Vec<u32> {
        match &self.front {
            Some(front) if self.behind.is_empty() => process::children(front.pid()),
            _ => self.behind.iter().map(Process::pid).collect(),
        }
    }

    /// A primary in Node that prints its port when its workers are ready.
    fn primary(name: &str, workers: usize, program: &str, words: &[&str], worker: &str) -> Self {
        let mut command = Command::new("node");
        command.arg(file("peers").join(program)).args(words).arg(workers.to_string());
        command.arg(file("workers").join(worker));
        let (front, address) = announcing(command);
        Self {
            name: name.to_owned(),
            address,
            workers,
            front: Some(front),
            behind: Vec::new(),
            _folder: None,
        }
    }

    /// Workers on ports of their own, and a proxy in front of them.
    fn proxy(
        name: &str,
        workers: usize,
        configuration: impl Fn(u16, &[SocketAddr]) -> String,
        command: impl Fn(u16, &Path, &Path) -> Command,
    ) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let (behind, addresses): (Vec<_>, Vec<_>) = (0..workers).map(|_| Self::worker()).unzip();
        let file = folder.path().join("configuration");
        fs::write(&file, configuration(port, &addresses))?;
        let mut command = command(port, &file, folder.path());
        let child = command.stdout(Stdio::null()).spawn()?;
        let front = Some(Process(child));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        wait(|| TcpStream::connect(address).ok());
        Ok(Self { name: name.to_owned(), address, workers, front, behind, _folder: Some(folder) })
    }

    fn worker() -> (Process, SocketAddr) {
        let mut command = Command::new("node");
        command.arg(file("workers/listen.js"));
        announcing(command)
    }
}

/// The first address of a sidetrack, once it has written that all its workers are ready.
pub fn serving(ready_file: &Path, workers: usize) -> Option<SocketAddr> {
    let ready: Value = serde_json::from_str(&fs::read_to_string(ready_file).ok()?).ok()?;
    let all = ready["workers"].as_array()?.len() == workers;
    ready["addresses"][0].as_str()?.parse().ok().filter(|_| all)
}

/// A Node program that prints its port.
fn announcing(mut command: Command) -> (Process, SocketAddr) {
    let mut child = command.envs(MALLOC).stdout(Stdio::piped()).spawn().expect("node starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line with the port");
    let port: u16 = line.trim().parse().expect("a port; are the packages of tests/node installed (npm ci)?");
    (Process(child), SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
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
