//! The program under test: started, watched, stopped, and looked after when a test fails.

use std::io::{BufRead as _, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::os::{MARK, descriptors, end, marked};
use super::wait::PAUSE;
use super::{PATIENCE, Turn, eventually, signal};

/// A run to be started.
#[derive(Debug)]
pub struct Run {
    command: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    workers: usize,
    listen: Vec<String>,
    through: Vec<String>,
    alone: bool,
    /// Says how many workers there are, and where to listen.
    file: Option<PathBuf>,
    folder: TempDir,
}

/// A run under way. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Sidetrack {
    pub pid: u32,
    child: Child,
    ready_file: PathBuf,
    mark: String,
    workers: usize,
    log: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
    /// What was open when all workers were ready.
    baseline: Vec<String>,
    _folder: TempDir,
    _turn: Turn,
}

/// How a run ended.
#[derive(Debug)]
pub struct Stopped {
    pub code: Option<i32>,
    /// Everything it and its workers have printed.
    pub log: String,
    figures: Value,
}

/// `sidetrack run` with this command: three workers on a port of the system's choice.
pub fn sidetrack(command: Vec<String>) -> Run {
    Run {
        command,
        arguments: Vec::new(),
        environment: Vec::new(),
        workers: 3,
        listen: vec!["127.0.0.1:0".into()],
        through: Vec::new(),
        alone: false,
        file: None,
        folder: tempfile::tempdir().expect("a temporary folder"),
    }
}

