//! What may be in a release: licences, sources and versions of everything that is linked, by the rules of
//! `deny.toml`. Advisories are for `cargo deny check`, which has a database of them.

#![allow(clippy::panic, clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// `deny.toml`.
struct Rules {
    licences: BTreeSet<String>,
    /// Crates of which a second version may be there: name, and how that version begins.
    skip: Vec<(String, String)>,
}

fn rules() -> Rules {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
    let table: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    let list = |section: &str, key: &str| table[section][key].as_array().unwrap().clone();
    let text = |value: &toml::Value| value.as_str().unwrap().to_owned();
    for (section, key) in
        [("bans", "multiple-versions"), ("bans", "wildcards"), ("sources", "unknown-registry")]
    {
        assert_eq!(text(&table[section][key]), "deny", "{section}.{key}");
    }
    let skip = list("bans", "skip");
    let skip = skip.iter().map(|entry| text(&entry["crate"])).map(|entry| {
        let (name, version) = entry.split_once('@').unwrap();
        (name.to_owned(), version.to_owned())
    });
    Rules { licences: list("licenses", "allow").iter().map(text).collect(), skip: skip.collect() }
}

/// Everything that is linked on this kind of machine, as Cargo tells it.
fn packages() -> Vec<Value> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", &target])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let linked = metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|node| &node["id"]);
    let linked: BTreeSet<&str> = linked.filter_map(Value::as_str).collect();
    let all = metadata["packages"].as_array().unwrap().iter();
    let packages: Vec<Value> =
        all.filter(|package| linked.contains(package["id"].as_str().unwrap())).cloned().collect();
    assert!(packages.len() > 100, "{} packages", packages.len());
    packages
}

fn name(package: &Value) -> String {
    format!("{} {}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap())
}

/// Whether a licence expression (SPDX, and the older way with a slash) can be met with these licences.
fn met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    either(&mut rest, allowed) && rest.is_empty()
}

fn either(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut good = both(rest, allowed);
    while let ["OR", behind @ ..] = *rest {
        *rest = behind;
        good |= both(rest, allowed);
    }
    good
}

fn both(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut good = one(rest, allowed);
    while let ["AND", behind @ ..] = *rest {
        *rest = behind;
        good &= one(rest, allowed);
    }
    good
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let (good, behind) = match *rest {
        ["(", behind @ ..] => {
            *rest = behind;
            let good = either(rest, allowed);
            let [")", behind @ ..] = *rest else { return false };
            (good, behind)
        }
        [licence, "WITH", exception, behind @ ..] => {
            (allowed.contains(&format!("{licence} WITH {exception}")), behind)
        }
        [licence, behind @ ..] => (allowed.contains(*licence), behind),
        [] => return false,
    };
    *rest = behind;
    good
}

#[test]
fn licences_are_those_that_are_allowed() {
    let Rules { licences, .. } = rules();
    let bad: Vec<String> = packages()
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(|licence| met(licence, &licences)))
        .map(|package| format!("{}: {}", name(package), package["license"]))
        .collect();
    assert!(bad.is_empty(), "licences that deny.toml does not allow: {bad:#?}");
}

#[test]
fn everything_is_from_here_or_from_crates_io() {
    let elsewhere: Vec<String> = packages()
        .iter()
        .filter(|package| !(package["source"].is_null() || package["source"] == CRATES_IO))
        .map(|package| format!("{}: {}", name(package), package["source"]))
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
    for package in packages().iter().filter(|package| package["source"].is_null()) {
        let wild = package["dependencies"].as_array().unwrap().iter();
        let wild: Vec<_> = wild.filter(|needed| needed["req"] == "*" && needed["path"].is_null()).collect();
        assert!(wild.is_empty(), "{} takes any version of something: {wild:#?}", name(package));
    }
}

#[test]
fn nothing_is_there_twice_but_what_is_listed() {
    let Rules { skip, .. } = rules();
    let mut versions = BTreeMap::<String, Vec<String>>::new();
    for package in packages() {
        let text = |key: &str| package[key].as_str().unwrap().to_owned();
        versions.entry(text("name")).or_default().push(text("version"));
    }
    let listed = |name: &str, version: &str| {
        skip.iter()
            .any(|(known, begin)| known == name && format!("{version}.").starts_with(&format!("{begin}.")))
    };
    for (name, versions) in &versions {
        let counted = versions.iter().filter(|version| !listed(name, version)).count();
        assert!(counted <= 1, "{name} is linked in the versions {versions:?}; see skip in deny.toml");
    }
    for (name, begin) in &skip {
        let there = versions.get(name).is_some_and(|versions| {
            versions.len() > 1
                && versions.iter().any(|version| format!("{version}.").starts_with(&format!("{begin}.")))
        });
        assert!(there, "{name}@{begin} is not there twice any more: take it out of deny.toml");
    }
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = ["MIT", "Apache-2.0 WITH LLVM-exception", "ISC"].map(str::to_owned).into();
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("GPL-3.0 OR MIT AND ISC", true),
        ("(GPL-3.0 OR MIT) AND GPL-2.0", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("(MIT", false),
        ("", false),
    ] {
        assert_eq!(met(expression, &allowed), expected, "{expression}");
    }
}
