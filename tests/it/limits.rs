//! More than there is room for, and workers that do not keep to the rules.

use std::process::Command;
use std::time::Duration;

use crate::support::{
    Client, Sidetrack, client, eventually, fake, get, kill, pid, sidetrack, sockets, try_get, worker,
};

const GET: &str = "GET /pid HTTP/1.1\r\nHost: test\r\n\r\n";

#[test]
fn three_thousand_clients_at_once() {
    let sidetrack = sidetrack(worker("listen.js")).alone().start();
    let result = client("mass.js", sidetrack.address(), &["--n", "3000"]);
    assert_eq!(result["ok200"], 3000, "{result}");
    // The last reports of closed sockets come some milliseconds after their clients have gone, and
    // nothing outside shows them; a worker that is told to leave says no more.
    std::thread::sleep(Duration::from_millis(500));
    let stopped = sidetrack.stop();
    assert_eq!((stopped.count("accepted"), stopped.count("acknowledged")), (3000, 3000));
    assert_eq!((stopped.count("refused"), stopped.count("rerouted")), (0, 0));
    assert_eq!(stopped.count("sockets_closed"), 3000);
}

#[test]
fn what_is_handed_off_is_not_kept() {
    let sidetrack = sidetrack(worker("listen.js")).workers(2).start();
    let clients: Vec<_> = (0..300)
        .map(|_| {
            let mut client = Client::with(sidetrack.address(), GET);
            client.response().pid();
            client
        })
        .collect();
    // All of them are open, none of them here.
    sidetrack.keeps_nothing();
    drop(clients);
    assert_eq!(sidetrack.stop().count("acknowledged"), 300);
}

#[test]
fn more_than_may_be_pending_wait_in_the_kernel() {
    let sidetrack =
        sidetrack(fake(&[])).workers(1).with(&["--max-pending", "2", "--head-timeout", "500ms"]).start();
    let mut unfinished: Vec<_> = (0..2).map(|_| Client::with(sidetrack.address(), "GET /")).collect();
    let mut next = Client::with(sidetrack.address(), GET);
    assert!(next.quiet_for(Duration::from_millis(150)), "both places are taken");
    assert_eq!(next.response().pid(), sidetrack.workers()[0]);
    for client in &mut unfinished {
        assert_eq!(client.response().status, 408);
    }
    drop((unfinished, next));
    sidetrack.stop();
}

#[test]
fn out_of_descriptors_it_pauses_and_goes_on() {
    let sidetrack = sidetrack(fake(&[])).workers(1).start();
    let few = sidetrack.descriptors().len() + 5;
    let limit = |number: &str| {
        let status = Command::new("prlimit").arg(format!("--pid={}", sidetrack.pid)).arg(number).status();
        assert!(status.expect("prlimit, of util-linux").success());
    };
    limit(&format!("--nofile={few}:{few}"));
    let unfinished: Vec<_> = (0..20).map(|_| Client::with(sidetrack.address(), "GET /")).collect();
    sidetrack.logged("cannot accept for now");
    let mut late = Client::with(sidetrack.address(), GET);
    drop(unfinished);
    assert_eq!(late.response().pid(), sidetrack.workers()[0]);
    drop(late);
    assert_eq!(pid(sidetrack.address()), sidetrack.workers()[0]);
    let stopped = sidetrack.stop();
    let errors = stopped.count("accept_errors");
    assert!((1..100).contains(&errors), "it rests between two tries: {errors}");
    assert!(stopped.log.matches("cannot accept for now").count() <= 10, "{}", stopped.log);
}

#[test]
fn the_session_table_is_bounded() {
    let sidetrack = sidetrack(fake(&[])).workers(1).with(&["--max-sessions", "2"]).start();
    for sid in ["a", "b", "c", "d"] {
        get(sidetrack.address(), &format!("/open/{sid}"));
    }
    let stopped = sidetrack.stop();
    assert_eq!((stopped.count("sessions_opened"), stopped.count("sessions_refused")), (2, 2));
}

/// Slot w0 has a worker that misbehaves as told, w1 a good one; they take turns.
fn one_bad(behaviour: &[&str], flags: &[&str]) -> Sidetrack {
    sidetrack(fake(behaviour)).workers(2).policy("round-robin").with(flags).start()
}

