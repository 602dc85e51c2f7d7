//! A policy watched while it decides: shadows, recordings and their replays, somebody who follows.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::guests::guest;
use crate::support::{
    Client, Place, Sidetrack, admin, eventually, finished, get, policy_file, poll_session, program,
    session_at, sidetrack, signal, try_get, worker,
};

impl Place {
    /// A run with this policy.
    fn deciding(&self, policy: &str, words: &[&str]) -> Sidetrack {
        self.run(worker("listen.js")).policy(policy).with(words).start()
    }

    /// The shadow, once it was asked about so many connections.
    fn shadow(&self, asked: u64) -> Value {
        eventually("the shadow was asked", || {
            let status = self.json(&["policy", "shadow", "status"]);
            (status["asked"].as_u64() >= Some(asked)).then_some(status)
        })
    }

    /// `sidetrack record` into a file, under way.
    fn record(&self, name: &str, words: &[&str]) -> Child {
        let file = self.text(name);
        let mut command = self.asking(&["record", "--out", &file]);
        let child = command.args(words).stderr(Stdio::piped()).spawn().expect("the program starts");
        eventually("the recording has begun", || {
            fs::read_to_string(&file).is_ok_and(|text| text.contains("\"roster\"")).then_some(())
        });
        child
    }

    /// `sidetrack replay` of a file, as JSON.
    fn replay(&self, name: &str, words: &[&str]) -> Value {
        let file = self.text(name);
        let mut command = program(&["replay", &file, "--json"]);
        command.args(words);
        let (code, said) = finished(command);
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// The numbers of one column.
fn column(list: &Value, name: &str) -> Vec<u64> {
    list.as_array().expect("a list").iter().map(|row| number(&row[name])).collect()
}

fn requests(address: SocketAddr, target: &str, count: u64) {
    for _ in 0..count {
        get(address, target);
    }
}

#[test]
fn a_shadow_is_compared_and_changes_nothing() {
    let place = Place::new();
    let running = place.deciding("round-robin", &["--shadow", "random"]);
    let address = running.address();
    requests(address, "/pid", 120);
    let status = place.shadow(120);
    let (agreed, differed) = (number(&status["agreed"]), number(&status["differed"]));
    assert_eq!((agreed + differed, number(&status["failed"])), (120, 0), "{status}");
    assert!((1..119).contains(&agreed), "random and round-robin agree now and then: {status}");
    assert_eq!(column(&status["spread"], "live"), [40, 40, 40], "its answers are not heeded: {status}");
    assert_eq!(column(&status["spread"], "shadow").iter().sum::<u64>(), 120, "{status}");
    for who in ["live", "shadow"] {
        let times = &status["latency_ns"][who];
        assert!(number(&times["p50"]) > 0 && number(&times["p99"]) >= number(&times["p50"]), "{status}");
    }
    let (_, said) = place.ask(&["policy", "status"]);
    assert!(said.contains("shadow: random, asked\n") && said.contains("  new to      w0"), "{said}");

    let metrics = admin(&place.socket(), "/metrics");
    assert!(
        metrics.contains(&format!("sidetrack_shadow_decisions_total{{outcome=\"agreed\"}} {agreed}\n")),
        "{metrics}"
    );

    // 120 is a whole number of rounds: another round-robin begins where the live one is.
    let (code, said) = place.ask(&["policy", "shadow", "set", "round-robin"]);
    assert_eq!((code, said.as_str()), (Some(0), "round-robin is asked beside the real policy from now on\n"));
    requests(address, "/pid", 60);
    let status = place.shadow(60);
    assert_eq!((number(&status["agreed"]), &status["agreement"]), (60, &Value::from(1.0)), "{status}");
    // A session is where it is, for the shadow too, and says nothing about balance.
    for _ in 0..3 {
        let (sid, _) = poll_session(address);
        assert_eq!(session_at(address, &format!("sid={sid}")).0, 200);
    }
    let status = place.shadow(66);
    assert_eq!((number(&status["agreed"]), number(&status["differed"])), (66, 0), "{status}");
    assert_eq!(column(&status["spread"], "shadow"), [21, 21, 21], "{status}");

    // Promoted, it is the policy; the shadow goes on as what it is.
    let (_, said) = place.ask(&["policy", "set", "random"]);
    assert!(said.contains("now runs random"), "{said}");
    let (code, said) = place.ask(&["policy", "shadow", "off"]);
    assert_eq!((code, said.as_str()), (Some(0), "no shadow any more\n"));
    let (_, said) = place.ask(&["policy", "shadow", "status"]);
    assert_eq!(said, "no shadow\n");
    let (code, said) = place.ask(&["policy", "shadow", "off"]);
    assert!(code == Some(2) && said.contains("there is no shadow"), "{said}");
    let (code, said) = place.ask(&["policy", "shadow", "set", "randum"]);
    assert!(code == Some(2) && said.contains("no policy `randum`"), "{said}");
    running.stop();
}

#[test]
fn a_shadow_that_does_not_load_is_a_wrong_configuration() {
    let ended = sidetrack(worker("listen.js")).with(&["--shadow", "/nowhere.wasm"]).finish();
    assert_eq!(ended.code, Some(2));
    assert!(ended.complaint().contains("shadow /nowhere.wasm: cannot read the file"), "{}", ended.log);
}

#[test]
fn a_shadow_that_loops_harms_nobody_and_is_switched_off_until_its_file_changes() {
    let place = Place::new();
    fs::copy(guest("policy_hostile"), place.path("shadow.wasm")).expect("it can be copied");
    let running = place.deciding("round-robin", &["--shadow", &place.text("shadow.wasm")]);
    let address = running.address();
    requests(address, "/pid", 3);
    assert_eq!(number(&place.shadow(3)["failed"]), 0);
    requests(address, "/loop", 60);
    running.logged("shadow policy switched off");
    let status = place.json(&["policy", "shadow", "status"]);
    assert_eq!((&status["in_service"], &status["counts"]["faults"]["fuel"]), (&false.into(), &5.into()));
    let (_, said) = place.ask(&["policy", "status"]);
    assert!(said.contains("shadow.wasm, SWITCHED OFF after repeated faults"), "{said}");
    let live = place.json(&["policy", "status"])["links"][0]["counts"].clone();
    assert_eq!((number(&live["calls"]), &live["faults"]["fuel"]), (63, &0.into()), "{live}");
    let pids: Vec<u32> = (0..3).map(|_| get(address, "/pid").pid()).collect();
    assert_eq!(pids, running.workers(), "round-robin goes on exactly");
    assert_eq!(number(&place.json(&["policy", "shadow", "status"])["asked"]), 3 + 5, "it is not asked");

    place.replace("shadow.wasm", fs::read(policy_file("round-robin")).expect("it is built"));
    running.logged("shadow policy is asked again");
    requests(address, "/pid", 3);
    let status = place.shadow(3);
    assert_eq!((number(&status["agreed"]), &status["in_service"]), (3, &true.into()), "{status}");
    let stopped = running.stop();
    assert_eq!(stopped.log.matches("switched off").count(), 1, "{}", stopped.log);
    assert!(!stopped.log.contains("policy fault"), "{}", stopped.log);
}

#[test]
fn what_a_shadow_complains_about_is_not_in_the_log() {
    let place = Place::new();
    let script = "export function balance(workers, request) { if (request.path === '/loop') for (;;); return workers[0]; }";
    place.write("shadow.js", script);
    let running = place.deciding("round-robin", &["--shadow", &place.text("shadow.js")]);
    requests(running.address(), "/pid", 3);
    let status = place.shadow(3);
    assert_eq!((number(&status["agreed"]), number(&status["differed"])), (1, 2), "{status}");
    requests(running.address(), "/loop", 10);
    running.logged("shadow policy switched off");
    let stopped = running.stop();
    assert!(!stopped.log.contains("it takes too long"), "{}", stopped.log);
}

#[test]
fn a_recording_is_replayed_alike_and_shows_what_another_policy_would_change() {
    let place = Place::new();
    let running = place.deciding("round-robin", &[]);
    let address = running.address();
    // Not at the beginning of a round: the recording has to know.
    requests(address, "/pid", 1);
    let recording = place.record("log", &["--max", "64"]);
    requests(address, "/pid?token=geheim", 40);
    for _ in 0..8 {
        let (sid, _) = poll_session(address);
        let (status, _) = session_at(address, &format!("sid={sid}"));
        assert_eq!(status, 200);
    }
    // A turn that goes by without a connection.
    place.json(&["policy", "explain"]);
    requests(address, "/pid", 8);
    let output = recording.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("enough: 64 decisions in "), "{said}");
    let text = fs::read_to_string(place.path("log")).expect("it is there");
    assert!(!text.contains("geheim") && !text.contains("127.0.0.1\""), "{text}");
    assert!(text.ends_with("\"end\":{\"decisions\":64,\"lost\":0}}\n"), "{text}");
    running.stop();

    let same = place.replay("log", &["--policy", "round-robin"]);
    assert_eq!((number(&same["new"]["all"]), number(&same["known"]["all"])), (56, 8), "{same}");
    assert_eq!((&same["new"]["changed"], &same["known"]["changed"]), (&0.into(), &0.into()), "{same}");
    assert_eq!((&same["sessions"]["all"], &same["sessions"]["changed"]), (&8.into(), &0.into()), "{same}");
    assert_eq!(column(&same["spread"], "before"), column(&same["spread"], "after"), "{same}");

    let random = || place.replay("log", &["--policy", "random"]);
    let mut other = random();
    let changed = number(&other["new"]["changed"]);
    assert!((1..56).contains(&changed), "{other}");
    assert_eq!(column(&other["table"], "count").iter().sum::<u64>(), 56, "{other}");
    assert!(!other["changes"].as_array().expect("a list").is_empty(), "{other}");
    let mut again = random();
    for outcome in [&mut other, &mut again] {
        outcome["latency_ns"] = Value::Null;
    }
    assert_eq!(other, again, "the outcome is the same each time");
    let seeded = place.replay("log", &["--policy", "random", "--seed", "7"]);
    assert_ne!(seeded["table"], other["table"]);
    let against = place.replay("log", &["--policy", "random", "--against", "random"]);
    assert_eq!(against["new"]["changed"], 0, "{against}");

    let file = place.text("log");
    let (code, picture) = finished(program(&["replay", &file, "--policy", "random"]));
    assert_eq!(code, Some(0), "{picture}");
    for expected in [
        "recorded  round-robin",
        "replayed  random",
        "most/mean",
        "from \\ to",
        "█",
        "note: the recording has",
    ] {
        assert!(picture.contains(expected), "{expected} is missing in\n{picture}");
    }
    // A recorder that is killed leaves a line unfinished; anything else is broken.
    place.write("cut", &text[..text.len() - 30]);
    assert_eq!(place.replay("cut", &["--policy", "round-robin"])["cut"], true);
    place.write("broken", text.replacen("\"u\":", "\"U\":", 1));
    let (code, said) = finished(program(&["replay", &place.text("broken"), "--policy", "random"]));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("broken, line 3: expected an object with the key u"), "{said}");
}

