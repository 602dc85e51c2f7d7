//! Connections that come back: their next request belongs to another worker.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::{
    Client, Response, Run, alive, eventually, fake, get, kill, poll_session, sidetrack, signal, sockets,
    worker,
};

fn workers(number: usize) -> Run {
    sidetrack(fake(&[])).workers(number).policy("round-robin")
}

/// A session on each worker: owner → id.
fn sessions(address: SocketAddr, number: usize) -> Vec<(u32, String)> {
    let open = |n| {
        let sid = format!("s{n}");
        (get(address, &format!("/open/{sid}")).pid(), sid)
    };
    let found: HashMap<u32, String> = (0..number).map(open).collect();
    assert_eq!(found.len(), number, "one on each");
    found.into_iter().collect()
}

fn kept(method: &str, target: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: keep-alive\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn in_session(client: &mut Client, sid: &str) -> Response {
    client.exchange(kept("GET", &format!("/pid?sid={sid}"), b""))
}

#[test]
fn one_connection_serves_the_sessions_of_all_workers() {
    let sidetrack = workers(3).start();
    let sessions = sessions(sidetrack.address(), 3);
    let mut client = Client::connect(sidetrack.address());
    for _ in 0..20 {
        for (owner, sid) in &sessions {
            assert_eq!(in_session(&mut client, sid).pid(), *owner);
        }
    }
    drop(client);
    let stopped = sidetrack.stop();
    assert_eq!(stopped.count("accepted"), 4, "three to open the sessions, one for all requests");
    assert_eq!(stopped.count("handed_back"), 59, "the first was in the right place");
    assert_eq!((stopped.count("refused"), stopped.count("held")), (0, 0));
}

#[test]
fn what_was_read_arrives_before_what_was_not() {
    let sidetrack = workers(2).start();
    let sessions = sessions(sidetrack.address(), 2);
    let mut client = Client::connect(sidetrack.address());
    let body: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut sums = Vec::new();
    for (owner, sid) in sessions.iter().chain(&sessions) {
        // The worker has read the head and some of the body when it finds out.
        let response = client.exchange(kept("POST", &format!("/sum?sid={sid}"), &body));
        assert_eq!(response.pid(), *owner);
        assert_eq!(response.json()["bytes"], 1_000_000);
        sums.push(response.json()["sha1"].clone());
    }
    sums.dedup();
    assert_eq!(sums.len(), 1, "the same bytes everywhere");
    // Behind one another, without waiting for the answers.
    let requests = sessions.iter().map(|(_, sid)| kept("POST", &format!("/sum?sid={sid}"), b"abc"));
    client.send(requests.collect::<Vec<_>>().concat());
    for (owner, _) in &sessions {
        let response = client.response();
        assert_eq!((response.pid(), response.json()["bytes"].clone()), (*owner, 3.into()));
    }
    drop(client);
    sidetrack.stop();
}

#[test]
fn an_unknown_session_does_not_circulate() {
    let sidetrack = workers(3).with(&["--hold", "10ms"]).start();
    let mut client = Client::connect(sidetrack.address());
    client.exchange(kept("GET", "/pid", b"")).pid();
    for _ in 0..5 {
        // Somebody has to say so: the one that gets it does.
        in_session(&mut client, "nobodys").pid();
    }
    drop(client);
    // On a connection of its own it is known to be unknown at once.
    get(sidetrack.address(), "/pid?sid=nobodys").pid();
    let stopped = sidetrack.stop();
    assert_eq!((stopped.count("handed_back"), stopped.count("held")), (5, 6));
}

#[test]
fn its_owner_dies_before_it_has_it() {
    let sidetrack = workers(2).with(&["--log", "debug"]).start();
    let sessions = sessions(sidetrack.address(), 2);
    let ((first, here), (victim, there)) = (&sessions[0], &sessions[1]);
    let mut client = Client::connect(sidetrack.address());
    assert_eq!(in_session(&mut client, here).pid(), *first);
    signal(*victim, Signal::SIGSTOP);
    client.send(kept("POST", &format!("/sum?sid={there}"), b"all of it"));
    sidetrack.logged("handed back");
    kill(*victim);
    // Its session is gone with it; the request is not.
    let response = client.response();
    assert_ne!(response.pid(), *victim);
    assert_eq!(response.json()["bytes"], 9);
    drop(client);
    sidetrack.all_ready_without(&[*victim]);
    assert_eq!(sidetrack.stop().count("rerouted"), 1);
}

#[test]
fn what_comes_back_wrongly_is_closed_and_counted() {
    let sidetrack = workers(1).start();
    let address = sidetrack.address();
    for how in ["not-base64", "unknown-key", "no-descriptor", "not-a-socket"] {
        let mut client = Client::with(address, kept("GET", &format!("/back/{how}"), b""));
        assert_eq!(client.read_to_end().unwrap_or_default(), b"", "{how}");
    }
    let mut client = Client::with(address, kept("GET", "/back/bad-head", b""));
    assert_eq!(client.response().status, 400);
    assert_eq!(get(address, "/pid").pid(), sidetrack.workers()[0], "it is still there");
    let stopped = sidetrack.stop();
    assert_eq!((stopped.count("channel_errors"), stopped.count("workers_lost")), (2, 0));
}

#[test]
fn a_head_may_come_back_in_part_with_its_rest_unread() {
    let sidetrack = workers(2).with(&["--log", "debug"]).start();
    let mut client = Client::connect(sidetrack.address());
    // Cut within a line, and behind one.
    let cuts = [("half-a-line", "st: test\r\n\r\n"), ("half-a-head", "Host: test\r\n\r\n")];
    for (number, (how, rest)) in cuts.into_iter().enumerate() {
        client.send(kept("GET", &format!("/back/{how}"), b""));
        let back = || sidetrack.log().matches("\"handed back\"").count() > number;
        eventually("it is back", || back().then_some(()));
        client.send(rest);
        assert_eq!(client.response().status, 200, "{how}");
    }
    drop(client);
    assert_eq!(sidetrack.stop().count("gone"), 0);
}

#[test]
fn what_a_worker_handed_back_before_it_died_is_served() {
    let sidetrack = workers(2).with(&["--window", "1", "--log", "debug"]).start();
    let sessions = sessions(sidetrack.address(), 2);
    let ((victim, its), (other, others)) = (&sessions[0], &sessions[1]);
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(sidetrack.address())).collect();
    for client in &mut clients {
        assert_eq!(in_session(client, its).pid(), *victim);
    }
    // One connection that it has not acknowledged, and one that waits behind it.
    signal(*victim, Signal::SIGSTOP);
    let mut late: Vec<_> = (0..2)
        .map(|_| Client::with(sidetrack.address(), kept("POST", &format!("/sum?sid={its}"), b"all of it")))
        .collect();
    let all = 2 + 4 + 2;
    eventually("all are routed", || (sidetrack.log().matches("handed off").count() == all).then_some(()));
    // Sidetrack hears of nothing until the worker is dead: of the acknowledgement, which makes room for
    // the one that waits, and then of the connections that come back.
    signal(sidetrack.pid, Signal::SIGSTOP);
    signal(*victim, Signal::SIGCONT);
    assert_eq!(late[0].response().pid(), *victim);
    for client in &mut clients {
        client.send(kept("GET", &format!("/pid?sid={others}"), b""));
    }
    eventually("all are handed back", || (sockets(*victim) <= 2).then_some(()));
    kill(*victim);
    eventually("it is dead", || (!alive(*victim)).then_some(()));
    signal(sidetrack.pid, Signal::SIGCONT);
    for client in &mut clients {
        assert_eq!(client.response().pid(), *other);
    }
    assert_eq!(late[1].response().json()["bytes"], 9, "what it never had is served as well");
    drop((clients, late));
    sidetrack.all_ready_without(&[*victim]);
    sidetrack.stop();
}

