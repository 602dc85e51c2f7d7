//! The file of the access log, which others may move away.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::libc;
use serde::Serialize;

use super::LOOK;

/// Standard output, or a file that is found again under its name.
#[derive(Debug)]
pub(super) struct LogFile {
    /// None for standard output.
    path: Option<PathBuf>,
    out: BufWriter<Out>,
    looked: Instant,
    trouble: Option<String>,
}

#[derive(Debug)]
enum Out {
    File(File),
    Stdout(io::Stdout),
    /// It could not be opened again; the next look tries.
    Nothing,
}

impl LogFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (path, out) = match path.to_str() {
            Some("-") => (None, Out::Stdout(io::stdout())),
            _ => (Some(path.to_owned()), Out::File(append(path)?)),
        };
        Ok(Self { path, out: BufWriter::new(out), looked: Instant::now(), trouble: None })
    }

    /// Opens it anew when that is asked for, or when another file or none has its name.
    pub(super) fn follow(&mut self, asked: bool) {
        let Some(path) = &self.path else { return };
        if !asked && self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        let same = match self.out.get_ref() {
            Out::File(file) => same(file, path),
            Out::Stdout(_) | Out::Nothing => false,
        };
        if same && !asked {
            return;
        }
        let path = path.clone();
        self.flush();
        let out = match append(&path) {
            Ok(file) => Out::File(file),
            Err(error) => {
                self.trouble = Some(error.to_string());
                Out::Nothing
            }
        };
        self.out = BufWriter::new(out);
    }

    /// Writes a line; false when it is lost.
    pub(super) fn write(&mut self, line: &impl Serialize) -> bool {
        let written = serde_json::to_vec(line).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            // Whole or not at all, so that there is never half a line before the next one.
            if line.len() > self.out.capacity() - self.out.buffer().len() {
                self.out.flush()?;
            }
            self.out.write_all(&line)
        });
        self.note(written)
    }

    /// Has everything written.
    pub(super) fn flush(&mut self) {
        let flushed = self.out.flush();
        self.note(flushed);
    }

    /// What went wrong last.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    fn note(&mut self, done: io::Result<()>) -> bool {
        let done = done.map_err(|error| error.to_string()).err();
        let good = done.is_none();
        if !good {
            self.trouble = done;
        }
        good
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(out) => out.write(bytes),
            Self::Nothing => Err(io::Error::new(io::ErrorKind::NotFound, "the file is gone")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stdout(out) => out.flush(),
            Self::Nothing => Ok(()),
        }
    }
}

/// For this user to write and its group to read. A pipe that nobody reads is an error and no wait.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(libc::O_NONBLOCK).open(path)
}

fn same(file: &File, path: &Path) -> bool {
    let identity = |found: std::fs::Metadata| (found.dev(), found.ino());
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => identity(open) == identity(named),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_file_is_followed_by_a_new_one_and_no_line_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let mut log = LogFile::open(&path).unwrap();
        assert!(log.write(&1));
        log.flush();
        std::fs::rename(&path, folder.path().join("access.log.1")).unwrap();
        assert!(log.write(&2), "still into the one that was moved");
        log.follow(true);
        assert!(log.write(&3));
        log.follow(true);
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!((read("access.log.1"), read("access.log")), ("1\n2\n".into(), "3\n".into()));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777 & !0o640, 0);
    }

    #[test]
    fn a_file_that_cannot_be_opened_again_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, away) = (folder.path().join("logs"), folder.path().join("away"));
        std::fs::create_dir(&inner).unwrap();
        let path = inner.join("access.log");
        let mut log = LogFile::open(&path).unwrap();
        std::fs::rename(&inner, &away).unwrap();
        log.follow(true);
        assert!(log.trouble().is_some());
        let full = "x".repeat(100_000);
        assert!(!log.write(&full), "nowhere to write it");
        std::fs::rename(&away, &inner).unwrap();
        log.follow(true);
        assert!(log.write(&4));
        log.follow(true);
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("4\n"));
    }
}
