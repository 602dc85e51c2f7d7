//! Starting, and what is said when it cannot be.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};

use wasm_encoder::{Component, Module};

use crate::support::{alive, check, children, fake, get, pid, policy_file, sidetrack, worker};

fn program(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sidetrack")).args(words).output().unwrap()
}

/// A run that must not start: the one line it says.
#[track_caller]
fn refused(flags: &[&str]) -> String {
    let stopped = sidetrack(vec!["true".into()]).with(flags).finish();
    assert_eq!(stopped.code, Some(2), "{flags:?}: {}", stopped.log);
    assert!(!stopped.log.contains("worker started"), "nothing is started: {}", stopped.log);
    // `check` says the same without being asked to run.
    let words: Vec<_> = flags.iter().copied().chain(["--", "true"]).collect();
    let (code, said) = check(&words);
    assert_eq!((code, said.trim_end()), (Some(2), stopped.complaint().as_str()));
    stopped.complaint()
}

#[track_caller]
fn one_line(complaint: &str) {
    assert_eq!(complaint.lines().count(), 1, "one line: {complaint}");
}

#[test]
fn a_policy_file_that_is_none_is_explained_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.wasm");
    let random = std::fs::read(policy_file("random")).unwrap();
    let half = random.len() / 2;
    for (bytes, expected) in [
        (b"#!/bin/sh\necho hello\n".to_vec(), "a script's name ends in .js"),
        (Vec::new(), "empty"),
        (random[..half].to_vec(), "cut short"),
        (random[..9].to_vec(), "cut short"),
        (Component::new().finish(), "no policy"),
        (Module::new().finish(), "without a policy's type information"),
        (b"(module)".to_vec(), "WebAssembly text"),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        let complaint = refused(&["--policy", path.to_str().unwrap()]);
        one_line(&complaint);
        assert!(complaint.contains("mine.wasm") && complaint.contains(expected), "{expected}: {complaint}");
    }
}

#[test]
fn a_policy_that_does_not_exist_is_explained() {
    let complaint = refused(&["--policy", "round-robbin"]);
    one_line(&complaint);
    assert!(complaint.contains("round-robbin") && complaint.contains("least-connection"), "{complaint}");
    let complaint = refused(&["--policy", "/nowhere/mine.wasm"]);
    one_line(&complaint);
    assert!(complaint.contains("/nowhere/mine.wasm"), "{complaint}");
}

#[test]
fn places_that_cannot_be_are_refused_before_anything_starts() {
    for (flags, expected) in [
        (&["--access-log", "/tmp"][..], "access-log: /tmp is a folder"),
        (&["--join-socket", ""], "join-socket: expected a path, found nothing"),
        (&["--admin", "/nowhere/a.sock"], "admin: the folder /nowhere does not exist"),
        (&["--cwd", "/etc/passwd"], "cwd: /etc/passwd is no folder"),
        (&["--listen", "unix:/nowhere/s"], "listen: the folder /nowhere does not exist"),
        (&["--listen", ":3911", "--listen", "127.0.0.1:3911"], "127.0.0.1:3911 is listened on already"),
        (&["--max-sessions", "-1"], "max-sessions: expected a whole number"),
    ] {
        let complaint = refused(flags);
        one_line(&complaint);
        assert!(complaint.contains(expected), "{complaint}");
    }
}

#[test]
fn five_mistakes_in_a_file_are_five_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sidetrack.toml");
    let mistakes =
        "workers = 0\nlistne = \":80\"\nhead-timeout = 5\nsession-key = \"sid\"\nlisten = \"host:\"\n";
    std::fs::write(&path, mistakes).unwrap();
    let output = program(&["run", "-c", path.to_str().unwrap(), "--", "true"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("5 problems"), "{said}");
    assert_eq!(said.lines().count(), 6, "{said}");
    for expected in ["workers", "did you mean \"listen\"", "head-timeout", "query:NAME", "host:"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[test]
fn a_file_says_what_flags_say_and_flags_win() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sidetrack.toml");
    std::fs::write(&path, "policy = \"round-robin\"\nsession-key = \"header:X-Session\"\nworkers = 1\n")
        .unwrap();
    let sidetrack = sidetrack(fake(&[])).workers(2).with(&["-c", path.to_str().unwrap()]).start();
    let pids: Vec<_> = (0..4).map(|_| pid(sidetrack.address())).collect();
    assert_ne!(pids[0], pids[1]);
    assert_eq!(pids[..2], pids[2..], "they take turns");
    let stopped = sidetrack.stop();
    assert!(stopped.log.contains("header:X-Session"), "{}", stopped.log);
}

#[test]
fn a_file_that_is_no_configuration_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sidetrack.toml");
    std::fs::write(&path, "workers = = 3\n").unwrap();
    for path in [path.as_path(), Path::new("/nowhere/sidetrack.toml")] {
        let output = program(&["run", "-c", path.to_str().unwrap(), "--", "true"]);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("sidetrack.toml"), "{said}");
    }
}

