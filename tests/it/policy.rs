//! Policies replaced while connections flow.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    Place, Sidetrack, eventually, get, pid, policy_file, poll_session, session_at, sidetrack, signal,
    try_get, worker,
};

/// A run whose policy is a file of its own, with an admin socket.
pub struct Scene {
    place: Place,
}

impl Scene {
    pub fn new() -> Self {
        let scene = Self { place: Place::new() };
        scene.put(&variant("round-robin", 0));
        scene
    }

    pub fn policy(&self) -> PathBuf {
        self.place.path("policy.wasm")
    }

    pub fn socket(&self) -> PathBuf {
        self.place.socket()
    }

    pub fn start(&self, words: &[&str]) -> Sidetrack {
        self.place.run(worker("listen.js")).policy(&text(&self.policy())).with(words).start()
    }

    /// Replaces the policy's file.
    pub fn put(&self, bytes: &[u8]) {
        self.place.replace("policy.wasm", bytes);
    }

    pub fn status(&self) -> Value {
        self.place.told("/v1/policy")
    }

    pub fn generation(&self) -> u64 {
        self.status()["links"][0]["generation"].as_u64().expect("a number")
    }

    /// `sidetrack policy …`: whether it went well, and what was printed.
    pub fn policy_command(&self, words: &[&str]) -> (Option<i32>, String) {
        self.place.ask(&[&["policy"], words].concat())
    }
}

pub fn text(path: &Path) -> String {
    path.to_str().expect("plain text").to_owned()
}

/// A built-in's file with other bytes and the same meaning: a custom section more.
pub fn variant(name: &str, number: u8) -> Vec<u8> {
    version(&policy_file(name), number)
}

/// Another version of a policy's file, which means the same.
pub fn version(file: &Path, number: u8) -> Vec<u8> {
    let mut bytes = fs::read(file).expect("it is there");
    bytes.extend([0, 6, 4, b't', b'e', b's', b't', number]);
    bytes
}

/// Eight clients that each open one connection after another, until told to stop: all get a worker's
/// answer. Returns how many there were.
pub fn under_load(address: SocketAddr, body: impl FnOnce(&AtomicU64)) -> u64 {
    /// Also when `body` panics: the threads would go on for ever.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for _ in 0..8 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let response = try_get(address, "/pid").expect("no client sees an error");
                    assert_eq!(response.status, 200, "{response:?}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        body(&served);
    });
    served.into_inner()
}

/// Swaps under load until so many requests are served.
fn swap_often(requests: u64, swaps: u64) {
    let scene = Scene::new();
    let running = scene.start(&[]);
    let address = running.address();
    let open = || -> Vec<_> { (0..6).map(|_| poll_session(address)).collect() };
    let mut sessions = open();
    let mut delays = Vec::new();
    let served = under_load(address, |served| {
        for swap in 1..=swaps {
            let due = requests * swap / swaps;
            eventually("requests are served", || (served.load(Ordering::Relaxed) >= due).then_some(()));
            let began = Instant::now();
            // All but the first two are known to the cache.
            scene.put(&variant("round-robin", u8::try_from(swap % 2 + 1).expect("it is small")));
            eventually("the new version is in service", || (scene.generation() > swap).then_some(()));
            delays.push(began.elapsed());
            for (sid, owner) in &sessions {
                let (status, pid) = session_at(address, &format!("sid={sid}"));
                assert_eq!((status, pid), (200, Some(*owner)), "a session has moved at swap {swap}");
            }
            // One that is never polled ends by itself after a while.
            if swap % 5 == 0 {
                sessions = open();
            }
        }
    });
    let status = scene.status();
    let counts = &status["links"][0]["counts"];
    assert_eq!(
        (counts["swaps"].as_u64(), counts["faults"]["trap"].as_u64()),
        (Some(swaps), Some(0)),
        "{status}"
    );
    delays.sort();
    // For whoever measures: with --nocapture.
    println!(
        "{served} requests, {swaps} swaps, new version after {:?} (median), {:?} (most)",
        delays[delays.len() / 2],
        delays[delays.len() - 1]
    );
    let stopped = running.stop();
    assert_eq!(stopped.count("refused"), 0);
}

#[test]
fn swaps_under_load_lose_nothing() {
    swap_often(4_000, 20);
}

/// `cargo test --release --test it -- --ignored a_quarter_of_a_million --nocapture`
#[test]
#[ignore = "takes minutes"]
fn a_quarter_of_a_million_requests_and_forty_swaps() {
    swap_often(250_000, 40);
}

