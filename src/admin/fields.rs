//! What the fields of an answer say; one that is not there says nothing.

use serde_json::Value;

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Why an answer says no.
pub(super) fn refusal(value: &Value) -> String {
    value["error"].as_str().unwrap_or("refused").to_owned()
}
