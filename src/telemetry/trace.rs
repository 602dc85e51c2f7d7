//! Log output.

use std::io::IsTerminal as _;
use std::str::FromStr;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people; colours when stderr is a terminal.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            other => Err(format!("expected human or json, found \"{other}\"")),
        }
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Checks a filter as `tracing` writes them: a level, or `target=level` pairs.
///
/// # Errors
/// When it is neither.
pub fn filter(text: &str) -> Result<EnvFilter, String> {
    let expected = "expected a level (off, error, warn, info, debug, trace) or pairs such as sidetrack::route=debug,info";
    // A word alone would be a target, of which everything is logged, and of all others nothing: mostly it
    // is a level misspelt.
    let target = |word: &&str| {
        let plain = word.chars().all(char::is_alphanumeric);
        plain && word.parse::<u8>().is_err() && !LEVELS.contains(&word.to_ascii_lowercase().as_str())
    };
    if let Some(word) = text.split(',').map(str::trim).find(target) {
        return Err(format!("{expected}, found \"{word}\""));
    }
    // Values of fields as they stand: as patterns they are compiled, which may take for ever.
    EnvFilter::builder()
        .with_regex(false)
        .parse(text)
        .map_err(|error| format!("{expected}, found \"{text}\" ({error})"))
}

/// Puts another filter in the place of the one that was there.
type Change = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

static CHANGE: OnceLock<Change> = OnceLock::new();

/// Sends log lines to stderr from now on. A second call changes nothing.
pub fn start(format: Format, filter: EnvFilter) {
    // A span's line says how long it took and what came of it.
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(std::io::stderr);
    // They fail only when a subscriber is there already, which then gets the lines.
    match format {
        Format::Human => {
            let lines = lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).compact();
            let lines = lines.with_filter_reloading();
            let handle = lines.reload_handle();
            if lines.try_init().is_ok() {
                remember(Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())));
            }
        }
        Format::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let handle = lines.reload_handle();
            if lines.try_init().is_ok() {
                remember(Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())));
            }
        }
    }
}

fn remember(change: Change) {
    // Only the first call gets here.
    let _ = CHANGE.set(change);
}

/// Logs by another filter from now on.
///
/// # Errors
/// When it is none, or nobody has started to log.
pub fn change(text: &str) -> Result<(), String> {
    let filter = filter(text)?;
    let change = CHANGE.get().ok_or("log lines go where another program decides")?;
    change(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_pairs() {
        for text in [
            "info",
            "WARN",
            "off",
            "sidetrack=debug",
            "sidetrack::route=trace,info",
            "sidetrack[span]=debug",
            "3",
        ] {
            assert!(filter(text).is_ok(), "{text}");
        }
        for (text, found) in [
            ("loud", "\"loud\""),
            ("", "\"\""),
            ("sidetrack=loud", "\"sidetrack=loud\""),
            ("info,lod", "\"lod\""),
        ] {
            let error = filter(text).unwrap_err();
            assert!(error.starts_with("expected a level") && error.contains(found), "{error}");
        }
    }
}