#[test]
fn round_robin_goes_on_exactly_through_swaps() {
    let scene = Scene::new();
    let running = scene.start(&[]);
    let first: Vec<u32> = (0..3).map(|_| pid(running.address())).collect();
    for swap in 1..=20_u8 {
        scene.put(&variant("round-robin", swap));
        eventually("the new version is in service", || (scene.generation() > u64::from(swap)).then_some(()));
        assert_eq!(pid(running.address()), first[(usize::from(swap) - 1) % 3], "swap {swap}");
    }
    running.stop();
}

#[test]
fn the_commands_do_what_they_say() {
    let scene = Scene::new();
    let running = scene.start(&["--no-policy-watch"]);
    let (code, said) = scene.policy_command(&["status"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("policy: generation 1, in service\n"), "{said}");

    let (code, said) = scene.policy_command(&["set", "random"]);
    assert_eq!(
        (code, said.as_str()),
        (Some(0), "policy now runs random as generation 2; state dropped: this version does not take it\n")
    );
    let (code, said) = scene.policy_command(&["set", &text(&scene.policy()), "--json"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(serde_json::from_str::<Value>(&said).expect("JSON")["generation"], 3);
    let (_, said) = scene.policy_command(&["rollback"]);
    assert!(said.starts_with("policy now runs random as generation 4"), "{said}");
    let (_, said) = scene.policy_command(&["status"]);
    assert!(said.contains("before      generation 3") && said.contains("rolled back at"), "{said}");

    let (code, said) = scene.policy_command(&["explain", "--target", "/x?y=1"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("w0       load") && said.contains("policy (generation 4) → w"), "{said}");

    for (words, expected) in [
        (&["set", "roundrobin"][..], "no policy `roundrobin`: expected "),
        (&["set", "random", "--link", "nobody"], "there is no link `nobody`: the chain is policy"),
        (&["set", "random{1"], "options of `random`: expected JSON, found `{1`"),
        (&["set", "/nowhere.wasm"], "cannot read the file"),
        (&["explain", "--target", "not a target"], "not a request"),
    ] {
        let (code, said) = scene.policy_command(words);
        assert_eq!(code, Some(2), "{words:?}: {said}");
        assert!(said.starts_with("sidetrack: policy: ") && said.contains(expected), "{words:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert_eq!(scene.generation(), 4, "nothing of that has changed anything");
    running.stop();
    let (code, said) = scene.policy_command(&["status"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("nobody answers at"), "{said}");
}

#[test]
fn an_admin_socket_that_is_taken_stays_with_its_owner() {
    let scene = Scene::new();
    let running = scene.start(&[]);
    let socket = text(&scene.socket());
    let second = sidetrack(worker("listen.js")).with(&["--admin", &socket]).finish();
    assert_eq!(second.code, Some(2), "{}", second.log);
    assert!(second.log.contains(&format!("admin: {socket}: somebody listens there")), "{}", second.log);
    assert_eq!(scene.generation(), 1, "the first one still answers");
    running.stop();
    assert!(!scene.socket().exists(), "it takes its file along");
}

#[test]
fn a_hangup_loads_files_again() {
    let scene = Scene::new();
    let running = scene.start(&["--no-policy-watch"]);
    scene.put(&variant("least-connection", 1));
    signal(running.pid, Signal::SIGHUP);
    eventually("the file is loaded again", || (scene.generation() == 2).then_some(()));
    running.stop();
}

#[test]
fn a_broken_file_changes_nothing_and_says_why_once() {
    let scene = Scene::new();
    let running = scene.start(&[]);
    scene.put(b"not wasm");
    running.logged("policy not replaced; the version in service stays");
    assert_eq!(get(running.address(), "/pid").status, 200);
    scene.put(&variant("round-robin", 9));
    eventually("the mended file is loaded", || (scene.generation() == 2).then_some(()));
    let stopped = running.stop();
    let complaints = stopped.log.matches("policy not replaced").count();
    assert_eq!(complaints, 1, "{}", stopped.log);
    assert!(stopped.log.contains("not WebAssembly: expected a file that begins with"), "{}", stopped.log);
}

#[test]
fn weights_and_labels_reach_the_policy() {
    let scene = Scene::new();
    let running = scene.start(&["--weight", "w1=5", "--label", "w2:track=canary"]);
    let (_, said) = scene.policy_command(&["explain", "--json"]);
    let value: Value = serde_json::from_str(&said).expect("JSON");
    let weights: Vec<_> =
        value["workers"].as_array().expect("a list").iter().map(|w| w["weight"].clone()).collect();
    assert_eq!(weights, [1, 5, 1]);
    running.stop();
}
