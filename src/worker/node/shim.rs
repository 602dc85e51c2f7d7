//! The shim: a few small scripts preloaded into Node workers. They live in `sdk/node`, which is also
//! a package of its own.

use std::ffi::{OsStr, OsString};
use std::fs::DirBuilder;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use sha2::{Digest as _, Sha256};

/// The file that Node preloads; it loads the others.
const ENTRY: &str = "preload.js";

macro_rules! sources {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../sdk/node/lib/", $name)))),*]
    };
}

const SOURCES: &[(&str, &str)] = sources![
    "adopt.js",
    "channel.js",
    "detach.js",
    "engine-io.js",
    "farewell.js",
    "hand-back.js",
    "http.js",
    "join.js",
    "key.js",
    "lookout.js",
    "matches.js",
    "preload.js",
    "rejoin.js",
    "responses.js",
    "servers.js",
    "sessions.js",
    "socket-options.js",
    "sockets.js",
    "terms.js",
    "worker.js",
];

/// The shim as files that Node can load.
#[derive(Debug)]
pub struct Shim {
    /// Its own, and those of programs before whose workers may still live; none when it stays.
    folders: Vec<Folder>,
    path: PathBuf,
}

/// A folder that goes with the value.
#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is in a folder for temporary files.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

impl Shim {
    /// Writes the shim into a folder of its own that nobody else can write, unless the last folder of the
    /// programs before holds these very sources. All of them go with the value.
    ///
    /// # Errors
    /// When the folder for temporary files cannot be written.
    pub fn resume(before: &[PathBuf]) -> io::Result<Self> {
        let mut folders: Vec<_> = before.iter().cloned().map(Folder).collect();
        let prefix = format!("sidetrack-{}-", version());
        let same = |folder: &&Folder| {
            let named = folder.0.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
            named && folder.0.join(ENTRY).is_file()
        };
        if let Some(folder) = folders.last().filter(same) {
            let path = folder.0.join(ENTRY);
            return Ok(Self { folders, path });
        }
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        write_into(folder.path())?;
        // Workers may run as another user.
        open_to_read(folder.path(), 0o755)?;
        let folder = folder.keep();
        let path = folder.join(ENTRY);
        folders.push(Folder(folder));
        Ok(Self { folders, path })
    }

    /// The folders, for the next program.
    #[must_use]
    pub fn carry(&self) -> Vec<PathBuf> {
        self.folders.iter().map(|folder| folder.0.clone()).collect()
    }

    /// Writes the shim into a folder that stays, one for each user and version: for a process that
    /// is about to become another program and can remove nothing.
    ///
    /// # Errors
    /// When the folder for temporary files cannot be written, or somebody else has made ours.
    pub fn install() -> io::Result<Self> {
        let base = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        Self::install_in(&base)
    }

    fn install_in(base: &Path) -> io::Result<Self> {
        let user = Uid::effective();
        let folder = base.join(format!("sidetrack-shim-{user}-{}", version()));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
        // The place is known to everybody: what is there may be a trap.
        let found = std::fs::symlink_metadata(&folder)?;
        if !found.is_dir() || found.uid() != user.as_raw() || found.mode() & 0o022 != 0 {
            let text = format!("{} is not a folder that only this user can write", folder.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        write_into(&folder)?;
        Ok(Self { folders: Vec::new(), path: folder.join(ENTRY) })
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

/// Each file is whole at any time: other workers may be loading it.
fn write_into(folder: &Path) -> io::Result<()> {
    // Whatever the folder lies in, Node takes the scripts for CommonJS.
    let package = ("package.json", r#"{"type":"commonjs"}"#);
    for (name, source) in SOURCES.iter().chain([&package]) {
        let mut draft = tempfile::NamedTempFile::new_in(folder)?;
        draft.write_all(source.as_bytes())?;
        open_to_read(draft.path(), 0o644)?;
        draft.persist(folder.join(name))?;
    }
    Ok(())
}

fn open_to_read(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// Names these very sources.
fn version() -> String {
    let mut digest = Sha256::new();
    for (name, source) in SOURCES {
        digest.update(name);
        digest.update(source);
    }
    digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_next_program_goes_on_with_the_same_files_and_removes_all_in_the_end() {
        let first = Shim::resume(&[]).unwrap();
        let (path, old) = (first.path.clone(), tempfile::tempdir().unwrap().keep());
        let second = Shim::resume(&first.carry()).unwrap();
        assert_eq!((&second.path, second.carry()), (&path, first.carry()));
        let third = Shim::resume(std::slice::from_ref(&old)).unwrap();
        assert!(third.path.is_file() && third.path != path && third.carry().len() == 2, "other sources");
        std::mem::forget(first);
        drop((second, third));
        assert!(!path.exists() && !old.exists());
    }

    #[test]
    fn what_stays_is_found_again_and_a_strangers_folder_is_not_used() {
        let base = tempfile::tempdir().unwrap();
        let first = Shim::install_in(base.path()).unwrap();
        let second = Shim::install_in(base.path()).unwrap();
        assert_eq!(first.path, second.path);
        drop((first, second));
        let folder = base.path().read_dir().unwrap().next().unwrap().unwrap().path();
        assert!(folder.join(ENTRY).is_file());
        assert_eq!(folder.read_dir().unwrap().count(), SOURCES.len() + 1, "no draft is left");

        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Shim::install_in(base.path()).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink("/tmp", &folder).unwrap();
        assert!(Shim::install_in(base.path()).is_err());
    }

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
        let shim = Shim::resume(&[]).unwrap();
        assert_eq!(names(shim.path.parent().unwrap()), names(&package));
        assert!(shim.path.is_file());
    }

    #[test]
    fn the_users_options_stay() {
        let shim = Shim::resume(&[]).unwrap();
        let options = shim.node_options(Some(OsStr::new("--max-old-space-size=64")));
        let options = options.to_str().unwrap();
        assert!(options.starts_with("--max-old-space-size=64 --require \"/"), "{options}");
        assert!(shim.node_options(None).to_str().unwrap().starts_with("--require"));
    }
}
