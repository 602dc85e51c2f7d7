//! A policy as a script: written, run, edited while connections flow, broken and mended.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Client, Place, Sidetrack, check, eventually, get, pid, signal, worker};

/// A run whose policy is a script of its own.
struct Scene {
    place: Place,
}

impl Scene {
    fn new(text: &str) -> Self {
        let scene = Self { place: Place::new() };
        scene.write(text);
        scene
    }

    fn write(&self, text: &str) {
        self.place.write("mine.js", text);
    }

    fn start(&self, words: &[&str]) -> Sidetrack {
        self.place.run(worker("listen.js")).policy(&self.place.text("mine.js")).with(words).start()
    }

    /// `sidetrack policy …`
    fn command(&self, words: &[&str]) -> (Option<i32>, String) {
        self.place.ask(&[&["policy"], words].concat())
    }

    fn status(&self) -> Value {
        self.place.told("/v1/policy")["links"][0].clone()
    }
}

/// Everything to one worker, when it is there.
fn only(slot: &str) -> String {
    format!(
        "export const balance = workers => workers.find(worker => worker.name === '{slot}') ?? workers[0];\n"
    )
}

#[test]
fn a_script_is_edited_while_traffic_flows() {
    let scene = Scene::new(&only("w0"));
    let running = scene.start(&[]);
    let [w0, w1, w2] = ["w0", "w1", "w2"].map(|slot| running.slot(slot).expect("it is ready"));
    let goes_to = |worker| eventually("traffic moves", || (pid(running.address()) == worker).then_some(()));
    goes_to(w0);
    scene.write(&only("w1"));
    goes_to(w1);

    // Broken: the version before goes on, and the log names the line, once.
    scene.write("// Oh dear.\nexport function balance(workers) {\n  return workers[2;\n}\n");
    running.logged("mine.js:3:");
    assert_eq!([(); 5].map(|()| pid(running.address())), [w1; 5]);
    scene.write(&only("w2"));
    goes_to(w2);

    let status = scene.status();
    assert_eq!((&status["name"], &status["generation"]), (&json!("mine.js"), &json!(3)), "{status}");
    assert_eq!(status["history"].as_array().map(Vec::len), Some(2), "{status}");
    let (code, said) = scene.command(&["rollback"]);
    assert_eq!(code, Some(0), "{said}");
    goes_to(w1);

    let stopped = running.stop();
    let complaints: Vec<_> = stopped.log.lines().filter(|line| line.contains("SyntaxError")).collect();
    assert_eq!(complaints.len(), 1, "{}", stopped.log);
    assert!(complaints[0].contains("policy not replaced; the version in service stays"), "{complaints:?}");
    assert!(complaints[0].contains("mine.js:3:19: SyntaxError: "), "{complaints:?}");
}

#[test]
fn a_script_may_call_any_worker_by_its_name() {
    let scene = Scene::new("export const balance = () => 'w2';\n");
    let running = scene.start(&[]);
    let last = running.slot("w2").expect("it is ready");
    assert_eq!([(); 4].map(|()| pid(running.address())), [last; 4]);
    // Nobody of that name: no opinion, and said in the log.
    scene.write("export const balance = () => 'w9';\n");
    running.logged("no worker is named `w9`");
    assert_eq!(get(running.address(), "/pid").status, 200);
    running.stop();
}

#[test]
fn a_script_sees_the_request_and_throws_with_its_line() {
    let scene = Scene::new(
        "export function balance(workers, request) {
  if (request.path === '/throw') null.x;
  if (request.path === '/full') return refuse(503, { retryAfter: 7, text: 'full' });
  explain('room', request.query('room'));
  return request.query('room') ? byHash(workers, request.query('room')) : undefined;
}
",
    );
    let running = scene.start(&["--policy", "round-robin"]);
    let home = get(running.address(), "/pid?room=blue").pid();
    assert_eq!([(); 6].map(|()| get(running.address(), "/pid?room=blue").pid()), [home; 6]);
    let others: std::collections::HashSet<_> = (0..3).map(|_| pid(running.address())).collect();
    assert_eq!(others.len(), 3, "the next policy takes turns");

    let refused = get(running.address(), "/full");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("7")));
    assert_eq!(refused.text(), "full\n");
    // A fault costs the client nothing.
    let mut client =
        Client::with(running.address(), "GET /throw HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_ne!(client.response().status, 503);
    running.logged("mine.js:2:");

    let (code, said) = scene.command(&["explain", "--target", "/?room=blue"]);
    assert!(code == Some(0) && said.contains(": room blue"), "{said}");
    let status = scene.status();
    assert_eq!(status["counts"]["faults"]["trap"], 1, "{status}");
    let stopped = running.stop();
    assert!(
        stopped.log.contains("mine.js:2:34: TypeError: cannot read property 'x' of null"),
        "{}",
        stopped.log
    );
}

#[test]
fn scripts_are_set_checked_and_loaded_on_a_hangup() {
    let scene = Scene::new(&only("w0"));
    let running = scene.start(&["--no-policy-watch"]);
    scene.write(&only("w1"));
    signal(running.pid, Signal::SIGHUP);
    let w1 = running.slot("w1").expect("it is ready");
    eventually("traffic moves", || (pid(running.address()) == w1).then_some(()));

    let other = scene.place.text("other.mjs");
    scene.place.write("other.mjs", "export function configure({ slot }) { this_is_not_there }");
    let set = format!("{other}{}", r#"{"slot": "w2"}"#);
    let (code, said) = scene.command(&["set", &set]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("other.mjs: expected `export function balance(workers, request)`, found configure"),
        "{said}"
    );
    scene.place.write(
        "other.mjs",
        "let slot; export const configure = options => { slot = options.slot }, balance = workers => ({ status: 200 });\n",
    );
    let (code, said) = scene.command(&["set", &set]);
    assert!(code == Some(2) && said.contains("a bad answer"), "{said}");
    scene.place.write("other.mjs", only("w2"));
    let (code, said) = scene.command(&["set", &other]);
    assert_eq!(code, Some(0), "{said}");
    let w2 = running.slot("w2").expect("it is ready");
    assert_eq!([(); 3].map(|()| pid(running.address())), [w2; 3]);
    running.stop();

    // In a file of settings, in a chain, with options; and what is wrong is told before anything starts.
    let settings = scene.place.text("sidetrack.toml");
    let chain = |use_: &str, config: &str| {
        format!("policy = [{{ use = \"{}\", config = {config} }}, \"random\"]\n", scene.place.text(use_))
    };
    scene.place.write("tuned.js", "export const configure = options => { if (!options.a) throw new Error('no a') };\nexport const balance = () => {};\n");
    scene.place.write("sidetrack.toml", chain("tuned.js", "{ a = 1 }"));
    let (code, said) = check(&["-c", &settings, "--", "node", "server.js"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("tuned.js (script "), "{said}");
    scene.place.write("sidetrack.toml", chain("tuned.js", "{ b = 1 }"));
    let (code, said) = check(&["-c", &settings, "--", "node", "server.js"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("tuned.js:1:65: Error: no a"), "{said}");
}
