//! Log output.

use std::io::IsTerminal as _;
use std::str::FromStr;

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

/// Checks a filter as `tracing` writes them: a level, or `target=level` pairs.
///
/// # Errors
/// When it is neither.
pub fn filter(text: &str) -> Result<EnvFilter, String> {
    // Values of fields as they stand: as patterns they are compiled, which may take for ever.
    EnvFilter::builder().with_regex(false).parse(text).map_err(|error| format!("{error}"))
}

/// Sends log lines to stderr from now on. A second call changes nothing.
pub fn start(format: Format, filter: EnvFilter) {
    // A span's line says how long it took and what came of it.
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(std::io::stderr);
    let result = match format {
        Format::Human => {
            let lines = lines.with_target(false).with_ansi(std::io::stderr().is_terminal());
            lines.compact().try_init()
        }
        Format::Json => lines.json().flatten_event(true).try_init(),
    };
    // It fails only when a subscriber is there already, which then gets the lines.
    drop(result);
}
