//! Policies that the tests build themselves: the built-in ones, to compare with what is checked in, and
//! the hostile one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use sidetrack::policy::BuiltIn;

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
pub fn ensure_target() -> Result<(), String> {
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
