//! Servers and clients of Socket.IO that know nothing of sidetrack.

use serde_json::Value;

use crate::support::{Client, Sidetrack, client, get, sidetrack, worker};

/// 20 clients at once, in every way they speak: nobody fails, no session moves, and more than one
/// worker serves.
#[track_caller]
fn serves_all_transports(sidetrack: &Sidetrack) {
    for transport in ["polling", "websocket", "upgrade"] {
        let arguments = ["--n", "20", "--transport", transport];
        let result = client("sessions.js", sidetrack.address(), &arguments);
        assert_eq!(result["connected"], 20, "{result}");
        assert_eq!(result["failures"], 0, "{result}");
        assert_eq!(result["moved"], 0, "{result}");
        assert!(workers_used(&result) >= 2, "{result}");
    }
}

fn workers_used(result: &Value) -> usize {
    result["pids"].as_object().expect("a histogram").len()
}

/// The whole of it: sessions, bodies, the race after a handshake, megabytes.
#[track_caller]
fn serves(file: &str) {
    let sidetrack = sidetrack(worker(file)).start();
    serves_all_transports(&sidetrack);
    client("sessions.js", sidetrack.address(), &["--n", "6", "--big", "--transport", "upgrade"]);
    client("sessions.js", sidetrack.address(), &["--n", "6", "--big", "--transport", "polling"]);
    let uploads = client("uploads.js", sidetrack.address(), &["--n", "4"]);
    assert_eq!(uploads["kinds"].as_object().expect("kinds").len(), 6, "{uploads}");
    let followup = client("followup.js", sidetrack.address(), &["--n", "500"]);
    assert_eq!(followup["sessions"], 500, "{followup}");
    assert_eq!(followup["unknown"], 0, "{followup}");
    let stopped = sidetrack.stop();
    assert_eq!(stopped.count("held"), 0, "every session was announced before its client knew of it");
    assert_eq!(stopped.count("rerouted") + stopped.count("refused") + stopped.count("channel_errors"), 0);
    assert_eq!(stopped.count("workers_lost"), 0);
    // The handshakes of uploads.js are left to time out.
    assert!(stopped.count("sessions_closed") >= 572, "{}", stopped.count("sessions_closed"));
}

#[test]
fn a_server_that_listens() {
    serves("listen.js");
}

#[test]
fn a_server_that_listens_as_an_es_module() {
    let sidetrack = sidetrack(worker("listen.mjs")).start();
    serves_all_transports(&sidetrack);
    assert_eq!(sidetrack.stop().count("sessions_opened"), 60);
}

#[test]
fn a_worker_for_sticky_1() {
    serves("sticky1.js");
}

#[test]
fn a_worker_for_sticky_2() {
    serves("sticky2.js");
}

#[test]
fn a_worker_that_takes_sockets_from_messages() {
    serves("message.js");
}

/// Without the shim a session is announced after its client knows of it: requests wait for that.
#[track_caller]
fn serves_without_shim(file: &str) {
    let sidetrack = sidetrack(worker(file)).with(&["--no-shim"]).start();
    serves_all_transports(&sidetrack);
    let followup = client("followup.js", sidetrack.address(), &["--n", "300"]);
    assert_eq!(followup["unknown"], 0, "{followup}");
    let stopped = sidetrack.stop();
    assert_eq!(stopped.count("sessions_opened"), 360);
    assert_eq!(stopped.count("sessions_closed"), 360);
}

#[test]
fn a_worker_for_sticky_1_without_the_shim() {
    serves_without_shim("sticky1.js");
}

#[test]
fn a_worker_for_sticky_2_without_the_shim() {
    serves_without_shim("sticky2.js");
}

#[test]
fn without_the_shim_a_server_that_listens_still_serves_websockets() {
    let sidetrack = sidetrack(worker("listen.js")).with(&["--no-shim"]).start();
    let result = client("sessions.js", sidetrack.address(), &["--n", "20", "--transport", "websocket"]);
    assert!(workers_used(&result) >= 2, "{result}");
    assert_eq!(sidetrack.stop().count("sessions_opened"), 0, "nobody announces them");
}

#[test]
fn two_hundred_clients_at_once() {
    let sidetrack = sidetrack(worker("listen.js")).alone().start();
    for transport in ["polling", "websocket", "upgrade"] {
        let arguments = ["--n", "200", "--rounds", "3", "--transport", transport];
        let result = client("sessions.js", sidetrack.address(), &arguments);
        assert_eq!((&result["connected"], &result["moved"]), (&200.into(), &0.into()), "{result}");
        assert_eq!(workers_used(&result), 3, "{result}");
    }
    let stopped = sidetrack.stop();
    assert_eq!(stopped.count("sessions_opened"), 600);
    assert_eq!(stopped.count("sessions_closed"), 600);
}

#[test]
fn ten_thousand_sessions_are_known_at_their_first_follow_up() {
    let sidetrack = sidetrack(worker("listen.js")).alone().start();
    let arguments = ["--n", "10000", "--parallel", "8", "--deadline", "300"];
    let result = client("followup.js", sidetrack.address(), &arguments);
    assert_eq!(result["sessions"], 10_000, "{result}");
    assert_eq!(result["unknown"], 0, "{result}");
    let stopped = sidetrack.stop();
    assert_eq!(stopped.count("sessions_opened"), 10_000);
    assert_eq!(stopped.count("held"), 0);
}

#[test]
fn the_first_frame_behind_an_upgrade_is_not_lost() {
    let sidetrack = sidetrack(worker("listen.js")).alone().start();
    let result = client("ws-first-frame.js", sidetrack.address(), &["--n", "1000"]);
    assert_eq!(result["answered"], 1000, "{result}");
    assert_eq!(sidetrack.stop().count("refused"), 0);
}

#[test]
fn two_servers_in_one_program_on_addresses_of_ours() {
    // The program believes in ports that nobody has bound.
    let sidetrack = sidetrack(worker("two-ports.js"))
        .env("PORT", "7101")
        .env("PORT2", "7102")
        .listen(&["127.0.0.1:0", "127.0.0.1:0=7102"])
        .start();
    both_are_served(&sidetrack);
    assert_eq!(sidetrack.stop().count("refused"), 0);
}

#[test]
fn two_servers_in_one_program_where_it_asks() {
    let sidetrack = sidetrack(worker("two-ports.js")).env("PORT2", "0").listen(&[]).start();
    both_are_served(&sidetrack);
    assert_eq!(sidetrack.stop().count("refused"), 0);
}

#[track_caller]
fn both_are_served(sidetrack: &Sidetrack) {
    let addresses = sidetrack.all_addresses();
    assert_eq!(addresses.len(), 2);
    for (address, name, path) in [(addresses[0], "first", "/socket.io/"), (addresses[1], "second", "/other/")]
    {
        for _ in 0..6 {
            assert_eq!(get(address, "/name").json()["name"], name);
        }
        for transport in ["polling", "upgrade"] {
            let arguments = ["--n", "10", "--path", path, "--transport", transport];
            let result = client("sessions.js", address, &arguments);
            assert!(workers_used(&result) >= 2, "{result}");
        }
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let sidetrack = sidetrack(worker("listen.js")).workers(2).start();
    let request = "GET /pid HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut client = Client::with(sidetrack.address(), request.repeat(5));
    let first = client.response().pid();
    for _ in 1..5 {
        assert_eq!(client.response().pid(), first);
    }
    drop(client);
    let stopped = sidetrack.stop();
    assert_eq!(stopped.count("accepted"), 1);
}
