//! Builds the guests of these tests, and makes what a chain is asked with.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

use sidetrack::policy::{Answer, BuiltIn, Chain, Limits, PolicySource, Request, Settings};
use sidetrack::types::{Decision, Head, Progress, Roster, WorkerId, WorkerInfo};

const TARGET: &str = "wasm32-unknown-unknown";

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The freshly built module of a guest crate, such as `policy_hostile`.
pub fn guest(krate: &str) -> PathBuf {
    static BUILT: LazyLock<Result<PathBuf, String>> = LazyLock::new(build);
    match &*BUILT {
        Ok(folder) => folder.join(krate).with_extension("wasm"),
        Err(error) => panic!("{error}"),
    }
}

pub fn guest_of(policy: BuiltIn) -> PathBuf {
    guest(&format!("policy_{}", policy.name().replace('-', "_")))
}

/// Builds all guests in one go and returns the folder they are in.
fn build() -> Result<PathBuf, String> {
    ensure_target()?;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("policies");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).args([
        "build",
        "--locked",
        "--quiet",
        "--target",
        TARGET,
        "--profile",
        "policy",
    ]);
    cargo.arg("--target-dir").arg(&folder);
    for policy in BuiltIn::ALL {
        cargo.arg("-p").arg(format!("policy-{policy}"));
    }
    cargo.args(["-p", "policy-hostile"]);
    // Flags meant for the host build would change the bytes.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.contains("RUSTFLAGS") || name.starts_with("CARGO_PROFILE_") || name == "RUSTC_WRAPPER" {
            cargo.env_remove(&*name);
        }
    }
    run(&mut cargo)?;
    Ok(folder.join(TARGET).join("policy"))
}

/// Installs the wasm target where it is missing.
fn ensure_target() -> Result<(), String> {
    let installed = run(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]))
        .is_ok_and(|folder| Path::new(folder.trim()).is_dir());
    if installed {
        return Ok(());
    }
    run(Command::new("rustup").current_dir(root()).args(["target", "add", TARGET]))
        .map(drop)
        .map_err(|error| format!("the policies cannot be built: target {TARGET} is missing, and {error}"))
}

/// Runs a command and returns what it prints.
pub fn run(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("`{program}` does not start: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("`{program}` failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

pub fn worker(id: u32) -> WorkerInfo {
    WorkerInfo { id: WorkerId(id), name: format!("w{id}"), weight: 1, draining: false, labels: vec![] }
}

pub fn roster(version: u64, ids: impl IntoIterator<Item = u32>) -> Roster {
    Roster { version, workers: ids.into_iter().map(worker).collect() }
}

pub fn request(head: &str) -> Request {
    match Head::parse(head.as_bytes()) {
        Ok(Progress::Complete(head)) => Request { head, ..Request::default() },
        other => panic!("not a head: {other:?}"),
    }
}

/// The hostile policy in a chain, and workers 5 and 6.
pub struct Hostile {
    pub chain: Chain,
    pub roster: Roster,
}

impl Hostile {
    pub fn new(limits: Limits) -> Self {
        let settings = Settings { limits, ..Settings::default() };
        let owner = |sid: &str| (sid == "s-1").then_some(WorkerId(6));
        let source = PolicySource::File(guest("policy_hostile"));
        let chain = Chain::load(&source, &settings, Arc::new(owner)).expect("the hostile policy loads");
        Self { chain, roster: roster(1, [5, 6]) }
    }

    /// Limits under which any number of faults is forgiven.
    pub fn patient() -> Self {
        Self::new(Limits { faults: usize::MAX, ..Limits::default() })
    }

    pub fn ask(&self, path: &str) -> Answer {
        let mut request = request(&format!("GET {path} HTTP/1.1\r\n\r\n"));
        let before = request.clone();
        let answer = self.chain.balance(&self.roster, &vec![0; self.roster.workers.len()], &mut request);
        assert_eq!(format!("{request:?}"), format!("{before:?}"), "the request comes back");
        answer
    }

    /// The text of a refusal.
    pub fn text(&self, path: &str) -> String {
        match self.ask(path).decision {
            Decision::Refuse(refusal) => refusal.reason,
            other => panic!("expected a refusal at {path}, got {other:?}"),
        }
    }
}