#[test]
fn loads_of_a_replay_follow_its_decisions() {
    let place = Place::new();
    let running = place.deciding("least-connection", &[]);
    let address = running.address();
    let mut recording = place.record("log", &["--full"]);
    let open: Vec<Client> = (0..12).map(|_| Client::websocket(address)).collect();
    requests(address, "/pid", 6);
    drop(open);
    let lines = || fs::read_to_string(place.path("log")).expect("it is there");
    eventually("the sessions' ends are recorded", || {
        (lines().matches("\"close\":").count() == 12).then_some(())
    });
    signal(recording.id(), Signal::SIGINT);
    assert!(recording.wait().expect("it ends").success());
    running.stop();

    let same = place.replay("log", &["--policy", "least-connection"]);
    assert_eq!((&same["new"]["all"], &same["new"]["changed"]), (&18.into(), &0.into()), "{same}");
    // All to one: its load would have grown with every connection, and the others' would not.
    let piled =
        place.replay("log", &["--policy", "hash{\"key\": \"header:Host\"}", "--against", "least-connection"]);
    // The sockets' four each, and what then looked least: that is told of as connections close.
    let before = column(&piled["spread"], "before");
    assert!(before.iter().all(|count| *count >= 4) && before.iter().sum::<u64>() == 18, "{piled}");
    let mut after = column(&piled["spread"], "after");
    after.sort_unstable();
    assert_eq!(after, [0, 0, 18], "{piled}");

    // The same sessions in a simulation, on the workers that there were.
    let words = ["policy", "simulate", "random", "round-robin", "--json", "--log", &place.text("log")];
    let (code, said) = finished(program(&words));
    assert_eq!(code, Some(0), "{said}");
    let simulated: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    for policy in simulated["policies"].as_array().expect("two") {
        let opened: u64 = policy["opened"].as_object().expect("workers").values().map(number).sum();
        assert_eq!((opened, number(&simulated["workers"])), (12, 3), "{simulated}");
    }
    assert_eq!(simulated["policies"][1]["opened"]["w1"], 4, "{simulated}");
}

