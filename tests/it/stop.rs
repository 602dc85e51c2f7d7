//! The end of a run.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Client, alive, eventually, fake, sidetrack, worker};

const GET: &str = "GET /pid HTTP/1.1\r\nHost: test\r\n\r\n";

/// What "at once" may take on a busy machine.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn idle_it_ends_at_once() {
    for name in [Signal::SIGTERM, Signal::SIGINT] {
        let sidetrack = sidetrack(worker("listen.js")).start();
        let start = Instant::now();
        sidetrack.signal(name);
        let stopped = sidetrack.ended();
        assert_eq!(stopped.code, Some(0));
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        assert_eq!(stopped.count("workers_lost"), 0, "they were asked to leave");
    }
}

#[test]
fn every_kind_of_worker_leaves_when_asked() {
    for file in ["sticky1.js", "sticky2.js", "message.js", "two-ports.js"] {
        let sidetrack = sidetrack(worker(file)).workers(1).start();
        let start = Instant::now();
        let stopped = sidetrack.terminate();
        assert_eq!(stopped.code, Some(0), "{file}");
        assert!(start.elapsed() < SOON, "{file}: {:?}", start.elapsed());
    }
}

#[test]
fn a_slow_request_is_answered_first() {
    let sidetrack = sidetrack(worker("listen.js")).workers(1).start();
    let mut client = Client::connect(sidetrack.address());
    // The worker has the connection: it answers on it.
    client.exchange(GET);
    client.send("GET /slow?ms=1500 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    sidetrack.signal(Signal::SIGTERM);
    assert_eq!(client.response().status, 200);
    let stopped = sidetrack.ended();
    assert_eq!(stopped.code, Some(0));
}

#[test]
fn a_websocket_may_go_on_until_it_ends() {
    let sidetrack = sidetrack(worker("listen.js")).workers(2).with(&["--drain-timeout", "20s"]).start();
    let mut client = Client::websocket(sidetrack.address());
    client.echo("before");
    sidetrack.signal(Signal::SIGTERM);
    sidetrack.logged("draining");
    eventually("one worker is left", || (sidetrack.processes().len() == 2).then_some(()));
    client.echo("meanwhile");
    drop(client);
    let stopped = sidetrack.ended();
    assert_eq!(stopped.code, Some(0));
}

#[test]
fn what_does_not_end_in_time_is_cut() {
    let sidetrack = sidetrack(worker("listen.js")).workers(2).with(&["--drain-timeout", "500ms"]).start();
    let mut client = Client::websocket(sidetrack.address());
    client.echo("before");
    let start = Instant::now();
    let stopped = sidetrack.terminate();
    assert_eq!(stopped.code, Some(3));
    assert!(
        start.elapsed() >= Duration::from_millis(500) && start.elapsed() < 2 * SOON,
        "{:?}",
        start.elapsed()
    );
    assert_eq!(client.read_to_end().unwrap_or_default(), b"", "the connection is closed");
    assert!(stopped.log.contains("workers are still there"), "{}", stopped.log);
}

#[test]
fn a_worker_that_ignores_everything_is_killed() {
    let sidetrack =
        sidetrack(fake(&["reads-nothing"])).workers(2).with(&["--drain-timeout", "300ms"]).start();
    let deaf = sidetrack.slot("w0").unwrap();
    crate::support::signal(deaf, Signal::SIGSTOP);
    let start = Instant::now();
    let stopped = sidetrack.terminate();
    assert_eq!(stopped.code, Some(3));
    assert!(!alive(deaf));
    assert!(start.elapsed() < 2 * SOON, "{:?}", start.elapsed());
}

#[test]
fn a_second_signal_cuts_at_once() {
    let sidetrack = sidetrack(worker("listen.js")).workers(2).with(&["--drain-timeout", "60s"]).start();
    let mut client = Client::websocket(sidetrack.address());
    client.echo("before");
    sidetrack.signal(Signal::SIGTERM);
    sidetrack.logged("draining");
    let start = Instant::now();
    let stopped = sidetrack.terminate();
    assert_eq!(stopped.code, Some(3));
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn new_connections_are_refused_while_it_stops() {
    let sidetrack = sidetrack(worker("listen.js")).workers(2).start();
    let address = sidetrack.address();
    let mut client = Client::websocket(address);
    sidetrack.signal(Signal::SIGTERM);
    eventually("nobody listens", || Client::try_connect(address).is_err().then_some(()));
    client.echo("still here");
    drop(client);
    assert_eq!(sidetrack.ended().code, Some(0));
}

#[test]
fn connections_under_way_reach_a_worker_before_the_end() {
    let sidetrack = sidetrack(worker("listen.js")).workers(1).start();
    let worker = sidetrack.workers()[0];
    crate::support::signal(worker, Signal::SIGSTOP);
    let mut clients: Vec<_> = (0..10).map(|_| Client::with(sidetrack.address(), GET)).collect();
    // Only when they are accepted are they anybody's.
    eventually("they are accepted", || (sidetrack.descriptors().len() >= 10 + 5).then_some(()));
    sidetrack.signal(Signal::SIGTERM);
    sidetrack.logged("draining");
    crate::support::signal(worker, Signal::SIGCONT);
    for client in &mut clients {
        assert_eq!(client.response().pid(), worker);
    }
    drop(clients);
    assert_eq!(sidetrack.ended().code, Some(0));
}

#[test]
fn who_came_before_the_signal_is_served() {
    let sidetrack = sidetrack(fake(&[])).workers(2).start();
    // All of them are in the kernel's backlog when the signal comes.
    sidetrack.signal(Signal::SIGSTOP);
    let mut clients: Vec<_> = (0..50).map(|_| Client::with(sidetrack.address(), GET)).collect();
    sidetrack.signal(Signal::SIGTERM);
    sidetrack.signal(Signal::SIGCONT);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    drop(clients);
    assert_eq!(sidetrack.ended().code, Some(0));
}

#[test]
fn live_connections_outlive_sidetrack() {
    let mut sidetrack = sidetrack(worker("listen.js")).workers(2).start();
    let address = sidetrack.address();
    let mut websocket = Client::websocket(address);
    let mut plain = Client::connect(address);
    plain.exchange(GET);
    sidetrack.signal(Signal::SIGKILL);
    sidetrack.exit();
    assert!(Client::try_connect(address).is_err(), "nobody listens");
    for _ in 0..3 {
        websocket.echo("still here");
        assert_eq!(plain.exchange(GET).status, 200);
    }
    assert!(!sidetrack.processes().is_empty());
    drop((websocket, plain));
    eventually("the workers leave when their last connection has ended", || {
        sidetrack.processes().is_empty().then_some(())
    });
}

#[test]
fn idle_workers_do_not_outlive_sidetrack() {
    for file in ["listen.js", "sticky2.js", "message.js"] {
        let mut sidetrack = sidetrack(worker(file)).workers(2).start();
        sidetrack.signal(Signal::SIGKILL);
        sidetrack.exit();
        eventually("the workers leave", || sidetrack.processes().is_empty().then_some(()));
    }
}
