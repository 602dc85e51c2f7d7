//! Unix sockets with a path.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The file of a socket that was bound here. It goes with the value.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl SocketFile {
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nothing can be done about a file that cannot be removed; the next start replaces it.
        drop(std::fs::remove_file(&self.0));
    }
}

/// A socket with its path, as one program leaves it to the next. The file stays when this is dropped.
#[derive(Debug)]
pub struct Door {
    pub path: PathBuf,
    /// Whether the file is ours to remove: the socket was not opened for us.
    pub ours: bool,
    pub socket: OwnedFd,
}

impl Door {
    /// Another descriptor of a socket.
    ///
    /// # Errors
    /// When there is none to be had.
    pub fn of(listener: impl AsFd, ours: bool) -> io::Result<Self> {
        let listener = UnixListener::from(listener.as_fd().try_clone_to_owned()?);
        let path = listener.local_addr()?.as_pathname().map(Path::to_owned).unwrap_or_default();
        Ok(Self { path, ours, socket: listener.into() })
    }

    /// The socket, and its file if that goes with it from now on.
    #[must_use]
    pub fn open(self) -> (UnixListener, Option<SocketFile>) {
        (self.socket.into(), self.ours.then(|| SocketFile(self.path)))
    }
}

/// Listens at a path, in place of a socket file that nobody listens on any more.
///
/// # Errors
/// As `bind(2)`; `AddrInUse` when somebody does listen there, whose file stays.
pub fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && abandoned(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        result => result?,
    };
    let file = SocketFile(path.to_owned());
    listener.set_nonblocking(true)?;
    Ok((listener, file))
}

/// A socket file that nobody listens on any more, left by a process that was killed.
fn abandoned(path: &Path) -> bool {
    let socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    socket && UnixStream::connect(path).is_err_and(refused)
}