#[track_caller]
fn serves(sidetrack: &Sidetrack, number: usize) {
    for _ in 0..number {
        assert_eq!(get(sidetrack.address(), "/pid").status, 200);
    }
}

#[test]
fn a_worker_that_talks_rubbish_is_forgiven_a_little() {
    let sidetrack = one_bad(&["rubbish=50"], &[]);
    serves(&sidetrack, 10);
    let stopped = sidetrack.stop();
    assert_eq!((stopped.count("channel_errors"), stopped.count("workers_lost")), (50, 0));
}

#[test]
fn a_worker_that_goes_on_talking_rubbish_is_replaced() {
    let sidetrack = one_bad(&["rubbish"], &[]);
    sidetrack.logged("too many lines that make no sense");
    serves(&sidetrack, 10);
    let stopped = sidetrack.terminate();
    assert_eq!(stopped.code, Some(0));
    assert!(stopped.count("channel_errors") > 100);
    assert!(stopped.count("workers_lost") >= 1);
    assert_eq!(stopped.count("refused"), 0);
}

#[test]
fn a_worker_whose_line_does_not_end_is_replaced() {
    let sidetrack = one_bad(&["oversized"], &[]);
    sidetrack.logged("a line of more than");
    serves(&sidetrack, 10);
    let stopped = sidetrack.terminate();
    assert_eq!(stopped.code, Some(0));
    assert!(stopped.count("workers_lost") >= 1);
    assert_eq!(stopped.count("refused"), 0);
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    for behaviour in ["descriptors=20", "handles=20"] {
        let sidetrack = one_bad(&[behaviour], &[]);
        serves(&sidetrack, 10);
        // The check of open descriptors is the test.
        let stopped = sidetrack.stop();
        assert!(stopped.count("channel_errors") >= 20, "{behaviour}");
        assert_eq!(stopped.count("workers_lost"), 0, "{behaviour}");
    }
}

#[test]
fn acknowledgements_for_nothing_are_counted() {
    let sidetrack = one_bad(&["unearned=7"], &[]);
    eventually("both serve", || {
        let slots = [0, 1].map(|_| get(sidetrack.address(), "/pid").json()["slot"].clone());
        (slots[0] != slots[1]).then_some(())
    });
    let stopped = sidetrack.stop();
    // One that crosses a connection on its way looks earned.
    assert!((5..=7).contains(&stopped.count("channel_errors")), "{}", stopped.count("channel_errors"));
    assert_eq!(stopped.count("workers_lost"), 0);
}

#[test]
fn a_worker_can_only_claim_for_itself() {
    let sidetrack = sidetrack(fake(&[])).workers(2).policy("round-robin").start();
    let address = sidetrack.address();
    let owner = get(address, "/open/mine").pid();
    let other = get(address, "/open/mine").pid();
    assert_ne!(owner, other);
    // Nor can the other one end it.
    get(address, "/pid");
    assert_eq!(get(address, "/close/mine").pid(), other);
    for _ in 0..3 {
        assert_eq!(get(address, "/pid?sid=mine").pid(), owner);
    }
    let stopped = sidetrack.stop();
    assert_eq!((stopped.count("sessions_opened"), stopped.count("sessions_refused")), (1, 1));
    assert_eq!(stopped.count("sessions_closed"), 0);
}

#[test]
fn what_a_worker_could_not_take_goes_to_another() {
    let sidetrack = one_bad(&["nack"], &[]);
    let good = sidetrack.slot("w1").unwrap();
    for _ in 0..10 {
        assert_eq!(pid(sidetrack.address()), good);
    }
    let stopped = sidetrack.stop();
    assert_eq!((stopped.count("acknowledged"), stopped.count("refused")), (10, 0));
    assert!(stopped.count("rerouted") >= 5, "{}", stopped.count("rerouted"));
}

#[test]
fn what_no_worker_can_take_is_refused_in_the_end() {
    let sidetrack = sidetrack(fake(&["nack"])).workers(1).start();
    assert_eq!(get(sidetrack.address(), "/pid").status, 503);
    let stopped = sidetrack.stop();
    assert_eq!((stopped.count("refused"), stopped.count("rerouted")), (1, 3));
}

