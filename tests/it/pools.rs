//! Several pools in one run: each has its part of the requests, and nothing of the others.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::ctl::{ctl, figure, json, metrics};
use crate::join::Guest;
use crate::support::{
    Client, Place, Response, Sidetrack, alive, check, eventually, kill, poll_session, python_worker, root,
    rust_worker, session_at, sidetrack, worker,
};

/// A configuration in a folder of its own.
struct Scene {
    place: Place,
}

impl Scene {
    fn new(text: &str) -> Self {
        let place = Place::new();
        place.write("sidetrack.toml", text);
        Self { place }
    }

    fn admin(&self) -> PathBuf {
        self.place.socket()
    }

    /// Started, with this many workers ready.
    #[track_caller]
    fn start(&self, ready: usize) -> Sidetrack {
        let file = self.place.text("sidetrack.toml");
        self.place.run(Vec::new()).workers(2).with(&["-c", &file]).start_with(ready)
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A worker that tells who it is, as TOML.
fn tells() -> String {
    format!("{:?}", worker("tells.js"))
}

fn chat() -> String {
    format!("{:?}", worker("listen.js"))
}

fn on(host: &str, target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// On a connection of its own.
#[track_caller]
fn ask(address: SocketAddr, host: &str, target: &str) -> Response {
    Client::connect(address).exchange(on(host, target))
}

#[track_caller]
fn slot(response: &Response) -> String {
    response.json()["slot"].as_str().unwrap_or_else(|| panic!("{response:?}")).to_owned()
}

#[track_caller]
fn pids(running: &Sidetrack, slots: &[&str]) -> HashSet<u32> {
    slots.iter().map(|slot| running.slot(slot).unwrap_or_else(|| panic!("no {slot}"))).collect()
}

/// Socket.IO at its path, and a plain server for everything else.
fn by_path() -> Scene {
    Scene::new(&format!(
        "command = {}\n[[pool]]\nname = \"chat\"\ncommand = {}\nmatch = \"/socket.io\"\n",
        tells(),
        chat()
    ))
}

#[test]
fn each_path_has_its_pool_and_its_sessions() {
    let scene = by_path();
    let running = scene.start(4);
    let address = running.address();
    let of_chat = pids(&running, &["chat.w0", "chat.w1"]);
    for target in ["/", "/socket.iox", "/x/socket.io", "/Socket.io/"] {
        assert!(["w0", "w1"].contains(&slot(&ask(address, "a", target)).as_str()), "{target}");
    }
    for _ in 0..4 {
        let (sid, owner) = poll_session(address);
        assert!(of_chat.contains(&owner));
        assert_eq!(session_at(address, &format!("sid={sid}")), (200, Some(owner)));
        let found = json(&scene.admin(), &["session", &sid]);
        assert_eq!((&found["pool"], found["pid"].as_u64()), (&"chat".into(), Some(owner.into())));
        // In the other pool the same id is nobody's.
        let other = ask(address, "a", &format!("/?sid={sid}"));
        assert!(["w0", "w1"].contains(&slot(&other).as_str()));
    }
    Client::websocket(address).echo("hello");
    let stopped = running.stop();
    assert_eq!((stopped.count("refused"), stopped.count("handed_back")), (0, 0));
}

#[test]
fn a_kept_connection_goes_from_pool_to_pool() {
    let scene = by_path();
    let running = scene.start(4);
    let (sid, owner) = poll_session(running.address());
    let polled = format!(
        "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: a\r\n\
         Content-Type: text/plain;charset=UTF-8\r\nContent-Length: 1\r\n\r\n6"
    );
    let mut client = Client::connect(running.address());
    for _ in 0..20 {
        let plain = client.exchange(on("a", "/plain"));
        assert!(["w0", "w1"].contains(&slot(&plain).as_str()));
        let polled = client.exchange(&polled);
        assert_eq!((polled.status, polled.header("x-worker-pid")), (200, Some(&*owner.to_string())));
    }
    // Behind one another, without waiting for answers.
    client.send([on("a", "/1"), polled.clone(), on("a", "/2"), on("a", "/3"), polled].concat());
    assert_eq!(client.response().json()["url"], "/1");
    assert_eq!(client.response().header("x-worker-pid"), Some(&*owner.to_string()));
    assert_eq!(client.response().json()["url"], "/2");
    assert_eq!(client.response().json()["url"], "/3");
    assert_eq!(client.response().header("x-worker-pid"), Some(&*owner.to_string()));
    drop(client);
    // A WebSocket may begin where another pool has answered.
    let mut client = Client::connect(running.address());
    client.exchange(on("a", "/"));
    let upgrade = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    assert_eq!(client.exchange(upgrade).status, 101);
    assert!(client.frame().starts_with("0{"));
    drop(client);
    let stopped = running.stop();
    assert_eq!((stopped.count("accepted"), stopped.count("handed_back")), (3, 44));
    assert_eq!((stopped.count("refused"), stopped.count("held")), (0, 0));
}

#[test]
fn the_most_particular_host_counts_and_nobodys_is_not_found() {
    let scene = Scene::new(&format!(
        "command = []\nworkers = 1\n[[pool]]\nname = \"one\"\ncommand = {0}\nmatch = \"api.example.com\"\n\
         [[pool]]\nname = \"wild\"\ncommand = {0}\nmatch = \"*.example.com\"\n\
         [[pool]]\nname = \"path\"\ncommand = {0}\nmatch = [\"/v1\", \"other.org/v2\"]\n",
        tells()
    ));
    let running = scene.start(6);
    let address = running.address();
    let cases = [
        ("api.example.com", "/v1", Some("one")),
        ("API.example.com.:8080", "/", Some("one")),
        ("b.example.com", "/v1", Some("wild")),
        ("a.b.example.com", "/", Some("wild")),
        ("example.com", "/v1/x", Some("path")),
        ("other.org", "/v2", Some("path")),
        ("other.org", "/v3", None),
        ("example.com", "/", None),
    ];
    let mut client = Client::connect(address);
    for (host, target, pool) in cases {
        for response in [ask(address, host, target), client.exchange(on(host, target))] {
            match pool {
                Some(pool) => assert!(slot(&response).starts_with(&format!("{pool}.w")), "{host}{target}"),
                None => {
                    assert_eq!(
                        (response.status, response.text().trim()),
                        (404, "nobody serves this host and path")
                    );
                    client = Client::connect(address);
                }
            }
        }
    }
    drop(client);
    let admin = scene.admin();
    assert_eq!(figure(&metrics(&admin), "sidetrack_refusals_total{reason=\"no_pool\",status=\"404\"}"), 4.0);
    assert_eq!(running.stop().count("refused"), 4);
}

#[test]
fn a_policy_is_replaced_in_one_pool_alone() {
    let scene = Scene::new("");
    let policy = |name: &str, worker: usize| {
        let script = format!("export const balance = (workers) => workers[{worker}].id;\n");
        scene.place.write(name, script);
        scene.place.text(name)
    };
    let configuration = format!(
        "command = {0}\npolicy = {1:?}\n[[pool]]\nname = \"api\"\ncommand = {0}\nmatch = \"/api\"\npolicy = {2:?}\n",
        tells(),
        policy("default.js", 0),
        policy("api.js", 0)
    );
    scene.place.write("sidetrack.toml", configuration);
    let running = scene.start(4);
    let (address, admin) = (running.address(), scene.admin());
    let both = || (slot(&ask(address, "a", "/")), slot(&ask(address, "a", "/api")));
    let verb = |words: &[&str]| scene.place.ask(&[&["policy"], words].concat());
    let chain = |pool: &str| -> u64 {
        let chain = scene.place.json(&["policy", "status", "--pool", pool]);
        chain["links"][0]["generation"].as_u64().expect("a number")
    };
    let first = both();
    policy("api.js", 1);
    eventually("the new version answers", || (both().1 != first.1).then_some(()));
    assert_eq!(both().0, first.0);
    assert_eq!((chain("default"), chain("api")), (1, 2));

    // By hand, too: without a name it is the default pool's.
    assert_eq!(verb(&["set", "round-robin"]).0, Some(0));
    assert_eq!((chain("default"), chain("api")), (2, 2));
    assert_eq!(verb(&["rollback", "--pool", "api"]).0, Some(0));
    assert_eq!((chain("default"), chain("api")), (2, 3));
    assert_eq!(both().1, first.1);
    let (code, said) = verb(&["rollback", "--pool", "web"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("there is no pool `web`, but default, api"), "{said}");

    let (_, said) = verb(&["status"]);
    assert!(said.contains("pool default\n") && said.contains("pool api\n"), "{said}");
    let (_, said) = verb(&["explain", "--target", "/api/x"]);
    assert!(said.contains("pool api\n") && said.contains("decision: api.w0"), "{said}");
    let (_, said) = verb(&["explain", "--target", "/other"]);
    assert!(said.contains("pool default\n") && !said.contains("api.w"), "{said}");

    let text = metrics(&admin);
    assert_eq!(figure(&text, "sidetrack_policy_generation{pool=\"api\",link=\"api.js\"}"), 3.0);
    assert_eq!(figure(&text, "sidetrack_worker_ready{pool=\"api\",worker=\"api.w1\"}"), 1.0);
    assert_eq!(figure(&text, "sidetrack_sessions{pool=\"default\"}"), 0.0);
    let status = json(&admin, &["status"]);
    assert_eq!(
        (&status["pools"][1]["pool"], &status["pools"][1]["matches"][0]),
        (&"api".into(), &"/api".into())
    );
    let (_, said) = ctl(&admin, &["status"]);
    assert!(said.contains("api (/api): "), "{said}");
    running.terminate();
}

#[test]
fn what_happens_to_workers_happens_in_their_pool() {
    let scene = by_path();
    let running = scene.start(4);
    let (address, admin) = (running.address(), scene.admin());
    let others = pids(&running, &["w0", "w1"]);
    let (sid, owner) = poll_session(address);
    let (_, survivor) = [poll_session(address), poll_session(address)]
        .into_iter()
        .find(|(_, other)| *other != owner)
        .expect("sessions on both");
    kill(owner);
    let mut client = Client::connect(address);
    for _ in 0..10 {
        assert!(["w0", "w1"].contains(&slot(&client.exchange(on("a", "/"))).as_str()));
    }
    drop(client);
    let back = eventually("its slot is filled again", || {
        let now: Vec<u32> = ["chat.w0", "chat.w1"].iter().filter_map(|slot| running.slot(slot)).collect();
        (now.len() == 2 && !now.contains(&owner)).then_some(now)
    });
    assert!(back.contains(&survivor));
    assert_eq!(session_at(address, &format!("sid={sid}")).0, 400, "it went with its worker");

    let (code, said) = ctl(&admin, &["restart", "--rolling", "--pool", "chat", "--within", "1s"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("has followed").count(), 2, "{said}");
    eventually("the old ones leave", || back.iter().all(|pid| !alive(*pid)).then_some(()));
    assert_eq!(pids(&running, &["w0", "w1"]), others);
    assert_eq!(ctl(&admin, &["drain", "chat.w1"]).0, Some(0));
    eventually("it has left", || running.slot("chat.w1").is_none().then_some(()));
    let only = running.slot("chat.w0");
    for _ in 0..3 {
        assert_eq!(Some(poll_session(address).1), only);
    }
    assert_eq!(ctl(&admin, &["undrain", "chat.w1"]).0, Some(0));
    eventually("it is back", || running.slot("chat.w1"));
    let workers = json(&admin, &["workers", "--pool", "chat"]);
    let (code, said) = ctl(&admin, &["workers", "--pool", "nope"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("there is no pool `nope`, but default, chat"), "{said}");
    assert_eq!(workers.as_array().map(Vec::len), Some(2), "{workers}");
    assert_eq!(pids(&running, &["w0", "w1"]), others);
    running.terminate();
}

#[test]
fn workers_in_other_languages_give_back_what_is_for_other_pools() {
    let pool = |name: &str, command: &[String]| {
        format!("[[pool]]\nname = {name:?}\ncommand = {command:?}\nworkers = 1\nmatch = \"{name}.test\"\n")
    };
    let scene = Scene::new(
        &[pool("node", &worker("listen.js")), pool("python", &python_worker()), pool("rust", &rust_worker())]
            .concat(),
    );
    let running = scene.start(3);
    let pools = ["node", "python", "rust"];
    let pid_of = |pool: &str| running.slot(&format!("{pool}.w0")).expect("it is ready");
    let mut client = Client::connect(running.address());
    for round in 0..12 {
        // Each after each other one.
        let pool = pools[(round * round + round / 3) % 3];
        let response = client.exchange(on(&format!("{pool}.test"), "/pid"));
        assert_eq!(response.pid(), pid_of(pool), "{pool}");
    }
    drop(client);
    let stopped = running.stop();
    assert!(stopped.count("handed_back") >= 4, "{}", stopped.count("handed_back"));
    assert_eq!((stopped.count("accepted"), stopped.count("refused")), (1, 0));
}

#[test]
fn with_close_every_request_is_chosen_for_anew() {
    let scene = Scene::new(&format!(
        "keepalive = \"close\"\ncommand = {0}\n[[pool]]\nname = \"api\"\ncommand = {0}\nmatch = \"/api\"\n",
        tells()
    ));
    let running = scene.start(4);
    let mut client = Client::connect(running.address());
    assert!(slot(&client.exchange(on("a", "/api"))).starts_with("api."));
    assert!(client.try_send(on("a", "/")).and_then(|()| client.try_response()).is_err());
    drop(client);
    assert_eq!(running.stop().count("handed_back"), 0);
}

#[test]
fn a_pool_may_have_addresses_of_its_own() {
    let scene = Scene::new(&format!(
        "command = {0}\n[[pool]]\nname = \"inside\"\ncommand = {0}\nlisten = \"127.0.0.1:0\"\n\
         [[pool]]\nname = \"api\"\ncommand = {0}\nmatch = \"/api\"\n",
        tells()
    ));
    let running = scene.start(6);
    let addresses = running.all_addresses();
    assert_eq!(addresses.len(), 2);
    let slots = |address, target| slot(&ask(address, "a", target));
    let inside = addresses.iter().find(|address| slots(**address, "/").starts_with("inside.")).expect("one");
    let common = addresses.iter().find(|address| *address != inside).expect("the other");
    assert!(slots(*inside, "/api").starts_with("inside."));
    assert!(slots(*common, "/api").starts_with("api."));
    assert!(slots(*common, "/").starts_with('w'));
    running.stop();
}

#[test]
fn mistakes_are_told_together_with_their_places() {
    let mistakes = r#"
        command = ["true"]
        [[pool]]
        name = "api"
        command = "no-such-program-anywhere"
        match = "/api"
        workes = 2
        [[pool]]
        name = "api"
        command = "true"
        match = ["/api/", "a b", "/"]
        admin = "off"
        [[pool]]
        name = "in.side"
        [[pool]]
        name = "both"
        command = "true"
        match = "/b"
        listen = ":1"
        policy = "none-such{}"
    "#;
    let scene = Scene::new(mistakes);
    let (code, said) = check(&["-c", &scene.place.text("sidetrack.toml")]);
    assert_eq!(code, Some(2), "{said}");
    for expected in [
        "pool.api.workes: there is no such setting; did you mean \"workers\"?",
        "pool.api.command: \"no-such-program-anywhere\" is not a program",
        "pool.api.name: another pool has that name",
        "pool.api.match: \"/api\" is pool api's already",
        "pool.api.match: expected a host, a path or both",
        "pool.api.match: \"/\" leaves nothing for the default pool",
        "pool.api.admin: that is a setting of the whole run; say it outside [[pool]]",
        "pool.in.side.name: expected up to 32 letters, digits, - or _, found \"in.side\"",
        "pool.in.side.command: nothing to run; say command = [\"node\", \"server.js\"]",
        "pool.in.side.match: no request would ever come to it",
        "pool.both.listen: it has a match already",
        "listen: with [[pool]] it has to be said where to listen",
    ] {
        assert!(said.contains(expected), "{expected} is missing in {said}");
    }
    for (text_, expected) in [
        ("pool = 3", "pool: expected tables, each under a line [[pool]], found 3"),
        ("[[pool]]\ncommand = \"true\"\nmatch = \"/\"", "pool.#1.name: a pool needs a name"),
        (
            "listen = \":0\"\n[[pool]]\nname = \"a\"\ncommand = \"true\"\nmatch = \"/\"\npolicy = \"./none.js\"",
            "pool.a.policy ./none.js",
        ),
        ("[[pool]]\nname = \"default\"\nmatch = \"/\"", "give this one another name"),
    ] {
        let scene = Scene::new(text_);
        let (code, said) = check(&["-c", &scene.place.text("sidetrack.toml")]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(expected), "{expected} is missing in {said}");
    }
}

#[test]
fn the_example_is_right() {
    let file = root().join("examples/pools/sidetrack.toml");
    let (code, said) = check(&["-c", &text(&file)]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("chat: 2 × node examples/pools/chat.js"), "{said}");
}

/// The worker's file where everybody may read it.
fn readable(scene: &Scene) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let file = scene.place.path("tells.js");
    std::fs::copy(root().join("tests/node/workers/tells.js"), &file).expect("it can be copied");
    std::fs::set_permissions(scene.place.folder(), std::fs::Permissions::from_mode(0o755)).expect("ours");
    format!("[\"node\", {:?}]", text(&file))
}

#[test]
fn workers_run_as_another_user_in_a_folder_with_an_environment_of_their_own() {
    let scene = Scene::new("");
    let command = readable(&scene);
    let folder = text(scene.place.folder());
    let configuration = format!(
        "command = {command}\nenv = {{ TELLS = \"common\" }}\n[[pool]]\nname = \"api\"\nmatch = \"/api\"\n\
         command = [\"node\", \"tells.js\"]\nuser = \"nobody\"\ncwd = {folder:?}\nenv = [\"TELLS=its own\"]\n"
    );
    scene.place.write("sidetrack.toml", &configuration);
    if !nix::unistd::Uid::effective().is_root() {
        let file = scene.place.text("sidetrack.toml");
        let (code, said) = check(&["-c", &file, "--listen", "127.0.0.1:0"]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("pool.api.user: only root"), "{said}");
        return;
    }
    let running = scene.start(4);
    let nobody = nix::unistd::User::from_name("nobody").expect("a database").expect("everybody knows nobody");
    let api = ask(running.address(), "a", "/api").json();
    assert_eq!(api["user"], nobody.uid.as_raw(), "{api}");
    assert_eq!(api["groups"], serde_json::json!([nobody.gid.as_raw()]), "{api}");
    assert_eq!((api["cwd"].as_str(), &api["extra"]), (Some(&*folder), &"its own".into()));
    let default = ask(running.address(), "a", "/").json();
    assert_eq!((&default["user"], &default["extra"]), (&0.into(), &"common".into()), "{default}");
    assert_ne!(default["cwd"], api["cwd"]);
    // The shim works there, too: the connection comes back.
    let mut client = Client::connect(running.address());
    for target in ["/api", "/", "/api/x", "/"] {
        assert_eq!(slot(&client.exchange(on("a", target))).starts_with("api."), target.starts_with("/api"));
    }
    // Its processes are ended although they are somebody else's.
    kill(running.slot("api.w0").expect("it is ready"));
    drop(client);
    assert_eq!(running.terminate().code, Some(0));
}

#[test]
fn nobody_of_that_name_is_a_mistake() {
    let (code, said) =
        check(&["--user", "no-such-user", "--cwd", "/no/such/folder", "--env", "=", "--", "true"]);
    assert_eq!(code, Some(2), "{said}");
    for expected in [
        "user: there is no user \"no-such-user\" on this machine",
        "cwd: the folder /no/such/folder does not exist",
        "--env: expected NAME=VALUE",
    ] {
        assert!(said.contains(expected), "{expected} is missing in {said}");
    }
}

#[test]
fn the_example_runs() {
    let file = text(&root().join("examples/pools/sidetrack.toml"));
    let packages = text(&root().join("tests/node/node_modules"));
    // So that they are there.
    drop(worker("listen.js"));
    let running = sidetrack(Vec::new())
        .workers(1)
        .env("NODE_PATH", &packages)
        .with(&["-c", &file, "--admin", "off"])
        .start_with(3);
    let page = ask(running.address(), "localhost", "/");
    assert!(page.text().contains("/socket.io/socket.io.js"), "{page:?}");
    Client::websocket(running.address());
    assert_eq!(ask(running.address(), "localhost", "/socket.io/socket.io.js").status, 200);
    running.stop();
}

#[test]
fn workers_join_a_pool_at_its_own_socket() {
    let scene = Scene::new("");
    let (api, common) = (scene.place.path("api.sock"), scene.place.path("common.sock"));
    let configuration = format!(
        "command = {}\njoin-socket = {common:?}\n[[pool]]\nname = \"api\"\nworkers = 0\njoin-socket = {api:?}\nmatch = \"/api\"\n",
        tells()
    );
    scene.place.write("sidetrack.toml", configuration);
    let running = scene.start(2);
    let _first = Guest::start(&[], &[], &api, &worker("tells.js"));
    let _second = Guest::start(&[], &["--slot", "blue"], &api, &worker("tells.js"));
    eventually("both are ready", || running.slot("api.w0").and_then(|_| running.slot("api.blue")));
    // A name that would be another pool's is refused.
    let _third = Guest::start(&[], &["--slot", "api.red"], &common, &worker("tells.js"));
    running.logged("slots that begin with api. are another pool's");
    let mut client = Client::connect(running.address());
    for target in ["/api", "/", "/api/x", "/"] {
        assert_eq!(slot(&client.exchange(on("a", target))).starts_with("api."), target.starts_with("/api"));
    }
    drop(client);
    running.terminate();
}