#[test]
fn a_taken_port_is_explained() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let stopped = sidetrack(fake(&[])).listen(&[&address]).finish();
    assert_eq!(stopped.code, Some(2), "{}", stopped.log);
    one_line(&stopped.complaint());
    assert!(stopped.complaint().contains(&address) && stopped.complaint().contains("taken"));
    assert!(!stopped.log.contains("worker started"));
    // The same when the program asks for it.
    let port = taken.local_addr().unwrap().port().to_string();
    let everywhere = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    drop(taken);
    let port_everywhere = everywhere.local_addr().unwrap().port().to_string();
    assert_ne!(port, port_everywhere);
    let stopped =
        sidetrack(worker("listen.js")).workers(2).listen(&[]).env("PORT", &port_everywhere).finish();
    assert_eq!(stopped.code, Some(2), "{}", stopped.log);
    assert!(
        stopped.complaint().contains("taken") && stopped.complaint().contains(&port_everywhere),
        "{}",
        stopped.log
    );
}

#[test]
fn a_command_that_does_not_exist_is_explained() {
    let stopped = sidetrack(vec!["no-such-program".into()]).finish();
    assert_eq!(stopped.code, Some(2));
    one_line(&stopped.complaint());
    assert!(stopped.complaint().contains("\"no-such-program\" is not a program"));
    let (code, said) = check(&[]);
    assert_eq!(code, Some(2));
    assert!(said.contains("sidetrack run -- node server.js"), "{said}");
}

