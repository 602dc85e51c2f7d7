//! A real browser, whose tabs share connections.

use crate::support::{client, sidetrack, worker};

/// Every tab connects, stays connected and is served, and nothing but 200 is ever answered.
fn tabs(file: &str, number: &str) {
    let sidetrack = sidetrack(worker(file)).policy("round-robin").alone().start();
    let result = client("browser.js", sidetrack.address(), &["--tabs", number, "--seconds", "8"]);
    assert!(result["mixed"].as_u64() > Some(0), "connections carry requests of several sessions: {result}");
    assert!(result["pids"].as_object().is_some_and(|pids| pids.len() > 1), "of several workers: {result}");
    let stopped = sidetrack.stop();
    assert!(stopped.count("handed_back") > 0, "so some came back: {result}");
}

#[test]
fn three_tabs() {
    tabs("listen.js", "3");
    tabs("sticky2.js", "3");
}

#[test]
fn more_tabs_than_connections() {
    tabs("listen.js", "8");
    tabs("sticky1.js", "8");
}
