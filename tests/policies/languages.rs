//! Policies in every language there is a template for: what `sidetrack policy new` makes is built and
//! tested with that language's own tools and then asked, and so are the policies of
//! `examples/policies`.
//!
//! An engine takes its time to compile, so a policy that brings one along is loaded once: what it says to
//! bad options is left to its unit tests, and the scenario to the others.
//!
//! npm's and pip's packages are those of the templates' lock files, installed once below target/tmp.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

use sidetrack::author::Language;
use sidetrack::policy::{
    Chain, Event, LinkName, PolicyLink, PolicySource, Replacement, Request, SessionOwner, Settings,
};
use sidetrack::types::{Decision, Refusal, Roster, WorkerId, WorkerInfo};

use crate::guests::ensure_target;
use crate::support::{request, root, run, worker};

/// Where everything is built.
fn workshop() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("languages")
}

/// A policy's folder, ready for its tools.
struct Project {
    language: Language,
    folder: PathBuf,
}

impl Project {
    /// As `sidetrack policy new` makes it.
    fn begun(language: Language) -> Self {
        let name = format!("begun-in-{}", language.name());
        let folder = empty(&workshop().join(&name));
        let mut new = Command::new(env!("CARGO_BIN_EXE_sidetrack"));
        new.args(["policy", "new"]).arg(&folder).args(["--lang", language.name()]);
        let said = run(&mut new).unwrap_or_else(|error| panic!("{error}"));
        assert!(said.contains(&language.artefact(&name).display().to_string()), "{said}");
        Self::with_tools(language, folder)
    }

    /// A copy of an example, so that nothing is built in the repository.
    fn example(language: Language) -> Self {
        let folder = empty(&workshop().join(format!("example-in-{}", language.name())));
        let example = root().join("examples/policies").join(language.name());
        copy(&example, &folder);
        match language {
            Language::Rust => {
                let manifest = folder.join("Cargo.toml");
                let text = fs::read_to_string(&manifest).expect("a manifest");
                let sdk = root().join("sdk/policy").display().to_string();
                fs::write(manifest, text.replace("../../../sdk/policy", &sdk)).expect("a copy is writable");
            }
            // The tools are shared, so they have to be the same.
            Language::JavaScript => assert_eq!(packages(&folder), packages(&template(language))),
            Language::Python => {
                let pinned = |folder: &Path| fs::read_to_string(folder.join("requirements.txt")).ok();
                assert_eq!(pinned(&folder), pinned(&template(language)));
            }
            Language::C | Language::Script => {}
        }
        Self::with_tools(language, folder)
    }

    fn with_tools(language: Language, folder: PathBuf) -> Self {
        match language {
            Language::Rust => ensure_target().unwrap_or_else(|error| panic!("{error}")),
            Language::JavaScript => {
                symlink(node_modules(), folder.join("node_modules")).expect("the folder is fresh");
            }
            Language::Python | Language::C | Language::Script => {}
        }
        Self { language, folder }
    }

    fn run(&self, program: &str, words: &[&str]) {
        let mut command = Command::new(program);
        command.args(words).current_dir(&self.folder);
        match self.language {
            Language::Rust => plain(command.env("CARGO_TARGET_DIR", workshop().join("cargo"))),
            Language::Python => drop(command.arg(format!("VENV={}", venv().display()))),
            Language::JavaScript | Language::C | Language::Script => {}
        }
        run(&mut command).unwrap_or_else(|error| panic!("{error}\n{HOW}"));
    }

