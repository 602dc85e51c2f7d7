//! The targets of `fuzz/` with all that was ever found for them, and with pieces of it: what was broken
//! once stays whole. Searching for more is `fuzz/run`, in SECURITY.md.

#![allow(clippy::panic, clippy::unwrap_used, reason = "in a test a panic is the message")]
#![allow(clippy::print_stdout, reason = "what was read last is what a failure shows")]

use std::fs;
use std::path::Path;

#[path = "../fuzz/targets/mod.rs"]
mod targets;

use targets::Target;

/// Runs one target on everything in its folder.
fn replay((name, target): Target) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut files = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        files += 1;
        println!("{}", path.display());
        target(&bytes);
        // As it comes over a network, and with one byte that is another.
        for cut in (0..bytes.len()).step_by(bytes.len() / 64 + 1) {
            target(&bytes[..cut]);
            let mut changed = bytes.clone();
            changed[cut] ^= 1 << (cut % 8);
            target(&changed);
        }
    }
    assert!(files >= 4, "{} is there", folder.display());
}

fn target(name: &str) -> Target {
    targets::TARGETS.into_iter().find(|(known, _)| *known == name).unwrap()
}

#[test]
fn heads() {
    replay(target("head"));
}

#[test]
fn channel_frames() {
    replay(target("frames"));
}

#[test]
fn configurations() {
    replay(target("config"));
}

#[test]
fn preambles() {
    replay(target("preamble"));
}
