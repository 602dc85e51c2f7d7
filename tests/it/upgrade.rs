//! Another program goes on in the same process, and nobody notices.

mod around;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::ctl::{ctl, json, metrics};
use crate::policy::{under_load, variant};
use crate::support::{
    Client, Place, alive, children, eventually, every_language, fake, get, kill, pid, poll_session,
    session_at, signal, try_get, worker,
};

const GET: &str = "GET /pid HTTP/1.1\r\nHost: test\r\n\r\n";

impl Place {
    /// `sidetrack upgrade`: its exit code, and what it says.
    fn try_upgrade(&self, words: &[&str]) -> (Option<i32>, String) {
        self.ask(&[&["upgrade"], words].concat())
    }

    #[track_caller]
    fn upgrade(&self) {
        let (code, said) = self.try_upgrade(&[]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("goes on where"), "{said}");
    }

    fn status(&self) -> Value {
        json(&self.socket(), &["status"])
    }

    /// A program that is this script.
    fn script(&self, name: &str, script: &str) -> String {
        let script = script.replace("SIDETRACK", env!("CARGO_BIN_EXE_sidetrack"));
        self.write(name, format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).expect("it is ours");
        self.text(name)
    }
}

/// Every figure of `/metrics` that only grows, by name and labels.
fn totals(socket: &Path) -> Vec<(String, f64)> {
    let text = metrics(socket);
    let figures = text.lines().filter_map(|line| line.rsplit_once(' '));
    let is_total = |name: &str| name.ends_with("_total") || name.ends_with("_count");
    let total = figures.filter(|(name, _)| name.split('{').next().is_some_and(is_total));
    total.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

/// Nothing that only grows has become less.
#[track_caller]
fn grown(before: &[(String, f64)], after: &[(String, f64)]) {
    for (name, was) in before {
        let now = after.iter().find(|(known, _)| known == name);
        assert!(now.is_some_and(|(_, now)| now >= was), "{name} was {was}, is {now:?}");
    }
}

/// A run whose workers pass through this many upgrades under load.
fn upgrades_under_load(command: Vec<String>, times: u64) {
    let place = Place::new();
    let running = place.run(command).policy("round-robin").alone().start();
    let (address, pids, started) = (running.address(), running.workers(), Instant::now());
    let mut sockets: Vec<_> = (0..6).map(|_| Client::websocket(address)).collect();
    let sessions: Vec<_> = (0..6).map(|_| poll_session(address)).collect();
    // One connection for the sessions of all workers: it moves with each request.
    let mut shared = Client::connect(address);
    let (mut asked, mut moved) = (0, 0);
    let served = under_load(address, |_| {
        let mut before = totals(&place.socket());
        for time in 1..=times {
            place.upgrade();
            let after = totals(&place.socket());
            grown(&before, &after);
            before = after;
            for client in &mut sockets {
                client.echo("still here");
            }
            for (sid, owner) in &sessions {
                let known = session_at(address, &format!("sid={sid}"));
                assert_eq!(known, (200, Some(*owner)), "a session has moved at upgrade {time}");
                asked += 1;
                let request = format!("GET /pid?sid={sid} HTTP/1.1\r\nHost: test\r\n\r\n");
                assert_eq!(shared.exchange(request).pid(), *owner);
                moved += 1;
            }
            assert_eq!(running.workers(), pids, "no worker is another");
            assert_eq!(place.status()["upgrades"], time);
        }
    });
    println!("{times} upgrades, {served} requests, {:?}", started.elapsed());
    assert!(served > 50 && moved > 0, "{served}");
    drop((sockets, shared));
    assert_eq!(children(running.pid).len(), pids.len(), "no child is left over");
    let figures = &place.status()["figures"];
    assert_eq!(figures["accepted"], served + asked + 6 + 6 + 1, "{figures}");
    assert_eq!(figures["upgrades"], times);
    for none in ["refused", "workers_lost", "sessions_forgotten", "channel_errors"] {
        assert_eq!(figures[none], 0, "{none}: {figures}");
    }
    let stopped = running.stop();
    assert_eq!(stopped.count("acknowledged"), stopped.count("handed_off"));
}

#[test]
fn ten_upgrades_under_load_lose_nothing() {
    upgrades_under_load(worker("listen.js"), 10);
}

#[test]
fn workers_in_any_language_notice_nothing() {
    upgrades_under_load(every_language(), 2);
}

#[test]
#[ignore = "takes minutes: fifty upgrades"]
fn fifty_upgrades_under_load_lose_nothing() {
    upgrades_under_load(worker("listen.js"), 50);
    upgrades_under_load(every_language(), 20);
}

#[test]
fn policies_go_on_exactly_where_they_were() {
    let place = Place::new();
    let file = place.text("policy.wasm");
    place.write("policy.wasm", variant("round-robin", 1));
    let words = ["--policy", &file, "--policy", "weighted", "--policy-trial", "1h"];
    let running = place.run(fake(&[])).with(&words).start();
    let address = running.address();
    let policy = |words: &[&str]| place.json(&[&["policy"], words].concat());
    let told = || {
        let mut told = policy(&["status"]);
        for link in told["links"].as_array_mut().unwrap() {
            // Time goes on.
            link["trial_left_ms"] = Value::Null;
        }
        told
    };
    let generation = || told()["links"][0]["generation"].as_u64().unwrap();

    let first = [pid(address), pid(address), pid(address)];
    for turn in 3..12 {
        if turn % 2 == 1 {
            place.upgrade();
        }
        assert_eq!(pid(address), first[turn % 3], "whose turn it is, at {turn}");
    }
    // The version before, whose file holds the one after it by now.
    place.write("policy.wasm", variant("round-robin", 2));
    // The chain counts its versions together, and the second link has had the second one.
    eventually("the new version is in service", || (generation() == 3).then_some(()));
    policy(&["rollback"]);
    let before = told();
    place.upgrade();
    assert_eq!(told(), before);
    assert_eq!(pid(address), first[0]);
    // A version that is in no file any more.
    let second = place.text("second.wasm");
    place.write("second.wasm", variant("round-robin", 3));
    policy(&["set", &second]);
    fs::remove_file(&second).unwrap();
    let before = told();
    assert_eq!((generation(), before["links"][0]["history"].as_array().unwrap().len()), (5, 3), "{before}");
    place.upgrade();
    assert_eq!(told(), before);
    assert_eq!(pid(address), first[1]);
    // The one before it can still return.
    assert_eq!((&policy(&["rollback"])["generation"], pid(address)), (&6.into(), first[2]));
    running.stop();
}

/// An upgrade that must not come about, under load; what is said of it.
#[track_caller]
fn refused(place: &Place, address: SocketAddr, words: &[&str], says: &str) {
    let served = under_load(address, |_| {
        let (code, said) = place.try_upgrade(words);
        assert_eq!(code, Some(1), "{words:?}: {said}");
        assert!(said.contains(says), "{words:?}: {said}");
        assert_eq!(get(address, "/pid").status, 200);
    });
    assert!(served > 0);
    assert_eq!(place.status()["upgrades"], 0);
}

#[test]
fn what_cannot_go_on_changes_nothing() {
    let place = Place::new();
    let file = place.text("sidetrack.toml");
    place.write("sidetrack.toml", "policy = \"round-robin\"\n");
    let running = place.run(fake(&[])).with(&["-c", &file]).start();
    let (address, pids) = (running.address(), running.workers());
    let try_it = |words: &[&str], says: &str| refused(&place, address, words, says);

    try_it(&["--binary", "/nobody/here"], "/nobody/here cannot be started: No such file");
    try_it(&["--binary", "/etc/passwd"], "/etc/passwd cannot be started: Permission denied");
    try_it(&["--binary", "/bin/true"], "is it a sidetrack?");
    let fails = place.script("fails", "echo it is Monday >&2; exit 1");
    try_it(&["--binary", &fails], "cannot go on (exit status: 1): it is Monday");
    let hangs = place.script("hangs", "exec sleep 1000");
    try_it(&["--binary", &hangs, "--within", "300ms"], "has not said within 300ms");
    // As a later version would find the state of this one, or this one that of a later one.
    let later = place.script("later", "sed 's/\"format\":1,/\"format\":77,/' | SIDETRACK \"$@\"");
    try_it(&["--binary", &later], "has written its state in format 77");
    // Fit, and gone when it is to be executed.
    let gone = place.script("gone", "SIDETRACK \"$@\" && rm \"$0\"");
    try_it(&["--binary", &gone], "gone cannot be executed: No such file");

    fs::write(&file, "policy = \"roundrobin\"\nqueue = \"many\"\n").unwrap();
    try_it(&[], "2 problems:");
    fs::write(&file, "policy = \"round-robin\"\njoin-socket = \"/tmp/another\"\n").unwrap();
    try_it(&[], "join-socket: it is \"\" in the run and \"/tmp/another\" in the settings");
    place.write("sidetrack.toml", "policy = \"round-robin\"\n");
    assert_eq!(children(running.pid).len(), 3, "nobody is left of the checks");
    assert_eq!(running.workers(), pids);
    place.upgrade();
    let (code, said) = place.try_upgrade(&["--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["upgraded"], &said["upgrades"]), (Some(0), &true.into(), &2.into()), "{said}");
    let stopped = running.stop();
    assert_eq!((stopped.count("refused"), stopped.count("workers_lost")), (0, 0));
}

#[test]
fn connections_in_any_stage_go_on() {
    let place = Place::new();
    // One at a time, so that others queue behind it.
    let words = ["--window", "4", "--queue", "100", "--queue-wait", "20s", "--hold", "20s"];
    let running = place.run(fake(&[])).workers(1).with(&words).start();
    let (address, only) = (running.address(), running.workers()[0]);
    let mut half = Client::with(address, "GET /pid HTTP/1.1\r\nHo");
    let mut held = Client::with(address, "GET /pid?sid=late HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut turned_away = Client::with(address, format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(20_000)));
    eventually("it is turned away", || (place.status()["figures"]["refused"] == 1).then_some(()));
    signal(only, Signal::SIGSTOP);
    let mut under_way: Vec<_> = (0..20).map(|_| Client::with(address, GET)).collect();
    let row = || json(&place.socket(), &["workers"])[0].clone();
    eventually("they queue", || (row()["queued"] == 16).then_some(()));
    let before = row();
    place.upgrade();
    for same in ["unacknowledged", "queued", "handed_off", "load", "id", "pid"] {
        assert_eq!(row()[same], before[same], "{same}");
    }
    // And once more, with what has been carried.
    place.upgrade();
    signal(only, Signal::SIGCONT);
    for client in &mut under_way {
        assert_eq!(client.response().pid(), only);
    }
    half.send("st: test\r\n\r\n");
    assert_eq!(half.response().pid(), only);
    assert_eq!(turned_away.response().status, 431);
    get(address, "/open/late");
    assert_eq!(held.response().pid(), only, "it was held until its session was announced");
    drop((half, held, turned_away, under_way));
    let stopped = running.stop();
    assert_eq!(stopped.count("refused"), 1);
    assert_eq!((stopped.count("rerouted"), stopped.count("workers_lost")), (0, 0));
}

#[test]
fn orders_about_workers_are_carried_out_all_the_same() {
    let place = Place::new();
    let socket = place.socket();
    let running = place.run(worker("slow-start.js")).env("START_MS", "1000").start();
    let address = running.address();
    let before = running.workers();
    let mut kept: Vec<_> = (0..3).map(|_| Client::websocket(address)).collect();
    let find = |slot: &str| -> Vec<Value> {
        let workers = json(&socket, &["workers"]);
        workers.as_array().unwrap().iter().filter(|worker| worker["worker"] == slot).cloned().collect()
    };
    let served = under_load(address, |_| {
        // Another program waits for the successor.
        let restarting =
            place.asking(&["ctl", "restart", "w0"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        eventually("the successor is there", || (find("w0").len() == 2).then_some(()));
        place.upgrade();
        place.upgrade();
        drop(restarting.unwrap().wait());
        eventually("it has followed", || {
            find("w0")
                .iter()
                .any(|worker| worker["standing"] == "ready" && worker["draining"] == false)
                .then_some(())
        });
        eventually("the one before gets nothing new", || {
            find("w0")
                .iter()
                .any(|worker| worker["pid"] == before[0] && worker["draining"] == true)
                .then_some(())
        });
        kept.iter_mut().for_each(|client| client.echo("still here"));
        place.upgrade();
        kept.iter_mut().for_each(|client| client.echo("and here"));
        assert!(alive(before[0]), "its WebSocket keeps it");

        // One that is drained leaves at its deadline, and its slot stays empty.
        assert_eq!(ctl(&socket, &["drain", "w1", "--within", "1s"]).0, Some(0));
        place.upgrade();
        eventually("it has left", || find("w1").is_empty().then_some(()));
        place.upgrade();
        assert!(find("w1").is_empty());
        assert_eq!(ctl(&socket, &["undrain", "w1"]).0, Some(0));
        eventually("another one is there", || {
            find("w1").iter().any(|worker| worker["standing"] == "ready").then_some(())
        });
    });
    assert!(served > 50, "{served}");
    drop(kept);
    eventually("the one before has left", || (!alive(before[0])).then_some(()));

    // One that dies in the middle of it is followed by one, and only one.
    let last = running.slot("w2").unwrap();
    kill(last);
    place.upgrade();
    eventually("another one is there", || running.slot("w2").filter(|pid| *pid != last));
    assert_eq!(children(running.pid).len(), 3);
    let stopped = running.terminate();
    assert_eq!(stopped.code, Some(0), "{}", stopped.log);
    assert_eq!((stopped.count("refused"), stopped.count("workers_lost")), (0, 1));
}

#[test]
fn a_rolling_restart_goes_on() {
    let place = Place::new();
    let socket = place.socket();
    let running = place.run(worker("slow-start.js")).env("START_MS", "500").start();
    let before = running.workers();
    let restart = || json(&socket, &["status"])["restart"].clone();
    let served = under_load(running.address(), |_| {
        let mut asking = place.asking(&["ctl", "restart", "--rolling"]);
        let mut asking = asking.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        eventually("its first turn is over", || restart()["followed"].as_array()?.first().map(|_| ()));
        place.upgrade();
        // It may have asked at the wrong moment.
        drop(asking.wait());
        let restart =
            eventually("it is over", || Some(restart()).filter(|restart| restart["running"] == false));
        assert_eq!(restart["failed"], Value::Null, "{restart}");
        let followed = restart["followed"].as_array().expect("a list");
        let slots: Vec<_> = followed.iter().map(|one| one["worker"].as_str().expect("a slot")).collect();
        assert_eq!(slots, ["w0", "w1", "w2"], "{restart}");
    });
    assert!(served > 20, "{served}");
    running.all_ready_without(&before);
    eventually("those before have left", || before.iter().all(|pid| !alive(*pid)).then_some(()));
    eventually("each slot is filled once", || (children(running.pid).len() == 3).then_some(()));
    let stopped = running.terminate();
    assert_eq!((stopped.count("refused"), stopped.count("workers_lost")), (0, 0));
}

#[test]
fn of_several_upgrades_at_once_each_is_whole() {
    let place = Place::new();
    let running = place.run(fake(&[])).start();
    let (address, pids) = (running.address(), running.workers());
    let served = under_load(address, |_| {
        let upgraded = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..3).map(|_| scope.spawn(|| place.try_upgrade(&[]))).collect();
            for _ in 0..5 {
                running.signal(Signal::SIGUSR2);
            }
            let outcomes: Vec<_> = tries.into_iter().map(|it| it.join().expect("it ends")).collect();
            for (code, said) in &outcomes {
                let whole = *code == Some(0) || said.contains("is under way already");
                assert!(whole, "{code:?}: {said}");
            }
            outcomes.iter().filter(|(code, _)| *code == Some(0)).count()
        });
        assert!(place.status()["upgrades"].as_u64() >= Some(upgraded.try_into().unwrap()) || upgraded == 0);
    });
    assert!(served > 0);
    eventually("it has been upgraded", || (place.status()["upgrades"].as_u64() > Some(0)).then_some(()));
    // A signal to end that comes in the middle of it is not lost.
    running.signal(Signal::SIGUSR2);
    let stopped = running.terminate();
    assert_eq!(stopped.code, Some(0), "{}", stopped.log);
    assert_eq!((stopped.count("refused"), stopped.count("workers_lost")), (0, 0));
    assert!(pids.iter().all(|pid| !alive(*pid)));
}

#[test]
fn a_new_file_in_the_old_ones_place_is_what_goes_on() {
    let place = Place::new();
    let program = place.path("sidetrack");
    fs::copy(env!("CARGO_BIN_EXE_sidetrack"), &program).unwrap();
    let join = place.text("join.sock");
    let running = place.run(fake(&[])).with(&["--join-socket", &join]).start();
    let address = running.address();
    let guest = guest(Path::new(&join), &fake(&[]));
    eventually("it has joined", || (running.workers().len() == 4).then_some(()));
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let runs = || inode(Path::new(&format!("/proc/{}/exe", running.pid)));
    let (code, said) = place.try_upgrade(&["--binary", &place.text("sidetrack")]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(runs(), inode(&program));
    // From now on that is its place. A package manager renames a new file there.
    fs::copy(env!("CARGO_BIN_EXE_sidetrack"), place.path("new")).unwrap();
    let new = inode(&place.path("new"));
    fs::rename(place.path("new"), &program).unwrap();
    place.upgrade();
    assert_eq!(runs(), new);
    let mut seen: Vec<_> = (0..40).map(|_| pid(address)).collect();
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() == 4 && seen.contains(&guest.0.id()), "those who joined serve on: {seen:?}");
    let second = self::guest(Path::new(&join), &fake(&[]));
    eventually("others may join", || running.workers().contains(&second.0.id()).then_some(()));
    drop((guest, second));
    eventually("they have left", || (running.workers().len() == 3).then_some(()));
    running.stop();
}

/// A process that ends with the value.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A worker that joins.
fn guest(socket: &Path, command: &[String]) -> Guest {
    let mut join = Command::new(env!("CARGO_BIN_EXE_sidetrack"));
    join.args(["join", "--socket"]).arg(socket).arg("--").args(command).stdin(Stdio::null());
    Guest(join.spawn().expect("it starts"))
}

/// Kills a supervised sidetrack this often: whatever its workers have goes on, and it is back in time.
#[test]
fn killed_and_started_again_it_is_back_in_two_seconds() {
    const SOON: Duration = Duration::from_secs(2);
    let _turn = crate::support::Turn::alone();
    let place = Place::new();
    let join = place.path("join.sock");
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let over = AtomicBool::new(false);
    let running = std::sync::Mutex::new(None::<u32>);
    std::thread::scope(|scope| {
        // As systemd would with `Restart=always` and `RestartSec=0`.
        let supervisor = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let mut command = place.asking(&["run", "--workers", "0", "--listen", &address.to_string()]);
                let command = command.arg("--join-socket").arg(&join);
                let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
                *running.lock().unwrap() = Some(child.id());
                drop(child.wait());
            }
        });
        struct Over<'a>(&'a AtomicBool, &'a std::sync::Mutex<Option<u32>>);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
                if let Some(pid) = self.1.lock().unwrap().take() {
                    signal(pid, Signal::SIGKILL);
                }
            }
        }
        let end = Over(&over, &running);
        let guests = [guest(&join, &worker("listen.js")), guest(&join, &worker("listen.js"))];
        let up = || try_get(address, "/pid").ok().filter(|response| response.status == 200);
        eventually("it serves", up);
        let known = || json(&place.socket(), &["workers"]).as_array().map_or(0, Vec::len);
        eventually("both have joined", || (known() == 2).then_some(()));
        let mut sockets: Vec<_> = (0..4).map(|_| Client::websocket(address)).collect();
        let sessions: Vec<_> = (0..4).map(|_| poll_session(address)).collect();
        for _ in 0..3 {
            let old = running.lock().unwrap().expect("it runs");
            let began = Instant::now();
            kill(old);
            sockets.iter_mut().for_each(|client| client.echo("without any sidetrack"));
            for (sid, owner) in &sessions {
                eventually("its session is known again", || {
                    let target = format!("/pid?sid={sid}");
                    let response = try_get(address, &target).ok()?;
                    (response.status == 200 && response.pid() == *owner).then_some(())
                });
            }
            let took = began.elapsed();
            println!("back after {took:?}");
            assert!(took < SOON, "{took:?}");
            for (sid, owner) in &sessions {
                assert_eq!(session_at(address, &format!("sid={sid}")), (200, Some(*owner)));
            }
            eventually("both have joined again", || (known() == 2).then_some(()));
        }
        sockets.iter_mut().for_each(|client| client.echo("with the fourth"));
        drop(end);
        drop(guests);
        supervisor.join().unwrap();
    });
}