    /// Runs its unit tests and builds it, with the commands that its README names.
    fn built(&self) -> PathBuf {
        match self.language {
            Language::Rust => {
                self.run("cargo", &["test", "--quiet"]);
                self.run("cargo", &["build", "--release", "--quiet"]);
            }
            Language::JavaScript => {
                self.run("npm", &["test"]);
                self.run("npm", &["run", "build"]);
            }
            Language::Python | Language::C => {
                self.run("make", &["test"]);
                self.run("make", &[]);
            }
            Language::Script => {
                let name = self.folder.file_name().expect("a policy has a name").to_string_lossy();
                return self.folder.join(self.language.artefact(&name));
            }
        }
        let readme = fs::read_to_string(self.folder.join("README.md")).expect("there is a README");
        let made = readme.split("# makes ").nth(1).and_then(|rest| rest.split(['\n', ';']).next());
        let made = made.expect("a README says what a build makes");
        match made.strip_prefix("target/") {
            Some(made) => workshop().join("cargo").join(made),
            None => self.folder.join(made),
        }
    }
}

const HOW: &str =
    "the tools of all languages: apt-get install nodejs npm python3 python3-venv make gcc clang lld";

fn template(language: Language) -> PathBuf {
    root().join("sdk/policy/templates").join(language.name())
}

fn empty(folder: &Path) -> PathBuf {
    drop(fs::remove_dir_all(folder));
    fs::create_dir_all(folder).expect("target/tmp is writable");
    folder.to_owned()
}

/// Copies a folder, and what links in it lead to.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder of the repository") {
        let path = entry.expect("an entry of it").path();
        let name = path.file_name().expect("an entry has a name");
        // What somebody built there by hand.
        if ["target", "node_modules", ".venv", "bindings", "__pycache__"].iter().any(|made| name == *made) {
            continue;
        }
        let to = to.join(name);
        if path.is_dir() {
            fs::create_dir(&to).expect("a new folder");
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).expect("a file of the repository");
        }
    }
}

/// The locked packages by path.
fn packages(folder: &Path) -> BTreeMap<String, serde_json::Value> {
    let text = fs::read_to_string(folder.join("package-lock.json")).expect("a lock file");
    assert!(!text.contains("\"resolved\""), "{}: a lock file names no registry", folder.display());
    let lock: serde_json::Value = serde_json::from_str(&text).expect("a lock file is JSON");
    let packages = lock["packages"].as_object().expect("packages");
    let named = packages.iter().filter(|(path, _)| !path.is_empty());
    named.map(|(path, package)| (path.clone(), package.clone())).collect()
}

/// Flags meant for the build of these tests are not for policies.
fn plain(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.contains("RUSTFLAGS") || name.starts_with("CARGO_PROFILE_") || name == "RUSTC_WRAPPER" {
            command.env_remove(&*name);
        }
    }
}

/// The packages that the JavaScript template's lock file names.
fn node_modules() -> &'static Path {
    static INSTALLED: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
        let folder = workshop().join("npm");
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let stamp = folder.join("installed");
        let lock = fs::read_to_string(template(Language::JavaScript).join("package-lock.json"))
            .map_err(|error| error.to_string())?;
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == lock) {
            return Ok(folder.join("node_modules"));
        }
        for name in ["package.json", "package-lock.json"] {
            fs::copy(template(Language::JavaScript).join(name), folder.join(name))
                .map_err(|error| error.to_string())?;
        }
        run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder))?;
        fs::write(stamp, lock).map_err(|error| error.to_string())?;
        Ok(folder.join("node_modules"))
    });
    INSTALLED.as_deref().unwrap_or_else(|error| panic!("{error}\n{HOW}"))
}

/// An environment with what the Python template's requirements name, made by its Makefile.
fn venv() -> &'static Path {
    static MADE: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
        let folder = workshop().join("venv");
        let ready = folder.join("ready");
        let mut make = Command::new("make");
        make.arg(format!("VENV={}", folder.display())).arg(&ready);
        run(make.current_dir(template(Language::Python)))?;
        // Copies of the requirements are younger.
        fs::write(&ready, "").map_err(|error| error.to_string())?;
        Ok(folder)
    });
    MADE.as_deref().unwrap_or_else(|error| panic!("{error}\n{HOW}"))
}

/// A policy that was built, alone in its chain, and the workers it is given.
struct Asked {
    chain: Chain,
    roster: Roster,
}

