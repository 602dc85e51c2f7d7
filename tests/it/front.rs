//! With something in front: PROXY headers, trusted proxies, health checks; and clients that come too often.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Client, Run, Sidetrack, check, eventually, every_language, fake, get, kill, sidetrack, signal, worker,
};

const GET_PEER: &str = "GET /peer HTTP/1.1\r\nHost: test\r\n\r\n";
const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x01\xdc\x04\x01\xbb";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

/// Version 2, IPv6, with an extension behind the addresses.
fn v6() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x28".to_vec();
    header.extend(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets());
    header.extend([0; 16]);
    header.extend([0xdc, 0x04, 0x01, 0xbb, 0x04, 0x00, 0x01, 0x00]);
    header
}

fn behind_a_proxy(command: Vec<String>) -> Run {
    sidetrack(command).with(&["--proxy-protocol", "true"]).policy("round-robin")
}

/// A policy that answers with what it sees as the client's address.
fn tells_peer(folder: &TempDir) -> String {
    let path = folder.path().join("tell.js");
    fs::write(
        &path,
        "export function balance(workers, request) {\n  return refuse(403, { text: `<${request.peer}>` });\n}\n",
    )
    .expect("a file");
    path.display().to_string()
}

/// What that policy saw.
#[track_caller]
fn seen(client: &mut Client, headers: &str) -> String {
    let response = client.exchange(format!("GET / HTTP/1.1\r\nHost: test\r\n{headers}\r\n"));
    assert_eq!(response.status, 403, "{response:?}");
    let text = response.text();
    text.trim().trim_matches(['<', '>']).to_owned()
}

/// What a worker sees of the client that these bytes announce, in one write with the request.
#[track_caller]
fn peer_behind(address: SocketAddr, header: &[u8]) -> Value {
    Client::with(address, [header, GET_PEER.as_bytes()].concat()).response().json()
}

/// The connection is closed without an answer.
#[track_caller]
fn closed(address: SocketAddr, bytes: &[u8]) {
    let mut client = Client::with(address, bytes);
    let answer = client.read_to_end().unwrap_or_default();
    assert!(answer.is_empty(), "{}", answer.escape_ascii());
}

#[test]
fn the_true_client_is_seen_in_every_language() {
    let sidetrack = behind_a_proxy(every_language()).start();
    let mut workers = vec![];
    for _ in 0..3 {
        for (header, address) in [(V1, "192.0.2.1"), (V2, "192.0.2.1"), (&v6(), "2001:db8::1")] {
            let seen = peer_behind(sidetrack.address(), header);
            assert_eq!((&seen["address"], &seen["port"]), (&json!(address), &json!(56324)), "{seen}");
            workers.push(seen["pid"].clone());
        }
        let own = peer_behind(sidetrack.address(), V2_LOCAL);
        assert_eq!(own["address"], "127.0.0.1", "a proxy's own connection: {own}");
    }
    workers.sort_by_key(Value::as_u64);
    workers.dedup();
    assert_eq!(workers.len(), 3, "each has served");
    let stopped = sidetrack.stop();
    assert_eq!((stopped.count("preambles_refused"), stopped.count("accepted")), (0, 12));
}

#[test]
fn a_header_is_consumed_exactly_however_it_comes() {
    let sidetrack = behind_a_proxy(worker("listen.js")).start();
    let address = sidetrack.address();
    for header in [V1, V2, &v6()] {
        let whole = [header, GET_PEER.as_bytes()].concat();
        for cut in [1, 5, 12, 16, header.len() - 1, header.len(), header.len() + 1] {
            let mut client = Client::with(address, &whole[..cut]);
            client.send(&whole[cut..]);
            let seen = client.response().json();
            assert_eq!(seen["port"], 56324, "cut at {cut}");
            // It is a connection like any other from here on.
            assert_eq!(client.exchange(GET_PEER).json(), seen);
        }
        let mut client = Client::connect(address);
        for byte in &whole {
            client.send([*byte]);
        }
        assert_eq!(client.response().json()["port"], 56324);
    }
    // A body right behind it, longer than any buffer here.
    let head = "POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 300000\r\n\r\n";
    let upload = [V2, head.as_bytes(), &vec![b'x'; 300_000]].concat();
    assert_eq!(Client::with(address, upload).response().json()["bytes"], 300_000);
    sidetrack.stop();
}

