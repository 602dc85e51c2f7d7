//! A real browser, whose tabs share connections.

use serde_json::Value;

use crate::support::{Stopped, client, sidetrack, worker};

/// Every tab connects, stays connected and is served, and nothing but 200 is ever answered.
fn tabs(file: &str, number: &str) -> (Value, Stopped) {
    let sidetrack = sidetrack(worker(file)).policy("random").alone().start();
    let result = client("browser.js", sidetrack.address(), &["--tabs", number, "--seconds", "8"]);
    assert!(result["mixed"].as_u64() > Some(0), "connections carry requests of several sessions: {result}");
    (result, sidetrack.stop())
}

#[test]
fn three_tabs() {
    tabs("listen.js", "3");
    tabs("sticky2.js", "3");
}

#[test]
fn more_tabs_than_connections() {
    for file in ["listen.js", "sticky1.js"] {
        let (result, stopped) = tabs(file, "8");
        // Of eight sessions, not all are given to one of three workers.
        assert!(result["pids"].as_object().is_some_and(|pids| pids.len() > 1), "{result}");
        assert!(stopped.count("handed_back") > 0, "so some connections came back: {result}");
    }
}
