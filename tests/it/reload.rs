//! Another configuration, another number of workers, while connections flow.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::policy::under_load;
use crate::support::{
    Client, Place, Sidetrack, alive, check, eventually, fake, free_port, get, pid, poll_session, program,
    session_at, signal, try_get, worker,
};

/// A run whose configuration is a file of its own, with an admin socket.
struct Scene {
    place: Place,
}

impl Scene {
    fn new(text: &str) -> Self {
        let scene = Self { place: Place::new() };
        scene.write(text);
        scene
    }

    fn file(&self) -> PathBuf {
        self.place.path("sidetrack.toml")
    }

    /// Replaces the configuration.
    fn write(&self, text: &str) {
        self.place.replace("sidetrack.toml", text);
    }

    fn start(&self, command: Vec<String>, workers: usize) -> Sidetrack {
        self.place.run(command).configured(&self.file(), workers).start()
    }

    fn ctl(&self, words: &[&str]) -> (Option<i32>, String) {
        self.place.ask(&[&["ctl"], words].concat())
    }

    /// What is said when all is well.
    #[track_caller]
    fn said(&self, words: &[&str]) -> String {
        let (code, said) = self.ctl(words);
        assert_eq!(code, Some(0), "{words:?}: {said}");
        said
    }

    #[track_caller]
    fn json(&self, words: &[&str]) -> Value {
        self.place.json(&[&["ctl"], words].concat())
    }

    /// A reload that must be refused: what is said.
    #[track_caller]
    fn refused(&self) -> String {
        let (code, said) = self.ctl(&["reload"]);
        assert_eq!(code, Some(2), "{said}");
        said
    }

    /// Waits until exactly these slots have a worker, ready all of them.
    #[track_caller]
    fn slots(&self, slots: &[&str]) {
        eventually(&format!("the workers are {slots:?}"), || {
            let workers = self.json(&["workers"]);
            let workers = workers.as_array().expect("a list");
            let names: Vec<_> = workers.iter().filter_map(|worker| worker["worker"].as_str()).collect();
            let fit = |worker: &Value| worker["standing"] == "ready" && worker["draining"] == false;
            (names == slots && workers.iter().all(fit)).then_some(())
        });
    }
}

