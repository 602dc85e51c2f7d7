//! What policies remember, taken out of a running chain for a recording to begin with.

use super::{Description, LinkStatus};

/// The states of a whole chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct States {
    pub links: Vec<LinkState>,
    /// Of the native last link.
    pub last: LinkState,
}

impl States {
    /// What runs, without asking anybody what it remembers.
    #[must_use]
    pub fn unsaved(description: &Description) -> Self {
        let link = |link: &LinkStatus| LinkState {
            name: link.name.clone(),
            policy: link.policy.clone(),
            options: link.options.clone(),
            generation: link.generation,
            digest: link.digest.map(|digest| format!("{digest:#}")),
            ..LinkState::default()
        };
        let name = description.fallback.name();
        let last =
            LinkState { name: name.to_owned(), policy: format!("native:{name}"), ..LinkState::default() };
        Self { links: description.links.iter().map(link).collect(), last }
    }
}

/// What one link runs, and what it remembers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkState {
    pub name: String,
    /// As somebody would write it.
    pub policy: String,
    pub options: String,
    pub generation: u64,
    /// Of its file, in full; none for a native link.
    pub digest: Option<String>,
    /// Of the state, when the policy names one.
    pub form: Option<String>,
    /// None when it keeps none.
    pub state: Option<Vec<u8>>,
}
