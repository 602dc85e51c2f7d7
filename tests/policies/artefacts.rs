//! `policies/dist`: what is checked in is what the sources make.
//!
//! The artefacts are compared byte by byte when this machine's rustc is the one they were made with.
//! Another rustc makes other bytes, so then the digest of the sources must be the recorded one, and
//! what this rustc makes of them must satisfy the same vectors. After a change to the sources:
//!
//! ```sh
//! cargo test --test policies -- --ignored refresh
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sidetrack::policy::{
    BuiltIn, Chain, Digest, Limits, PolicyLink, PolicySource, SessionOwner, Settings, Vectors,
};

use crate::support::{guest_of, request, root, roster, run};

const REFRESH: &str = "run `cargo test --test policies -- --ignored refresh` and commit policies/dist";

/// `policies/dist/manifest.json`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    /// What `rustc --version` says.
    rustc: String,
    policies: BTreeMap<String, Entry>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Of the artefact.
    sha256: String,
    /// Of all that it is made from.
    sources: String,
}

impl Manifest {
    fn path() -> PathBuf {
        root().join("policies/dist/manifest.json")
    }

    fn read() -> Self {
        let text = fs::read_to_string(Self::path())
            .unwrap_or_else(|error| panic!("no manifest ({error}): {REFRESH}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("no manifest ({error}): {REFRESH}"))
    }
}

#[test]
fn artefacts_match_their_sources() {
    let manifest = Manifest::read();
    let same_rustc = manifest.rustc == rustc();
    for policy in BuiltIn::ALL {
        let Some(entry) = manifest.policies.get(policy.name()) else {
            panic!("{policy} is not recorded: {REFRESH}")
        };
        assert_eq!(
            hex(policy.wasm()),
            entry.sha256,
            "{policy}: the manifest is of another artefact: {REFRESH}"
        );
        assert_eq!(sources(policy), entry.sources, "{policy}: the sources have changed: {REFRESH}");
        let built = fs::read(guest_of(policy)).expect("a built guest can be read");
        if same_rustc {
            assert!(built == policy.wasm(), "{policy}: the same sources gave other bytes: {REFRESH}");
        } else {
            check_vectors(policy, &PolicySource::File(guest_of(policy)));
        }
    }
    assert_eq!(manifest.policies.len(), BuiltIn::ALL.len(), "an artefact of no policy: {REFRESH}");
}

#[test]
fn components_and_native_twins_satisfy_the_same_vectors() {
    for policy in BuiltIn::ALL {
        check_vectors(policy, &PolicySource::BuiltIn(policy));
        check_vectors(policy, &PolicySource::Native(policy));
    }
}

#[test]
fn vectors_notice_a_difference() {
    let vectors = vectors(BuiltIn::RoundRobin);
    for source in [PolicySource::BuiltIn(BuiltIn::LeastConnection), PolicySource::Native(BuiltIn::Random)] {
        let error = vectors.run(&source, &Settings::default()).expect_err("another policy").to_string();
        assert!(error.starts_with("case `each in turn, whatever the loads`, step "), "{error}");
    }
}

/// What the documentation says about fuel, and that a cheap policy stays cheap.
#[test]
fn built_ins_are_frugal() {
    let roster = roster(1, 0..64);
    let nobody: Arc<dyn SessionOwner> = Arc::new(|_: &str| None);
    for policy in BuiltIn::ALL {
        // One that looks at the request decodes and hashes what it finds there, and now and then the
        // counters of all workers are saved.
        let dear = policy.reads_request() || policy == BuiltIn::Weighted;
        let decision_fuel = if dear { 60_000 } else { 6_000 };
        let limits = Limits { decision_fuel, ..Limits::default() };
        let settings = Settings { limits, ..Settings::default() };
        let link = PolicyLink { source: PolicySource::BuiltIn(policy), options: policy.example().to_owned() };
        let chain = Chain::build(&[link], &settings, &nobody).unwrap_or_else(|error| panic!("{error}"));
        for call in 0..1_000 {
            let mut request = request("GET /?room=a HTTP/1.1\r\nCookie: sidetrack=w3\r\n\r\n");
            // Whoever answers: that it was asked for nothing too dear shows in the faults.
            chain.balance(&roster, &[7; 64], &mut request);
            assert_eq!(chain.counts().faults.total(), 0, "{policy}, call {call}");
        }
    }
}

#[test]
#[ignore = "writes policies/dist"]
fn refresh() {
    let dist = root().join("policies/dist");
    let mut manifest = Manifest { rustc: rustc(), policies: BTreeMap::new() };
    for policy in BuiltIn::ALL {
        let built = fs::read(guest_of(policy)).expect("a built guest can be read");
        check_vectors(policy, &PolicySource::File(guest_of(policy)));
        fs::write(dist.join(policy.name()).with_extension("wasm"), &built)
            .expect("policies/dist is writable");
        let entry = Entry { sha256: hex(&built), sources: sources(policy) };
        manifest.policies.insert(policy.name().to_owned(), entry);
    }
    let text = serde_json::to_string_pretty(&manifest).expect("a manifest is plain JSON");
    fs::write(Manifest::path(), text + "\n").expect("policies/dist is writable");
}

fn vectors(policy: BuiltIn) -> Vectors {
    let path = root().join("policies").join(policy.name()).join("vectors.json");
    let json = fs::read_to_string(path).expect("each policy has vectors");
    Vectors::parse(&json).unwrap_or_else(|error| panic!("{policy}: {error}"))
}

fn check_vectors(policy: BuiltIn, source: &PolicySource) {
    match vectors(policy).run(source, &Settings::default()) {
        Ok(compared) => assert!(compared > 5, "{policy}: only {compared} calls compared"),
        Err(error) => panic!("{policy} as {source}: {error}"),
    }
}

pub fn rustc() -> String {
    run(Command::new("rustc").current_dir(root()).arg("--version")).expect("rustc runs").trim().to_owned()
}

pub fn hex(bytes: &[u8]) -> String {
    format!("{:#}", Digest::of(bytes))
}

/// A digest over everything an artefact is made from, except the compiler.
fn sources(policy: BuiltIn) -> String {
    let mut crates = vec![Path::new("sdk/policy").to_owned(), Path::new("policies").join(policy.name())];
    let own = fs::read_to_string(root().join(&crates[1]).join("Cargo.toml")).expect("a crate has a manifest");
    let shared = own.contains("policy-common");
    if shared {
        crates.push(Path::new("policies/common").to_owned());
    }
    let mut files = vec![];
    collect(Path::new("wit"), &mut files);
    for krate in crates {
        files.push(krate.join("Cargo.toml"));
        collect(&krate.join("src"), &mut files);
    }
    files.sort();
    let mut all = Vec::new();
    let mut add = |name: &str, content: &[u8]| {
        all.extend(format!("{name} {}\n", content.len()).into_bytes());
        all.extend(content);
    };
    for file in &files {
        let content = fs::read(root().join(file)).expect("a source can be read");
        add(&file.to_string_lossy(), &content);
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml can be read");
    let profile = manifest.split("\n\n").find(|table| table.contains("[profile.policy]"));
    add("profile", profile.expect("the profile exists").as_bytes());
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock can be read");
    let part = |package: &&str| {
        let named = |name: &str| package.contains(&format!("name = \"{name}"));
        named("wit-bindgen")
            || shared && ["itoa\"", "memchr\"", "percent-encoding\"", "serde"].into_iter().any(named)
    };
    for package in lock.split("\n\n").filter(part) {
        add("package", package.as_bytes());
    }
    hex(&all)
}

/// The files under a folder, as paths from the root.
pub fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root().join(folder)).expect("a source folder can be listed") {
        let path = folder.join(entry.expect("a source folder can be listed").file_name());
        if root().join(&path).is_dir() { collect(&path, files) } else { files.push(path) }
    }
}