impl Asked {
    fn new(file: &Path, options: &str, workers: Vec<WorkerInfo>) -> Self {
        let chain = load(file, options).unwrap_or_else(|error| panic!("{error}"));
        chain.listen(true);
        Self { chain, roster: Roster { version: 1, workers: workers.into() } }
    }

    fn give(&mut self, workers: Vec<WorkerInfo>) {
        self.roster = Roster { version: self.roster.version + 1, workers: workers.into() };
    }

    /// The policy's own choice; none when it deferred. And why.
    fn ask(&self, head: &str, loads: &[u32]) -> (Option<u32>, String) {
        let mut request = request(&format!("{head}\r\n\r\n"));
        self.ask_about(&mut request, loads)
    }

    fn ask_about(&self, request: &mut Request, loads: &[u32]) -> (Option<u32>, String) {
        let answer = self.chain.balance(&self.roster, loads, request);
        assert_eq!(self.chain.counts().faults.total(), 0, "{:?}", answer.steps);
        let choice = match (answer.link, answer.decision) {
            (LinkName::Link(0), Decision::Worker(WorkerId(id))) => Some(id),
            (LinkName::Last, _) => None,
            other => panic!("not expected: {other:?}"),
        };
        (choice, answer.explanation.unwrap_or_default())
    }

    fn choice(&self, head: &str, loads: &[u32]) -> Option<u32> {
        self.ask(head, loads).0
    }
}

fn load(file: &Path, options: &str) -> Result<Chain, String> {
    let link = PolicyLink { source: PolicySource::File(file.to_owned()), options: options.to_owned() };
    let owner: Arc<dyn SessionOwner> = Arc::new(|sid: &str| (sid == "known").then_some(WorkerId(2)));
    // Another build's cache would be of no use: these files are new.
    let settings = Settings { cache: false, ..Settings::default() };
    Chain::build(&[link], &settings, &owner).map_err(|error| error.to_string())
}

const GET: &str = "GET / HTTP/1.1";

fn draining(id: u32) -> WorkerInfo {
    WorkerInfo { draining: true, ..worker(id) }
}

fn labelled(id: u32, key: &str, value: &str) -> WorkerInfo {
    WorkerInfo { labels: vec![(key.to_owned(), value.to_owned())], ..worker(id) }
}

/// Plays the scenario that came along.
fn keeps_up(project: &Project, file: &Path) {
    let mut test = Command::new(env!("CARGO_BIN_EXE_sidetrack"));
    test.args(["policy", "test", "scenario.toml", "--policy"]).arg(file).current_dir(&project.folder);
    run(&mut test).unwrap_or_else(|error| panic!("{error}"));
}

/// What every template does, in its own language.
fn gives_to_the_least_loaded(file: &Path) -> Asked {
    let mut asked = Asked::new(file, "{}", vec![worker(1), worker(2), worker(3)]);
    let (choice, why) = asked.ask(GET, &[5, 2, 9]);
    assert_eq!(choice, Some(2));
    assert!(why.contains("the lowest load"), "{why}");
    // Often enough to notice memory that is not given back, within the default limit.
    for round in 0..5_000_u32 {
        assert_eq!(asked.choice(GET, &[1, 2 + round, 3]), Some(1));
    }
    asked.give(vec![draining(1), labelled(2, "zone", "eu")]);
    assert_eq!(asked.choice(GET, &[0, 7]), Some(2));
    asked.give(vec![draining(1)]);
    assert_eq!(asked.choice(GET, &[0]), None, "no opinion");
    asked.give((0..200).map(worker).collect());
    let loads: Vec<u32> = (0..200).map(|id| 1_000 - id).collect();
    assert_eq!(asked.choice(GET, &loads), Some(199));
    asked
}

fn refuses(file: &Path, options: &str, said: &str) {
    let error = load(file, options).expect_err("options that do not work");
    assert!(error.contains("refused the options") && error.contains(said), "{error}");
}