#[test]
fn every_pool_goes_on() {
    let place = Place::new();
    let (file, command) = (place.text("sidetrack.toml"), format!("{:?}", worker("tells.js")));
    let text = format!(
        "command = {command}\n\
         [[pool]]\nname = \"api\"\ncommand = {command}\nworkers = 2\nmatch = \"/api\"\npolicy = \"round-robin\"\n\
         [[pool]]\nname = \"inside\"\ncommand = {command}\nworkers = 1\nlisten = \"127.0.0.1:0\"\n"
    );
    fs::write(&file, &text).unwrap();
    let running = place.run(Vec::new()).workers(2).with(&["-c", &file]).start_with(5);
    let slot = |address, target: &str| get(address, target).json()["slot"].as_str().unwrap().to_owned();
    // In the order in which workers have asked for them.
    let mut addresses = running.all_addresses();
    addresses.sort_by_key(|address| slot(*address, "/") == "inside.w0");
    let (common, inside) = (addresses[0], addresses[1]);
    let turns = [slot(common, "/api"), slot(common, "/api")];
    let pids = running.workers();
    let more =
        format!("{text}[[pool]]\nname = \"late\"\ncommand = {command}\nworkers = 1\nmatch = \"/late\"\n");
    fs::write(&file, more).unwrap();
    refused(&place, common, &[], "pool.late.workers: it is absent in the run and \"1\" in the settings");
    fs::write(&file, &text).unwrap();
    for turn in 0..6 {
        place.upgrade();
        assert_eq!(slot(common, "/api"), turns[turn % 2], "whose turn it is in one pool");
        assert!(["w0", "w1"].contains(&&*slot(common, "/")));
        assert_eq!(slot(inside, "/api"), "inside.w0", "an address of its own");
    }
    assert_eq!(running.workers(), pids);
    let stopped = running.stop();
    assert_eq!((stopped.count("refused"), stopped.count("workers_lost")), (0, 0));
}