#[test]
fn whoever_follows_reads_why() {
    let place = Place::new();
    let hostile = guest("policy_hostile");
    let running = place.deciding(hostile.to_str().expect("plain text"), &[]);
    let address = running.address();
    let follow = |words: &[&str]| {
        let mut command = place.asking(&["policy", "explain", "--follow"]);
        command.args(words).stdout(Stdio::piped()).spawn().expect("the program starts")
    };
    // A request now and then until the follower, which may have come late, has seen enough.
    let until_it_ends = |mut follower: Child, target: &str| {
        eventually("it has seen enough", || {
            get(address, target);
            follower.try_wait().expect("a child of ours")
        });
        let output = follower.wait_with_output().expect("it has ended");
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = until_it_ends(follow(&["--worker", "w0", "--limit", "1"]), "/explain?a=b");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines[..2],
        [
            "GET /explain?a=b from 127.0.0.1 → w0, says policy_hostile (generation 1)",
            "  policy_hostile (generation 1) → w0: because"
        ],
        "{said}"
    );
    assert!(lines[2].starts_with("  loads: w0 "), "{said}");

    let said = until_it_ends(follow(&["--limit", "2", "--json"]), "/refuse");
    for line in said.lines() {
        let decision: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!((&decision["x"]["refuse"], &decision["k"]), (&429.into(), &"policy_hostile".into()));
        assert_eq!(decision["workers"], serde_json::json!(["w0", "w1", "w2"]));
    }
    assert_eq!(said.lines().count(), 2);

    let (sid, pid) = poll_session(address);
    let owner = running.workers().iter().position(|worker| *worker == pid).expect("a worker of ours");
    let (_, said) = place.ask(&["policy", "explain", "--session", &sid]);
    assert!(
        said.contains(&format!("session table → w{owner}\n"))
            && said.ends_with(&format!("decision: w{owner}\n")),
        "{said}"
    );
    running.stop();
}