#[test]
fn socket_io_and_plain_servers_see_the_true_client_too() {
    let sidetrack = behind_a_proxy(worker("listen.js")).start();
    let mut client = Client::with(sidetrack.address(), V1).into_websocket();
    client.send_frame("421[\"address\",0]");
    assert_eq!(client.frame(), "431[\"192.0.2.1\"]");
    drop(client);
    sidetrack.stop();
    for file in ["sticky1.js", "sticky2.js", "message.js", "plain-net.js"] {
        // Also where the server itself says where it listens.
        let listen: &[&str] = if file == "plain-net.js" { &[] } else { &["127.0.0.1:0"] };
        let sidetrack = behind_a_proxy(worker(file)).listen(listen).start();
        let seen = peer_behind(sidetrack.address(), &v6());
        let expected = (&json!("2001:db8::1"), &json!(56324), &json!("IPv6"));
        assert_eq!((&seen["address"], &seen["port"], &seen["family"]), expected, "{file}: {seen}");
        sidetrack.stop();
    }
}

#[test]
fn a_worker_without_the_shim_takes_no_notice() {
    for file in ["listen.js", "sticky2.js"] {
        let sidetrack = behind_a_proxy(worker(file)).with(&["--no-shim"]).start();
        let seen = peer_behind(sidetrack.address(), V2);
        assert_eq!(seen["address"], "127.0.0.1", "{file}: {seen}");
        sidetrack.terminate();
    }
}

#[test]
fn the_true_client_survives_hand_back_from_language_to_language() {
    let sidetrack = behind_a_proxy(every_language()).start();
    let address = sidetrack.address();
    let sessions: Vec<_> = (0..3)
        .map(|_| {
            let request = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: test\r\n\r\n";
            let response = Client::with(address, [V1, request.as_bytes()].concat()).response();
            let open: Value = serde_json::from_slice(&response.body[1..]).expect("a handshake");
            (
                open["sid"].as_str().expect("a session id").to_owned(),
                response.header("x-worker-pid").map(str::to_owned),
            )
        })
        .collect();
    let mut client = Client::with(address, V2);
    for turn in 0..9 {
        let (sid, owner) = &sessions[turn % 3];
        let request = format!("GET /peer?sid={sid} HTTP/1.1\r\nHost: test\r\n\r\n");
        let seen = client.exchange(request).json();
        assert_eq!((&seen["address"], &seen["port"]), (&json!("192.0.2.1"), &json!(56324)), "{turn}: {seen}");
        assert_eq!(Some(seen["pid"].to_string()), *owner, "{turn}");
    }
    drop(client);
    let stopped = sidetrack.stop();
    assert!(stopped.count("handed_back") >= 6, "{}", stopped.count("handed_back"));
}

#[test]
fn the_true_client_survives_the_death_of_a_worker() {
    let sidetrack = behind_a_proxy(worker("listen.js")).workers(2).start();
    let victim = sidetrack.workers()[0];
    signal(victim, Signal::SIGSTOP);
    let request = [V1, GET_PEER.as_bytes()].concat();
    let mut clients: Vec<_> = (0..6).map(|_| Client::with(sidetrack.address(), &request)).collect();
    eventually("half of them wait", || {
        let waiting =
            clients.iter_mut().filter_map(|client| client.quiet_for(Duration::from_millis(1)).then_some(()));
        (waiting.count() == 3).then_some(())
    });
    kill(victim);
    for client in &mut clients {
        let seen = client.response().json();
        assert_eq!((&seen["address"], &seen["port"]), (&json!("192.0.2.1"), &json!(56324)), "{seen}");
    }
    drop(clients);
    sidetrack.all_ready_without(&[victim]);
    assert_eq!(sidetrack.stop().count("rerouted"), 3);
}

