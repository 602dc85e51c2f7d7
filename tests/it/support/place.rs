//! A folder of a test's own: what it writes is there, and the run's admin socket.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::{Run, admin, sidetrack};

/// A folder with an admin socket to be.
#[derive(Debug)]
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// The same, as a word of a command.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("plain text").to_owned()
    }

    pub fn socket(&self) -> PathBuf {
        self.path("admin.sock")
    }

    /// As an editor would: in place.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).expect("it can be written");
    }

    /// As a deployment would: whoever looks sees all of it or what was there before.
    pub fn replace(&self, name: &str, bytes: impl AsRef<[u8]>) {
        self.write("new", bytes);
        fs::rename(self.path("new"), self.path(name)).expect("it can be renamed");
    }

    /// A run whose admin socket is here.
    pub fn run(&self, command: Vec<String>) -> Run {
        sidetrack(command).with(&["--admin", &self.text("admin.sock")])
    }

    /// `sidetrack …`, to be asked at the socket.
    pub fn asking(&self, words: &[&str]) -> Command {
        let mut command = program(words);
        command.arg("--admin").arg(self.socket());
        command
    }

    /// The same, run to its end: exit code, and what was printed.
    pub fn ask(&self, words: &[&str]) -> (Option<i32>, String) {
        finished(self.asking(words))
    }

    /// The same, when all is well, as JSON.
    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Value {
        let (code, said) = self.ask(&[words, &["--json"]].concat());
        assert_eq!(code, Some(0), "{words:?}: {said}");
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// What the admin interface answers there, without the command between.
    #[track_caller]
    pub fn told(&self, target: &str) -> Value {
        let answer = admin(&self.socket(), target);
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }
}

/// `sidetrack …`
pub fn program(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidetrack"));
    command.args(words).stdin(Stdio::null());
    command
}

/// Runs a command to its end: exit code, and what was printed.
pub fn finished(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().expect("the program starts");
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}
