//! The JSON from the configuration, read so that every complaint names the option, what was expected
//! and what was found.

pub use serde_json::Value;

/// The options of a policy: an object of known keys.
#[derive(Debug, Clone)]
pub struct Options(serde_json::Map<String, Value>);

impl Options {
    /// Reads an object that has no other keys than `known`.
    ///
    /// # Errors
    /// One line for a human.
    pub fn parse(json: &str, known: &[&str]) -> Result<Self, String> {
        let options = match serde_json::from_str(json) {
            Ok(Value::Object(options)) => options,
            Ok(other) => return Err(format!("options: expected a JSON object, found {other}")),
            Err(error) => return Err(format!("options: expected a JSON object, found {json:?}: {error}")),
        };
        match options.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, value)) => {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Err(format!("{key}: no such option (its value is {value}): expected {known}"))
            }
            None => Ok(Self(options)),
        }
    }

    /// An option that may be absent. `read` makes something of its value, or nothing of a value that
    /// is not what `expected` says.
    ///
    /// # Errors
    /// One line for a human.
    pub fn optional<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| format!("{key}: expected {expected}, found {value}"))
    }

    /// An option that must be there; otherwise like [`optional`](Self::optional).
    ///
    /// # Errors
    /// One line for a human.
    pub fn required<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, String> {
        self.optional(key, expected, read)?
            .ok_or_else(|| format!("{key}: expected {expected}, found nothing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_keys_of_an_object_are_options() {
        assert!(Options::parse("{}", &[]).is_ok());
        assert!(Options::parse(r#"{"a": 1}"#, &["a", "b"]).is_ok());
        for (json, complaint) in [
            (r#"{"c": 1}"#, "c: no such option (its value is 1): expected a, b"),
            ("[1]", "options: expected a JSON object, found [1]"),
            (
                "{",
                "options: expected a JSON object, found \"{\": EOF while parsing an object at line 1 column 1",
            ),
        ] {
            assert_eq!(Options::parse(json, &["a", "b"]).unwrap_err(), complaint);
        }
    }

    #[test]
    fn a_complaint_says_what_to_write() {
        let options = Options::parse(r#"{"a": "x", "b": 7}"#, &["a", "b", "c"]).unwrap();
        assert_eq!(options.optional("b", "a number", Value::as_u64), Ok(Some(7)));
        assert_eq!(options.optional("c", "a number", Value::as_u64), Ok(None));
        assert_eq!(
            options.optional("a", "a number", Value::as_u64).unwrap_err(),
            r#"a: expected a number, found "x""#
        );
        assert_eq!(
            options.required("c", "a number", Value::as_u64).unwrap_err(),
            "c: expected a number, found nothing"
        );
    }
}
