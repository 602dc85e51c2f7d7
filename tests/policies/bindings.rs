//! What the C template takes from the contract is checked in, so that nobody needs wit-bindgen to write
//! a policy. After a change to `wit/`:
//!
//! ```sh
//! cargo test --test policies -- --ignored refresh
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sidetrack::policy::Digest;

use crate::support::{root, run};

const FILES: [&str; 3] = ["bindings.c", "bindings.h", "interfaces.h"];

fn folder() -> PathBuf {
    root().join("sdk/policy/templates/c/sidetrack")
}

/// Of the contract, of the program that makes the files, and of what it made.
fn digest() -> String {
    let program = root().join("tests/policies/bindings");
    let sources = [root().join("wit/policy.wit"), program.join("Cargo.lock"), program.join("src/main.rs")];
    let files = FILES.map(|name| folder().join(name));
    let all = sources.iter().chain(&files).flat_map(|path| fs::read(path).unwrap_or_default());
    format!("{:#}\n", Digest::of(&all.collect::<Vec<_>>()))
}

fn recorded() -> PathBuf {
    root().join("tests/policies/bindings/made.sha256")
}

#[test]
fn c_bindings_are_of_this_contract() {
    let found = fs::read_to_string(recorded()).unwrap_or_default();
    assert_eq!(found, digest(), "made of something else: `cargo test --test policies -- --ignored refresh`");
}

#[test]
#[ignore = "writes sdk/policy/templates/c/sidetrack"]
fn refresh_bindings() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bindings");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args(["run", "--quiet", "--locked", "--manifest-path"]);
    cargo.arg("tests/policies/bindings/Cargo.toml").arg("--target-dir").arg(target);
    cargo.args(["--", "wit/policy.wit"]).arg(folder());
    run(&mut cargo).unwrap_or_else(|error| panic!("{error}"));
    fs::write(recorded(), digest()).expect("the digest can be written");
}
