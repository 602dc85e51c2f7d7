//! `policies/dist/script.wasm`, the engine of scripts: what is checked in is of these sources.
//!
//! It holds QuickJS, whose C code depends on the compiler to the byte. So bytes are not compared, as they
//! are for the policies in Rust, but a digest of the sources; and the tests of scripts run on what is
//! checked in. After a change to `wit/`, `sdk/policy`, `policies/common` or `policies/script`, with clang
//! and LLVM's `ar` at hand:
//!
//! ```sh
//! cargo test --test policies -- --ignored rebuild_the_script_engine
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::artefacts::{collect, hex, rustc};
use crate::support::{root, run};

const REFRESH: &str =
    "run `cargo test --test policies -- --ignored rebuild_the_script_engine` and commit policies/dist";
const TARGET: &str = "wasm32-unknown-unknown";

/// `policies/dist/script.json`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    rustc: String,
    clang: String,
    /// Of the artefact.
    sha256: String,
    /// Of all that it is made from, dependencies by their lock file.
    sources: String,
}

fn dist(name: &str) -> PathBuf {
    root().join("policies/dist").join(name)
}

#[test]
fn the_script_engine_matches_its_sources() {
    let text = fs::read_to_string(dist("script.json")).unwrap_or_else(|error| panic!("{error}: {REFRESH}"));
    let manifest: Manifest = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {REFRESH}"));
    let artefact = fs::read(dist("script.wasm")).unwrap();
    assert_eq!(hex(&artefact), manifest.sha256, "the manifest is of another artefact: {REFRESH}");
    assert_eq!(sources(), manifest.sources, "the sources have changed: {REFRESH}");
    // It reaches nothing but what policies reach, and tells nobody where it was built.
    let found = artefact.windows(5).any(|bytes| bytes == b"wasi_" || bytes == b"/home" || bytes == b"/root");
    assert!(!found, "a path of the builder or an import of WASI: {REFRESH}");
}

#[test]
#[ignore = "writes policies/dist; needs clang for wasm32"]
fn rebuild_the_script_engine() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("script");
    let [clang, ar] = [["clang", "clang-14"], ["llvm-ar", "llvm-ar-14"]].map(tool);
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root().join("policies/script"));
    cargo
        .args(["build", "--locked", "--quiet", "--release", "--target", TARGET, "--target-dir"])
        .arg(&folder);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.contains("FLAGS") || name.starts_with("CARGO_PROFILE_") || name == "RUSTC_WRAPPER" {
            cargo.env_remove(&*name);
        }
    }
    cargo.env("CC_wasm32_unknown_unknown", &clang).env("AR_wasm32_unknown_unknown", &ar);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", without_paths().join("\u{1f}"));
    run(&mut cargo).unwrap_or_else(|error| panic!("{error}"));

    let built = fs::read(folder.join(TARGET).join("release/policy_script.wasm")).unwrap();
    fs::write(dist("script.wasm"), &built).unwrap();
    let version = run(Command::new(&clang).arg("--version")).unwrap();
    let clang = version.lines().next().unwrap_or_default().to_owned();
    let manifest = Manifest { rustc: rustc(), clang, sha256: hex(&built), sources: sources() };
    let text = serde_json::to_string_pretty(&manifest).unwrap();
    fs::write(dist("script.json"), text + "\n").unwrap();
}

/// The first of some programs that starts.
fn tool(names: [&str; 2]) -> String {
    names.iter().find(|name| run(Command::new(name).arg("--version")).is_ok()).map_or_else(
        || panic!("neither `{}` nor `{}` starts: apt-get install clang llvm", names[0], names[1]),
        |name| (*name).to_owned(),
    )
}

/// Flags that keep the builder's folders out of the messages of panics.
fn without_paths() -> Vec<String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"))).unwrap();
    let mut flags = vec![format!("--remap-path-prefix={}/=", root().display())];
    for registry in fs::read_dir(home.join("registry/src")).unwrap() {
        flags.push(format!("--remap-path-prefix={}/=", registry.unwrap().path().display()));
    }
    flags
}

fn sources() -> String {
    let mut files = vec![PathBuf::from("policies/script/Cargo.lock")];
    for folder in ["wit", "policies/script/wit"] {
        collect(Path::new(folder), &mut files);
    }
    for krate in ["sdk/policy", "policies/common", "policies/script"] {
        files.push(Path::new(krate).join("Cargo.toml"));
        collect(&Path::new(krate).join("src"), &mut files);
    }
    files.sort();
    let mut all = Vec::new();
    for file in &files {
        let content = fs::read(root().join(file)).unwrap();
        all.extend(format!("{} {}\n", file.display(), content.len()).into_bytes());
        all.extend(content);
    }
    hex(&all)
}
