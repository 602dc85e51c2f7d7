//! Where the admin socket is: given, or in a folder where the commands find it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::unistd::Uid;

/// Why no socket is found.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("no sidetrack of this user runs (looked in {}); name its socket with --admin PATH", .0.display())]
    Nobody(PathBuf),
    #[error("several run: {}; name one with --admin PATH", list(.0))]
    Several(Vec<PathBuf>),
    #[error("the folder {} cannot be used for the admin socket: {}; name another place with --admin PATH, or --admin off", .0.display(), .1)]
    Folder(PathBuf, io::Error),
}

/// Where this process's socket is looked for: `PID.sock` in the folder of this user.
///
/// # Errors
/// When the folder is not this user's alone.
pub fn own() -> Result<PathBuf, PlaceError> {
    let folder = folder();
    let checked = || {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let found = fs::symlink_metadata(&folder)?;
        let own = found.is_dir() && found.uid() == Uid::effective().as_raw() && found.mode() & 0o077 == 0;
        own.then_some(()).ok_or_else(|| io::Error::other("it is open to others"))
    };
    checked().map_err(|error| PlaceError::Folder(folder.clone(), error))?;
    Ok(folder.join(format!("{}.sock", std::process::id())))
}

/// The socket that was given, or that of the one sidetrack that this user runs.
///
/// # Errors
/// When none was given and none is found, or more than one.
pub fn at(given: Option<&PathBuf>) -> Result<PathBuf, PlaceError> {
    given.map_or_else(find, |path| Ok(path.clone()))
}

/// The socket of the one sidetrack that this user runs.
///
/// # Errors
/// When there is none or more than one.
fn find() -> Result<PathBuf, PlaceError> {
    let folder = folder();
    let sockets = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut live: Vec<PathBuf> = sockets.filter(|path| UnixStream::connect(path).is_ok()).collect();
    live.sort();
    match live.pop() {
        None => Err(PlaceError::Nobody(folder)),
        Some(only) if live.is_empty() => Ok(only),
        Some(last) => {
            live.push(last);
            Err(PlaceError::Several(live))
        }
    }
}

/// `$XDG_RUNTIME_DIR/sidetrack`, or `sidetrack-UID` in the folder for temporary files.
fn folder() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir()) {
        Some(path) => path.join("sidetrack"),
        None => std::env::temp_dir().join(format!("sidetrack-{}", Uid::effective())),
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
