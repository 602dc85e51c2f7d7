//! The request head: in pieces, at its limits, and what is none. And where it names the session.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Client, Response, Run, Sidetrack, eventually, fake, get, sidetrack, signal};

const GET: &str = "GET /pid HTTP/1.1\r\nHost: test\r\n\r\n";

fn one_worker() -> Run {
    sidetrack(fake(&[])).workers(1)
}

/// A head of exactly this many bytes.
fn head_of(length: usize) -> String {
    let (start, end) = ("GET /pid HTTP/1.1\r\nHost: test\r\nX: ", "\r\n\r\n");
    let head = format!("{start}{}{end}", "x".repeat(length - start.len() - end.len()));
    assert_eq!(head.len(), length);
    head
}

/// Sends all of it and reads the answer, which must arrive whole, with an orderly end behind it.
#[track_caller]
fn refusal(sidetrack: &Sidetrack, bytes: impl AsRef<[u8]>) -> Response {
    let mut client = Client::with(sidetrack.address(), bytes);
    let response = client.response();
    assert_eq!(response.header("connection"), Some("close"), "{response:?}");
    assert_eq!(client.read_to_end().expect("an orderly end"), b"");
    response
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let sidetrack = one_worker().start();
    let mut client = Client::connect(sidetrack.address());
    for byte in GET.bytes() {
        client.send([byte]);
    }
    assert_eq!(client.response().pid(), sidetrack.workers()[0]);
    sidetrack.stop();
}

#[test]
fn a_head_may_be_split_anywhere() {
    let sidetrack = one_worker().start();
    for cut in 1..GET.len() {
        let mut client = Client::with(sidetrack.address(), &GET[..cut]);
        client.send(&GET[cut..]);
        assert_eq!(client.response().status, 200, "cut at {cut}");
    }
    sidetrack.stop();
}

#[test]
fn the_limit_is_exact_and_the_refusal_arrives() {
    let sidetrack = one_worker().with(&["--head-limit", "1024"]).start();
    for length in [1023, 1024] {
        let response = Client::connect(sidetrack.address()).exchange(head_of(length));
        assert_eq!(response.status, 200, "{length}: {response:?}");
    }
    assert_eq!(refusal(&sidetrack, head_of(1025)).status, 431);
    assert_eq!(refusal(&sidetrack, head_of(64 * 1024)).status, 431);
    // Unread bytes at close would reset the connection and take the answer with it.
    let body = vec![b'x'; 900_000];
    assert_eq!(refusal(&sidetrack, [head_of(1025).as_bytes(), &body].concat()).status, 431);
    // A head within the limit may have any body behind it.
    let post = format!("POST /pid HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
    let response = Client::connect(sidetrack.address()).exchange([post.as_bytes(), &body].concat());
    assert_eq!(response.status, 200);
    let stopped = sidetrack.stop();
    assert_eq!(stopped.count("refused"), 3);
    assert_eq!(stopped.count("handed_off"), 3);
}

#[test]
fn too_many_header_lines_are_too_large() {
    let sidetrack = one_worker().start();
    let head = |lines: usize| format!("GET /pid HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(lines));
    assert_eq!(Client::connect(sidetrack.address()).exchange(head(128)).status, 200);
    assert_eq!(refusal(&sidetrack, head(129)).status, 431);
    sidetrack.stop();
}

#[test]
fn a_slow_head_is_timed_out() {
    let sidetrack = one_worker().with(&["--head-timeout", "300ms"]).start();
    let start = Instant::now();
    let response = refusal(&sidetrack, "GET /pid HTTP/1.1\r\nHost: te");
    assert_eq!(response.status, 408);
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    // Drops of bytes do not buy more time.
    let mut client = Client::connect(sidetrack.address());
    let drip = GET.bytes().cycle().take_while(|byte| *byte != b'\r');
    let start = Instant::now();
    for byte in drip.cycle() {
        if client.try_send([byte]).is_err() || start.elapsed() > Duration::from_secs(10) {
            break;
        }
        if !client.quiet_for(Duration::from_millis(20)) {
            break;
        }
    }
    assert_eq!(client.response().status, 408);
    drop(client);
    let stopped = sidetrack.stop();
    assert_eq!((stopped.count("refused"), stopped.count("handed_off")), (2, 0));
}

#[test]
fn what_is_not_http_is_told_so() {
    let sidetrack = one_worker().start();
    for (bytes, status) in [
        ("what is this\r\n\r\n", 400),
        ("GET /pid\r\n\r\n", 400),
        ("GET /pid HTTP/1.1\r\nno colon\r\n\r\n", 400),
        ("\0\0\0\0\r\n\r\n", 400),
        ("GET /pid HTTP/2.0\r\n\r\n", 505),
        ("GET /pid HTTP/0.9\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", 505),
    ] {
        assert_eq!(refusal(&sidetrack, bytes).status, status, "{bytes:?}");
    }
    let stopped = sidetrack.stop();
    assert_eq!((stopped.count("refused"), stopped.count("handed_off")), (7, 0));
}

#[test]
fn a_tls_client_gets_an_alert_and_the_log_names_it_once() {
    let sidetrack = one_worker().start();
    let hello = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), &[7; 505]].concat();
    for _ in 0..3 {
        let mut client = Client::with(sidetrack.address(), &hello);
        // A fatal alert: protocol_version.
        assert_eq!(client.read_to_end().expect("an orderly end"), b"\x15\x03\x01\x00\x02\x02\x46");
    }
    let stopped = sidetrack.stop();
    assert_eq!(stopped.log.matches("speaks TLS to a plain listener").count(), 1);
    assert_eq!(stopped.count("refused"), 3);
}

