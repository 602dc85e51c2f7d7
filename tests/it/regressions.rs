//! What has gone wrong elsewhere: known faults of `@socket.io/sticky`, by their numbers in its
//! repository, as things that must work here.

use std::thread;

use nix::sys::signal::Signal;

use crate::support::{
    Client, client, get, job, kill, pid, poll_session, session_at, sidetrack, signal, worker,
};

/// Number 2: "Session ID unknown", worst under load. The client came back before the primary had
/// heard of its session.
#[test]
fn sticky_2_a_session_is_known_before_its_client_comes_back() {
    for file in ["listen.js", "sticky1.js", "sticky2.js", "message.js"] {
        let sidetrack = sidetrack(worker(file)).alone().start();
        let result = client("followup.js", sidetrack.address(), &["--n", "1000", "--parallel", "16"]);
        assert_eq!((&result["unknown"], &result["sessions"]), (&0.into(), &1000.into()), "{file}: {result}");
        assert_eq!(sidetrack.stop().count("held"), 0, "{file}");
    }
}

/// Number 3: HTTPS hangs without a word.
#[test]
fn sticky_3_a_tls_client_is_answered_and_named() {
    let sidetrack = sidetrack(worker("listen.js")).workers(1).start();
    let mut client = Client::with(sidetrack.address(), b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03");
    assert_eq!(client.read_to_end().expect("an orderly end"), b"\x15\x03\x01\x00\x02\x02\x46");
    sidetrack.logged("was the address given as https:// or wss://?");
    sidetrack.stop();
}

/// Numbers 8 and 16: several sessions on one connection, as tabs of a browser and pools of a proxy
/// make them.
#[test]
fn sticky_8_and_16_sessions_on_one_connection() {
    for file in ["listen.js", "sticky1.js", "sticky2.js"] {
        let sidetrack = sidetrack(worker(file)).start();
        let mixed = ["--sessions", "8", "--rounds", "20"];
        let result = client("keepalive-mixed.js", sidetrack.address(), &mixed);
        assert_eq!(
            (&result["requests"], &result["connections"]),
            (&160.into(), &1.into()),
            "{file}: {result}"
        );
        assert!(sidetrack.stop().count("handed_back") > 0, "{file}");
    }
}

/// The same where connections are left to the worker: what 1.x does is what one gets.
#[test]
fn sticky_8_is_there_for_those_who_leave_connections_alone() {
    let sidetrack = sidetrack(worker("listen.js")).with(&["--keepalive", "worker"]).start();
    let result = job("keepalive-mixed.js", sidetrack.address(), &[]).result();
    assert!(result["statuses"]["400"].as_u64() > Some(0), "{result}");
    assert_eq!(sidetrack.stop().count("handed_back"), 0);
}

/// And where every connection ends with its response: what 2.x does, and its price.
#[test]
fn sticky_8_by_closing() {
    for file in ["listen.js", "sticky2.js"] {
        let sidetrack = sidetrack(worker(file)).with(&["--keepalive", "close"]).start();
        let result = client("keepalive-mixed.js", sidetrack.address(), &["--rounds", "15"]);
        assert_eq!(
            (&result["requests"], &result["connections"]),
            (&60.into(), &60.into()),
            "{file}: {result}"
        );
        assert_eq!(sidetrack.stop().count("handed_back"), 0, "{file}");
    }
}

/// Number 10: the primary crashes when there is no worker.
#[test]
fn sticky_10_without_a_worker_there_is_an_honest_answer() {
    let sidetrack = sidetrack(worker("slow-start.js"))
        .workers(2)
        .env("START_MS", "2500")
        .with(&["--worker-wait", "200ms"])
        .start();
    let workers = sidetrack.workers();
    workers.iter().for_each(|pid| kill(*pid));
    let response = get(sidetrack.address(), "/socket.io/?EIO=4&transport=polling");
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    assert_eq!(response.header("content-length"), Some("19"), "a whole response");
    let back = sidetrack.all_ready_without(&workers);
    assert!(back.contains(&poll_session(sidetrack.address()).1));
    sidetrack.stop();
}

/// Number 12: the primary crashes when a worker dies with data under way.
#[test]
fn sticky_12_a_worker_dies_with_data_under_way() {
    let sidetrack = sidetrack(worker("listen.js")).start();
    let address = sidetrack.address();
    let head =
        "POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n";
    let mut uploads: Vec<_> = (0..12)
        .map(|_| {
            let mut upload = Client::connect(address);
            assert_eq!(upload.exchange(head).status, 100, "a worker has it");
            upload.send("x".repeat(1000));
            upload
        })
        .collect();
    let victim = sidetrack.workers()[0];
    kill(victim);
    let mut cut = 0;
    for upload in &mut uploads {
        let rest = "x".repeat(999_000);
        match upload.try_send(rest).and_then(|()| upload.try_response()) {
            Ok(response) => {
                assert_ne!(response.pid(), victim);
                assert_eq!(response.json()["bytes"], 1_000_000);
            }
            Err(_) => cut += 1,
        }
    }
    assert_eq!(cut, 4, "its own four, and nobody else's");
    drop(uploads);
    sidetrack.all_ready_without(&[victim]);
    let stopped = sidetrack.stop();
    assert_eq!(
        (stopped.count("accepted"), stopped.count("handed_off")),
        (12, 12),
        "no rest of a body was routed"
    );
}

/// Number 15: bodies arrive cut or out of order.
#[test]
fn sticky_15_bodies_arrive_whole() {
    for file in ["listen.js", "sticky2.js"] {
        let sidetrack = sidetrack(worker(file)).alone().start();
        let address = sidetrack.address();
        let jobs: Vec<_> = ["65536", "262144", "1000000", "4194304"]
            .into_iter()
            .map(|size| job("uploads.js", address, &["--n", "2", "--size", size]))
            .collect();
        for job in jobs {
            let result = job.result();
            assert_eq!((&result["ok"], &result["failures"]), (&true.into(), &0.into()), "{file}: {result}");
        }
        sidetrack.stop();
    }
}

/// Found with 2.0.1: the rest of an upload whose worker was killed is answered by another worker
/// as a request of its own.
#[test]
fn sticky_the_rest_of_an_upload_is_no_request() {
    let sidetrack = sidetrack(worker("sticky2.js")).start();
    let address = sidetrack.address();
    let smuggled = "GET /pid HTTP/1.1\r\nHost: smuggled\r\n\r\n";
    let head = format!(
        "POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        smuggled.len() * 1_000_000
    );
    let mut upload = Client::connect(address);
    assert_eq!(upload.exchange(head).status, 100, "a worker has it");
    // All of them, so that it is the right one.
    for pid in sidetrack.workers() {
        kill(pid);
    }
    let rest = thread::spawn(move || {
        while upload.try_send(smuggled).is_ok() {}
        upload.read_to_end().unwrap_or_default()
    });
    assert_eq!(rest.join().unwrap(), b"", "nobody answers");
    let stopped = sidetrack.terminate();
    assert_eq!((stopped.count("accepted"), stopped.count("handed_off")), (1, 1));
}

/// Found with 1.0.4 and 2.0.1: a session's requests go to the worker that owns it, whatever
/// happens to the others.
#[test]
fn a_session_stays_while_other_workers_come_and_go() {
    let sidetrack = sidetrack(worker("sticky2.js")).start();
    let address = sidetrack.address();
    let (sid, owner) = poll_session(address);
    let others: Vec<_> = sidetrack.workers().into_iter().filter(|pid| *pid != owner).collect();
    others.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
    assert_eq!(session_at(address, &format!("sid={sid}")), (200, Some(owner)));
    sidetrack.all_ready_without(&others);
    assert_eq!(session_at(address, &format!("sid={sid}")), (200, Some(owner)));
    sidetrack.stop();
}

/// Found here: libuv reads and writes a socket that it is sent as it comes. One that blocks stops a
/// whole worker at a read that is as long as libuv's buffer, or at a client that does not read.
#[test]
fn no_client_stops_its_worker() {
    let sidetrack = sidetrack(worker("listen.js")).workers(1).start();
    let address = sidetrack.address();
    let head =
        "POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n";
    let mut upload = Client::connect(address);
    assert_eq!(upload.exchange(head).status, 100, "a worker has it");
    for _ in 0..4 {
        upload.send(vec![b'x'; 65_536]);
        assert_eq!(pid(address), sidetrack.workers()[0], "somebody else is answered meanwhile");
    }
    // Answers for megabytes, of which not one is read.
    let mut deaf = Client::connect(address);
    for _ in 0..64 {
        deaf.send("GET /large?bytes=1000000 HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    for _ in 0..4 {
        assert_eq!(pid(address), sidetrack.workers()[0], "somebody else is answered meanwhile");
    }
    drop((upload, deaf));
    sidetrack.stop();
}
