//! What a running sidetrack tells of itself agrees with what its clients have counted.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::policy::under_load;
use crate::support::{
    Client, Place, Run, Sidetrack, admin, alive, eventually, finished, get, kill, poll_session, program,
    session_at, worker,
};

fn start(place: &Place) -> Sidetrack {
    place.run(worker("listen.js")).with(&["--label", "w1:zone=eu", "--weight", "w1=2"]).start()
}

/// A program that ends at its start in a slot that a file `broken.SLOT` names.
fn breakable(place: &Place, file: &str) -> Run {
    let program = worker(file).join(" ");
    let script = format!("test ! -e {}.$SIDETRACK_SLOT || exit 7; exec {program}", place.text("broken"));
    place.run(vec!["sh".into(), "-c".into(), script])
}

pub fn ctl(socket: &Path, words: &[&str]) -> (Option<i32>, String) {
    let mut command = program(&["ctl"]);
    command.args(words).arg("--admin").arg(socket);
    finished(command)
}

pub fn json(socket: &Path, words: &[&str]) -> Value {
    let (code, said) = ctl(socket, &[words, &["--json"]].concat());
    assert_eq!(code, Some(0), "{said}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// `GET /metrics`, as Prometheus asks.
pub fn metrics(socket: &Path) -> String {
    let answer = admin(socket, "/metrics");
    assert!(answer.contains("content-type: application/openmetrics-text"), "{answer}");
    answer
}

/// The value of one figure, labels included in its name.
pub fn figure(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {metrics}"))
}

#[test]
fn figures_agree_with_what_clients_counted() {
    let place = Place::new();
    let socket = place.socket();
    let running = start(&place);
    for _ in 0..40 {
        assert_eq!(get(running.address(), "/pid").status, 200);
    }
    let (sid, pid) = poll_session(running.address());
    let status = eventually("all is told", || {
        let status = json(&socket, &["status"]);
        (status["figures"]["sockets_closed"].as_u64()? == 41).then_some(status)
    });
    let figures = &status["figures"];
    for name in ["accepted", "handed_off", "acknowledged"] {
        assert_eq!(figures[name], 41, "{name}: {status}");
    }
    assert_eq!(
        (&figures["refused"], &figures["sessions_opened"], &status["sessions"]),
        (&0.into(), &1.into(), &1.into())
    );
    let workers = json(&socket, &["workers"]);
    let sum = |key: &str| -> u64 {
        workers.as_array().expect("a list").iter().filter_map(|w| w[key].as_u64()).sum()
    };
    assert_eq!((sum("handed_off"), sum("sessions"), sum("unacknowledged")), (41, 1, 0), "{workers}");
    let second = &workers[1];
    assert_eq!(
        (&second["worker"], &second["weight"], &second["labels"]["zone"]),
        (&"w1".into(), &2.into(), &"eu".into())
    );
    assert!(
        workers.as_array().expect("a list").iter().all(|worker| worker["standing"] == "ready"),
        "{workers}"
    );

    let found = json(&socket, &["session", &sid]);
    assert_eq!(found["pid"], pid);
    let (code, said) = ctl(&socket, &["session", "no/such one"]);
    assert_eq!(
        (code, said.trim()),
        (Some(2), "sidetrack: ctl: nobody is known to have session `no/such one`")
    );

    let text = metrics(&socket);
    assert_eq!(figure(&text, "sidetrack_accepted_total"), 41.0);
    assert_eq!(figure(&text, "sidetrack_acknowledged_total"), 41.0);
    assert_eq!(figure(&text, "sidetrack_sessions"), 1.0);
    assert_eq!(figure(&text, "sidetrack_worker_ready{worker=\"w2\"}"), 1.0);
    let handed_off: f64 = (0..3)
        .map(|slot| figure(&text, &format!("sidetrack_worker_handed_off_total{{worker=\"w{slot}\"}}")))
        .sum();
    assert_eq!(handed_off, 41.0);
    assert_eq!(figure(&text, "sidetrack_policy_generation{link=\"least-connection\"}"), 1.0);
    assert_eq!(
        figure(&text, "sidetrack_policy_calls_total{link=\"least-connection\",generation=\"1\"}"),
        41.0
    );
    assert_eq!(
        figure(
            &text,
            "sidetrack_policy_faults_total{link=\"least-connection\",generation=\"1\",kind=\"trap\"}"
        ),
        0.0
    );
    assert!(
        figure(&text, "sidetrack_descriptors") > 5.0 && figure(&text, "sidetrack_cpu_seconds_total") > 0.0
    );
    assert!(text.contains("# HELP sidetrack_handed_back Connections that workers handed back"), "{text}");
    assert!(text.trim_end().ends_with("# EOF"), "{text}");

    let (code, said) = ctl(&socket, &["status"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("41 accepted, 41 handed off, 0 handed back, 0 refused"), "{said}");
    running.stop();
}

/// The row of a slot, if somebody has it.
fn row(socket: &Path, slot: &str) -> Option<Value> {
    let workers = json(socket, &["workers"]);
    workers.as_array().expect("a list").iter().find(|worker| worker["worker"] == slot).cloned()
}

#[test]
fn a_drained_worker_keeps_its_sessions_and_leaves_when_it_has_none() {
    let place = Place::new();
    let socket = place.socket();
    let running = start(&place);
    let address = running.address();
    let (sid, owner) = poll_session(address);
    let slot = ["w0", "w1", "w2"].into_iter().find(|slot| running.slot(slot) == Some(owner)).expect("a slot");

    let (code, said) = ctl(&socket, &["drain", slot]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("draining"), "{said}");
    assert!((0..20).all(|_| get(address, "/pid").pid() != owner), "nothing new for it");
    assert_eq!(session_at(address, &format!("sid={sid}")), (200, Some(owner)), "its session stays");

    // It takes part again, as if nothing had been.
    assert_eq!(ctl(&socket, &["undrain", slot]).0, Some(0));
    eventually("it gets new ones", || (get(address, "/pid").pid() == owner).then_some(()));
    assert_eq!(session_at(address, &format!("sid={sid}")), (200, Some(owner)));

    // Its session would keep it; its time is up before.
    assert_eq!(ctl(&socket, &["drain", slot, "--within", "50ms"]).0, Some(0));
    running.logged("\"vacant\":true");
    eventually("it is gone", || row(&socket, slot).is_none().then_some(()));
    assert!(!alive(owner));
    assert_eq!(get(address, "/pid").status, 200);
    assert_eq!(json(&socket, &["status"])["figures"]["workers_lost"], 0, "it was asked to go");

    assert_eq!(ctl(&socket, &["undrain", slot]).0, Some(0));
    let again =
        eventually("another one is there", || row(&socket, slot).filter(|row| row["standing"] == "ready"));
    assert_ne!(again["pid"], owner);

    // One with nothing to do leaves at once.
    let idle = ["w0", "w1", "w2"].into_iter().find(|other| *other != slot).expect("another");
    assert_eq!(ctl(&socket, &["drain", idle]).0, Some(0));
    eventually("it is gone", || row(&socket, idle).is_none().then_some(()));

    let (code, said) = ctl(&socket, &["drain", "w9"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("there is no worker `w9`, but w0, "), "{said}");
    let stopped = running.stop();
    assert_eq!(stopped.count("refused"), 0);
}

#[test]
fn a_rolling_restart_loses_nothing_and_leaves_open_sessions_alone() {
    let place = Place::new();
    let socket = place.socket();
    let running = start(&place);
    let address = running.address();
    let before = running.workers();
    // One on each of them.
    let mut kept: Vec<Client> = (0..6).map(|_| Client::websocket(address)).collect();
    let (sid, owner) = poll_session(address);
    let served = under_load(address, |_| {
        let (code, said) = ctl(&socket, &["restart", "--rolling"]);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(said.matches("has followed").count(), 3, "{said}");
        // All that is new goes to the new ones, all that was there stays.
        let workers = json(&socket, &["workers"]);
        let workers = workers.as_array().expect("a list");
        let new: Vec<u64> = workers
            .iter()
            .filter(|worker| worker["draining"] == false)
            .filter_map(|worker| worker["pid"].as_u64())
            .collect();
        assert_eq!(new.len(), 3, "{workers:?}");
        for _ in 0..20 {
            assert!(new.contains(&u64::from(get(address, "/pid").pid())));
        }
        kept.iter_mut().for_each(|client| client.echo("still here"));
        assert_eq!(
            session_at(address, &format!("sid={sid}")),
            (200, Some(owner)),
            "a session stays with its worker"
        );
    });
    assert!(served > 100, "{served}");
    drop(kept);
    // The polling client stops asking; its worker's time is up with the next restart, which takes the one
    // that has followed meanwhile.
    let slot = ["w0", "w1", "w2"][before.iter().position(|pid| *pid == owner).expect("one of them")];
    assert_eq!(ctl(&socket, &["restart", slot, "--within", "100ms"]).0, Some(0));
    eventually("those before have left", || before.iter().all(|pid| !alive(*pid)).then_some(()));
    let workers = eventually("three are left", || {
        Some(json(&socket, &["workers"]))
            .filter(|workers| workers.as_array().is_some_and(|list| list.len() == 3))
    });
    assert!(
        workers.as_array().expect("a list").iter().all(|worker| worker["draining"] == false),
        "{workers}"
    );
    let stopped = running.stop();
    assert_eq!((stopped.count("refused"), stopped.count("workers_lost")), (0, 0));
}

#[test]
fn a_rolling_restart_is_seen_through_by_sidetrack_and_stops_at_a_worker_that_does_not_start() {
    let place = Place::new();
    let socket = place.socket();
    let running = breakable(&place, "slow-start.js").env("START_MS", "600").start();
    let restart = || json(&socket, &["status"])["restart"].clone();
    let begun = |number: u32| {
        let ctl =
            place.asking(&["ctl", "restart", "--rolling"]).stderr(Stdio::piped()).spawn().expect("it starts");
        eventually("it has begun", || (restart()["number"] == number).then_some(()));
        ctl
    };
    let over = |number: u32| {
        let over = |restart: &Value| restart["number"] == number && restart["running"] == false;
        let restart = eventually("it is over", || Some(restart()).filter(over));
        assert_eq!(restart["failed"], Value::Null, "{restart}");
        let followed = restart["followed"].as_array().expect("a list").clone();
        followed
            .iter()
            .map(|one| one["pid"].as_u64().expect("a pid").try_into().expect("a pid"))
            .collect::<Vec<u32>>()
    };
    assert_eq!(restart(), Value::Null);

    let before = running.workers();
    let mut nobody = begun(0);
    nobody.kill().and_then(|()| nobody.wait()).expect("a child of ours");
    let followed = over(0);
    assert_eq!(followed.len(), 3);
    assert!(before.iter().all(|pid| !followed.contains(pid)), "{before:?} {followed:?}");
    running.all_ready_without(&before);

    // Another one takes its place, and what is left of it.
    let mut first = begun(1);
    let (code, said) = place.ask(&["ctl", "restart", "w2"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("w2: process ") && said.matches("has followed").count() > 1, "{said}");
    assert_eq!(first.wait().expect("a child of ours").code(), Some(2));
    let mut reason = String::new();
    first.stderr.take().expect("it is piped").read_to_string(&mut reason).expect("text");
    assert!(reason.contains("another restart has taken the place of this one"), "{reason}");
    over(2);
    running.all_ready_without(&followed);

    let before = running.workers();
    place.write("broken.w0", "");
    let (code, said) = place.ask(&["ctl", "restart", "--rolling"]);
    let expected = "w0: the new worker did not become ready (exit status: 7); the slot stays as it was, and so do w1, w2";
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains(expected), "{said}");
    let (_, status) = place.ask(&["ctl", "status"]);
    assert!(status.contains(&format!("restart    {expected}\n")), "{status}");
    assert_eq!(running.workers(), before);
    let (code, said) = place.ask(&["ctl", "restart", "w7"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("there is no worker `w7`, but w0, w1, w2"), "{said}");
    let stopped = running.stop();
    assert_eq!((stopped.count("refused"), stopped.count("workers_lost")), (0, 0));
}

#[test]
fn a_slot_that_is_given_up_is_shown_and_comes_back_with_a_restart() {
    let place = Place::new();
    let socket = place.socket();
    let running = breakable(&place, "listen.js").with(&["--restarts", "1"]).start();
    let before = running.workers();
    let vacancies = || json(&socket, &["status"])["vacancies"].clone();
    assert_eq!(vacancies(), serde_json::json!([]));
    place.write("broken.w1", "");
    kill(before[1]);
    running.logged("slot w1 is given up");
    eventually("it is shown", || (vacancies()[0]["worker"] == "w1").then_some(()));
    assert_eq!(vacancies(), serde_json::json!([{ "worker": "w1", "reason": "given-up" }]));
    let (_, status) = place.ask(&["ctl", "status"]);
    assert!(status.contains("w1         nobody; given up"), "{status}");
    assert!(status.contains("`sidetrack ctl restart w1`"), "{status}");

    // Another try, which fails: that is said, and it goes no further.
    let (code, said) = place.ask(&["ctl", "restart", "--rolling"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("w0: process ")
            && said.contains(
                "w1: the new worker did not become ready (its workers keep ending, and it is given up)"
            ),
        "{said}"
    );
    assert_eq!(running.slot("w2"), Some(before[2]), "it went no further");
    eventually("it is given up again", || {
        (running.log().matches("slot w1 is given up").count() == 2).then_some(())
    });
    let tries = running.log().matches("\"worker started\",\"worker\":\"w1\"").count();
    assert!(tries <= 6, "{tries}");

    fs::remove_file(place.path("broken.w1")).expect("it is there");
    let (code, said) = place.ask(&["ctl", "restart", "w1"]);
    assert_eq!((code, said.matches("w1: process ").count()), (Some(0), 1), "{said}");
    assert!(running.slot("w1").is_some_and(|pid| pid != before[1]));

    // Drained ones are shown as well, and are not followed.
    assert_eq!(ctl(&socket, &["drain", "w2"]).0, Some(0));
    eventually("it has left", || (vacancies()[0]["reason"] == "drained").then_some(()));
    let (code, said) = place.ask(&["ctl", "restart", "w2"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("`w2` is drained; `sidetrack ctl undrain w2` takes it back"), "{said}");
    let (code, said) = place.ask(&["ctl", "undrain", "w0"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("`w0` is not draining"), "{said}");
    running.stop();
}

#[test]
fn a_drained_slot_stays_empty_although_its_worker_dies() {
    let place = Place::new();
    let socket = place.socket();
    let running = start(&place);
    let (sid, owner) = poll_session(running.address());
    let slot = ["w0", "w1", "w2"].into_iter().find(|slot| running.slot(slot) == Some(owner)).expect("a slot");
    assert_eq!(ctl(&socket, &["drain", slot]).0, Some(0));
    kill(owner);
    running.logged("\"vacant\":true");
    assert!(row(&socket, slot).is_none(), "nobody follows");
    // Its session begins anew elsewhere, as after any death.
    let (status, pid) = session_at(running.address(), &format!("sid={sid}"));
    assert!(status != 503 && pid != Some(owner), "{status}");
    running.stop();
}

#[test]
fn without_a_running_sidetrack_it_says_so() {
    let (code, said) = ctl(Path::new("/nobody/here.sock"), &["status"]);
    assert_eq!(code, Some(2));
    assert!(said.starts_with("sidetrack: ctl: nobody answers at /nobody/here.sock"), "{said}");
}
