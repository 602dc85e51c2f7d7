//! The tests that the SDKs bring along in their own languages.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Turn, install, node, python, root};

/// Runs a whole suite, and shows what it says when it fails.
#[track_caller]
fn passes(command: &mut Command, folder: &Path) {
    let _turn = Turn::shared();
    let output = command
        .current_dir(folder)
        .env("SIDETRACK_BIN", env!("CARGO_BIN_EXE_sidetrack"))
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{command:?} in {}:\n{}",
        folder.display(),
        String::from_utf8_lossy(&said)
    );
}

#[track_caller]
fn npm_test(folder: &str) {
    // Node is there, and so are the workers that all suites share.
    node();
    install(folder).unwrap_or_else(|error| panic!("{error}"));
    passes(Command::new("npm").arg("test"), &root().join(folder));
}

#[test]
fn the_shim() {
    npm_test("tests/node");
}

#[test]
fn the_node_package() {
    npm_test("sdk/node");
}

/// The examples of `docs/session-keys.md`, with the real clients of their protocols.
#[test]
fn sessions_of_other_protocols() {
    npm_test("tests/sessions");
}

#[test]
fn the_python_package() {
    let python = python().join("bin/python");
    passes(
        Command::new(python)
            .args(["-m", "pytest", "-q"])
            .env("SIDETRACK_BIN", env!("CARGO_BIN_EXE_sidetrack")),
        &root().join("sdk/python"),
    );
}