#[test]
fn without_its_header_a_connection_is_closed_counted_and_told_of_once() {
    let sidetrack = behind_a_proxy(fake(&[]))
        .workers(1)
        .with(&["--head-timeout", "300ms", "--head-limit", "1024"])
        .start();
    let address = sidetrack.address();
    let mut long = b"\r\n\r\n\0\r\nQUIT\n\x21\x00\x10\x00".to_vec();
    long.resize(100, 0);
    let began = Instant::now();
    for bytes in [
        GET_PEER.as_bytes(),
        b"PROXY TCP4 192.0.2.1 198.51.100.1 +1 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 1 443\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x0c",
        b"\x16\x03\x01\x02\x00",
        &long,
    ] {
        closed(address, bytes);
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    closed(address, &V2[..20]);
    // A header, and no request: as for any other connection.
    let response = Client::with(address, [V1, b"GET /"].concat()).response();
    assert_eq!(response.status, 408);
    drop(Client::connect(address));
    sidetrack.logged("closed a connection to a listener with proxy-protocol");
    let stopped = sidetrack.stop();
    assert_eq!((stopped.count("preambles_refused"), stopped.count("silent")), (7, 1));
    assert_eq!(stopped.log.matches("closed a connection to a listener").count(), 1);
}

#[test]
fn headers_are_taken_from_where_they_may_come_and_where_they_are_expected() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sidetrack.toml");
    let unix = folder.path().join("front.sock");
    let text = format!(
        "listen = [\"127.0.0.1:0\", {{ address = \"127.0.0.1:0\", proxy-protocol = true }}, \
         {{ address = \"unix:{}\", proxy-protocol = true }}]\nproxy-from = [\"10.0.0.0/8\", \"::1\"]\n",
        unix.display()
    );
    fs::write(&file, text).expect("a file");
    let sidetrack =
        sidetrack(worker("listen.js")).listen(&[]).with(&["-c", &file.display().to_string()]).start();
    let [plain, expecting] =
        *sidetrack.addresses().iter().filter_map(|text| text.parse().ok()).collect::<Vec<SocketAddr>>()
    else {
        panic!("two addresses: {:?}", sidetrack.addresses())
    };
    closed(expecting, &[V1, GET_PEER.as_bytes()].concat());
    let response = Client::with(plain, [V1, GET_PEER.as_bytes()].concat()).response();
    assert_eq!(response.status, 400, "it is no HTTP, and nobody guesses");
    assert_eq!(Client::with(plain, GET_PEER).response().json()["address"], "127.0.0.1");
    // Who may connect to a Unix socket is the file's business.
    let mut stream = std::os::unix::net::UnixStream::connect(&unix).expect("it listens");
    std::io::Write::write_all(
        &mut stream,
        &[V2, GET_PEER.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes()].concat(),
    )
    .expect("it takes bytes");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer");
    assert!(answer.contains("\"address\":\"192.0.2.1\",\"port\":56324"), "{answer}");
    assert_eq!(sidetrack.stop().count("preambles_refused"), 1);
}

#[test]
fn the_policy_sees_whom_a_proxy_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let policy = tells_peer(&folder);
    let sidetrack =
        sidetrack(fake(&[])).workers(1).with(&["--proxy-protocol", "true"]).policy(&policy).start();
    for (header, expected) in
        [(V1, "192.0.2.1"), (V2, "192.0.2.1"), (&v6(), "2001:db8::1"), (V2_LOCAL, "127.0.0.1")]
    {
        assert_eq!(
            seen(&mut Client::with(sidetrack.address(), header), "X-Forwarded-For: 1.2.3.4\r\n"),
            expected
        );
    }
    sidetrack.stop();
}

