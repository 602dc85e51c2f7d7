//! The nouns of the contract as plain Rust types, the same in a component and natively.

/// Names one worker process for as long as sidetrack runs. Never reused.
pub type WorkerId = u32;

/// One worker process that may be chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Worker {
    pub id: WorkerId,
    /// The slot's name, such as `w0`. It outlives a restart, unlike the id.
    pub name: String,
    /// Relative capacity; 1 unless configured.
    pub weight: u32,
    /// True when the worker should get no new sessions.
    pub draining: bool,
    /// Free-form facts from the configuration, in its order.
    pub labels: Vec<(String, String)>,
}

impl Worker {
    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }
}

/// An answer to `balance` or `find`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This worker shall have the connection. It must be one of those given last.
    Worker(WorkerId),
    /// No opinion: somebody else is asked.
    Defer,
    /// No worker shall have it.
    Refuse(Refusal),
}

/// How a client is turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status, 400 to 599.
    pub status: u16,
    /// `Retry-After` in seconds.
    pub retry_after: Option<u32>,
    /// Plain text for the body; cut to 256 characters.
    pub text: String,
}
