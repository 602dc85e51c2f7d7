//! What stands around a run goes on with it: sockets that others have opened, proxies in front, whoever watches.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use serde_json::{Value, json};

use super::{Guest, guest};
use crate::admin::{Over, TOKEN};
use crate::ctl::{ctl, figure, metrics};
use crate::support::{
    Client, PATIENCE, Place, Run, admin, eventually, every_language, fake, finished, get, interpreter, pid,
    poll_session, program, root, session_at, sidetrack, signal, worker,
};

const PEER: &str = "GET /peer HTTP/1.1\r\nHost: test\r\n\r\n";
const HEADER: &str = "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";

/// The messages that a service manager has heard until it is told that all is well.
fn told(manager: &UnixDatagram, wanted: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut buffer = [0; 4096];
    while all.last().is_none_or(|last| last.trim_end() != wanted) {
        let length = manager.recv(&mut buffer).expect("a message");
        all.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    all
}

#[test]
fn sockets_of_systemd_stay_its_own_and_it_hears_on() {
    let place = Place::new();
    let [join, control, notify] = ["join.sock", "admin.sock", "notify.sock"].map(|name| place.path(name));
    let manager = UnixDatagram::bind(&notify).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let script = root().join("tests/it/systemd/activate.py").display().to_string();
    let sockets = [format!("join=unix:{}", join.display()), format!("admin=unix:{}", control.display())];
    let python = interpreter().display().to_string();
    let running = sidetrack(Vec::new())
        .workers(0)
        .listen(&["127.0.0.1:{web}"])
        .env("NOTIFY_SOCKET", &notify.display().to_string())
        .env("WATCHDOG_USEC", "600000")
        .through(&[&python, &script, &sockets[0], &sockets[1], "web=tcp:127.0.0.1:0", "--"])
        .start();
    let guests: Vec<Guest> = vec![guest(&join, &fake(&[]))];
    eventually("it has joined", || (running.workers().len() == 1).then_some(()));
    let only = running.workers()[0];
    let mut kept = Client::with(running.address(), "GET /pid HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(kept.response().pid(), only);
    for time in 1..=3 {
        told(&manager, "WATCHDOG=1");
        place.upgrade();
        assert_eq!(place.status()["upgrades"], time);
        let heard = told(&manager, "READY=1");
        assert!(!heard.iter().any(|message| message.contains("STOPPING")), "{heard:?}");
        assert_eq!(pid(running.address()), only, "the socket for clients is the one that was passed");
    }
    told(&manager, "WATCHDOG=1");
    let late = guest(&join, &fake(&[]));
    eventually("another may join", || (running.workers().len() == 2).then_some(()));
    drop((kept, guests, late));
    assert_eq!(running.terminate().code, Some(0));
    assert!(join.exists() && control.exists(), "they are systemd's");
}

#[test]
fn connections_that_a_proxy_announces_keep_their_clients_and_their_shares() {
    let place = Place::new();
    let words = ["--proxy-protocol", "true", "--head-timeout", "60s", "--max-per-client", "4"];
    let running = place
        .run(worker("listen.js"))
        .workers(1)
        .with(&words)
        .with(&["--window", "1", "--queue-wait", "30s"])
        .start();
    let (address, only) = (running.address(), running.workers()[0]);
    let mut stages = [
        // Nothing of the header, half of it, all of it, and half of a request behind it.
        Client::connect(address),
        Client::with(address, &HEADER[..20]),
        Client::with(address, HEADER),
        Client::with(address, format!("{HEADER}{}", &PEER[..9])),
    ];
    let pending = || figure(&metrics(&place.socket()), "sidetrack_pending");
    signal(only, Signal::SIGSTOP);
    let whole = format!("{HEADER}{PEER}");
    let mut sent = [Client::with(address, &whole), Client::with(address, &whole)];
    eventually("they are under way", || (place.status()["workers"][0]["queued"] == 1).then_some(()));
    let before = pending();
    for _ in 0..2 {
        place.upgrade();
        assert_eq!(place.status()["workers"][0]["queued"], 1);
        // Four of this client's are pending: two that have no request yet, one sent, one that waits.
        let mut fifth = Client::connect(address);
        drop(fifth.try_send(&whole));
        assert!(fifth.try_response().is_err(), "it has all it may have");
    }
    assert_eq!(pending(), before);
    signal(only, Signal::SIGCONT);
    let rest = [&whole[..], &whole[20..], PEER, &PEER[9..]];
    let peer = |client: &mut Client| client.response().json();
    let mut seen: Vec<Value> = sent.iter_mut().map(peer).collect();
    for (client, rest) in stages.iter_mut().zip(rest) {
        client.send(rest);
        seen.push(peer(client));
    }
    for seen in seen {
        assert_eq!((&seen["address"], &seen["port"]), (&json!("192.0.2.1"), &json!(56324)), "{seen}");
    }
    // All shares are given back.
    for _ in 0..6 {
        assert_eq!(Client::with(address, &whole).response().status, 200);
    }
    drop((stages, sent));
    let stopped = running.stop();
    assert_eq!((stopped.count("crowded_out"), stopped.count("preambles_refused")), (2, 0));
}

#[test]
fn the_true_client_goes_on_in_every_language() {
    let place = Place::new();
    let running =
        place.run(every_language()).policy("round-robin").with(&["--proxy-protocol", "true"]).start();
    for _ in 0..3 {
        place.upgrade();
        for _ in 0..3 {
            let seen = Client::with(running.address(), format!("{HEADER}{PEER}")).response().json();
            assert_eq!(seen["address"], "192.0.2.1", "{seen}");
        }
    }
    running.stop();
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[test]
fn every_decision_has_its_line_and_figures_keep_their_reasons() {
    let place = Place::new();
    let path = place.path("access.log");
    let file = path.display().to_string();
    let running = place.run(worker("listen.js")).workers(2).with(&["--access-log", &file]).start();
    let address = running.address();
    let (sid, owner) = poll_session(address);
    let mut asked = 1;
    for _ in 0..5 {
        for _ in 0..20 {
            get(address, "/pid");
            asked += 1;
        }
        let alert = Client::with(address, b"\x16\x03\x01\x02\x00").read_to_end();
        assert_eq!(alert.expect("an alert").len(), 7);
        // Once it comes to nothing at the last moment.
        let gone = place.script("gone", "SIDETRACK \"$@\" && rm \"$0\"");
        let (code, said) = place.try_upgrade(&["--binary", &gone]);
        assert_eq!(code, Some(1), "{said}");
        get(address, "/pid");
        asked += 1;
        place.upgrade();
        assert_eq!(session_at(address, &format!("sid={sid}")), (200, Some(owner)));
        asked += 1;
    }
    eventually("each has its line", || (lines(&path) == asked).then_some(()));
    let text = metrics(&place.socket());
    assert_eq!(figure(&text, "sidetrack_refusals_total{reason=\"tls\",status=\"400\"}"), 5.0, "{text}");
    running.stop();
    assert_eq!(lines(&path), asked);
}

#[test]
fn over_tcp_it_goes_on_and_names_no_program() {
    let place = Place::new();
    let over = Over::with_token(place.folder());
    let running = place.run(worker("listen.js")).workers(1).with(&over.words()).start();
    let admin = over.address(&running);
    let ask = |method: &str, path: &str, body: &str| {
        Client::connect(admin).exchange(format!(
            "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    let refused = ask("POST", "/v1/upgrade", r#"{"binary":"/bin/true"}"#);
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(refused.text().contains("at the admin socket only"), "{refused:?}");
    let at = format!("http://{admin}");
    let (code, said) = finished(program(&["upgrade", "--admin", &at, "--token-file", &over.token_file]));
    assert_eq!(code, Some(0), "{said}");
    let status = ask("GET", "/v1/status", "");
    assert_eq!((status.status, &status.json()["upgrades"]), (200, &json!(1)));
    let refused = Client::connect(admin)
        .exchange(format!("GET /v1/status HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n"));
    assert_eq!(refused.status, 401, "it asks for the token still");
    place.upgrade();
    running.stop();
}

/// The capabilities of a process.
fn rights(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process of ours");
    text.lines()
        .filter(|line| line.starts_with("Cap") && !line.starts_with("CapBnd"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn rights_that_are_needed_stay_and_none_comes_back() {
    let place = Place::new();
    let mut run: Run = place.run(worker("listen.js")).workers(1);
    // As systemd grants them to somebody who is not root.
    let granted = [
        "setpriv",
        "--securebits",
        "+noroot",
        "--inh-caps",
        "-all,+net_bind_service",
        "--ambient-caps",
        "+net_bind_service",
    ];
    if Uid::effective().is_root() {
        run = run.through(&granted);
    }
    let running = run.start();
    let before = rights(running.pid);
    if Uid::effective().is_root() {
        assert!(before.contains(&"CapEff:\t0000000000000400".to_owned()), "{before:?}");
    }
    for _ in 0..2 {
        place.upgrade();
        assert_eq!(rights(running.pid), before);
    }
    let (code, _) = place.try_upgrade(&["--binary", &place.script("late", "exec SIDETRACK \"$@\"")]);
    assert_eq!(code, Some(0));
    assert_eq!(rights(running.pid), before);
    running.stop();

    let plain = Place::new();
    let running = plain.run(worker("listen.js")).workers(1).start();
    let before = rights(running.pid);
    plain.upgrade();
    assert_eq!(rights(running.pid), before, "root's are given up again");
    assert!(admin(&plain.socket(), "/v1/status").contains("\"upgrades\":1"));
    running.stop();
}

#[test]
fn what_was_reloaded_and_scaled_is_what_goes_on() {
    let place = Place::new();
    let (file, more) = (place.path("sidetrack.toml"), place.path("more.sock"));
    let write = |listen: &str, rest: &str| {
        fs::write(&file, format!("listen = [\"127.0.0.1:0\"{listen}]\n{rest}")).expect("it can be written");
    };
    write("", "workers = 2\npolicy = \"random\"\n");
    let running = place.run(worker("listen.js")).configured(&file, 2).start();
    let (address, socket) = (running.address(), place.socket());
    let order = |words: &[&str]| {
        let (code, said) = ctl(&socket, words);
        assert_eq!(code, Some(0), "{words:?}: {said}");
        said
    };
    order(&["scale", "3"]);
    order(&["log-level", "debug"]);
    eventually("three workers", || (running.workers().len() == 3).then_some(()));
    let pids = running.workers();
    // The file says 2, and what was done by hand goes on.
    place.upgrade();
    assert_eq!(running.workers(), pids);
    assert!(order(&["log-level"]).contains("debug"));

    // What the file says and nobody has reloaded is not what runs.
    let listen = format!(", \"unix:{}\"", more.display());
    write(&listen, "workers = 2\npolicy = \"round-robin\"\n");
    let (code, said) = place.try_upgrade(&[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("listen: it is") && said.contains("sidetrack ctl reload"), "{said}");
    order(&["reload"]);
    let turns: Vec<_> = (0..6).map(|_| pid(address)).collect();
    assert_eq!(turns[..3], turns[3..], "whose turn it is goes round");
    place.upgrade();
    assert_eq!(running.workers(), pids, "by hand, still");
    assert_eq!((0..3).map(|_| pid(address)).collect::<Vec<_>>(), turns[..3], "the next one's turn");
    assert!(admin(&more, "/pid").contains("200 OK"), "an address of the reload's");
    assert!(
        order(&["reload"]).contains("as configured"),
        "what runs is what the file says, but for the hand"
    );

    // A slot that goes, goes on going.
    let mut sockets: Vec<_> = (0..6).map(|_| Client::websocket(address)).collect();
    order(&["scale", "1", "--within", "60s"]);
    let draining = || {
        let workers = place.status()["workers"].as_array().expect("a list").clone();
        workers.iter().filter(|worker| worker["draining"] == true).count()
    };
    assert_eq!(draining(), 2);
    place.upgrade();
    assert_eq!(draining(), 2);
    for client in &mut sockets {
        client.echo("still here");
    }
    drop(sockets);
    eventually("the others leave", || (running.workers().len() == 1).then_some(()));
    place.upgrade();
    order(&["scale", "2"]);
    eventually("another one comes", || (running.workers().len() == 2).then_some(()));
    write("", "workers = 2\npolicy = \"round-robin\"\n");
    order(&["reload"]);
    place.upgrade();
    assert!(!more.exists(), "its file has gone with it");
    let stopped = running.stop();
    assert_eq!((stopped.count("refused"), stopped.count("workers_lost")), (0, 0));
}
