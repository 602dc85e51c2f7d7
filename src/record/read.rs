//! Lines into entries, with the number of the line that is wrong.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use super::format::{Beginning, Entry, VERSION};

/// The longest line: a full head of the largest kind, and then some.
const LONGEST: u64 = 4 << 20;

/// A recording that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{file}{}: {problem}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub struct LogError {
    pub file: String,
    pub line: Option<u64>,
    pub problem: Problem,
}

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("cannot read it: {0}")]
    Read(#[from] io::Error),
    #[error(
        "no recording: expected a first line with \"sidetrack\": \"{VERSION}\", found {0}; `sidetrack record` makes one"
    )]
    NoRecording(String),
    #[error("a recording of another version: expected \"{VERSION}\", found \"{0}\"")]
    Version(String),
    #[error("longer than {LONGEST} bytes")]
    TooLong,
    #[error("{0}")]
    Entry(String),
}

/// A recording, line by line.
#[derive(Debug)]
pub struct Reader<R = BufReader<File>> {
    file: String,
    lines: R,
    line: u64,
    beginning: Beginning,
    /// The last line had no end and made no sense: the recorder was stopped in the middle of it.
    cut: bool,
}

impl Reader {
    /// Opens a file and reads its first line.
    ///
    /// # Errors
    /// When it is no recording.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let file = path.display().to_string();
        match File::open(path) {
            Ok(lines) => Self::new(file, BufReader::with_capacity(1 << 18, lines)),
            Err(error) => Err(LogError { file, line: None, problem: error.into() }),
        }
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads the first line.
    ///
    /// # Errors
    /// When it is not a recording's.
    pub fn new(file: String, lines: R) -> Result<Self, LogError> {
        let mut reader = Self { file, lines, line: 0, beginning: Beginning::default(), cut: false };
        let problem = match reader.text()? {
            None => Problem::NoRecording("an empty file".to_owned()),
            Some((text, _)) => match serde_json::from_str::<Beginning>(&text) {
                Ok(beginning) if beginning.sidetrack == VERSION => {
                    reader.beginning = beginning;
                    return Ok(reader);
                }
                Ok(beginning) => Problem::Version(beginning.sidetrack),
                Err(_) => {
                    let shown: String = text.chars().take(40).collect();
                    Problem::NoRecording(format!("`{}`", shown.escape_debug()))
                }
            },
        };
        Err(reader.error(problem))
    }

    #[must_use]
    pub const fn beginning(&self) -> &Beginning {
        &self.beginning
    }

    /// Whether the last line was left out, being only the beginning of one.
    #[must_use]
    pub const fn cut(&self) -> bool {
        self.cut
    }

    /// What is wrong with the line that was read last.
    pub fn error(&self, problem: Problem) -> LogError {
        LogError { file: self.file.clone(), line: Some(self.line), problem }
    }

    /// The next entry; none at the end.
    ///
    /// # Errors
    /// When the line is not one.
    pub fn entry(&mut self) -> Result<Option<Entry>, LogError> {
        let Some((text, whole)) = self.text()? else { return Ok(None) };
        match Entry::parse(&text) {
            Ok(entry) => Ok(Some(entry)),
            Err(_) if !whole => {
                self.cut = true;
                Ok(None)
            }
            Err(said) => Err(self.error(Problem::Entry(said))),
        }
    }

    /// A line, and whether it had an end.
    fn text(&mut self) -> Result<Option<(String, bool)>, LogError> {
        use io::Read as _;
        self.line += 1;
        let mut bytes = Vec::new();
        let read = (&mut self.lines).take(LONGEST).read_until(b'\n', &mut bytes);
        read.map_err(|error| self.error(error.into()))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let whole = bytes.pop_if(|last| *last == b'\n').is_some();
        if !whole && bytes.len() as u64 >= LONGEST {
            return Err(self.error(Problem::TooLong));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some((text, whole))),
            Err(_) => Err(self.error(Problem::Entry("not text (UTF-8)".to_owned()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = r#"{"sidetrack":"decisions/1","began":"","program":"","session_key":"query:sid","form":"full","chain":[],"last":{"link":"random","policy":"native:random","generation":0}}"#;

    fn read(text: &str) -> Result<(u64, bool), LogError> {
        let mut reader = Reader::new("log".into(), text.as_bytes())?;
        let mut entries = 0;
        while reader.entry()?.is_some() {
            entries += 1;
        }
        Ok((entries, reader.cut()))
    }

    #[test]
    fn entries_follow_each_other() {
        let gap = "{\"t\":1,\"gap\":1}\n";
        assert_eq!(read(&format!("{FIRST}\n")).unwrap(), (0, false));
        assert_eq!(read(&format!("{FIRST}\n{gap}{gap}")).unwrap(), (2, false));
        assert_eq!(
            read(&format!("{FIRST}\n{gap}{{\"t\":2,\"ga")).unwrap(),
            (1, true),
            "a cut line is left out"
        );
        assert_eq!(read(&format!("{FIRST}\n{}", gap.trim_end())).unwrap(), (1, false));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let version = FIRST.replace("decisions/1", "decisions/9");
        for (text, expected) in [
            (String::new(), "log, line 1: no recording"),
            ("GET / HTTP/1.1\n".to_owned(), "found `GET / HTTP/1.1`"),
            (version, "log, line 1: a recording of another version"),
            (format!("{FIRST}\n{{\"t\":1,\"gap\":1}}\nrubbish\n"), "log, line 3: not JSON"),
            (format!("{FIRST}\n\n"), "log, line 2: not JSON"),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
