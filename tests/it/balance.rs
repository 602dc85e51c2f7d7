//! Who gets a new connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::support::{
    Client, Place, client, eventually, fake, get, pid, policy_file, poll_session, sidetrack, worker,
};

/// How many each of these workers has.
fn tally(pids: impl IntoIterator<Item = u32>) -> BTreeMap<u32, usize> {
    let mut counts = BTreeMap::new();
    for pid in pids {
        *counts.entry(pid).or_default() += 1;
    }
    counts
}

/// How many of `number` new connections, one after another, go to whom.
fn spread(address: SocketAddr, number: usize) -> BTreeMap<u32, usize> {
    tally((0..number).map(|_| pid(address)))
}

#[track_caller]
fn evenly(counts: &BTreeMap<u32, usize>, workers: usize, each: usize) {
    assert_eq!(counts.len(), workers, "{counts:?}");
    assert!(counts.values().all(|&count| count == each), "{counts:?}");
}

#[test]
fn round_robin_spreads_exactly() {
    let sidetrack = sidetrack(fake(&[])).workers(4).policy("round-robin").start();
    evenly(&spread(sidetrack.address(), 4 * 25), 4, 25);
    let stopped = sidetrack.stop();
    assert_eq!((stopped.count("handed_off"), stopped.count("acknowledged")), (100, 100));
}

#[test]
fn round_robin_spreads_exactly_over_node_under_load() {
    let sidetrack = sidetrack(worker("listen.js")).policy("round-robin").start();
    let result = client("mass.js", sidetrack.address(), &["--n", "300"]);
    let pids = result["pids"].as_object().expect("a histogram");
    assert_eq!(pids.len(), 3, "{result}");
    assert!(pids.values().all(|count| count == 100), "{result}");
    sidetrack.stop();
}

#[test]
fn a_policy_file_works_like_the_built_in() {
    let file = policy_file("round-robin");
    let sidetrack = sidetrack(fake(&[])).policy(file.to_str().expect("a path")).start();
    evenly(&spread(sidetrack.address(), 3 * 10), 3, 10);
    sidetrack.stop();
}

#[test]
fn random_spreads_within_statistics() {
    let sidetrack = sidetrack(worker("listen.js")).policy("random").start();
    let result = client("mass.js", sidetrack.address(), &["--n", "600"]);
    let pids = result["pids"].as_object().expect("a histogram");
    let counts: Vec<f64> = pids.values().map(|count| count.as_f64().expect("a count")).collect();
    assert_eq!(counts.len(), 3, "{result}");
    // Two degrees of freedom: by chance above 27.6 once in a million runs.
    let chi_squared: f64 = counts.iter().map(|count| (count - 200.0).powi(2) / 200.0).sum();
    assert!(chi_squared < 27.6, "{chi_squared}: {result}");
    // Not in turn either: that would be exact.
    assert!(chi_squared > 0.0, "{result}");
    sidetrack.stop();
}

#[test]
fn least_connection_evens_out_uneven_load() {
    let sidetrack = sidetrack(fake(&[])).policy("least-connection").start();
    let address = sidetrack.address();
    let hold = |target: &str| {
        let mut client = Client::with(address, format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let pid = client.response().pid();
        (client, pid)
    };
    // A session's connections go to its owner, however much it has to do.
    let busy = get(address, "/open/s").pid();
    let burden: Vec<_> = (0..6).map(|_| hold("/hold?sid=s")).collect();
    assert!(burden.iter().all(|(_, pid)| *pid == busy));

    let others: Vec<_> = (0..12).map(|_| hold("/hold")).collect();
    let counts = tally(others.iter().map(|(_, pid)| *pid));
    assert!(!counts.contains_key(&busy), "the busy worker {busy} gets nothing: {counts:?}");
    evenly(&counts, 2, 6);

    drop((burden, others));
    sidetrack.stop();
}

#[test]
fn least_connection_counts_nodes_sessions() {
    let place = Place::new();
    let sidetrack = place.run(worker("listen.js")).policy("least-connection").start();
    let address = sidetrack.address();
    let sessions: Vec<_> = (0..30).map(|_| poll_session(address)).collect();
    // About ten each: sockets that have closed are told of together, a few milliseconds later.
    let counts = tally(sessions.iter().map(|(_, owner)| *owner));
    let (busy, most) = counts.into_iter().max_by_key(|(_, count)| *count).expect("three owners");
    // Everybody else's end.
    for (sid, _) in sessions.iter().filter(|(_, owner)| *owner != busy) {
        let request = format!(
            "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
             Content-Type: text/plain;charset=UTF-8\r\nContent-Length: 1\r\n\r\n1"
        );
        assert_eq!(Client::connect(address).exchange(request).status, 200);
    }
    eventually("only the busy one has anything left", || {
        let status = place.told("/v1/status");
        (status["sessions"] == most && status["figures"]["sockets_closed"] == 60 - most).then_some(())
    });
    let owners: Vec<_> = (0..8).map(|_| poll_session(address).1).collect();
    assert!(!owners.contains(&busy), "{busy} has {most} sessions: {owners:?}");
    assert!(owners.iter().any(|owner| *owner != owners[0]), "both others get some: {owners:?}");
    sidetrack.stop();
}
