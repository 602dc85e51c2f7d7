//! What commands say, on stdout.

use std::io::{self, Write as _};

/// Prints. Nobody may be reading stdout; that is no reason to panic.
pub fn print(text: &str) {
    drop(io::stdout().write_all(text.as_bytes()));
}
