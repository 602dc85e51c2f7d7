//! Sockets that somebody else has opened, and what is told of the run: systemd's part is played by a script and
//! a datagram socket.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::support::{
    PATIENCE, Run, admin, eventually, fake, get, interpreter, kill, pid, root, sidetrack, worker,
};

/// Starts it with these sockets open.
fn activated(run: Run, sockets: &[&str]) -> Run {
    let script = root().join("tests/it/systemd/activate.py").display().to_string();
    let python = interpreter().display().to_string();
    run.through(&[&[&*python, &*script], sockets, &["--"]].concat())
}

/// A variable of a process's environment.
fn variable(pid: u32, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).expect("a process of ours");
    let mut variables = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    variables.find_map(|variable| Some(variable.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// A line of a process's status.
fn status(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process of ours");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
}

/// Where the run tells how it goes.
struct Manager(UnixDatagram);

impl Manager {
    fn new(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self(socket)
    }

    /// The next message.
    fn hears(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned()
    }

    /// Everything up to a message that says this, it included.
    fn until(&self, wanted: &str) -> Vec<String> {
        let mut all = vec![self.hears()];
        while !all.last().is_some_and(|last| last.contains(wanted)) {
            all.push(self.hears());
        }
        all
    }

    /// Whether nothing comes for so long, after what is there already.
    fn quiet_for(&self, time: Duration) -> bool {
        self.0.set_nonblocking(true).expect("an option");
        while self.0.recv(&mut [0; 4096]).is_ok() {}
        self.0.set_nonblocking(false).expect("an option");
        self.0.set_read_timeout(Some(time)).expect("a timeout");
        let error = self.0.recv(&mut [0; 4096]).err().map(|error| error.kind());
        self.0.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        matches!(error, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }
}

#[test]
fn passed_sockets_are_served_and_workers_know_nothing_of_them() {
    let run = sidetrack(worker("listen.js")).workers(2).listen(&["127.0.0.1:{web}"]);
    let running = activated(run, &["more=tcp:127.0.0.1:0", "web=tcp:127.0.0.1:0"]).start();
    let addresses = running.all_addresses();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    for address in addresses {
        assert_eq!(get(address, "/pid").status, 200, "{address}");
    }
    for pid in running.workers() {
        for name in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET"] {
            assert_eq!(variable(pid, name), None, "{name}");
        }
    }
    running.stop();
}

#[test]
fn without_an_address_of_its_own_it_is_where_the_socket_is() {
    let running =
        activated(sidetrack(worker("listen.js")).workers(1).listen(&[]), &["x=tcp:127.0.0.1:0"]).start();
    assert_eq!(running.addresses().len(), 1);
    assert!(running.addresses()[0].starts_with("127.0.0.1:"), "{:?}", running.addresses());
    assert_eq!(get(running.address(), "/pid").status, 200);
    running.stop();
}

/// A worker that joins; it ends with the value.
struct Guest(Child);

impl Guest {
    fn start(socket: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidetrack"));
        command.args(["join", "--socket"]).arg(socket).arg("--").args(fake(&[])).stdin(Stdio::null());
        Self(command.spawn().expect("the program starts"))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        kill(self.0.id());
        drop(self.0.wait());
    }
}

#[test]
fn sockets_named_join_and_admin_are_what_they_are_called() {
    let folder = tempfile::tempdir().expect("a folder");
    let [join, control] = ["join.sock", "admin.sock"].map(|name| folder.path().join(name));
    let sockets = [format!("join=unix:{}", join.display()), format!("admin=unix:{}", control.display())];
    let sockets: Vec<_> = sockets.iter().map(String::as_str).collect();
    let run = sidetrack(Vec::new()).workers(0).listen(&["127.0.0.1:0"]);
    let running = activated(run, &sockets).start();
    let _guest = Guest::start(&join);
    eventually("it has joined", || (running.workers().len() == 1).then_some(()));
    pid(running.address());
    let answer = admin(&control, "/v1/status");
    assert!(answer.contains("\"handed_off\":1"), "{answer}");
    // It starts nobody, so nobody needs more rights than it has.
    assert_eq!(status(running.pid, "NoNewPrivs"), "1");
    running.terminate();
    assert!(join.exists() && control.exists(), "they are systemd's");

    // Somebody has said something else.
    let again = folder.path().join("again.sock");
    let socket = format!("admin=unix:{}", again.display());
    let run = sidetrack(worker("listen.js")).with(&["--admin", "/elsewhere/admin.sock"]);
    let ended = activated(run, &[&socket]).finish();
    assert_eq!(ended.code, Some(2));
    assert!(ended.complaint().contains("/elsewhere"), "{}", ended.complaint());
}

#[test]
fn what_cannot_be_listened_on_is_named_all_at_once() {
    let run = sidetrack(worker("listen.js"));
    let sockets = ["a=udp:127.0.0.1:0", "web=tcp:127.0.0.1:0", "b=idle:127.0.0.1:0", "join=tcp:127.0.0.1:0"];
    let ended = activated(run, &sockets).finish();
    assert_eq!(ended.code, Some(2));
    let complaint = ended.complaint();
    for expected in [
        "3 problems",
        "the socket \"a\" (descriptor 3): it is a datagram socket",
        "the socket \"b\" (descriptor 5): it is a connection and does not listen",
        "the socket \"join\" (descriptor 6): for join-socket it has to be a Unix socket",
    ] {
        assert!(complaint.contains(expected), "{expected} is missing in {complaint}");
    }
}

#[test]
fn the_manager_hears_how_it_goes() {
    const WATCHDOG: Duration = Duration::from_millis(400);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify.sock");
    let manager = Manager::new(&path);
    let running = sidetrack(worker("listen.js"))
        .workers(2)
        .env("NOTIFY_SOCKET", &path.display().to_string())
        .env("WATCHDOG_USEC", &WATCHDOG.as_micros().to_string())
        .spawn();
    let told = manager.until("READY=1");
    assert!(told.iter().any(|message| message == "STATUS=workers are starting"), "{told:?}");
    let line = told.iter().rfind(|message| message.starts_with("STATUS=")).expect("a line");
    assert!(line.contains("ready; 0 sessions; 0 connections, 0 refused; on 127.0.0.1:"), "{line}");
    // At the same moment as the ready file.
    let ready = eventually("the ready file is there", || running.ready());
    assert!(!ready["workers"].as_array().expect("a list").is_empty());
    assert_eq!(variable(running.workers()[0], "WATCHDOG_USEC"), None);

    let began = Instant::now();
    for _ in 0..4 {
        manager.until("WATCHDOG=1");
    }
    let each = began.elapsed() / 4;
    assert!(each < WATCHDOG, "{each:?}");
    running.signal(Signal::SIGSTOP);
    eventually("it is stopped", || status(running.pid, "State").starts_with('T').then_some(()));
    assert!(manager.quiet_for(WATCHDOG * 2), "one that does not run says nothing");
    running.signal(Signal::SIGCONT);
    manager.until("WATCHDOG=1");

    running.signal(Signal::SIGHUP);
    let reloading = manager.until("RELOADING=1").pop().unwrap_or_default();
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.until("READY=1");

    pid(running.address());
    manager.until("1 connection, 0 refused");
    running.signal(Signal::SIGTERM);
    manager.until("STOPPING=1");
    assert_eq!(running.ended().code, Some(0));
}

#[test]
fn where_all_workers_join_it_is_ready_before_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify.sock");
    let manager = Manager::new(&path);
    let join = folder.path().join("join.sock").display().to_string();
    let running = sidetrack(Vec::new())
        .workers(0)
        .with(&["--join-socket", &join])
        .env("NOTIFY_SOCKET", &path.display().to_string())
        .spawn();
    let told = manager.until("READY=1");
    assert!(told.iter().any(|message| message.contains("no worker is ready")), "{told:?}");
    assert_eq!(running.terminate().code, Some(0));
}

#[test]
fn what_root_may_and_nobody_needs_is_given_up() {
    let running = sidetrack(worker("listen.js")).workers(1).start();
    let rights = |pid: u32, set: &str| u64::from_str_radix(&status(pid, set), 16).expect("a set");
    // CAP_DAC_OVERRIDE, CAP_KILL, CAP_SETGID, CAP_SETUID and CAP_NET_BIND_SERVICE.
    let most: u64 = (1 << 1) | (1 << 5) | (1 << 6) | (1 << 7) | (1 << 10);
    for set in ["CapPrm", "CapEff"] {
        assert_eq!(rights(running.pid, set) & !most, 0, "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(rights(running.pid, set), 0, "{set}");
    }
    // Every thread of it.
    for thread in fs::read_dir(format!("/proc/{}/task", running.pid)).expect("threads").flatten() {
        let id: u32 = thread.file_name().to_string_lossy().parse().expect("a number");
        assert_eq!(rights(id, "CapEff") & !most, 0);
    }
    assert_eq!(status(running.workers()[0], "NoNewPrivs"), "0", "workers may need sudo");
    if Uid::effective().is_root() {
        running.logged("running as root");
    }
    running.stop();
}

#[test]
fn limits_are_said_and_too_low_ones_complained_about() {
    let running = sidetrack(worker("listen.js"))
        .workers(1)
        .with(&["--max-pending", "4096"])
        .through(&["sh", "-c", "ulimit -Sn 256; ulimit -Hn 512; exec \"$0\" \"$@\""])
        .start();
    running.logged("\"before\":256,\"now\":512,\"hard\":512,\"pending\":444");
    running.logged("raise the hard limit to 4164 (LimitNOFILE= in the unit");
    running.stop();
}