/// A policy of `tests/policies/languages`, in the place of a template's.
fn everything(language: Language, source: &str, interfaces: bool) -> PathBuf {
    let name = format!("everything-in-{}", language.name());
    let folder = empty(&workshop().join(&name));
    let mut new = Command::new(env!("CARGO_BIN_EXE_sidetrack"));
    new.args(["policy", "new"]).arg(&folder).args(["--lang", language.name()]);
    run(&mut new).unwrap_or_else(|error| panic!("{error}"));
    let own = root().join("tests/policies/languages").join(source);
    let extension = own.extension().expect("a source has one");
    fs::copy(&own, folder.join("policy").with_extension(extension)).expect("the folder is fresh");
    if interfaces {
        let world = folder.join("wit/world.wit");
        let text = fs::read_to_string(&world).expect("a world");
        fs::write(world, text.replace("// include", "include")).expect("the folder is fresh");
    }
    let project = Project::with_tools(language, folder);
    match language {
        Language::JavaScript => project.run("npm", &["run", "build"]),
        _ => project.run("make", &[]),
    }
    project.folder.join(language.artefact(&name))
}

/// Every function of the contract, and every interface.
fn does_everything(file: &Path, hash: &str) {
    let labels = vec![("rack".to_owned(), "7".to_owned()), ("zone".to_owned(), "eu".to_owned())];
    let workers = vec![WorkerInfo { labels, weight: 3, ..worker(1) }, draining(2), worker(3)];
    let asked = Asked::new(file, r#"{"a":1}"#, workers);
    let (chain, roster) = (&asked.chain, &asked.roster);
    let about = |request: &mut Request| match chain.balance(roster, &[4, 5, 6], request).decision {
        Decision::Refuse(refusal) => refusal,
        other => panic!("not a refusal: {other:?}, {:?}", chain.counts()),
    };
    let at = |path: &str| about(&mut request(&format!("GET {path} HTTP/1.1\r\n\r\n"))).reason;

    let head =
        "PUT /request?b=&a=x%20y HTTP/1.1\r\nX-One: 1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let session = Some("s-1".to_owned());
    let peer = Some(([192, 0, 2, 7], 1234).into());
    let mut full = Request { session, peer, attempt: 2, ..request(head) };
    let all = about(&mut full);
    assert_eq!((all.status, all.retry_after), (503, Some(7)));
    assert_eq!(all.reason, format!("PUT|x y||1|none|192.0.2.7|s-1|{hash}|1|2|"));
    assert_eq!(at("/request"), "GET|none|none|none|none|none|none|0|0|0|");
    assert_eq!(at("/workers"), r#"1|w1|3|0|eu|4|2|w2|1|1|none|5|3|w3|1|0|none|6|{"a":1}|"#);
    let answer = chain.explain(roster, &[0; 3], &mut request("GET /host HTTP/1.1\r\n\r\n"));
    assert_eq!(answer.explanation.as_deref(), Some("because"));
    assert_eq!(at("/host"), "1|2|0|1|1|");
    assert_eq!(at("/store"), "5|3|1|value|1|");
    assert_eq!(at("/store"), "8|6|1|value|1|");
    let bare = about(&mut request("GET /bare HTTP/1.1\r\n\r\n"));
    assert_eq!(bare, Refusal { status: 429, retry_after: None, reason: String::new() });
    // Several times what there is, a little at a time.
    for _ in 0..100 {
        assert_eq!(asked.choice("GET /memory HTTP/1.1", &[0; 3]), Some(1));
    }
    assert_eq!(asked.choice(GET, &[0; 3]), None);

    let find = |sid: &str| chain.find(sid, roster, &[0; 3], &mut request("GET / HTTP/1.1\r\n\r\n"));
    assert_eq!(
        (find("mine").link, find("mine").decision),
        (LinkName::Link(0), Decision::Worker(WorkerId(2)))
    );
    assert_eq!(find("other").decision, Decision::Defer);

    assert_eq!(at("/count"), "1|");
    chain.notice(Event::SessionOpened { sid: "s", worker: WorkerId(1) });
    chain.notice(Event::SessionClosed { sid: "s", worker: WorkerId(2) });
    chain.notice(Event::WorkerFailed { worker: WorkerId(3) });
    assert_eq!(at("/count"), "323|");
    assert_eq!(chain.counts().faults.total(), 0);

    // The same again in its own place: its state goes over.
    let link = PolicyLink { source: PolicySource::File(file.to_owned()), options: r#"{"a":2}"#.to_owned() };
    let replacement = Replacement { link, discard_state: false, forgive: false };
    chain.replace(None, &replacement).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(at("/count"), "324|");
    assert!(at("/workers").ends_with(r#"|{"a":2}|"#));

    // A mistake costs the instance, and the next one answers.
    let answer = chain.balance(roster, &[1, 0, 2], &mut request("GET /wild HTTP/1.1\r\n\r\n"));
    assert_eq!((answer.link, chain.counts().faults.total()), (LinkName::Last, 1));
    assert!(at("/count").parse::<u32>().is_err(), "it answers");
    assert_eq!(chain.counts().faults.total(), 1);
    refuses(file, r#"{"wrong":1}"#, "wrong is wrong");
}

#[test]
fn c_has_everything() {
    let hash = sidetrack_policy::request::hash_session("s-1").to_string();
    does_everything(&everything(Language::C, "everything.c", false), &hash);
}

#[test]
fn javascript_has_everything() {
    // Rounded, as JavaScript's numbers are.
    let hash = sidetrack_policy::request::hash_session("s-1") as f64;
    does_everything(&everything(Language::JavaScript, "everything.js", true), &format!("{hash}"));
}

#[test]
fn a_policy_begun_as_a_script() {
    let project = Project::begun(Language::Script);
    let built = project.built();
    gives_to_the_least_loaded(&built);
    keeps_up(&project, &built);
    let error = load(&built, r#"{"wat": 1}"#).expect_err("options that do not work");
    assert!(error.ends_with(r#"begun-in-script.js:6:79: Error: unknown option "wat""#), "{error}");
}

#[test]
fn a_policy_begun_in_rust() {
    let project = Project::begun(Language::Rust);
    let built = project.built();
    gives_to_the_least_loaded(&built);
    keeps_up(&project, &built);
    refuses(&built, r#"{"wat": 1}"#, r#"expected no options, found {"wat": 1}"#);
}

#[test]
fn a_policy_begun_in_javascript() {
    gives_to_the_least_loaded(&Project::begun(Language::JavaScript).built());
}

#[test]
fn a_policy_begun_in_python() {
    gives_to_the_least_loaded(&Project::begun(Language::Python).built());
}

#[test]
fn a_policy_begun_in_c() {
    let project = Project::begun(Language::C);
    let built = project.built();
    gives_to_the_least_loaded(&built);
    keeps_up(&project, &built);
    refuses(&built, r#"{"wat": 1}"#, "expected no options");
}

#[test]
fn the_example_in_rust_keeps_clients_in_their_zone() {
    let built = Project::example(Language::Rust).built();
    let zones = vec![labelled(1, "zone", "eu"), labelled(2, "zone", "eu"), labelled(3, "zone", "us")];
    let asked = Asked::new(&built, r#"{"header": "X-Region", "spill": 1.5}"#, zones);
    let from = |region: &str| format!("GET / HTTP/1.1\r\nX-Region: {region}");
    assert_eq!(asked.choice(&from("eu"), &[9, 8, 6]), Some(2));
    assert_eq!(asked.choice(&from("us"), &[0, 0, 1]), Some(3));
    let (choice, why) = asked.ask(&from("eu"), &[9, 9, 4]);
    assert_eq!((choice, why.as_str()), (Some(3), "zone eu is too busy: 9 against 4 of w3"));
    assert_eq!(asked.choice(GET, &[3, 2, 1]), Some(3));
    refuses(&built, r#"{"spill": 0}"#, "`spill` must be at least 1, found 0");
}

#[test]
fn the_example_in_javascript_brings_a_room_together() {
    let built = Project::example(Language::JavaScript).built();
    let mut asked = Asked::new(&built, r#"{"key": "table"}"#, (1..=4).map(worker).collect());
    let enter = |asked: &Asked, room: u32, loads: &[u32]| {
        asked.choice(&format!("GET /?table=r{room} HTTP/1.1"), loads).expect("a worker for every room")
    };
    let loads = [10; 4];
    let own: Vec<u32> = (0..40).map(|room| enter(&asked, room, &loads)).collect();
    assert_eq!(own.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "{own:?}");
    // Full workers spill over, and whoever leaves takes only its own rooms along.
    let full: Vec<u32> = (1..=4).map(|id| if id == own[0] { 20 } else { 10 }).collect();
    assert_ne!(enter(&asked, 0, &full), own[0]);
    asked.give((1..=4).map(|id| if id == own[0] { draining(id) } else { worker(id) }).collect());
    for (room, &before) in (0..).zip(&own) {
        let now = enter(&asked, room, &loads);
        assert_eq!(now == before, before != own[0], "room {room}");
    }
    assert_eq!(asked.choice(GET, &loads), None, "no room, no opinion");
}

#[test]
fn the_example_in_python_keeps_shares() {
    let built = Project::example(Language::Python).built();
    let options = r#"{"tenants": {"acme": {"w0": 70, "w1": 30}, "*": {"w2": 1, "w3": 1}}}"#;
    let asked = Asked::new(&built, options, (0..4).map(worker).collect());
    let mut shares = BTreeMap::new();
    let mut count = |tenant: &str, times: u32| {
        for _ in 0..times {
            let choice = asked.choice(&format!("GET / HTTP/1.1\r\nX-Tenant: {tenant}"), &[0; 4]);
            *shares.entry((tenant.to_owned(), choice)).or_insert(0) += 1;
        }
    };
    // Enough calls for its state to be saved in between.
    count("acme", 500);
    count("somebody", 10);
    let expected = [("acme", 0, 350), ("acme", 1, 150), ("somebody", 2, 5), ("somebody", 3, 5)]
        .map(|(tenant, worker, count)| ((tenant.to_owned(), Some(worker)), count));
    assert_eq!(shares, BTreeMap::from(expected));
}

#[test]
fn the_example_in_c_weighs() {
    let built = Project::example(Language::C).built();
    let weighing = |id, weight| WorkerInfo { weight, ..worker(id) };
    let mut asked = Asked::new(&built, r#"{"slow_start": 0}"#, vec![weighing(0, 1), weighing(1, 3)]);
    let mut loads = vec![0; 2];
    for _ in 0..400 {
        let choice = asked.choice(GET, &loads).expect("a worker");
        loads[choice as usize] += 1;
    }
    assert_eq!(loads, [100, 300]);
    // A newcomer has its whole weight at once, as the options say.
    asked.give(vec![weighing(0, 1), weighing(1, 3), weighing(2, 2)]);
    loads.push(0);
    for _ in 0..200 {
        assert_eq!(asked.choice(GET, &loads), Some(2));
        loads[2] += 1;
    }
    // And only slowly, as they say otherwise.
    let mut slowly = Asked::new(&built, "{}", vec![weighing(0, 1)]);
    assert_eq!(slowly.choice(GET, &[100]), Some(0));
    slowly.give(vec![weighing(0, 1), weighing(1, 1)]);
    assert_eq!(slowly.choice(GET, &[100, 50]), Some(0));
    assert_eq!(slowly.choice(GET, &[100, 5]), Some(1));
    refuses(&built, r#"{"slow_start": "no"}"#, r#"expected {"slow_start": SECONDS}"#);
}
