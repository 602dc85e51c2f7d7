//! Hostile policies in the running program, under load and between busy neighbours: no client notices.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::guests::guest;
use crate::policy::{Scene, under_load, variant, version};
use crate::support::{eventually, get};

/// What a version does wrong at these paths, and what it counts as.
const FAULTS: [(&str, &str); 6] = [
    ("/loop", "fuel"),
    ("/ask", "fuel"),
    ("/recurse", "trap"),
    ("/grow", "memory"),
    ("/panic", "trap"),
    ("/huge", "oversized"),
];

/// Faults that cost a version its service; see `Limits`.
const FATAL: u64 = 5;

/// Processes that want all the CPU there is, ended with this value.
struct Neighbours(Vec<Child>);

impl Neighbours {
    fn busy(number: usize) -> Self {
        let spin = || {
            Command::new("sh")
                // It ends by itself should nobody end it.
                .args(["-c", "ulimit -t 300; while :; do :; done"])
                .stdin(Stdio::null())
                .spawn()
                .expect("a shell")
        };
        Self((0..number).map(|_| spin()).collect())
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn faults(status: &Value) -> u64 {
    let faults = status["links"][0]["counts"]["faults"].as_object().expect("counters");
    faults.values().filter_map(Value::as_u64).sum()
}

#[test]
fn each_one_is_quarantined_and_the_innocent_returns_while_clients_are_served() {
    let scene = Scene::new();
    // Without state, which the hostile one would refuse to take over.
    scene.put(&variant("least-connection", 0));
    let running = scene.start(&[]);
    let address = running.address();
    let innocent = scene.status()["links"][0]["digest"].clone();
    let neighbours = Neighbours::busy(8);
    let served = under_load(address, |served| {
        let mut expected = 0;
        for (number, (path, kind)) in (1..).zip(FAULTS) {
            let generation = scene.generation();
            scene.put(&version(&guest("policy_hostile"), number));
            eventually("the hostile version is in service", || {
                (scene.generation() > generation).then_some(())
            });
            for _ in 0..FATAL {
                assert_ne!(get(address, path).status, 503, "{path}: somebody answers all the same");
            }
            eventually("it is quarantined", || (scene.generation() > generation + 1).then_some(()));
            let status = scene.status();
            let link = &status["links"][0];
            assert_eq!(
                (&link["in_service"], &link["digest"]),
                (&Value::Bool(true), &innocent),
                "{path}: {status}"
            );
            assert_eq!(link["history"][0]["ended"], "quarantined", "{path}: {status}");
            // Nobody but the hostile version is blamed, however little CPU there is.
            expected += FATAL;
            assert_eq!(faults(&status), expected, "{path}: {status}");
            assert!(
                link["counts"]["faults"][kind].as_u64().is_some_and(|count| count >= FATAL),
                "{path}: {status}"
            );
            // Traffic goes on.
            let so_far = served.load(Ordering::Relaxed);
            eventually("clients are served", || (served.load(Ordering::Relaxed) > so_far + 50).then_some(()));
        }
    });
    drop(neighbours);
    assert!(served > 300, "{served}");
    let stopped = running.stop();
    assert_eq!(stopped.count("refused"), 0);
}

#[test]
fn those_that_lie_about_their_options_or_trap_on_the_old_state_never_get_in() {
    let scene = Scene::new();
    let running = scene.start(&["--no-policy-watch"]);
    let hostile = guest("policy_hostile");
    for (how, why) in [
        ("lying", "a trial call failed: balance trapped"),
        ("trusting", "taking over failed: restore trapped"),
    ] {
        let (code, said) =
            scene.policy_command(&["set", &format!("{}{{\"bent\": \"{how}\"}}", hostile.display())]);
        assert_ne!(code, Some(0), "{said}");
        assert!(said.contains(why), "{how}: {said}");
        assert_eq!(scene.generation(), 1);
    }
    // Answers that name nobody count, and cost nobody anything.
    let (code, said) = scene.policy_command(&["set", &hostile.display().to_string(), "--discard-state"]);
    assert_eq!(code, Some(0), "{said}");
    for _ in 0..20 {
        assert_ne!(get(running.address(), "/stranger").status, 503);
    }
    let status = scene.status();
    assert_eq!(status["links"][0]["counts"]["bad_answers"], 20, "{status}");
    assert_eq!(faults(&status), 0, "{status}");
    running.stop();
}

/// `cargo test --release --test it -- --ignored throughput_is_back --nocapture`
#[test]
#[ignore = "a measurement"]
fn throughput_is_back_within_a_second() {
    let scene = Scene::new();
    // Without state, which the hostile one would refuse to take over.
    scene.put(&variant("least-connection", 0));
    let running = scene.start(&[]);
    let address = running.address();
    under_load(address, |served| {
        let rate = |time: Duration| {
            let (before, begin) = (served.load(Ordering::Relaxed), Instant::now());
            std::thread::sleep(time);
            (served.load(Ordering::Relaxed) - before) as f64 / begin.elapsed().as_secs_f64()
        };
        for (number, (path, _)) in (1..).zip(FAULTS) {
            let normal = rate(Duration::from_secs(2));
            let generation = scene.generation();
            scene.put(&version(&guest("policy_hostile"), number));
            eventually("the hostile version is in service", || {
                (scene.generation() > generation).then_some(())
            });
            for _ in 0..FATAL {
                get(address, path);
            }
            let first = rate(Duration::from_secs(1));
            let then = rate(Duration::from_secs(1));
            println!(
                "{path:<9} {normal:.0}/s, then {first:.0}/s and {then:.0}/s: {:.2} and {:.2}",
                first / normal,
                then / normal
            );
        }
    });
    running.stop();
}
