//! Workers in other languages than Node's: Python in an environment of its own, Rust as it is built
//! with the tests.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use super::{node_worker, root};

const HOW: &str = "install Python 3.10 or later with venv: apt-get install python3 python3-venv";

/// The command of a python-socketio worker on uvicorn.
pub fn python_worker() -> Vec<String> {
    let folder = root().join("tests/it/languages").display().to_string();
    let python = python().join("bin/python").display().to_string();
    [&python, "-m", "sidetrack.asgi", "--app-dir", &folder, "--log-level", "warning", "worker:app"]
        .map(str::to_owned)
        .to_vec()
}

/// The command of a worker on axum and socketioxide.
pub fn rust_worker() -> Vec<String> {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        // `cargo test` has built it; `cargo test --test it` has not.
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--locked", "--example", "worker"]).current_dir(root());
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo starts").success(), "the Rust worker cannot be built");
        // Beside the tests, where cargo puts examples.
        let tests = std::env::current_exe().expect("this program's own file");
        let built = tests.parent().and_then(std::path::Path::parent).expect("target/…/deps");
        built.join("examples/worker")
    });
    vec![PROGRAM.display().to_string()]
}

/// A command that runs another worker in each slot, and those in turn.
pub fn mixed(commands: &[Vec<String>]) -> Vec<String> {
    let quoted = |command: &Vec<String>| {
        command.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect::<Vec<_>>().join(" ")
    };
    let count = commands.len();
    let mut script = format!("case $((${{SIDETRACK_SLOT#w}} % {count})) in\n");
    for (number, command) in commands.iter().enumerate() {
        script.push_str(&format!("{number}) exec {};;\n", quoted(command)));
    }
    script.push_str("esac");
    ["sh", "-c", &script].map(str::to_owned).to_vec()
}

/// Node, Python and Rust side by side.
pub fn every_language() -> Vec<String> {
    mixed(&[node_worker("listen.js"), python_worker(), rust_worker()])
}

/// An environment with the SDK and what its tests need. Made anew when that changes.
pub fn python() -> PathBuf {
    static PYTHON: LazyLock<Result<PathBuf, String>> = LazyLock::new(set_up);
    PYTHON.clone().unwrap_or_else(|error| panic!("{error}"))
}

fn set_up() -> Result<PathBuf, String> {
    let sdk = root().join("sdk/python");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    // Another run of the tests may be at it.
    let guard = File::create(folder.join("venv.lock")).and_then(|file| file.lock().map(|()| file));
    let _guard = guard.map_err(|error| format!("venv.lock: {error}"))?;
    let environment = folder.join("venv");
    let wanted = ["requirements-test.txt", "pyproject.toml"]
        .map(|file| fs::read_to_string(sdk.join(file)).unwrap_or_default())
        .concat();
    // Installed is this checkout's SDK, and several may share a target folder.
    let wanted = format!("{}\n{wanted}", sdk.display());
    let done = environment.join("sidetrack.stamp");
    if fs::read_to_string(&done).is_ok_and(|text| text == wanted) {
        return Ok(environment);
    }
    drop(fs::remove_dir_all(&environment));
    let run = |command: &mut Command, what: &str| {
        let output =
            command.stdin(Stdio::null()).output().map_err(|error| format!("{what}: {error}; {HOW}"))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if output.status.success() { Ok(()) } else { Err(format!("{what} failed; {HOW}\n{text}")) }
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&environment), "python3 -m venv")?;
    let mut pip = Command::new(environment.join("bin/python"));
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
        "requirements-test.txt",
    ]);
    run(pip.current_dir(&sdk), "pip install")?;
    fs::write(&done, wanted).map_err(|error| format!("{}: {error}", done.display()))?;
    Ok(environment)
}
