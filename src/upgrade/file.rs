//! The state as a file in memory, and how the next program is told of it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek as _, Write as _};
use std::os::fd::{AsFd as _, RawFd};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::state::{FORMAT, Run};
use crate::sys::exec;

/// The environment variable that tells a program what it goes on with: `PID:DESCRIPTOR`. With the
/// process's own number nobody else takes it for his.
const CARRIED: &str = "SIDETRACK_CARRIED";

/// The whole file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Carried {
    format: u32,
    /// The version of the program that wrote it.
    pub version: String,
    /// Everything that goes along.
    pub descriptors: Vec<RawFd>,
    pub run: Run,
}

/// Read before anything else: whether the rest can be.
#[derive(Debug, Deserialize)]
struct Label {
    format: u32,
    version: String,
}

/// Why a state cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(
        "sidetrack {version} has written its state in format {found}, and this one ({own}) reads format {FORMAT}; restart instead",
        own = env!("CARGO_PKG_VERSION")
    )]
    Format { version: String, found: u32 },
    #[error("the state makes no sense: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the state cannot be read: {0}")]
    Read(#[from] io::Error),
}

impl Carried {
    /// Of this program.
    #[must_use]
    pub fn new(run: Run, descriptors: Vec<RawFd>) -> Self {
        Self { format: FORMAT, version: env!("CARGO_PKG_VERSION").to_owned(), descriptors, run }
    }

    /// Writes it into a file in memory, at whose beginning the file then is.
    ///
    /// # Errors
    /// When the machine has no room.
    pub fn write(&self) -> io::Result<File> {
        let mut out = BufWriter::with_capacity(1 << 16, exec::memory_file("sidetrack-state")?);
        serde_json::to_writer(&mut out, self)?;
        out.flush()?;
        let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(file)
    }

    /// Reads what another program has written.
    ///
    /// # Errors
    /// When it is in another format, or not whole.
    pub fn read(from: impl Read) -> Result<Self, StateError> {
        let mut text = Vec::new();
        BufReader::new(from).read_to_end(&mut text)?;
        let Label { format, version } = serde_json::from_slice(&text)?;
        if format != FORMAT {
            return Err(StateError::Format { version, found: format });
        }
        Ok(serde_json::from_slice(&text)?)
    }

    /// What the program before has left to this process; none when this one begins anew.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn inherited() -> Result<Option<Self>, StateError> {
        let told = std::env::var(CARRIED).unwrap_or_default();
        let Some((pid, number)) = told.split_once(':') else { return Ok(None) };
        if pid != std::process::id().to_string() {
            return Ok(None);
        }
        let Ok(number) = number.parse() else { return Ok(None) };
        let file = File::from(exec::inherited(number)?);
        Self::read(file).map(Some)
    }

    /// Becomes the program in a file, which goes on with this. Returns only when that fails; then
    /// everything is as before.
    ///
    /// # Errors
    /// When the file cannot be executed, or the machine has no room for the state.
    pub fn leave_to(&self, program: &Path) -> io::Error {
        let leave = || {
            let file = self.write()?;
            let number = exec::number(file.as_fd());
            let mut descriptors = self.descriptors.clone();
            descriptors.push(number);
            let told = format!("{}:{number}", std::process::id());
            let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
            exec::become_program(program, &arguments, (CARRIED, &told), &descriptors)
        };
        match leave() {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }
}

/// Has a worker not take itself for the program that goes on.
pub fn forget(worker: &mut std::process::Command) {
    worker.env_remove(CARRIED);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_format_is_refused_whatever_else_is_in_it() {
        let text = br#"{"format": 99, "version": "7.0.0", "run": "unheard of"}"#;
        let said = Carried::read(&text[..]).unwrap_err().to_string();
        assert!(said.contains("sidetrack 7.0.0") && said.contains("format 99"), "{said}");
        assert!(matches!(Carried::read(&b"{\"format\":1,"[..]), Err(StateError::Json(_))));
    }
}