#[test]
fn forwarded_for_counts_from_trusted_proxies_only_and_from_the_right() {
    let folder = tempfile::tempdir().expect("a folder");
    let policy = tells_peer(&folder);
    let run = |words: &[&str]| sidetrack(fake(&[])).workers(1).policy(&policy).with(words).start();
    let ask = |sidetrack: &Sidetrack, headers: &str| seen(&mut Client::connect(sidetrack.address()), headers);

    let untrusting = run(&["--trusted-proxies", "10.0.0.0/8"]);
    assert_eq!(ask(&untrusting, "X-Forwarded-For: 192.0.2.1\r\n"), "127.0.0.1");
    untrusting.stop();

    let trusting = run(&["--trusted-proxies", "127.0.0.0/8", "--trusted-proxies", "10.0.0.0/8"]);
    for (headers, expected) in [
        ("", "127.0.0.1"),
        ("X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
        ("x-forwarded-for: 1.1.1.1, 192.0.2.1\r\n", "192.0.2.1"),
        ("X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 192.0.2.1, 10.0.0.7\r\n", "192.0.2.1"),
        ("X-Forwarded-For: 1.1.1.1, nonsense\r\n", "127.0.0.1"),
        ("Forwarded: for=1.1.1.1\r\n", "127.0.0.1"),
    ] {
        assert_eq!(ask(&trusting, headers), expected, "{headers}");
    }
    trusting.stop();

    let standard = run(&["--trusted-proxies", "127.0.0.1", "--client-header", "forwarded"]);
    let headers =
        "X-Forwarded-For: 1.1.1.1\r\nForwarded: for=1.1.1.1, for=\"[2001:db8::1]:80\";proto=https\r\n";
    assert_eq!(ask(&standard, headers), "2001:db8::1");
    standard.stop();

    // Both: a balancer announces the proxy, and that names the client.
    let both = run(&["--trusted-proxies", "192.0.2.0/24", "--proxy-protocol", "true"]);
    let mut client = Client::with(both.address(), V2);
    assert_eq!(seen(&mut client, "X-Forwarded-For: 203.0.113.9\r\n"), "203.0.113.9");
    both.stop();
}

#[test]
fn health_checks_are_answered_without_a_worker_or_a_policy() {
    let folder = tempfile::tempdir().expect("a folder");
    let policy = tells_peer(&folder);
    let sidetrack = sidetrack(worker("listen.js"))
        .workers(1)
        .policy(&policy)
        .with(&["--health", "/healthz", "--restarts", "1000000", "--worker-wait", "100ms"])
        .start();
    let address = sidetrack.address();
    let well = get(address, "/healthz?verbose");
    assert_eq!((well.status, well.text().trim()), (200, r#"{"status":"ready","workers":1}"#));
    assert_eq!(well.header("connection"), Some("close"));
    let mut client = Client::with(address, "HEAD /healthz HTTP/1.1\r\nHost: test\r\n\r\n");
    let answer = String::from_utf8(client.read_to_end().expect("an end")).expect("text");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    // Nothing else is its business.
    assert_eq!(get(address, "/healthz/more").status, 403);
    let post =
        Client::with(address, "POST /healthz HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n").response();
    assert_eq!(post.status, 403);
    let only = sidetrack.workers()[0];
    signal(only, Signal::SIGSTOP);
    kill(only);
    let ill = eventually("it is noticed", || {
        let answer = get(address, "/healthz");
        (answer.status == 503).then_some(answer)
    });
    assert_eq!(ill.text().trim(), r#"{"status":"no worker is ready","workers":0}"#);
    sidetrack.all_ready_without(&[only]);
    assert_eq!(get(address, "/healthz").status, 200);
    let stopped = sidetrack.stop();
    assert!(stopped.count("health_checks") >= 4, "{}", stopped.count("health_checks"));
    assert_eq!((stopped.count("refused"), stopped.count("handed_off")), (2, 0));
}

#[test]
fn a_client_holds_no_more_pending_connections_than_it_may() {
    let sidetrack = sidetrack(fake(&[]))
        .workers(1)
        .with(&["--max-per-client", "3", "--head-timeout", "60s", "--trusted-proxies", "127.0.0.9"])
        .start();
    let address = sidetrack.address();
    let mut slow: Vec<_> = (0..3).map(|_| Client::with(address, "GET /pid")).collect();
    eventually("a fourth is closed", || {
        let mut client = Client::connect(address);
        drop(client.try_send("GET /pid HTTP/1.1\r\nHost: test\r\n\r\n"));
        client.try_response().is_err().then_some(())
    });
    // Whoever comes in time makes room.
    slow[0].send(" HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(slow[0].response().status, 200);
    eventually("there is room again", || {
        let mut client = Client::connect(address);
        drop(client.try_send("GET /pid HTTP/1.1\r\nHost: test\r\n\r\n"));
        client.try_response().is_ok().then_some(())
    });
    drop(slow);
    let stopped = sidetrack.stop();
    assert!(stopped.count("crowded_out") >= 1);
}

#[test]
fn a_client_that_comes_too_fast_is_told_so_and_others_are_not() {
    let sidetrack = behind_a_proxy(worker("listen.js")).with(&["--client-rate", "20/m"]).start();
    let address = sidetrack.address();
    let ask = |client: &str| {
        let header = format!("PROXY TCP6 {client} ::1 1 443\r\n");
        Client::with(address, [header.as_bytes(), GET_PEER.as_bytes()].concat()).response()
    };
    let answers: Vec<_> = (0..30).map(|number| ask(&format!("2001:db8::{number:x}"))).collect();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    // One more for every 3 s this takes.
    assert!((5..=10).contains(&refused.len()), "{}", refused.len());
    let wait: u64 = refused[0].header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=3).contains(&wait), "{wait}");
    // Under load from more addresses than there are places to remember, the others are served.
    let before = resident(sidetrack.pid);
    for number in 0..3000 {
        assert_eq!(ask(&format!("2001:db8:{:x}:{number:x}::1", number % 7 + 1)).status, 200, "{number}");
    }
    let grown = resident(sidetrack.pid).saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more");
    let count = refused.len() as u64;
    let stopped = sidetrack.stop();
    assert_eq!((stopped.count("rate_limited"), stopped.count("refused")), (count, count));
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[test]
fn what_makes_no_sense_is_said_all_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sidetrack.toml");
    let text = "command = \"true\"\nproxy-from = [\"10.0.0.0/33\"]\ntrusted-proxies = \"everybody\"\nhealth = \"healthz\"\n\
                client-rate = \"fast\"\nclient-header = \"x-real-ip\"\nlisten = [{ address = \":0\", proxy = true }]\n";
    fs::write(&file, text).expect("a file");
    let (code, said) = check(&["-c", &file.display().to_string()]);
    assert_eq!(code, Some(2), "{said}");
    for expected in [
        "6 problems",
        "10.0.0.0/33",
        "everybody",
        "\"/healthz\"",
        "20/s",
        "x-forwarded-for or forwarded",
        "proxy-protocol = true",
    ] {
        assert!(said.contains(expected), "{expected} is missing in:\n{said}");
    }
    let (code, said) = check(&["--proxy-from", "10.0.0.0/8", "--", "true"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("proxy-from: no listener expects a PROXY header"), "{said}");
}
