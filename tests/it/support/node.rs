//! Node: the workers and clients of `tests/node`, with their packages installed.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

use super::root;

const HOW: &str = "install Node.js 18 or later with npm: apt-get install nodejs npm";

/// Node's own path. Packages are in place once it is known.
pub fn node() -> &'static Path {
    static NODE: LazyLock<Result<PathBuf, String>> = LazyLock::new(set_up);
    match &*NODE {
        Ok(path) => path,
        Err(error) => panic!("{error}"),
    }
}

/// The command that starts a worker of `tests/node/workers`.
pub fn worker(file: &str) -> Vec<String> {
    let file = root().join("tests/node/workers").join(file);
    assert!(file.is_file(), "{} does not exist", file.display());
    vec![node().display().to_string(), file.display().to_string()]
}

/// A client under way.
#[derive(Debug)]
pub struct Job {
    child: Option<Child>,
    what: String,
}

/// Starts a client of `tests/node/clients`.
pub fn job(file: &str, address: SocketAddr, arguments: &[&str]) -> Job {
    let path = root().join("tests/node/clients").join(file);
    assert!(path.is_file(), "{} does not exist", path.display());
    let child = Command::new(node())
        .arg(path)
        .arg(format!("http://{address}"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node starts");
    Job { child: Some(child), what: format!("{file} {}", arguments.join(" ")) }
}

/// Runs a client that must succeed, and returns what it counted.
#[track_caller]
pub fn client(file: &str, address: SocketAddr, arguments: &[&str]) -> Value {
    let job = job(file, address, arguments);
    let what = job.what.clone();
    let result = job.result();
    assert_eq!(result["ok"], true, "{what}: {result}");
    result
}

impl Job {
    /// Waits for the end, good or bad: what it counted.
    #[track_caller]
    pub fn result(mut self) -> Value {
        let child = self.child.take().expect("a job has one result");
        let output = child.wait_with_output().expect("a child of ours");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{}: {error}", self.what))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn set_up() -> Result<PathBuf, String> {
    let path = print(Command::new("node").args(["-p", "process.execPath"]))
        .map_err(|error| format!("node: {error}; {HOW}"))?;
    let version = print(Command::new("node").args(["-p", "process.versions.node"]))?;
    let major: u32 = version.split('.').next().and_then(|text| text.parse().ok()).unwrap_or_default();
    if major < 18 {
        return Err(format!("node {version} is too old; {HOW}"));
    }
    install("tests/node")?;
    Ok(path.into())
}

/// `npm ci` in a folder of the repository, unless what is there is what the lock file says.
pub fn install(folder: &str) -> Result<(), String> {
    let folder = root().join(folder);
    // Another run of the tests may be at it.
    let guard = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm.lock"));
    let guard =
        guard.and_then(|file| file.lock().map(|()| file)).map_err(|error| format!("npm.lock: {error}"))?;
    let changed = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    // npm writes this file last.
    let installed = changed(&folder.join("node_modules/.package-lock.json"));
    if installed.is_none() || installed < changed(&folder.join("package-lock.json")) {
        let mut npm = Command::new("npm");
        npm.current_dir(&folder).args(["ci", "--no-audit", "--no-fund"]);
        print(&mut npm).map_err(|error| format!("npm ci in {}: {error}; {HOW}", folder.display()))?;
    }
    drop(guard);
    Ok(())
}

fn print(command: &mut Command) -> Result<String, String> {
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("cannot be started ({error})"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}
