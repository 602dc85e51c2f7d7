//! The word that lets somebody in over TCP: in a file, compared without telling anything about it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use subtle::ConstantTimeEq as _;

/// Whoever guesses has at least this many characters to guess.
const SHORTEST: usize = 16;
/// Longer than anybody's, and what is read of a file that is none.
const LONGEST: u64 = 4096;
/// Bytes of a token that is made here.
const MADE: usize = 32;

/// A token. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Why a file gives no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("{0}: {1}")]
    File(String, io::Error),
    #[error(
        "{0}: expected one line of at least {SHORTEST} visible characters without spaces, as in the file that `run --admin-token-file` makes where there is none"
    )]
    Unfit(String),
}

impl Token {
    /// The token in a file.
    ///
    /// # Errors
    /// When it cannot be read or holds none.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let trouble = |error| TokenError::File(path.display().to_string(), error);
        let mut text = String::new();
        File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text)).map_err(trouble)?;
        let token = text.trim();
        let fit = token.len() >= SHORTEST && token.bytes().all(|byte| byte.is_ascii_graphic());
        fit.then(|| Self(token.to_owned())).ok_or_else(|| TokenError::Unfit(path.display().to_string()))
    }

    /// The token in a file; a file that is not there is made, with a new one in it, for this user alone.
    ///
    /// # Errors
    /// When it cannot be read or made, or holds none.
    pub fn keep(path: &Path) -> Result<Self, TokenError> {
        match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let token =
                    make(path).map_err(|error| TokenError::File(path.display().to_string(), error))?;
                tracing::info!(path = %path.display(), "a token for the admin interface was made");
                return Ok(token);
            }
            Ok(file) if file.mode() & 0o077 != 0 => {
                tracing::warn!(path = %path.display(), "others can read the token of the admin interface; chmod 600 it");
            }
            // Reading says what is wrong.
            _ => {}
        }
        Self::read(path)
    }

    /// Whether this is the one. How long it takes depends on the length alone.
    #[must_use]
    pub fn is(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }

    /// As the header `Authorization` has it.
    #[must_use]
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

fn make(path: &Path) -> io::Result<Token> {
    let mut random = [0; MADE];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{token}")?;
    Ok(Token(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_and_compared() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "  0123456789abcdef\n").unwrap();
        let token = Token::read(&path).unwrap();
        assert!(token.is("0123456789abcdef"));
        for other in ["", "0123456789abcdeg", "0123456789abcde", "0123456789abcdef "] {
            assert!(!token.is(other), "{other:?}");
        }
        assert_eq!(format!("{token:?}"), "Token(…)");
    }

    #[test]
    fn what_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for text in
            ["", "short", "two words are no token", "0123456789abcdef\n0123456789abcdef", "0123456789abcdeé"]
        {
            std::fs::write(&path, text).unwrap();
            let error = Token::keep(&path).unwrap_err().to_string();
            assert!(error.contains("at least 16 visible characters"), "{text:?}: {error}");
        }
        assert!(matches!(Token::read(Path::new("/nowhere/token")), Err(TokenError::File(..))));
    }

    #[test]
    fn one_that_is_not_there_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let made = Token::keep(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(Token::keep(&path).unwrap(), made);
        assert_eq!(made.0.len(), 2 * MADE);
    }
}