/// `sidetrack check` with these words: exit code, and what it says.
pub fn check(words: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sidetrack"))
        .arg("check")
        .args(words)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

impl Run {
    pub fn workers(mut self, number: usize) -> Self {
        self.workers = number;
        self
    }

    pub fn policy(self, policy: &str) -> Self {
        self.with(&["--policy", policy])
    }

    /// Further flags.
    pub fn with(mut self, words: &[&str]) -> Self {
        self.arguments.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// These addresses; with none, sidetrack listens where the worker asks.
    pub fn listen(mut self, addresses: &[&str]) -> Self {
        self.listen = addresses.iter().map(|&address| address.to_owned()).collect();
        self
    }

    /// Started by this program, which becomes it.
    pub fn through(mut self, command: &[&str]) -> Self {
        self.through = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// A configuration that says by itself how many workers there are, which is so many, and where to listen.
    pub fn configured(mut self, file: &Path, workers: usize) -> Self {
        self.file = Some(file.to_owned());
        self.workers(workers).listen(&[])
    }

    /// No other test meanwhile.
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Started, with all workers ready.
    #[track_caller]
    pub fn start(self) -> Sidetrack {
        let workers = self.workers;
        self.start_with(workers)
    }

    /// Started, with this many workers ready.
    #[track_caller]
    pub fn start_with(self, ready: usize) -> Sidetrack {
        let mut sidetrack = self.spawn();
        let what = format!("{ready} workers are ready");
        eventually(&what, || {
            let ended = sidetrack.child.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "it ended at once, {}", ended.unwrap_or_default());
            (sidetrack.workers().len() >= ready).then_some(())
        });
        sidetrack.baseline = descriptors(sidetrack.pid);
        sidetrack
    }

    /// Run to its own end.
    #[track_caller]
    pub fn finish(self) -> Stopped {
        self.spawn().ended()
    }

    /// Started, and not waited for.
    pub fn spawn(self) -> Sidetrack {
        let turn = if self.alone { Turn::alone() } else { Turn::shared() };
        let ready_file = self.folder.path().join("ready.json");
        let mark = self.folder.path().display().to_string();
        let mut words = self.through.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_sidetrack")]);
        let mut command = Command::new(words.next().expect("the program at least"));
        command.args(words).args(["run", "--log-format", "json"]);
        match &self.file {
            Some(file) => command.arg("-c").arg(file),
            None => command.args(["--workers", &self.workers.to_string()]),
        };
        command.arg("--ready-file").arg(&ready_file);
        command.args(self.listen.iter().flat_map(|address| ["--listen", address]));
        command.args(&self.arguments);
        if !self.command.is_empty() {
            command.arg("--").args(&self.command);
        }
        // Where nothing else is said, the worker's own port is the system's choice too.
        command.env("PORT", "0").env(MARK, &mark).envs(self.environment);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let log = Arc::default();
        let readers = vec![
            follow(child.stdout.take().expect("piped"), Arc::clone(&log)),
            follow(child.stderr.take().expect("piped"), Arc::clone(&log)),
        ];
        Sidetrack {
            pid: child.id(),
            child,
            ready_file,
            mark,
            workers: self.workers,
            log,
            readers,
            baseline: Vec::new(),
            _folder: self.folder,
            _turn: turn,
        }
    }
}

/// Keeps what is printed. Ends when the last process that could print has gone.
fn follow(output: impl Read + Send + 'static, log: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    })
}

impl Sidetrack {
    /// The ready file as it is now.
    pub fn ready(&self) -> Option<Value> {
        let text = std::fs::read_to_string(&self.ready_file).ok()?;
        Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}")))
    }

    /// Addresses as the ready file tells them.
    #[track_caller]
    pub fn addresses(&self) -> Vec<String> {
        let ready = self.ready().expect("the ready file");
        let addresses = ready["addresses"].as_array().expect("a list");
        addresses.iter().map(|address| address.as_str().expect("text").to_owned()).collect()
    }

    /// The first address, to connect to.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        to_connect(&self.addresses()[0])
    }

    /// Every address, to connect to.
    #[track_caller]
    pub fn all_addresses(&self) -> Vec<SocketAddr> {
        self.addresses().iter().map(|text| to_connect(text)).collect()
    }

    /// The ready workers' processes, in the order of their slots.
    pub fn workers(&self) -> Vec<u32> {
        let ready = self.ready().unwrap_or_default();
        let pids = ready["workers"].as_array().into_iter().flatten().map(|worker| &worker["pid"]);
        pids.map(|pid| pid.as_u64().and_then(|pid| pid.try_into().ok()).expect("a pid")).collect()
    }

    /// The process in a slot, when it is ready.
    pub fn slot(&self, slot: &str) -> Option<u32> {
        let ready = self.ready()?;
        let worker = ready["workers"].as_array()?.iter().find(|worker| worker["slot"] == slot)?;
        worker["pid"].as_u64()?.try_into().ok()
    }

    /// Waits until all slots are filled, none of them by one of these.
    #[track_caller]
    pub fn all_ready_without(&self, gone: &[u32]) -> Vec<u32> {
        eventually("all workers are ready again", || {
            let workers = self.workers();
            (workers.len() == self.workers && !workers.iter().any(|pid| gone.contains(pid)))
                .then_some(workers)
        })
    }

    /// Everything printed so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Waits until this is in the log.
    #[track_caller]
    pub fn logged(&self, text: &str) {
        eventually(&format!("the log says {text:?}"), || self.log().contains(text).then_some(()));
    }

    pub fn descriptors(&self) -> Vec<String> {
        descriptors(self.pid)
    }

    /// Waits until no more descriptors are open than when all workers were ready: whatever has
    /// been handed off is not kept. Fewer is possible, as a probe may have been under way then.
    #[track_caller]
    pub fn keeps_nothing(&self) {
        // Not counted: the memory of policy versions that may return, a few at most.
        let open = || -> Vec<String> {
            let all = self.descriptors().into_iter();
            all.filter(|descriptor| !descriptor.contains("wasm-memory-image")).collect()
        };
        let start = Instant::now();
        let mut now = open();
        while now.len() > self.baseline.len() && start.elapsed() < PATIENCE {
            thread::sleep(PAUSE);
            now = open();
        }
        assert!(now.len() <= self.baseline.len(), "open then: {:#?}\nopen now: {now:#?}", self.baseline);
    }

    pub fn signal(&self, name: Signal) {
        signal(self.pid, name);
    }

    /// Everything of this run that is alive.
    pub fn processes(&self) -> Vec<u32> {
        marked(&self.mark)
    }

    /// The orderly end of every test: nothing is left open, SIGTERM ends the run in peace, and
    /// nobody stays behind.
    #[track_caller]
    pub fn stop(self) -> Stopped {
        self.keeps_nothing();
        let stopped = self.terminate();
        assert_eq!(stopped.code, Some(0), "{}", stopped.log);
        stopped
    }

    /// SIGTERM, and whatever end follows.
    #[track_caller]
    pub fn terminate(self) -> Stopped {
        self.signal(Signal::SIGTERM);
        self.ended()
    }

    /// Waits for the end; no process may stay behind.
    #[track_caller]
    pub fn ended(mut self) -> Stopped {
        let status = self.exit();
        eventually("no process stays behind", || self.processes().is_empty().then_some(()));
        eventually("everything said is read", || {
            self.readers.iter().all(JoinHandle::is_finished).then_some(())
        });
        Stopped { code: status.code(), figures: self.figures(), log: self.log() }
    }

    /// Waits for the end of the process itself.
    #[track_caller]
    pub fn exit(&mut self) -> ExitStatus {
        eventually("it ends", || self.child.try_wait().expect("a child of ours"))
    }

    /// The figures of the last line; none when the run ended before it began.
    fn figures(&self) -> Value {
        let figures = self.log().lines().rev().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            serde_json::from_str(line["figures"].as_str()?).ok()
        });
        figures.unwrap_or_default()
    }
}

impl Drop for Sidetrack {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        // Its workers, and what they have started.
        self.processes().into_iter().for_each(end);
        if thread::panicking() {
            eprintln!("--- sidetrack {} and its workers said:\n{}\n---", self.pid, self.log());
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- sidetrack and its workers said:\n{}\n---", self.log);
        }
    }
}

impl Stopped {
    /// One of the figures.
    #[track_caller]
    pub fn count(&self, name: &str) -> u64 {
        self.figures[name].as_u64().unwrap_or_else(|| panic!("no figure {name} in {}", self.figures))
    }

    /// The lines that are not workers' and not log lines: what a person reads when it fails.
    pub fn complaint(&self) -> String {
        let complaint: Vec<_> =
            self.log.lines().skip_while(|line| !line.starts_with("sidetrack: ")).collect();
        complaint.join("\n")
    }
}

/// An address of the ready file as one that can be connected to.
#[track_caller]
fn to_connect(text: &str) -> SocketAddr {
    let text = text.replace("*:", &format!("{}:", Ipv4Addr::LOCALHOST));
    text.parse().unwrap_or_else(|error| panic!("{error}: {text}"))
}
