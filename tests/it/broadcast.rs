//! What one worker says to all clients, through `@socket.io/cluster-adapter`.

use crate::support::{client, sidetrack, worker};

#[track_caller]
fn reaches_everybody(file: &str) {
    let sidetrack = sidetrack(worker(file)).start();
    let result = client("broadcast.js", sidetrack.address(), &["--n", "20", "--workers", "3"]);
    assert_eq!(result["receipts"], 20, "{result}");
    assert_eq!(result["fetched"], 20, "{result}");
    assert_eq!(result["replies"], 2, "serverSideEmit asks the two others: {result}");
    let stopped = sidetrack.stop();
    assert!(stopped.count("relayed") > 0);
    assert_eq!(stopped.count("relay_dropped"), 0);
}

#[test]
fn of_servers_that_listen() {
    reaches_everybody("broadcast.js");
}

#[test]
fn of_workers_for_sticky_2() {
    reaches_everybody("sticky2-broadcast.js");
}
