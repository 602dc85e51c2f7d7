//! Where to ask: a socket or an address that was given, or the socket in a folder where the commands find it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use hyper::Uri;
use nix::unistd::Uid;

use super::{Token, TokenError};

/// Where somebody said to ask.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// A socket's path or `http://HOST:PORT`, unless it is to be found.
    pub admin: Option<String>,
    /// The file with the token.
    pub token: Option<PathBuf>,
}

/// Where to ask, and what lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub(super) way: Way,
    pub(super) token: Option<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    Socket(PathBuf),
    /// Host and port.
    Tcp(String),
}

/// Why there is nowhere to ask.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("no sidetrack of this user runs (looked in {}); name its socket with --admin PATH", .0.display())]
    Nobody(PathBuf),
    #[error("several run: {}; name one with --admin PATH", list(.0))]
    Several(Vec<PathBuf>),
    #[error("the folder {} cannot be used for the admin socket: {}; name another place with --admin PATH, or --admin off", .0.display(), .1)]
    Folder(PathBuf, io::Error),
    #[error("--admin {0}: expected a socket's path or http://HOST:PORT")]
    Address(String),
    #[error(
        "--admin {0}: there is no TLS here; ask for http://, through a tunnel where strangers could listen"
    )]
    Tls(String),
    #[error("--token-file {0}")]
    Token(#[from] TokenError),
}

impl Wanted {
    /// Makes out where to ask.
    ///
    /// # Errors
    /// When that makes no sense, or when no place was given and none is found, or more than one.
    pub fn place(&self) -> Result<Place, PlaceError> {
        let way = match &self.admin {
            None => Way::Socket(find()?),
            Some(text) if text.contains("://") => Way::Tcp(authority(text)?),
            Some(path) => Way::Socket(path.into()),
        };
        let token = self.token.as_deref().map(Token::read).transpose()?;
        Ok(Place { way, token })
    }
}

impl Place {
    /// At a Unix socket.
    #[must_use]
    pub fn socket(path: &Path) -> Self {
        Self { way: Way::Socket(path.to_owned()), token: None }
    }
}

/// Host and port of an address.
fn authority(text: &str) -> Result<String, PlaceError> {
    let wrong = || PlaceError::Address(text.to_owned());
    if text.starts_with("https://") {
        return Err(PlaceError::Tls(text.to_owned()));
    }
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let plain = uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
    let authority =
        uri.authority().filter(|authority| plain && !authority.as_str().contains('@')).ok_or_else(wrong)?;
    Ok(format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80)))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Result<Way, String> {
        let wanted = Wanted { admin: Some(text.to_owned()), token: None };
        wanted.place().map(|place| place.way).map_err(|error| error.to_string())
    }

    #[test]
    fn a_path_or_an_address() {
        assert_eq!(place("/run/a.sock").unwrap(), Way::Socket("/run/a.sock".into()));
        for (text, expected) in [
            ("http://127.0.0.1:9000", "127.0.0.1:9000"),
            ("http://[::1]:9000/", "[::1]:9000"),
            ("http://ops.example", "ops.example:80"),
        ] {
            assert_eq!(place(text).unwrap(), Way::Tcp(expected.to_owned()));
        }
        for text in ["http://", "http://a:1/v1", "http://a:1?b", "http://me@a:1", "ftp://a:1"] {
            assert!(
                place(text).unwrap_err().contains("expected a socket's path or http://HOST:PORT"),
                "{text}"
            );
        }
        assert!(place("https://a").unwrap_err().contains("there is no TLS"));
    }
}
