//! What is answered: JSON on a line of its own, or no, and why.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::{Problem, Problems};

/// Yes, and what came of it.
#[derive(Debug)]
pub(super) struct Reply<T>(pub T);

/// No, with a fitting status.
#[derive(Debug)]
pub(super) struct No {
    pub status: StatusCode,
    failure: Failure,
}

/// The body of every answer that says no.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Failure {
    /// Why, for people.
    error: String,
    /// The same one by one, where a configuration is at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Wrong>,
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Wrong {
    /// The setting's path.
    place: String,
    text: String,
}

/// What most handlers answer.
pub(super) type Outcome<T> = Result<Reply<T>, No>;

impl No {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, failure: Failure { error: error.into(), problems: Vec::new() } }
    }
}

/// It was understood and cannot be done.
impl From<String> for No {
    fn from(error: String) -> Self {
        Self::new(StatusCode::CONFLICT, error)
    }
}

/// The same with everything that is wrong.
impl From<Problems> for No {
    fn from(problems: Problems) -> Self {
        let wrong = |problem: &Problem| Wrong { place: problem.place.clone(), text: problem.text.clone() };
        let mut no = Self::from(problems.to_string());
        no.failure.problems = problems.iter().map(wrong).collect();
        no
    }
}

impl<T: Serialize> IntoResponse for Reply<T> {
    fn into_response(self) -> Response {
        match serde_json::to_string(&self.0) {
            Ok(text) => json(StatusCode::OK, text),
            Err(error) => No::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}

impl IntoResponse for No {
    fn into_response(self) -> Response {
        json(self.status, serde_json::to_string(&self.failure).unwrap_or_default())
    }
}

fn json(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response()
}

/// A request's body; none is an empty object.
pub(super) fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, No> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| No::new(StatusCode::BAD_REQUEST, error.to_string()))
}