#[test]
fn a_worker_that_acknowledges_nothing_gets_no_more_than_its_window() {
    let flags = ["--window", "4", "--queue-wait", "300ms", "--unresponsive-after", "20s"];
    let sidetrack = one_bad(&["never-ack"], &flags);
    let bad = sidetrack.slot("w0").unwrap();
    let before = sockets(bad);
    let mut clients: Vec<_> = (0..20).map(|_| Client::with(sidetrack.address(), GET)).collect();
    // Ten are the good worker's, and six of the other ten once they have waited.
    let mut left = Vec::new();
    while let Some(mut client) = clients.pop() {
        if client.quiet_for(Duration::from_secs(1)) {
            left.push(client);
        } else {
            assert_ne!(client.response().pid(), bad);
        }
    }
    assert_eq!(left.len(), 4);
    assert_eq!(sockets(bad) - before, 4);
    // They are not lost: nothing of them was read.
    kill(bad);
    for client in &mut left {
        assert_ne!(client.response().pid(), bad);
    }
    drop(left);
    let stopped = sidetrack.terminate();
    assert!(stopped.count("queued") >= 6, "{}", stopped.count("queued"));
    assert_eq!((stopped.count("rerouted"), stopped.count("refused")), (10, 0));
}

#[test]
fn whoever_waited_too_long_goes_to_another_worker() {
    let flags = ["--window", "1", "--queue-wait", "200ms", "--unresponsive-after", "20s"];
    let sidetrack = one_bad(&["never-ack"], &flags);
    let mut clients: Vec<_> = (0..40).map(|_| Client::with(sidetrack.address(), GET)).collect();
    let mut left = 0;
    for client in &mut clients {
        if client.quiet_for(Duration::from_secs(2)) {
            left += 1;
        } else {
            // The policy's turns must not lead back to the worker that has no place.
            assert_eq!(client.response().status, 200);
        }
    }
    assert_eq!(left, 1, "the one in the window");
    drop(clients);
    let stopped = sidetrack.terminate();
    assert_eq!(stopped.count("refused"), 0);
    // The last one too, once its worker has ended.
    assert_eq!(stopped.count("rerouted"), 20);
}

#[test]
fn a_worker_that_never_reads_is_replaced() {
    let flags = ["--unresponsive-after", "200ms", "--replace-after", "600ms"];
    let sidetrack = one_bad(&["reads-nothing"], &flags);
    let bad = sidetrack.slot("w0").unwrap();
    let mut clients: Vec<_> = (0..6).map(|_| Client::with(sidetrack.address(), GET)).collect();
    for client in &mut clients {
        assert_ne!(client.response().pid(), bad);
    }
    drop(clients);
    let stopped = sidetrack.terminate();
    assert!(stopped.count("workers_lost") >= 1);
    assert_eq!((stopped.count("rerouted"), stopped.count("refused")), (3, 0));
}

#[test]
fn a_worker_that_is_slow_to_acknowledge_serves() {
    let sidetrack = one_bad(&["slow-ack=100"], &["--window", "2"]);
    let mut clients: Vec<_> = (0..16).map(|_| Client::with(sidetrack.address(), GET)).collect();
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    drop(clients);
    let stopped = sidetrack.stop();
    assert_eq!((stopped.count("rerouted"), stopped.count("refused")), (0, 0));
    assert!(stopped.count("queued") >= 1);
}

#[test]
fn a_worker_that_ends_instead_of_acknowledging_loses_nobody() {
    let sidetrack = one_bad(&["exit-before-ack"], &[]);
    let good = sidetrack.slot("w1").unwrap();
    for _ in 0..6 {
        assert_eq!(try_get(sidetrack.address(), "/pid").expect("an answer").pid(), good);
    }
    let stopped = sidetrack.terminate();
    assert!(stopped.count("workers_lost") >= 1);
    assert_eq!(stopped.count("rerouted"), stopped.count("workers_lost"));
    assert_eq!(stopped.count("refused"), 0);
}
