//! One line: a decision as a recording would tell it, in words for people and their tools.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use crate::observe::Routing;
use crate::record::Writer;
use crate::record::format::Decision;

#[derive(Debug, Serialize)]
pub(super) struct Line {
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<IpAddr>,
    method: String,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<String>,
    /// The link that decided, and its generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    attempt: u32,
    outcome: &'static str,
    /// What the client was told instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// What the policies took.
    policy_us: f64,
    /// From the request to the decision: waiting for a session or a worker included.
    us: u64,
}

impl Line {
    pub(super) fn new(writer: &Writer, at: Instant, routing: &Routing, queries: bool) -> Self {
        let decision = writer.decision(0, routing);
        let why = why(&decision);
        let Decision { method, target, peer, session, attempt, refused, generation, .. } = decision;
        let path = match target.split_once('?') {
            Some((path, _)) if !queries => path.to_owned(),
            _ => target,
        };
        let now = SystemTime::now();
        let time = now.checked_sub(at.elapsed()).unwrap_or(now);
        Self {
            time: humantime::format_rfc3339_micros(time).to_string(),
            peer,
            method,
            path,
            session,
            worker: routing.outcome.as_ref().ok().map(|worker| routing.name(*worker)),
            link: routing.link().map(str::to_owned),
            generation,
            why,
            attempt,
            outcome: if refused.is_some() { "refused" } else { "handed-off" },
            status: refused.map(|refused| refused.refuse),
            policy_us: tenths(routing.took),
            us: u64::try_from(at.saturating_duration_since(routing.began).as_micros()).unwrap_or(u64::MAX),
        }
    }
}

/// In the policy's words when it has any.
fn why(decision: &Decision) -> Option<String> {
    let own = match (&decision.refused, decision.owner, &decision.balanced, &decision.link) {
        (Some(refused), _, _, _) => Some(refused.text.clone()),
        (None, Some(_), None, None) => Some("it has the session".to_owned()),
        _ => None,
    };
    decision.why.clone().or(own)
}

/// Microseconds to a tenth.
fn tenths(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e7).round() / 10.0
}
