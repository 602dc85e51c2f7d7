//! Promises to policies built long ago: `tests/policies/contract` keeps, for each released version of
//! the contract, its text and components that were built for it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use sidetrack::policy::{Chain, LinkName, PolicySource, Settings};
use sidetrack::types::{Decision, WorkerId};

use crate::support::{request, root, roster};

fn released() -> Vec<PathBuf> {
    let folder = fs::read_dir(root().join("tests/policies/contract")).expect("the folder is there");
    folder.map(|entry| entry.expect("it can be listed").path()).collect()
}

#[test]
fn a_component_built_for_any_released_version_loads_and_decides() {
    let mut tried = 0;
    for version in released() {
        for entry in fs::read_dir(&version).expect("it can be listed") {
            let path = entry.expect("it can be listed").path();
            if path.extension().is_none_or(|extension| extension != "wasm") {
                continue;
            }
            let source = PolicySource::File(path.clone());
            let chain = Chain::load(&source, &Settings::default(), Arc::new(|_: &str| None))
                .unwrap_or_else(|error| panic!("{error}"));
            let answer = chain.balance(&roster(1, [3, 4]), &[0, 0], &mut request("GET / HTTP/1.1\r\n\r\n"));
            assert_eq!(
                (answer.decision, answer.link),
                (Decision::Worker(WorkerId(3)), LinkName::Link(0)),
                "{}",
                path.display()
            );
            tried += 1;
        }
    }
    assert!(tried >= 2, "only {tried} components");
}

/// Records, variants and functions of a released version are in the present text, word for word and
/// in order; only functions and interfaces were added.
#[test]
fn nothing_released_has_changed() {
    let present = statements(&fs::read_to_string(root().join("wit/policy.wit")).expect("it is there"));
    for version in released() {
        let then =
            statements(&fs::read_to_string(version.join("policy.wit")).expect("each version has its text"));
        let mut rest = present.iter();
        for statement in then.iter().filter(|statement| !statement.starts_with("package ")) {
            assert!(
                rest.any(|now| now == statement),
                "{}: {statement:?} is gone or has moved",
                version.display()
            );
        }
        // What is inside of records, variants and enums may not grow either.
        for kind in ["record ", "variant ", "enum "] {
            for (name, body) in types(&then, kind) {
                let now = types(&present, kind).into_iter().find(|(known, _)| *known == name);
                assert_eq!(
                    now.map(|(_, body)| body),
                    Some(body),
                    "{}: {name} has changed",
                    version.display()
                );
            }
        }
    }
}

/// The lines of a WIT text without comments and blank ones.
fn statements(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .map(str::to_owned)
        .collect()
}

/// The types of a kind, with the lines of their bodies.
fn types(statements: &[String], kind: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let mut lines = statements.iter();
    while let Some(line) = lines.next() {
        if line.starts_with(kind) {
            let body = if line.ends_with('}') {
                Vec::new()
            } else {
                lines.by_ref().take_while(|line| *line != "}").cloned().collect()
            };
            found.push((line.clone(), body));
        }
    }
    found
}
