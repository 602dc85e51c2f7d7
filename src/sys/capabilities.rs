//! Rights beyond those of an ordinary user.

use std::collections::HashSet;

pub use caps::Capability;
use caps::{CapSet, CapsHashSet};
use nix::sys::prctl;

/// What is left of what was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// By name, in order.
    pub kept: Vec<String>,
    pub dropped: usize,
}

/// Gives up every capability but these, for this thread and those that it will start; so it is to be called
/// before there are others. Programs it starts inherit none, unless root itself does: what a program of
/// root's gets is for who starts it to say.
///
/// # Errors
/// In words, when the kernel refuses.
pub fn keep_only(needed: &[Capability]) -> Result<Kept, String> {
    let text = |error: caps::errors::CapsError| error.to_string();
    let granted = caps::read(None, CapSet::Permitted).map_err(text)?;
    let kept: CapsHashSet = granted.iter().copied().filter(|one| needed.contains(one)).collect();
    if granted.is_empty() {
        return Ok(Kept { kept: Vec::new(), dropped: 0 });
    }
    // Old kernels have no ambient set, and then nothing is in it.
    drop(caps::clear(None, CapSet::Ambient));
    caps::set(None, CapSet::Inheritable, &HashSet::new()).map_err(text)?;
    caps::set(None, CapSet::Effective, &kept).map_err(text)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(text)?;
    let mut names: Vec<String> = kept.iter().map(ToString::to_string).collect();
    names.sort();
    Ok(Kept { dropped: granted.len() - names.len(), kept: names })
}

/// Has the program that follows in this process keep what there is, which it would lose unless it is root's.
/// To be taken back with [`keep_back`] when none follows.
///
/// # Errors
/// In words, when the kernel refuses.
pub fn hand_on() -> Result<(), String> {
    let hand_on = || {
        let kept = caps::read(None, CapSet::Permitted)?;
        caps::set(None, CapSet::Inheritable, &kept)?;
        caps::set(None, CapSet::Ambient, &kept)
    };
    hand_on().map_err(|error: caps::errors::CapsError| error.to_string())
}

/// Programs started from here on inherit none.
pub fn keep_back() {
    drop(caps::clear(None, CapSet::Ambient));
    drop(caps::clear(None, CapSet::Inheritable));
}

/// No program that this process becomes or starts gets more rights than it has.
///
/// # Errors
/// As `prctl(2)`.
pub fn no_new_privileges() -> nix::Result<()> {
    prctl::set_no_new_privs()
}