/// New connections, polling sessions and WebSockets one after another until told to stop: all of them are
/// served, and every session by one worker. Returns how many requests and messages there were.
fn sessions_under_load(address: SocketAddr, body: impl FnOnce()) -> u64 {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    let go_on = || !stop.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for _ in 0..2 {
            scope.spawn(|| {
                while go_on() {
                    assert_eq!(get(address, "/pid").status, 200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
            scope.spawn(|| {
                while go_on() {
                    let (sid, owner) = poll_session(address);
                    assert_eq!(session_at(address, &format!("sid={sid}")), (200, Some(owner)));
                    served.fetch_add(2, Ordering::Relaxed);
                }
            });
            scope.spawn(|| {
                while go_on() {
                    let mut client = Client::websocket(address);
                    (0..5).for_each(|_| client.echo("under load"));
                    served.fetch_add(6, Ordering::Relaxed);
                }
            });
        }
        body();
    });
    served.into_inner()
}

const MISTAKES: &str =
    "workers = \"four\"\nlistne = \":80\"\nhead-timeout = 5\nsession-key = \"sid\"\nlisten = \"host:\"\n";

#[test]
fn five_mistakes_are_told_at_once_and_leave_the_running_one_untouched() {
    let scene = Scene::new("workers = 2\nlisten = \"127.0.0.1:0\"\n");
    let running = scene.start(worker("listen.js"), 2);
    let (before, address) = (running.workers(), running.address());
    scene.write(MISTAKES);
    let file = scene.file().display().to_string();
    let (code, at_start) = check(&["-c", &file, "--", "true"]);
    assert_eq!((code, at_start.lines().count()), (Some(2), 6), "{at_start}");
    let told = at_start.trim_start_matches("sidetrack: ");
    assert!(told.starts_with("5 problems:\n"), "{told}");

    under_load(address, |served| {
        let said = scene.refused();
        assert_eq!(said, format!("sidetrack: ctl: {told}"), "as at the start");
        let (code, said) = scene.ctl(&["reload", "--json"]);
        assert_eq!(code, Some(2));
        let (said, _) = said.rsplit_once("sidetrack: ctl: 5 problems:").expect("for people, too");
        assert_eq!(
            serde_json::from_str::<Value>(said).expect("JSON")["problems"].as_array().map(Vec::len),
            Some(5)
        );
        for (text, expected) in [
            ("listen = [", "sidetrack.toml"),
            (
                "policy = \"/nowhere.wasm\"\nshadow = \"/nowhere/else.js\"\nlisten = \"192.0.2.1:1\"\n",
                "3 problems:",
            ),
        ] {
            scene.write(text);
            assert!(scene.refused().contains(expected));
        }
        scene.write(MISTAKES);
        let complaints = || {
            let log = running.log();
            let lines = log.lines().filter(|line| line.contains("configuration not loaded"));
            lines.filter(|line| line.contains("5 problems")).count()
        };
        let before = complaints();
        signal(running.pid, Signal::SIGHUP);
        eventually("the log tells all of it", || (complaints() > before).then_some(()));
        fs::remove_file(scene.file()).expect("it is there");
        let said = scene.refused();
        assert!(said.contains("sidetrack.toml: cannot read it: No such file"), "{said}");
        eventually("requests go on", || (served.load(Ordering::Relaxed) > 100).then_some(()));
    });
    assert_eq!((running.workers(), running.address()), (before, address));
    let stopped = running.stop();
    assert_eq!((stopped.count("refused"), stopped.count("workers_lost")), (0, 0));
}

#[test]
fn listeners_come_and_go_while_connections_flow() {
    let (first, second) = (free_port(), free_port());
    let text = |listen: &str| format!("workers = 2\nlisten = [{listen}]\n");
    let scene = Scene::new(&text(&format!("\"127.0.0.1:{first}\"")));
    let running = scene.start(worker("listen.js"), 2);
    let address = running.address();
    let other = SocketAddr::from(([127, 0, 0, 1], second));
    let served = under_load(address, |served| {
        for _ in 0..3 {
            assert!(try_get(other, "/pid").is_err(), "nobody listens there");
            scene.write(&text(&format!("\"127.0.0.1:{first}\", \"127.0.0.1:{second}\"")));
            let said = scene.said(&["reload"]);
            assert!(said.contains("listen") && said.contains("hot"), "{said}");
            assert_eq!(get(other, "/pid").status, 200);
            eventually("it is told", || (running.all_addresses() == [address, other]).then_some(()));
            let mut kept = Client::websocket(other);
            let before = served.load(Ordering::Relaxed);
            eventually("requests go on", || (served.load(Ordering::Relaxed) > before + 50).then_some(()));

            scene.write(&text(&format!("\"127.0.0.1:{first}\"")));
            scene.said(&["reload"]);
            eventually("nobody listens there any more", || try_get(other, "/pid").err());
            eventually("it is told", || (running.all_addresses() == [address]).then_some(()));
            kept.echo("what was accepted goes on");
        }
    });
    assert!(served > 150, "{served}");
    let stopped = running.stop();
    assert_eq!(stopped.count("refused"), 0);
}

#[test]
fn workers_come_and_go_under_load_and_sessions_stay_until_the_deadline() {
    let scene = Scene::new("workers = 2\nlisten = \"127.0.0.1:0\"\n");
    let running = scene.start(worker("listen.js"), 2);
    let address = running.address();
    let mut kept: Vec<Client> = Vec::new();
    let mut polling = Vec::new();
    let served = sessions_under_load(address, || {
        let said = scene.said(&["scale", "5"]);
        assert_eq!(said, "workers: 2 -> 5\n");
        scene.slots(&["w0", "w1", "w2", "w3", "w4"]);
        // On each of them.
        kept.extend((0..10).map(|_| Client::websocket(address)));
        polling.extend((0..10).map(|_| poll_session(address)));

        // Others in the same file do not undo what was done by hand.
        scene.write("workers = 2\nlisten = \"127.0.0.1:0\"\nhold = \"400ms\"\n");
        let said = scene.said(&["reload"]);
        assert!(said.contains("hold") && !said.contains("workers"), "{said}");
        assert_eq!(scene.json(&["workers"]).as_array().map(Vec::len), Some(5));

        // The file changes the number: what runs is what it is compared with.
        scene.write("workers = 1\nlisten = \"127.0.0.1:0\"\nhold = \"400ms\"\nretire-timeout = \"1h\"\n");
        let said = scene.said(&["reload"]);
        let line = said.lines().find(|line| line.starts_with("workers")).expect("it is among them");
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["workers", "5", "->", "1", "hot"]);
        let workers = scene.json(&["workers"]);
        let draining = workers.as_array().expect("a list").iter().filter(|worker| worker["draining"] == true);
        assert!(draining.count() >= 2, "they have sessions: {workers}");
        let only = running.slot("w0").expect("it stays");
        assert!((0..20).all(|_| pid(address) == only), "nothing new for the others");
        kept.iter_mut().for_each(|client| client.echo("still here"));
        for (sid, owner) in &polling {
            assert_eq!(
                session_at(address, &format!("sid={sid}")),
                (200, Some(*owner)),
                "a session has moved"
            );
        }

        // Whoever is about to leave takes part again.
        scene.said(&["scale", "3"]);
        scene.said(&["scale", "1", "--within", "1s"]);
        eventually("their time is up", || (scene.json(&["workers"]).as_array()?.len() == 1).then_some(()));
    });
    assert!(served > 200, "{served}");
    drop(kept);
    scene.slots(&["w0"]);
    let stopped = running.stop();
    assert_eq!((stopped.count("refused"), stopped.count("workers_lost")), (0, 0));
}

#[test]
fn a_number_of_workers_that_makes_no_sense_is_refused() {
    let scene = Scene::new("workers = 1\nlisten = \"127.0.0.1:0\"\n");
    let running = scene.start(fake(&[]), 1);
    for (count, expected) in [("0", "there is no join-socket"), ("5000", "from 0 to 1024, found 5000")] {
        let (code, said) = scene.ctl(&["scale", count]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.starts_with("sidetrack: ctl: workers: ") && said.contains(expected), "{said}");
    }
    scene.slots(&["w0"]);
    running.stop();

    // Where workers join, there may be none; and one that has joined keeps its name.
    let join = scene.place.text("join.sock");
    scene.write(&format!(
        "workers = 1\nlisten = \"127.0.0.1:0\"\njoin-socket = {join:?}\nretire-timeout = \"0s\"\n"
    ));
    let running = scene.start(fake(&[]), 1);
    scene.said(&["scale", "0"]);
    scene.slots(&[]);
    let mut guest = program(&["join", "--socket", &join, "--"]).args(fake(&[])).spawn().expect("it starts");
    scene.slots(&["w0"]);
    let (code, said) = scene.ctl(&["scale", "1"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("a worker that has joined is known as w0"), "{said}");
    assert_eq!(pid(running.address()), guest.id());
    guest.kill().and_then(|()| guest.wait()).expect("a child of ours");
    scene.slots(&[]);
    scene.said(&["scale", "2"]);
    scene.slots(&["w0", "w1"]);
    scene.said(&["scale", "1"]);
    scene.slots(&["w0"]);
    running.stop();
}

#[test]
fn a_policy_keeps_its_state_where_it_fits() {
    let text = |policy: &str| format!("workers = 3\nlisten = \"127.0.0.1:0\"\npolicy = {policy}\n");
    let scene = Scene::new(&text("\"round-robin\""));
    let running = scene.start(fake(&[]), 3);
    let address = running.address();
    let turn: Vec<u32> = (0..3).map(|_| pid(address)).collect();
    assert_eq!(pid(address), turn[0]);

    // Another link in front: round-robin goes on where it was.
    scene.write(&text("[\"sticky-cookie\", \"round-robin\"]"));
    let said = scene.said(&["reload"]);
    assert!(said.contains("[\"sticky-cookie\",\"round-robin\"]"), "{said}");
    assert_eq!(pid(address), turn[1]);
    let links = |scene: &Scene| -> Vec<(String, u64)> {
        let status = scene.place.told("/v1/policy");
        let link = |link: &Value| {
            (link["name"].as_str().expect("text").to_owned(), link["generation"].as_u64().expect("a number"))
        };
        status["links"].as_array().expect("a list").iter().map(link).collect()
    };
    let both = [("sticky-cookie".to_owned(), 2), ("round-robin".to_owned(), 1)];
    assert_eq!(links(&scene), both);

    // With other limits everything is made anew, and still goes on.
    scene.write(&(text("[\"sticky-cookie\", \"round-robin\"]") + "policy-fuel = 9000000\n"));
    scene.said(&["reload"]);
    assert_eq!(pid(address), turn[2]);

    // One that cannot be loaded changes nothing, whatever else there is.
    scene.write(&text("[\"sticky-cookie\", \"./nowhere.wasm\"]").replace("workers = 3", "workers = 2"));
    let said = scene.refused();
    assert!(said.contains("policy ./nowhere.wasm: cannot read the file"), "{said}");
    assert_eq!(pid(address), turn[0]);
    scene.slots(&["w0", "w1", "w2"]);

    // Other options are another version of the same link.
    scene.write(&text("{ use = \"hash\", config = { key = \"path\" } }"));
    scene.said(&["reload"]);
    assert!((0..6).all(|_| pid(address) == pid(address)), "a path has one worker");
    let hash = links(&scene);
    let more = "shadow = \"random\"\n";
    scene.write(&(text("{ use = \"hash\", config = { key = \"query:room\" } }") + more));
    scene.said(&["reload"]);
    assert_eq!(links(&scene)[0].1, hash[0].1 + 1);
    let shadow = || scene.place.told("/v1/policy/shadow");
    assert_eq!(shadow()["policy"], "random");
    scene.write(&text("{ use = \"hash\", config = { key = \"query:room\" } }"));
    scene.said(&["reload"]);
    assert_eq!(shadow(), Value::Null);
    running.stop();
}

#[test]
fn a_taken_port_leaves_everything_as_it_is() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = (taken.local_addr().expect("an address"), taken);
    let scene = Scene::new("workers = 2\nlisten = \"127.0.0.1:0\"\npolicy = \"round-robin\"\n");
    let running = scene.start(fake(&[]), 2);
    let address = running.address();
    let changed = format!(
        "workers = 4\nlisten = [\"127.0.0.1:0\", \"{}\", \"127.0.0.1:{}\"]\npolicy = \"random\"\nhold = \"1s\"\nlog = \"debug\"\n",
        taken.0,
        free_port()
    );
    scene.write(&changed);
    let said = scene.refused();
    assert!(said.contains(&format!("listen: cannot listen on {}: the address is taken", taken.0)), "{said}");
    scene.slots(&["w0", "w1"]);
    assert_eq!(running.all_addresses(), [address]);
    assert_eq!(scene.said(&["log-level"]), "info\n");
    assert_eq!(scene.json(&["status"])["policy"], serde_json::json!(["round-robin"]));
    running.keeps_nothing();

    // As soon as it is free, all of it happens.
    drop(taken);
    let value = scene.json(&["reload"]);
    assert_eq!(value["changes"].as_array().map(Vec::len), Some(5), "{value}");
    scene.slots(&["w0", "w1", "w2", "w3"]);
    assert_eq!(running.all_addresses().len(), 3);
    assert_eq!(scene.said(&["log-level"]), "debug\n");
    assert_eq!(running.terminate().code, Some(0));
}

#[test]
fn what_takes_a_restart_is_named_and_a_dry_run_changes_nothing() {
    let scene = Scene::new("workers = 1\nlisten = \"127.0.0.1:0\"\n");
    let running = scene.start(fake(&[]), 1);
    scene.write(
        "workers = 3\nlisten = [\"127.0.0.1:0\", \"[::1]:0\"]\nsession-key = \"cookie:io\"\nhold = \"1s\"\n",
    );
    let dry = scene.json(&["reload", "--dry-run"]);
    assert_eq!(
        (&dry["dry_run"], &dry["needs_restart"]),
        (&true.into(), &serde_json::json!(["session-key"])),
        "{dry}"
    );
    let line = |key: &str| {
        dry["changes"]
            .as_array()
            .and_then(|list| list.iter().find(|line| line["key"] == key).cloned())
            .expect("it is there")
    };
    assert_eq!(line("hold"), serde_json::json!({"key": "hold", "old": "300ms", "new": "1s", "takes": "hot"}));
    assert_eq!(line("session-key")["takes"], "needs-restart");
    let said = scene.said(&["reload", "--dry-run"]);
    assert!(said.contains("nothing was changed: it was only tried"), "{said}");
    scene.slots(&["w0"]);
    assert_eq!(running.addresses().len(), 1);
    running.keeps_nothing();

    let said = scene.said(&["reload"]);
    assert!(
        said.contains("3 changed\nwarning: session-key: only when sidetrack itself is started anew"),
        "{said}"
    );
    scene.slots(&["w0", "w1", "w2"]);
    running.logged("setting not changed: it takes a restart");
    // It is still told, and the rest is done.
    let again = scene.json(&["reload"]);
    assert_eq!(again["changes"].as_array().map(Vec::len), Some(1), "{again}");
    assert_eq!(running.terminate().code, Some(0));
}

#[test]
fn another_command_is_rolled_out_and_one_that_does_not_start_is_given_up() {
    let node = worker("listen.js");
    let text = |command: &[&str], more: &str| {
        format!(
            "workers = 2\nlisten = \"127.0.0.1:0\"\nretire-timeout = \"20s\"\ncommand = {command:?}\n{more}"
        )
    };
    let plain = [node[0].as_str(), &node[1]];
    let scene = Scene::new(&text(&plain, ""));
    let running = scene.start(Vec::new(), 2);
    let (address, before) = (running.address(), running.workers());
    let mut kept = Client::websocket(address);
    let served = under_load(address, |_| {
        // It ends at once: those that serve stay, and so does the command.
        scene.write(&text(&["sh", "-c", "exit 3"], ""));
        let said = scene.said(&["reload"]);
        assert!(said.contains("rolling restart") && said.contains("new workers follow"), "{said}");
        running.logged("the new workers do not become ready");
        assert_eq!(running.workers(), before);
        let again = scene.json(&["reload", "--dry-run"]);
        assert_eq!(again["changes"][0]["key"], "command", "it is still another one: {again}");

        let other = ["env", "OTHER=1", node[0].as_str(), &node[1]];
        scene.write(&text(&other, "keepalive = \"close\"\n"));
        scene.said(&["reload"]);
        running.logged("new workers have followed in all slots");
        let now = eventually("both are new", || {
            let now = running.workers();
            (now.len() >= 2 && now.iter().all(|pid| !before.contains(pid))).then_some(now)
        });
        let environment = fs::read_to_string(format!("/proc/{}/environ", now[0])).expect("its environment");
        assert!(environment.contains("OTHER=1") && environment.contains("SIDETRACK_KEEPALIVE=close"));
        kept.echo("undisturbed");
    });
    assert!(served > 50, "{served}");
    drop(kept);
    eventually("those before have left", || before.iter().all(|pid| !alive(*pid)).then_some(()));
    let stopped = running.stop();
    assert_eq!((stopped.count("refused"), stopped.count("workers_lost")), (0, 0));
}

#[test]
fn each_pool_is_its_own_and_a_new_one_takes_a_restart() {
    let command = fake(&[]);
    let text = |workers: u32, more: &str| {
        format!(
            "listen = \"127.0.0.1:0\"\nworkers = 1\ncommand = {command:?}\nretire-timeout = \"1s\"\n\
             [[pool]]\nname = \"api\"\nmatch = \"/api\"\ncommand = {command:?}\nworkers = {workers}\n{more}"
        )
    };
    let scene = Scene::new(&text(2, ""));
    let running = scene.start(Vec::new(), 3);
    scene.slots(&["w0", "api.w0", "api.w1"]);
    let front = running.slot("w0");
    let served = under_load(running.address(), |_| {
        scene.write(&text(
            1,
            "policy = \"round-robin\"\n[[pool]]\nname = \"chat\"\nmatch = \"/chat\"\ncommand = \"true\"\n",
        ));
        let value = scene.json(&["reload"]);
        let keys: Vec<_> =
            value["changes"].as_array().expect("a list").iter().map(|line| line["key"].clone()).collect();
        assert_eq!(keys, ["pool.api.workers", "pool.api.policy", "pool.chat.name"]);
        assert_eq!(value["needs_restart"], serde_json::json!(["pool.chat.name"]));
        scene.slots(&["w0", "api.w0"]);
        assert_eq!(scene.json(&["status"])["policy"], serde_json::json!(["least-connection", "round-robin"]));
        scene.said(&["scale", "3", "--pool", "api"]);
        scene.slots(&["w0", "api.w0", "api.w1", "api.w2"]);
        scene.said(&["scale", "2", "--pool", "api"]);
        scene.slots(&["w0", "api.w0", "api.w1"]);
        scene.write(&text(1, "policy = \"round-robin\"\nenv = { COLOUR = \"blue\" }\n"));
        let value = scene.json(&["reload"]);
        assert_eq!(
            (&value["changes"][0]["key"], &value["rolling_restart"]),
            (&"pool.api.env".into(), &true.into()),
            "{value}"
        );
        running.logged("new workers have followed in all slots");
        scene.slots(&["w0", "api.w0", "api.w1"]);
    });
    assert!(served > 50, "{served}");
    assert_eq!(running.slot("w0"), front, "the other pool is none of its business");
    let stopped = running.stop();
    assert_eq!((stopped.count("refused"), stopped.count("workers_lost")), (0, 0));
}

#[test]
fn the_log_is_another_one_from_now_on() {
    let scene = Scene::new("workers = 1\nlisten = \"127.0.0.1:0\"\n");
    let running = scene.start(fake(&[]), 1);
    let handed_off = || running.log().matches("\"message\":\"handed off\"").count();
    pid(running.address());
    assert_eq!((scene.said(&["log-level"]).as_str(), handed_off()), ("info\n", 0));
    assert_eq!(scene.said(&["log-level", "sidetrack=debug"]), "sidetrack=debug\n");
    pid(running.address());
    running.logged("\"message\":\"handed off\"");
    let (code, said) = scene.ctl(&["log-level", "sidetrack=loud"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.starts_with("sidetrack: ctl: log: expected a level"), "{said}");
    // A reload of a file that says nothing about it leaves it alone.
    signal(running.pid, Signal::SIGHUP);
    running.logged("configuration loaded again");
    assert_eq!(scene.said(&["log-level"]), "sidetrack=debug\n");
    running.stop();
}
