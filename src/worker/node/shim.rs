//! The shim: a few small scripts preloaded into Node workers. They live in `sdk/node`, which is also
//! a package of its own.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;

/// The file that Node preloads; it loads the others.
const ENTRY: &str = "preload.js";

macro_rules! sources {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../sdk/node/lib/", $name)))),*]
    };
}

const SOURCES: &[(&str, &str)] = sources![
    "channel.js",
    "detach.js",
    "engine-io.js",
    "farewell.js",
    "hand-back.js",
    "http.js",
    "key.js",
    "preload.js",
    "responses.js",
    "sessions.js",
    "sockets.js",
    "worker.js",
];

/// The shim as files that Node can load. The files go with the value.
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
        for (name, source) in SOURCES {
            std::fs::write(folder.path().join(name), source)?;
        }
        // Whatever the folder lies in, Node takes the scripts for CommonJS.
        std::fs::write(folder.path().join("package.json"), r#"{"type":"commonjs"}"#)?;
        let path = folder.path().join(ENTRY);
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
    fn every_script_of_the_package_is_written() {
        let names = |folder: &std::path::Path| {
            let mut names: Vec<_> =
                std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.retain(|name| name != "package.json");
            names.sort();
            names
        };
        let package = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk/node/lib");
        let shim = Shim::write().unwrap();
        assert_eq!(names(shim.path.parent().unwrap()), names(&package));
        assert!(shim.path.is_file());
    }

    #[test]
    fn the_users_options_stay() {
        let shim = Shim::write().unwrap();
        let options = shim.node_options(Some(OsStr::new("--max-old-space-size=64")));
        let options = options.to_str().unwrap();
        assert!(options.starts_with("--max-old-space-size=64 --require \"/"), "{options}");
        assert!(shim.node_options(None).to_str().unwrap().starts_with("--require"));
    }
}
