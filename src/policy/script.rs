//! Scripts: policies as JavaScript text, run by the engine in `policies/script`.
//!
//! The engine is one component for all scripts. A script's text goes to it with `configure`, so that
//! everything else, from the limits to a replacement with its state, is as for any policy; and a
//! script that has changed needs nothing compiled.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::version::{Digest, Version};
use super::{Limits, PolicyLink};

/// The engine: a core module with the contract's type information, and that of [`interfaces`].
///
/// [`interfaces`]: super::instance::Instance::interfaces
pub(super) static ENGINE: &[u8] = include_bytes!("../../policies/dist/script.wasm");

/// Of the engine.
pub(super) static DIGEST: LazyLock<Digest> = LazyLock::new(|| Digest::of(ENGINE));

/// The longest script, in bytes.
const LONGEST: usize = 1 << 20;

/// A file as text, or what is wrong with it.
pub(super) fn text(bytes: Vec<u8>) -> Result<String, String> {
    if bytes.len() > LONGEST {
        return Err(format!("a script may have {LONGEST} bytes, and this one has {}", bytes.len()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.split(|&byte| byte == b'\n').count();
        format!("not a script: expected text in UTF-8, found other bytes in line {line}")
    })
}

/// What the engine is configured with, as JSON.
pub(super) fn options(script: &str, link: &PolicyLink, limits: &Limits) -> String {
    // Options were JSON when the link was read.
    let options: Value = serde_json::from_str(&link.options).unwrap_or_default();
    let Limits { memory, decision_fuel: fuel, .. } = limits;
    json!({"script": script, "name": link.source.name(), "options": options, "memory": memory, "fuel": fuel})
        .to_string()
}

/// What the engine is configured with when a version's script shall have other options; none when it is no
/// script.
pub(super) fn with_options(version: &Version, options: &str) -> Option<String> {
    version.script.as_ref()?;
    let mut configuration: Value = serde_json::from_str(&version.options).ok()?;
    // What is no JSON reaches no script: a link's options are checked when it is read.
    configuration["options"] = serde_json::from_str(options).unwrap_or_default();
    Some(configuration.to_string())
}