#[test]
fn npm_start_is_explained_with_the_command_it_hides() {
    let folder = tempfile::tempdir().unwrap();
    let package = r#"{ "scripts": { "start": "node --enable-source-maps dist/server.js" } }"#;
    std::fs::write(folder.path().join("package.json"), package).unwrap();
    // npm must be there for the explanation to be reached.
    drop(worker("listen.js"));
    let output = Command::new(env!("CARGO_BIN_EXE_sidetrack"))
        .current_dir(&folder)
        .args(["run", "--", "npm", "start"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    one_line(&said);
    assert!(said.contains("sidetrack run -- node --enable-source-maps dist/server.js"), "{said}");
}

#[test]
fn a_wrapper_behind_a_shell_is_noticed_when_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let server = &worker("listen.js")[1];
    let package = format!(r#"{{ "name": "x", "scripts": {{ "start": "node {server}" }} }}"#);
    std::fs::write(folder.path().join("package.json"), package).unwrap();
    let command = format!("cd {} && exec npm start", folder.path().display());
    let stopped = sidetrack(vec!["sh".into(), "-c".into(), command]).workers(1).finish();
    assert_eq!(stopped.code, Some(2), "{}", stopped.log);
    assert!(
        stopped.complaint().contains("npm") && stopped.complaint().contains("channel"),
        "{}",
        stopped.log
    );
}

#[test]
fn a_worker_that_names_no_port_needs_one() {
    for file in ["sticky2.js", "message.js"] {
        let stopped = sidetrack(worker(file)).workers(2).listen(&[]).finish();
        assert_eq!(stopped.code, Some(2), "{}", stopped.log);
        one_line(&stopped.complaint());
        assert!(stopped.complaint().contains("--listen :3000"), "{}", stopped.complaint());
    }
}

#[test]
fn a_program_that_speaks_to_nobody_is_explained() {
    let stopped = sidetrack(vec!["sleep".into(), "1000".into()])
        .workers(1)
        .with(&["--start-timeout", "500ms", "--restarts", "1"])
        .finish();
    assert_eq!(stopped.code, Some(1), "{}", stopped.log);
    assert!(
        stopped.log.contains("neither listens on a port nor takes connections as messages"),
        "{}",
        stopped.log
    );
}

#[test]
fn check_starts_nothing() {
    let (code, said) = check(&["--workers", "3", "--policy", "round-robin", "--", "true"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("3 × true") && said.contains("round-robin"), "{said}");
}

#[test]
fn help_and_version_are_there() {
    for words in [&["--help"][..], &["run", "--help"], &["check", "--help"]] {
        let output = program(words);
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert!(String::from_utf8(output.stdout).unwrap().contains("Usage:"), "{words:?}");
    }
    let help = String::from_utf8(program(&["run", "--help"]).stdout).unwrap();
    for flag in ["--workers", "--listen", "--policy", "--no-shim", "--ready-file", "--drain-timeout"] {
        assert!(help.contains(flag), "{flag}");
    }
    let version = String::from_utf8(program(&["--version"]).stdout).unwrap();
    assert_eq!(version, format!("sidetrack {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(program(&[]).status.code(), Some(2));
    assert_eq!(program(&["run", "--no-such-flag"]).status.code(), Some(2));
}

#[test]
fn the_ready_file_tells_what_runs() {
    let sidetrack = sidetrack(worker("listen.js")).workers(2).start();
    let ready = sidetrack.ready().unwrap();
    assert_eq!(ready["pid"], sidetrack.pid);
    let slots: Vec<_> = ready["workers"].as_array().unwrap().iter().map(|worker| &worker["slot"]).collect();
    assert_eq!(slots, ["w0", "w1"]);
    assert!(sidetrack.workers().iter().all(|pid| alive(*pid)));
    let mut ours = children(sidetrack.pid);
    ours.sort_unstable();
    let mut workers = sidetrack.workers();
    workers.sort_unstable();
    assert_eq!(ours, workers, "no other children");
    assert_ne!(sidetrack.address().port(), 0);
    sidetrack.stop();
}

#[test]
fn without_listen_it_listens_where_the_worker_asks() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let sidetrack = sidetrack(worker("listen.js")).listen(&[]).env("PORT", &free.to_string()).start();
    assert_eq!(sidetrack.addresses(), [format!("*:{free}")]);
    let answer = get(sidetrack.address(), "/pid");
    assert_eq!(answer.json()["port"], free);
    sidetrack.stop();
}

#[test]
fn a_program_without_a_file_is_served() {
    let node = worker("listen.js").swap_remove(0);
    let body = "createServer((request, response) => response.end(`{\"pid\":${process.pid}}`)).listen(3000)";
    for words in [
        vec!["--eval".to_owned(), format!("require('http').{body}")],
        vec![
            "--input-type=module".to_owned(),
            "-e".to_owned(),
            format!("import {{ createServer }} from 'http'; {body}"),
        ],
    ] {
        let command = [vec![node.clone()], words].concat();
        let sidetrack = sidetrack(command).workers(2).start();
        let workers = sidetrack.workers();
        for _ in 0..4 {
            assert!(workers.contains(&pid(sidetrack.address())));
        }
        sidetrack.stop();
    }
}

#[test]
fn a_worker_that_asks_for_any_port_learns_which() {
    let sidetrack = sidetrack(worker("listen.js")).workers(2).listen(&[]).start();
    let port = sidetrack.address().port();
    assert_ne!(port, 0);
    sidetrack.logged(&format!("listening on {port}"));
    assert_eq!(get(sidetrack.address(), "/pid").json()["port"], port);
    sidetrack.stop();
}

#[test]
fn it_listens_on_several_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let unix = format!("unix:{}", path.display());
    let sidetrack =
        sidetrack(worker("listen.js")).workers(2).listen(&["127.0.0.1:0", "[::1]:0", &unix]).start();
    let addresses = sidetrack.addresses();
    assert_eq!(addresses.len(), 3);
    assert_eq!(addresses[2], unix);
    for address in &addresses[..2] {
        let address: SocketAddr = address.parse().unwrap();
        assert!(sidetrack.workers().contains(&pid(address)), "{address}");
    }
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"GET /pid HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    sidetrack.stop();
    assert!(!path.exists(), "the socket's file goes with it");
}

#[test]
fn the_client_is_seen_by_its_own_address() {
    // Whoever is accepted by us has not been proxied: the peer of the worker's socket is the client.
    let sidetrack = sidetrack(worker("listen.js")).workers(1).start();
    let client = TcpStream::connect(sidetrack.address()).unwrap();
    let ours = client.local_addr().unwrap().port();
    (&client).write_all(b"GET /pid HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    (&client).read_exact(&mut [0; 15]).unwrap();
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", sidetrack.workers()[0])).unwrap();
    let (here, there) = (format!(":{:04X}", sidetrack.address().port()), format!(":{ours:04X}"));
    let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|row| {
        row.get(1).is_some_and(|local| local.ends_with(&here)) && row[2].ends_with(&there) && row[3] == "01"
    });
    let inode = row.expect("our connection")[9];
    let held = |pid: u32| {
        std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(Result::ok).any(|entry| {
            std::fs::read_link(entry.path())
                .is_ok_and(|path| path.to_string_lossy() == format!("socket:[{inode}]"))
        })
    };
    assert!(held(sidetrack.workers()[0]), "the worker has the very socket");
    sidetrack.keeps_nothing();
    assert!(!held(sidetrack.pid), "and sidetrack has not");
    drop(client);
    sidetrack.stop();
}

#[test]
fn a_socket_file_left_behind_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let sidetrack = sidetrack(fake(&[])).workers(1).listen(&[&format!("unix:{}", path.display())]).start();
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"GET /pid HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(&format!("\"pid\": {}", sidetrack.workers()[0])), "{answer}");
    sidetrack.stop();
}

#[test]
fn the_examples_of_the_help_are_right() {
    let help = String::from_utf8(program(&["--help"]).stdout).unwrap();
    let examples: Vec<_> = help.lines().filter_map(|line| line.strip_prefix("  sidetrack run ")).collect();
    assert!(examples.len() >= 3, "{help}");
    // But for the command and the policy, which only their owner has, they are what can be run.
    for example in examples {
        let (flags, _) = example.split_once(" -- ").unwrap_or((example, ""));
        if !flags.contains("./mine.") {
            let words: Vec<_> = flags.split(' ').chain(["--", "true"]).collect();
            let (code, said) = check(&words);
            assert_eq!(code, Some(0), "{example}: {said}");
        }
    }
}