#[test]
fn a_front_that_mixes_sessions_is_named_once() {
    let sidetrack = workers(2).start();
    let sessions = sessions(sidetrack.address(), 2);
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(sidetrack.address())).collect();
    while !sidetrack.log().contains("share its connections among clients") {
        for (owner, sid) in &sessions {
            for client in &mut clients {
                client.send(kept("GET", &format!("/pid?sid={sid}"), b""));
            }
            for client in &mut clients {
                assert_eq!(client.response().pid(), *owner);
            }
        }
    }
    drop(clients);
    let stopped = sidetrack.stop();
    assert!(stopped.log.contains("--keepalive close"), "{}", stopped.log);
    assert!(stopped.log.matches("share its connections among clients").count() <= 2, "once for each worker");
}

#[test]
fn a_descriptor_lost_on_its_way_back_costs_that_connection_and_no_other() {
    for worker in [fake(&[]), worker("listen.js")] {
        let sidetrack = sidetrack(worker).workers(2).policy("round-robin").start();
        let address = sidetrack.address();
        // The fake ones open their sessions by another path.
        let fake = get(address, "/open/s").status == 200;
        let open = |n| {
            let sid = format!("s{n}");
            if fake {
                (get(address, &format!("/open/{sid}")).pid(), sid)
            } else {
                swapped(poll_session(address))
            }
        };
        let sessions: HashMap<u32, String> = (0..2).map(open).collect();
        assert_eq!(sessions.len(), 2, "one of each worker");
        let target = |sid: &str| format!("/pid?sid={sid}");
        let mut clients: Vec<_> = sessions
            .iter()
            .map(|(owner, sid)| {
                let mut client = Client::connect(address);
                assert_eq!(client.exchange(kept("GET", &target(sid), b"")).pid(), *owner);
                (client, *owner)
            })
            .collect();
        let limit = |number: usize| {
            let number = format!("--nofile={number}:");
            let status = Command::new("prlimit").arg(format!("--pid={}", sidetrack.pid)).arg(number).status();
            assert!(status.expect("prlimit, of util-linux").success());
        };
        // No room for even one more; what is open stays. A connection whose request has not come stays
        // with sidetrack: more of them than there is room for, so that what closes late is filled too.
        let numbers = || -> Vec<usize> {
            let number = |line: String| line.split(' ').next()?.parse().ok();
            sidetrack.descriptors().into_iter().filter_map(number).collect()
        };
        // What waits for an acknowledgement would make room later.
        sidetrack.keeps_nothing();
        let highest = numbers().into_iter().max().unwrap();
        limit(highest + 2);
        let fillers: Vec<_> = (0..highest + 4).map(|_| Client::with(address, "GET /")).collect();
        sidetrack.logged("cannot accept for now");
        eventually("every number is taken", || (numbers().len() == highest + 2).then_some(()));
        let (mut lost, holder) = clients.pop().unwrap();
        let elsewhere = &sessions[sessions.keys().find(|owner| **owner != holder).unwrap()];
        lost.send(kept("GET", &target(elsewhere), b""));
        assert_eq!(lost.read_to_end().unwrap_or_default(), b"", "there was no room for it");
        limit(4096);
        drop(fillers);
        // The channel is in step: others move as before.
        let (mut client, _) = clients.pop().unwrap();
        for (owner, sid) in &sessions {
            assert_eq!(client.exchange(kept("GET", &target(sid), b"")).pid(), *owner);
        }
        drop(client);
        sidetrack.stop();
    }
}

fn swapped((sid, owner): (String, u32)) -> (u32, String) {
    (owner, sid)
}