#[test]
fn a_follower_who_does_not_read_loses_and_harms_nothing() {
    let place = Place::new();
    let running = place.deciding("round-robin", &[]);
    let address = running.address();
    let mut stalled = UnixStream::connect(place.socket()).expect("the admin socket is there");
    stalled
        .write_all(b"GET /v1/decisions?form=full HTTP/1.1\r\nHost: test\r\n\r\n")
        .expect("it takes a request");
    // The first lines come; the rest is left where it is.
    let mut head = [0; 200];
    stalled.read_exact(&mut head).expect("an answer");
    assert!(head.starts_with(b"HTTP/1.1 200 OK"), "{:?}", String::from_utf8_lossy(&head));
    let target = format!("/pid?{}", "x".repeat(2000));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..600 {
                    let response = try_get(address, &target).expect("no client sees an error");
                    assert_eq!(response.status, 200, "{response:?}");
                }
            });
        }
    });
    stalled.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let (mut read, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
    while !read.windows(6).any(|window| window == b"\"gap\":") {
        let length = stalled.read(&mut buffer).expect("the rest is there");
        assert!(length > 0, "it ends without a gap");
        let from = read.len().saturating_sub(8);
        read.drain(..from);
        read.extend_from_slice(&buffer[..length]);
    }
    drop(stalled);
    let stopped = running.stop();
    assert_eq!((stopped.count("refused"), stopped.count("acknowledged")), (0, 4800));
}

#[test]
fn faults_of_a_replayed_policy_are_counted_and_the_rest_goes_on() {
    let place = Place::new();
    let first = r#"{"sidetrack":"decisions/1","began":"","program":"","session_key":"query:sid","form":"full","chain":[],"last":{"link":"random","policy":"native:random","generation":0}}"#;
    let roster = r#"{"t":0,"roster":[{"id":5,"name":"w0"},{"id":6,"name":"w1"}]}"#;
    let decision = |target: &str| format!(r#"{{"t":1,"u":"{target}","l":[0,0],"b":5,"w":5}}"#);
    let mut lines = vec![first.to_owned(), roster.to_owned()];
    lines
        .extend(["/loop", "/panic", "/", "/stranger"].iter().cycle().take(40).map(|target| decision(target)));
    place.write("log", lines.join("\n"));
    let hostile = guest("policy_hostile");
    let outcome = place.replay("log", &["--policy", hostile.to_str().expect("plain text")]);
    assert_eq!((&outcome["faults"], &outcome["bad_answers"]), (&20.into(), &10.into()), "{outcome}");
    assert_eq!((&outcome["new"]["all"], &outcome["calls"]), (&40.into(), &40.into()), "{outcome}");
}
