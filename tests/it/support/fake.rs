//! A worker that speaks the channel itself, and badly when asked to.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use super::root;

const HOW: &str = "install Python 3.9 or later: apt-get install python3";

/// The command for `fake/worker.py`. Its arguments say how it misbehaves, which it does in slot w0
/// only: the others are good workers.
pub fn fake(behaviour: &[&str]) -> Vec<String> {
    let script = root().join("tests/it/fake/worker.py");
    [interpreter(), &script]
        .map(|path| path.display().to_string())
        .into_iter()
        .chain(behaviour.iter().map(|&word| word.to_owned()))
        .collect()
}

/// Python, without any packages.
pub fn interpreter() -> &'static Path {
    static PYTHON: LazyLock<Result<PathBuf, String>> = LazyLock::new(python);
    PYTHON.as_ref().unwrap_or_else(|error| panic!("{error}"))
}

/// The interpreter itself: what is on the PATH may be a slow wrapper.
fn python() -> Result<PathBuf, String> {
    let ask = "import sys; print(sys.executable, int(sys.version_info >= (3, 9)))";
    let output = Command::new("python3")
        .args(["-c", ask])
        .output()
        .map_err(|_| format!("python3 is missing; {HOW}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.trim().rsplit_once(' ') {
        Some((path, "1")) => Ok(path.into()),
        _ => Err(format!("python3 is too old; {HOW}")),
    }
}
