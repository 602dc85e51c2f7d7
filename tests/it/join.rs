//! Workers that somebody else starts.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::{
    Client, Run, Sidetrack, alive, eventually, fake, get, pid, poll_session, python_worker, rust_worker,
    session_at, sidetrack, signal, worker,
};

/// A folder with a join socket to be.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("join.sock");
    (folder, socket)
}

/// A sidetrack that starts nothing itself.
fn host(socket: &Path) -> Run {
    let socket = socket.display().to_string();
    sidetrack(Vec::new()).workers(0).listen(&["127.0.0.1:0"]).with(&["--join-socket", &socket])
}

/// A worker that joins; it ends with the value.
pub struct Guest(Child);

impl Guest {
    pub fn start(wrap: &[&str], words: &[&str], socket: &Path, command: &[String]) -> Self {
        let mut line: Vec<String> = wrap.iter().map(|&word| word.to_owned()).collect();
        line.push(env!("CARGO_BIN_EXE_sidetrack").to_owned());
        line.extend(["join", "--socket"].map(str::to_owned));
        line.push(socket.display().to_string());
        line.extend(words.iter().map(|&word| word.to_owned()));
        line.push("--".to_owned());
        line.extend_from_slice(command);
        let child = Command::new(&line[0]).args(&line[1..]).stdin(Stdio::null()).spawn().unwrap();
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn slots(sidetrack: &Sidetrack) -> Vec<String> {
    let ready = sidetrack.ready().unwrap_or_default();
    let workers = ready["workers"].as_array().cloned().unwrap_or_default();
    workers.iter().map(|worker| worker["slot"].as_str().unwrap().to_owned()).collect()
}

fn until_slots(sidetrack: &Sidetrack, wanted: &[&str]) {
    eventually(&format!("the slots are {wanted:?}"), || (slots(sidetrack) == wanted).then_some(()));
}

#[test]
fn workers_come_and_go_and_the_process_is_the_worker() {
    let (_folder, socket) = place();
    let sidetrack = host(&socket).policy("round-robin").spawn();
    let first = Guest::start(&[], &[], &socket, &fake(&[]));
    let second = Guest::start(&[], &["--slot", "web-1"], &socket, &fake(&[]));
    until_slots(&sidetrack, &["w0", "web-1"]);
    let address = sidetrack.address();
    let mut pids = [pid(address), pid(address)];
    pids.sort_unstable();
    let mut expected = [first.pid(), second.pid()];
    expected.sort_unstable();
    assert_eq!(pids, expected);

    // Its sessions go with it, as those of any worker.
    let owner = get(address, "/open/s").pid();
    let (stays, goes) = if owner == first.pid() { (second, first) } else { (first, second) };
    drop(goes);
    eventually("one is left", || (slots(&sidetrack).len() == 1).then_some(()));
    assert_eq!(get(address, "/pid?sid=s").pid(), stays.pid());
    drop(stays);
    // Nobody is there, and that is no reason to end.
    eventually("nobody is left", || slots(&sidetrack).is_empty().then_some(()));
    let late = Client::with(address, "GET /pid HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let third = Guest::start(&[], &[], &socket, &fake(&[]));
    let mut late = late;
    assert_eq!(late.response().pid(), third.pid());
    let stopped = sidetrack.terminate();
    assert_eq!((stopped.code, stopped.count("workers_joined")), (Some(0), 3), "{}", stopped.log);
    assert!(!socket.exists(), "the socket goes with the run");
}

#[test]
fn a_node_server_joins_unmodified() {
    let (_folder, socket) = place();
    let sidetrack = host(&socket).spawn();
    let guest = Guest::start(&[], &[], &socket, &worker("listen.js"));
    until_slots(&sidetrack, &["w0"]);
    assert_eq!(pid(sidetrack.address()), guest.pid());
    let mut client = Client::websocket(sidetrack.address());
    client.echo("hello");
    drop(client);
    let (sid, _) = poll_session(sidetrack.address());
    let stopped = sidetrack.terminate();
    assert_eq!(stopped.code, Some(0), "{}", stopped.log);
    // It is another's to end; with the next sidetrack it serves again, and so do its sessions.
    let sidetrack = host(&socket).spawn();
    until_slots(&sidetrack, &["w0"]);
    assert_eq!(pid(sidetrack.address()), guest.pid());
    assert_eq!(session_at(sidetrack.address(), &format!("sid={sid}")), (200, Some(guest.pid())));
    sidetrack.terminate();
    assert!(alive(guest.pid()));
}

#[test]
fn a_worker_in_any_language_outlives_sidetracks_that_stop_and_that_are_killed() {
    for (language, command) in
        [("Node", worker("listen.js")), ("Python", python_worker()), ("Rust", rust_worker())]
    {
        let (_folder, socket) = place();
        let mut sidetrack = host(&socket).spawn();
        let guest = Guest::start(&[], &["--slot", "web-1"], &socket, &command);
        until_slots(&sidetrack, &["web-1"]);
        let (sid, _) = poll_session(sidetrack.address());
        let mut kept = Client::websocket(sidetrack.address());
        for end in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGTERM] {
            sidetrack.signal(end);
            // Gone whole, its turn among the tests too, before the next one takes its own.
            let stopped = sidetrack.ended();
            assert_eq!(stopped.code, (end == Signal::SIGTERM).then_some(0), "{language}: {}", stopped.log);
            kept.echo("without any sidetrack");
            sidetrack = host(&socket).spawn();
            until_slots(&sidetrack, &["web-1"]);
            assert_eq!(pid(sidetrack.address()), guest.pid(), "{language} is back");
            let known = session_at(sidetrack.address(), &format!("sid={sid}"));
            assert_eq!(known, (200, Some(guest.pid())), "{language}: its session too");
        }
        kept.echo("with the fourth");
        sidetrack.terminate();
        assert!(alive(guest.pid()), "{language}");
    }
}

#[test]
fn a_worker_without_any_network_serves_clients() {
    let (_folder, socket) = place();
    let sidetrack = host(&socket).spawn();
    let guest = Guest::start(&["unshare", "--map-root-user", "--net"], &[], &socket, &fake(&[]));
    until_slots(&sidetrack, &["w0"]);
    let interfaces = fs::read_to_string(format!("/proc/{}/net/dev", guest.pid())).unwrap();
    assert_eq!(interfaces.lines().skip(2).count(), 1, "only a loopback, which is down: {interfaces}");
    assert_eq!(pid(sidetrack.address()), guest.pid());
    sidetrack.terminate();
}

#[test]
fn own_workers_and_joined_ones_serve_together() {
    let (_folder, socket) = place();
    let path = socket.display().to_string();
    let sidetrack =
        sidetrack(fake(&[])).workers(1).policy("round-robin").with(&["--join-socket", &path]).start();
    let guest = Guest::start(&[], &[], &socket, &fake(&[]));
    until_slots(&sidetrack, &["w0", "w1"]);
    let address = sidetrack.address();
    // A session of each, over one connection.
    let (a, b) = (get(address, "/open/a").pid(), get(address, "/open/b").pid());
    assert_ne!(a, b);
    let mut client = Client::connect(address);
    for (owner, sid) in [(a, "a"), (b, "b"), (a, "a")] {
        let request = format!("GET /pid?sid={sid} HTTP/1.1\r\nHost: test\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(client.exchange(request).pid(), owner);
    }
    drop((client, guest));
    until_slots(&sidetrack, &["w0"]);
    sidetrack.stop();
}

#[test]
fn the_socket_is_for_its_owner_and_bad_guests_are_told() {
    let (_folder, socket) = place();
    let sidetrack = host(&socket).spawn();
    eventually("the socket is there", || socket.exists().then_some(()));
    eventually("it is closed to others", || {
        (fs::metadata(&socket).unwrap().permissions().mode() & 0o777 == 0o600).then_some(())
    });
    let ask = |line: &str| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        // A reset, where more was sent than was read, is an answer too.
        drop(stream.read_to_string(&mut answer));
        answer
    };
    for (line, answer) in [
        ("rubbish\n", "no request to join"),
        ("", "without saying who it is"),
        ("{\"type\":\"sidetrack:join\",\"slot\":\"../etc\"}\n", "is not a name"),
        (&format!("{}\n", "x".repeat(5000)), "does not end"),
    ] {
        assert!(ask(line).contains(answer) || answer == "does not end", "{line}: {}", ask(line));
    }
    let guest = Guest::start(&[], &["--slot", "taken"], &socket, &fake(&[]));
    until_slots(&sidetrack, &["taken"]);
    let refused = Command::new(env!("CARGO_BIN_EXE_sidetrack"))
        .args(["join", "--slot", "taken", "--socket"])
        .arg(&socket)
        .args(["--", "true"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&refused.stderr),
        "sidetrack: join: refused: the slot taken is taken\n"
    );
    assert_eq!(pid(sidetrack.address()), guest.pid());
    sidetrack.terminate();
}

#[test]
fn other_users_may_not_join_unless_their_group_may() {
    // Without being root nobody can try to be somebody else.
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: it changes to another user");
    let (folder, socket) = place();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let group = ["--join-group", "nogroup"];
    let sidetrack = host(&socket).with(&group).spawn();
    eventually("the socket is there for the group", || {
        let file = fs::metadata(&socket).ok()?;
        (file.permissions().mode() & 0o777 == 0o660 && file.gid() == 65534).then_some(())
    });
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let shared = folder.path().join("sidetrack");
    fs::copy(env!("CARGO_BIN_EXE_sidetrack"), &shared).unwrap();
    let mut join = Command::new(nobody[0])
        .args(&nobody[1..])
        .arg(&shared)
        .args(["join", "--no-shim", "--socket"])
        .arg(&socket)
        .args(["--", "sleep", "60"])
        .spawn()
        .unwrap();
    sidetrack.logged("worker joined");
    drop((join.kill(), join.wait()));
    sidetrack.logged("worker left");
    sidetrack.terminate();

    // Let in by the file's mode alone, it is looked at.
    let sidetrack = host(&socket).spawn();
    eventually("the socket is there", || {
        fs::metadata(&socket).ok().filter(|file| file.permissions().mode() & 0o777 == 0o600).map(drop)
    });
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let refused = Command::new(nobody[0])
        .args(&nobody[1..])
        .arg(&shared)
        .args(["join", "--no-shim", "--socket"])
        .arg(&socket)
        .args(["--", "true"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("user 65534") && said.contains("--join-group"), "{said}");
    sidetrack.terminate();
}

#[test]
fn a_guest_that_names_no_port_is_sent_away_and_the_others_go_on() {
    let (_folder, socket) = place();
    let path = socket.display().to_string();
    // Nothing says where to listen but the first worker.
    let sidetrack = sidetrack(worker("listen.js")).workers(1).with(&["--join-socket", &path]).start();
    let guest = Guest::start(&[], &[], &socket, &worker("sticky2.js"));
    sidetrack.logged("worker joined");
    assert!(pid(sidetrack.address()) > 0);
    drop(guest);
    sidetrack.logged("worker left");
    sidetrack.stop();
}

#[test]
fn joining_waits_for_sidetrack_and_gives_up_in_the_end() {
    let (_folder, socket) = place();
    let guest = Guest::start(&[], &["--wait", "60s"], &socket, &fake(&[]));
    let sidetrack = host(&socket).spawn();
    until_slots(&sidetrack, &["w0"]);
    assert_eq!(pid(sidetrack.address()), guest.pid());
    // A stopped worker is taken out, brought back, and never served twice.
    signal(guest.pid(), Signal::SIGSTOP);
    signal(guest.pid(), Signal::SIGCONT);
    assert_eq!(pid(sidetrack.address()), guest.pid());
    sidetrack.terminate();

    let given_up = Command::new(env!("CARGO_BIN_EXE_sidetrack"))
        .args(["join", "--wait", "300ms", "--socket"])
        .arg(&socket)
        .args(["--", "true"])
        .output()
        .unwrap();
    assert_eq!(given_up.status.code(), Some(2));
    let said = String::from_utf8_lossy(&given_up.stderr);
    assert!(said.contains("waiting for sidetrack at") && said.contains("run --join-socket"), "{said}");
}
