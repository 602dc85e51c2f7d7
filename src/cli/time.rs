//! Times as they are typed.

use std::time::Duration;

/// A time, which may be none.
pub(super) fn any_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("expected a time such as 10s: {error}"))
}

pub(super) fn some_time(text: &str) -> Result<Duration, String> {
    match any_time(text)? {
        Duration::ZERO => Err("expected more than no time".to_owned()),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::command;

    #[test]
    fn whoever_forgets_the_unit_reads_how_to_say_it() {
        for words in [
            &["sidetrack", "ctl", "drain", "w0", "--within", "10"][..],
            &["sidetrack", "record", "--out", "x", "--for", "10"],
            &["sidetrack", "join", "--socket", "x", "--wait", "10", "--", "node"],
            &["sidetrack", "upgrade", "--within", "10"],
            &["sidetrack", "policy", "bench", "hash", "--time", "10"],
        ] {
            let error = command().try_get_matches_from(words).unwrap_err().to_string();
            assert!(error.contains("expected a time such as 10s: "), "{words:?}: {error}");
        }
        // Nothing to wait for is a time, too.
        let words = ["sidetrack", "ctl", "drain", "w0", "--within", "0s"];
        assert!(command().try_get_matches_from(words).is_ok());
        let words = ["sidetrack", "policy", "bench", "hash", "--time", "0s"];
        let error = command().try_get_matches_from(words).unwrap_err().to_string();
        assert!(error.contains("expected more than no time"), "{error}");
    }
}
