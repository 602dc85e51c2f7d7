//! A line for each decision, and what becomes of them when nobody can take them.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use crate::guests::guest;
use crate::support::{
    Client, Place, admin, eventually, fake, get, poll_session, session_at, sidetrack, worker,
};

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// Waits until there are so many.
#[track_caller]
fn until(path: &Path, count: usize) -> Vec<Value> {
    eventually(&format!("{count} lines"), || Some(lines(path)).filter(|lines| lines.len() >= count))
}

#[test]
fn each_decision_has_a_line_that_says_nothing_of_people() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let running = sidetrack(worker("listen.js"))
        .workers(2)
        .policy(r#"sticky-cookie{"cookie":"server"}"#)
        .policy("round-robin")
        .with(&["--access-log", &path.display().to_string()])
        .start();
    let address = running.address();
    let (sid, owner) = poll_session(address);
    assert_eq!(session_at(address, &format!("sid={sid}&token=secret")), (200, Some(owner)));
    let request = "GET /pid?user=ann HTTP/1.1\r\nHost: x\r\nCookie: server=w1\r\nConnection: close\r\n\r\n";
    assert_eq!(Client::connect(address).exchange(request).status, 200);
    let lines = until(&path, 3);
    let slot = |pid: u32| if running.slot("w0") == Some(pid) { "w0" } else { "w1" };
    let [first, second, third] = &lines[..] else { panic!("{lines:?}") };
    for (line, method, wanted) in
        [(first, "GET", slot(owner)), (second, "POST", slot(owner)), (third, "GET", "w1")]
    {
        assert_eq!(
            (&line["method"], &line["worker"], &line["outcome"], &line["attempt"]),
            (&method.into(), &wanted.into(), &"handed-off".into(), &0.into()),
            "{line}"
        );
        assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        assert!(line["us"].as_u64().is_some() && line["policy_us"].as_f64().is_some(), "{line}");
        let text = line.to_string();
        for secret in ["127.0.0.1", &sid, "secret", "ann"] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
    assert_eq!((&first["path"], &third["path"]), (&"/socket.io/".into(), &"/pid".into()));
    assert_eq!((&first["link"], &first["session"]), (&"round-robin".into(), &Value::Null));
    assert_eq!(second["why"], "it has the session");
    assert!(second["session"].as_str().is_some_and(|session| session.starts_with('~')), "{second}");
    assert_eq!((&third["link"], &third["generation"]), (&"sticky-cookie".into(), &1.into()));
    assert_eq!(fs::metadata(&path).expect("the file").permissions().mode() & 0o137, 0, "others read nothing");
    running.stop();
}

#[test]
fn a_policy_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let running = sidetrack(worker("listen.js"))
        .policy(guest("policy_hostile").to_str().expect("plain text"))
        .with(&["--access-log", &path.display().to_string()])
        .start();
    get(running.address(), "/explain");
    let line = until(&path, 1).remove(0);
    assert_eq!((&line["why"], &line["worker"]), (&"because".into(), &"w0".into()), "{line}");
    running.stop();
}

#[test]
fn what_is_refused_after_all_has_a_line_that_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let [full, never] = ["full.log", "never.log"].map(|name| folder.path().join(name));
    // A worker that takes one connection, and says nothing about it.
    let flags = ["--window", "1", "--queue", "0", "--unresponsive-after", "20s"];
    let running = sidetrack(fake(&["never-ack"]))
        .workers(1)
        .with(&flags)
        .with(&["--access-log", &full.display().to_string()])
        .start();
    let _first = Client::with(running.address(), "GET / HTTP/1.1\r\n\r\n");
    assert_eq!(until(&full, 1)[0]["outcome"], "handed-off");
    assert_eq!(get(running.address(), "/").status, 503);
    let line = until(&full, 2).remove(1);
    assert_eq!(
        (&line["outcome"], &line["status"], &line["worker"]),
        (&"refused".into(), &503.into(), &Value::Null)
    );
    assert_eq!(line["why"], "no worker is ready");
    running.terminate();

    // One that takes none.
    let running =
        sidetrack(fake(&["nack"])).workers(1).with(&["--access-log", &never.display().to_string()]).start();
    assert_eq!(get(running.address(), "/").status, 503);
    let lines = until(&never, 5);
    let outcomes: Vec<_> =
        lines.iter().map(|line| (line["attempt"].as_u64(), line["outcome"].as_str())).collect();
    let refused = (Some(4), Some("refused"));
    assert_eq!(
        outcomes,
        [0, 1, 2, 3]
            .map(|attempt| (Some(attempt), Some("handed-off")))
            .into_iter()
            .chain([refused])
            .collect::<Vec<_>>()
    );
    running.stop();
}

