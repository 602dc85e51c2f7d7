//! Workers in Python and Rust pass what Node's pass, alone and mixed.

use crate::support::{
    Client, client, every_language, get, kill, pid, poll_session, python_worker, rust_worker, session_at,
    sidetrack,
};

/// Real clients over each transport: no failure, no session moves, more than one worker serves.
#[track_caller]
fn serves(command: Vec<String>) {
    let sidetrack = sidetrack(command).policy("round-robin").alone().start();
    let address = sidetrack.address();
    assert_eq!(sidetrack.addresses().len(), 1, "one address for all of them");
    for transport in ["polling", "websocket", "upgrade"] {
        let result = client("sessions.js", address, &["--n", "20", "--transport", transport]);
        let workers = result["pids"].as_object().map_or(0, serde_json::Map::len);
        assert_eq!(workers, 3, "each serves: {transport}: {result}");
    }
    let result = client("sessions.js", address, &["--n", "4", "--rounds", "2", "--big"]);
    assert_eq!((&result["failures"], &result["moved"]), (&0.into(), &0.into()), "{result}");
    let result =
        client("uploads.js", address, &["--n", "4", "--kinds", "length,chunked,slow,slow-chunked,expect"]);
    assert_eq!(result["failures"], 0, "{result}");
    let result = client("followup.js", address, &["--n", "300", "--parallel", "8"]);
    assert_eq!(result["unknown"], 0, "{result}");
    // Sessions of all workers over one connection.
    let result = client("keepalive-mixed.js", address, &["--sessions", "9", "--rounds", "20"]);
    assert_eq!((&result["requests"], &result["connections"]), (&180.into(), &1.into()), "{result}");
    let stopped = sidetrack.stop();
    assert!(stopped.count("handed_back") > 0);
    assert_eq!((stopped.count("channel_errors"), stopped.count("workers_lost")), (0, 0));
}

#[test]
fn python() {
    serves(python_worker());
}

#[test]
fn rust() {
    serves(rust_worker());
}

#[test]
fn all_of_them_side_by_side() {
    serves(every_language());
}

#[test]
fn a_connection_goes_from_language_to_language_and_back() {
    let sidetrack = sidetrack(every_language()).policy("round-robin").start();
    let address = sidetrack.address();
    let sessions: Vec<_> = (0..3).map(|_| poll_session(address)).collect();
    let mut client = Client::connect(address);
    let body = vec![0xff; 300_000];
    for turn in 0..12 {
        let (sid, owner) = &sessions[turn % 3];
        let head = format!(
            "POST /upload?sid={sid} HTTP/1.1\r\nHost: test\r\nContent-Type: application/octet-stream\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let response = client.exchange([head.as_bytes(), &body].concat());
        assert_eq!((response.pid(), response.json()["bytes"].clone()), (*owner, body.len().into()));
    }
    drop(client);
    let stopped = sidetrack.stop();
    assert_eq!((stopped.count("accepted"), stopped.count("refused")), (4, 0));
}

#[test]
fn a_dead_workers_sessions_are_opened_anew_whatever_it_was_written_in() {
    let sidetrack = sidetrack(every_language()).policy("round-robin").start();
    let address = sidetrack.address();
    for _ in 0..3 {
        let (sid, owner) = poll_session(address);
        kill(owner);
        sidetrack.all_ready_without(&[owner]);
        // Whoever gets it says what an unknown session is: 400.
        assert_eq!(session_at(address, &format!("sid={sid}")).0, 400);
        assert_ne!(pid(address), owner);
        assert_eq!(get(address, "/pid").status, 200);
    }
    sidetrack.stop();
}
