//! The shim: a small script preloaded into Node workers.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;

const SOURCE: &str = include_str!("shim.js");

/// The shim as a file that Node can load. The file goes with the value.
#[derive(Debug)]
pub struct Shim {
    // Held for its drop: it removes the folder.
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Shim {
    /// Writes the shim into a private folder of its own.
    ///
    /// # Errors
    /// When the folder for temporary files cannot be written.
    pub fn write() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("sidetrack-").tempdir()?;
        let path = folder.path().join("shim.js");
        std::fs::write(&path, SOURCE)?;
        Ok(Self { _folder: folder, path })
    }

    /// As [`write`](Self::write), for a process that is about to become something else: the file stays.
    ///
    /// # Errors
    /// When the folder for temporary files cannot be written.
    pub fn install() -> io::Result<Self> {
        let shim = Self::write()?;
        std::mem::forget(shim);
        Self::write()
    }

    /// `NODE_OPTIONS` for a worker: what the user has set, and our preload.
    #[must_use]
    pub fn node_options(&self, users: Option<&OsStr>) -> OsString {
        let mut options = users.map(OsStr::to_owned).unwrap_or_default();
        if !options.is_empty() {
            options.push(" ");
        }
        options.push("--require \"");
        options.push(&self.path);
        options.push("\"");
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_options_stay() {
        let shim = Shim::write().unwrap();
        let options = shim.node_options(Some(OsStr::new("--max-old-space-size=64")));
        let options = options.to_str().unwrap();
        assert!(options.starts_with("--max-old-space-size=64 --require \"/"), "{options}");
        assert!(shim.node_options(None).to_str().unwrap().starts_with("--require"));
    }
}