#[test]
fn what_is_to_be_kept_is_and_a_share_is_a_share() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let path_text = path.display().to_string();
    let keep = ["--access-log-keep", "peer", "--access-log-keep", "query:room"];
    let running = sidetrack(worker("listen.js")).with(&["--access-log", &path_text]).with(&keep).start();
    get(running.address(), "/pid?room=blue&token=secret");
    let line = until(&path, 1).remove(0);
    assert_eq!(line["peer"], "127.0.0.1");
    assert!(line["path"].as_str().is_some_and(|path| path.starts_with("/pid?room=blue&token=~")), "{line}");
    running.stop();

    fs::remove_file(&path).expect("the file");
    let running = sidetrack(worker("listen.js"))
        .with(&["--access-log", &path_text, "--access-log-sample", "0.25"])
        .start();
    for _ in 0..400 {
        get(running.address(), "/pid");
    }
    running.stop();
    // Off by more than six standard deviations it is no chance.
    let count = lines(&path).len();
    assert!((45..155).contains(&count), "{count} of 400");
}

#[test]
fn a_log_that_is_moved_goes_on_under_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let running = sidetrack(worker("listen.js")).with(&["--access-log", &path.display().to_string()]).start();
    let serve = || assert_eq!(get(running.address(), "/pid").status, 200);
    serve();
    until(&path, 1);
    // As logrotate does, with a signal behind it.
    let moved = folder.path().join("access.log.1");
    fs::rename(&path, &moved).expect("moved");
    running.signal(Signal::SIGHUP);
    eventually("there is a new one", || path.exists().then_some(()));
    serve();
    until(&path, 1);
    // And without a signal.
    fs::rename(&path, folder.path().join("access.log.2")).expect("moved");
    eventually("there is a new one", || path.exists().then_some(()));
    serve();
    until(&path, 1);
    assert_eq!(lines(&moved).len(), 1);
    running.stop();
}

#[test]
fn a_reader_who_is_stuck_costs_lines_and_no_connection() {
    let place = Place::new();
    let (fifo, socket) = (place.path("fifo"), place.socket());
    mkfifo(&fifo, Mode::S_IRWXU).expect("a pipe");
    // Open on both sides, and never read.
    let _reader = OpenOptions::new().read(true).write(true).open(&fifo).expect("the pipe");
    let redirect = format!("exec \"$0\" \"$@\" > {}", fifo.display());
    let running =
        place.run(worker("listen.js")).with(&["--access-log", "-"]).through(&["sh", "-c", &redirect]).start();
    let lost = || {
        let text = admin(&socket, "/metrics");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("sidetrack_decisions_lost_total{by=\"access_log\"} "));
        line.and_then(|count| count.parse::<u64>().ok()).expect("a figure")
    };
    let mut served = 0;
    while lost() == 0 {
        for _ in 0..200 {
            assert_eq!(get(running.address(), "/pid").status, 200);
        }
        served += 200;
        assert!(served < 20_000, "nothing is lost");
    }
    // It does not hold up the end either.
    let stopped = running.stop();
    assert_eq!(stopped.count("refused"), 0);
}

#[test]
fn at_level_debug_a_connection_and_each_question_are_spans() {
    let running = sidetrack(worker("listen.js")).workers(1).with(&["--log", "debug"]).start();
    get(running.address(), "/pid");
    // A span has its line when it closes.
    let span = |name| {
        eventually(name, || {
            let log = running.log();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut closed = lines.filter(|line| line["message"] == "close").map(|line| line["span"].clone());
            closed.find(|span| span["name"] == name)
        })
    };
    let connection = span("connection");
    assert_eq!(connection["outcome"], "handed-off", "{connection}");
    assert_eq!(
        (&connection["worker"], &connection["generation"], &connection["session"], &connection["attempt"]),
        (&0.into(), &1.into(), &false.into(), &0.into()),
        "{connection}"
    );
    assert!(connection["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{connection}");
    let policy = span("policy");
    assert_eq!(
        (&policy["link"], &policy["question"], &policy["decision"]),
        (&"least-connection".into(), &"balance".into(), &"0".into()),
        "{policy}"
    );
    assert!(running.log().contains("time.busy"), "spans say how long they took");
    running.stop();
}

#[test]
fn a_place_that_cannot_be_written_is_a_wrong_configuration() {
    for (path, said) in [
        ("/nowhere/access.log", "access-log: the folder /nowhere does not exist"),
        ("/", "access-log: / is a folder; name a file in it"),
    ] {
        let ended = sidetrack(worker("listen.js")).with(&["--access-log", path]).finish();
        assert_eq!(ended.code, Some(2));
        assert!(ended.complaint().contains(said), "{}", ended.complaint());
    }
    let ended = sidetrack(worker("listen.js"))
        .with(&["--access-log", "x", "--access-log-sample", "2", "--access-log-keep", "header:x"])
        .finish();
    assert_eq!(ended.code, Some(2));
    for expected in ["a share from 0 to 1", "expected session, peer or query:NAME"] {
        assert!(ended.complaint().contains(expected), "{}", ended.complaint());
    }
}
