//! What is wrong with a configuration.

use std::fmt;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The flag or key.
    pub place: String,
    pub text: String,
}

/// All mistakes at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// A single one.
    #[must_use]
    pub fn one(place: impl Into<String>, text: impl Into<String>) -> Self {
        Self(vec![Problem { place: place.into(), text: text.into() }])
    }

    pub fn add(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.0.push(Problem { place: place.into(), text: text.into() });
    }

    /// Those of a part of the configuration, at their places in it.
    pub fn append(&mut self, prefix: &str, others: Self) {
        let at = |Problem { place, text }| Problem { place: format!("{prefix}{place}"), text };
        self.0.extend(others.0.into_iter().map(at));
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// The value, if nothing is wrong.
    ///
    /// # Errors
    /// These problems, if there are any.
    pub fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [problem] => write!(f, "{}: {}", problem.place, problem.text),
            problems => {
                write!(f, "{} problems:", problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {}: {}", problem.place, problem.text))
            }
        }
    }
}

impl std::error::Error for Problems {}