#[test]
fn a_silent_connection_ends_without_a_byte() {
    let sidetrack = one_worker().with(&["--head-timeout", "300ms"]).start();
    let mut client = Client::connect(sidetrack.address());
    assert_eq!(client.read_to_end().expect("an orderly end"), b"");
    // One that leaves by itself, as a health check does.
    drop(Client::connect(sidetrack.address()));
    let silent = sidetrack.stop();
    assert!(silent.count("silent") >= 1);
    assert_eq!((silent.count("refused"), silent.count("handed_off"), silent.count("gone")), (0, 0, 0));
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_head_costs_nothing() {
    let sidetrack = one_worker().with(&["--log", "debug"]).start();
    let mut half_closed = Client::with(sidetrack.address(), "GET /pid HT");
    half_closed.finish();
    // The bytes it sent stay unread, so a reset is as good an end.
    let answer = half_closed.read_to_end().unwrap_or_default();
    assert_eq!(answer, b"");
    for cut in [1, 10, GET.len() - 1] {
        drop(Client::with(sidetrack.address(), &GET[..cut]));
    }
    eventually("all are noticed", || (sidetrack.log().matches("\"no request\"").count() == 4).then_some(()));
    let stopped = sidetrack.stop();
    // Where the kernel already knows of the reset, nothing was to be seen.
    assert_eq!(stopped.count("gone") + stopped.count("silent"), 4);
    assert_eq!((stopped.count("refused"), stopped.count("handed_off")), (0, 0));
    // What is said of the user it runs as is not about clients.
    let mut warned = stopped.log.lines().filter(|line| line.contains("\"WARN\""));
    assert!(warned.all(|line| line.contains("running as root")), "{}", stopped.log);
}

#[test]
fn a_client_that_finishes_behind_its_request_is_served() {
    let sidetrack = one_worker().start();
    let mut client = Client::with(sidetrack.address(), GET);
    client.finish();
    assert_eq!(client.response().pid(), sidetrack.workers()[0]);
    // Finished before the last byte of the head has been looked at.
    let mut client = Client::with(sidetrack.address(), &GET[..20]);
    client.send(&GET[20..]);
    client.finish();
    assert_eq!(client.response().pid(), sidetrack.workers()[0]);
    assert_eq!(sidetrack.stop().count("gone"), 0);
}

#[test]
fn a_client_gone_before_its_worker_reads_it_harms_nobody() {
    let sidetrack = one_worker().start();
    let worker = sidetrack.workers()[0];
    signal(worker, Signal::SIGSTOP);
    for _ in 0..10 {
        drop(Client::with(sidetrack.address(), GET));
    }
    let mut patient = Client::with(sidetrack.address(), GET);
    signal(worker, Signal::SIGCONT);
    assert_eq!(patient.response().pid(), worker);
    drop(patient);
    assert_eq!(sidetrack.stop().count("workers_lost"), 0);
}

/// Three workers taking turns: only a session that is recognised stays with one of them.
fn taking_turns(key: &str) -> Sidetrack {
    sidetrack(fake(&[])).policy("round-robin").with(&["--session-key", key, "--hold", "20ms"]).start()
}

#[test]
fn the_session_is_read_from_the_query_as_a_server_would() {
    let sidetrack = taking_turns("query:sid");
    let address = sidetrack.address();
    let owner = get(address, "/open/a-b").pid();
    for target in [
        "/x?sid=a-b",
        "/x?EIO=4&transport=polling&sid=a-b&t=1",
        "/x?foo_sid=decoy&sid=a-b",
        "/x?sid=a-b&foo_sid=decoy",
        "/x?%73%69d=a-b",
        "/x?sid=a%2Db",
        "/x?sid=a%2db",
        "/x?sid=a-b&sid=a-b",
        "/x?sid=a-b#?sid=other",
        "http://elsewhere/x?sid=a-b",
    ] {
        for turn in 0..3 {
            assert_eq!(get(address, target).pid(), owner, "{target}, turn {turn}");
        }
    }
    let stopped = sidetrack.stop();
    assert_eq!((stopped.count("held"), stopped.count("ambiguous")), (0, 0));
}

#[test]
fn decoys_and_doubt_name_no_session() {
    let sidetrack = taking_turns("query:sid");
    let address = sidetrack.address();
    // Announced by the same worker, so that both have one owner that could be guessed.
    get(address, "/open/a");
    for target in [
        "/x?foo_sid=a",
        "/x?SID=a",
        "/sid=a",
        "/x?sid",
        "/x?sid=",
        "/x?y=%26sid=a",
        "/x?sid=a&sid=b",
        "/x?sid=%ff",
    ] {
        let mut pids: Vec<_> = (0..3).map(|_| get(address, target).pid()).collect();
        pids.sort_unstable();
        pids.dedup();
        assert_eq!(pids.len(), 3, "{target} is balanced like any other");
    }
    let stopped = sidetrack.stop();
    assert_eq!(stopped.count("ambiguous"), 6);
    assert_eq!(stopped.count("missed"), 0);
}

#[test]
fn the_session_may_be_in_a_cookie_a_header_or_the_path() {
    for (key, request) in [
        ("cookie:io", "GET /x HTTP/1.1\r\nCookie: a=b; io=s%31; xio=other\r\n\r\n"),
        ("header:Mcp-Session-Id", "GET /x HTTP/1.1\r\nX-Mcp-Session-Id: other\r\nmcp-session-id: s1\r\n\r\n"),
        ("path:3", "GET /echo/000/s%31/xhr HTTP/1.1\r\n\r\n"),
    ] {
        let sidetrack = taking_turns(key);
        let owner = get(sidetrack.address(), "/open/s1").pid();
        for _ in 0..3 {
            assert_eq!(Client::connect(sidetrack.address()).exchange(request).pid(), owner, "{key}");
        }
        assert_eq!(sidetrack.stop().count("held"), 0, "{key}");
    }
}

#[test]
fn an_unknown_session_is_held_and_then_balanced() {
    let sidetrack = sidetrack(fake(&[])).with(&["--hold", "10s"]).start();
    let address = sidetrack.address();
    let mut waiting = Client::with(address, "GET /x?sid=late HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(waiting.quiet_for(Duration::from_millis(200)), "it waits for its owner");
    let owner = get(address, "/open/late").pid();
    assert_eq!(waiting.response().pid(), owner, "and goes to it once it is known");
    drop(waiting);
    let stopped = sidetrack.stop();
    assert_eq!((stopped.count("missed"), stopped.count("held")), (1, 1));
}

#[test]
fn a_session_nobody_knows_is_served_after_the_grace() {
    let sidetrack = sidetrack(fake(&[])).with(&["--hold", "250ms"]).start();
    let start = Instant::now();
    assert_eq!(get(sidetrack.address(), "/x?sid=nobody").status, 200);
    assert!(start.elapsed() >= Duration::from_millis(250), "{:?}", start.elapsed());
    // A client that leaves meanwhile leaves nothing behind.
    drop(Client::with(sidetrack.address(), "GET /x?sid=nobody HTTP/1.1\r\n\r\n"));
    assert_eq!(sidetrack.stop().count("held"), 2);
}
