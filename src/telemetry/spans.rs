//! What a line of the log belongs to: a connection's life, and in it each question to a policy.
//!
//! Spans are of level debug. Below it they are not made at all: what then remains for a connection is a look
//! at the level in force.

use std::net::SocketAddr;

use tracing::level_filters::LevelFilter;
use tracing::{Span, debug_span, field};

use crate::types::{Decision, ServerId};

/// From accept, or from its coming back, until a worker has been sent it or it was refused.
#[must_use]
pub fn connection(peer: Option<SocketAddr>, server: ServerId, attempt: u32) -> Span {
    let span = debug_span!(
        "connection",
        peer = field::Empty,
        server = server.0,
        attempt,
        session = field::Empty,
        worker = field::Empty,
        generation = field::Empty,
        outcome = field::Empty,
        status = field::Empty,
    );
    if let Some(peer) = peer.filter(|_| !span.is_disabled()) {
        span.record("peer", field::display(peer));
    }
    span
}

/// One question to one link.
#[must_use]
pub fn policy(link: &str, question: &'static str) -> Span {
    debug_span!("policy", link, question, generation = field::Empty, decision = field::Empty)
}

/// What came of that question; none when the policy failed.
pub fn answered(span: &Span, generation: u64, decision: Option<&Decision>) {
    if span.is_disabled() {
        return;
    }
    span.record("generation", generation);
    match decision {
        Some(Decision::Worker(worker)) => span.record("decision", field::display(worker)),
        Some(Decision::Defer) => span.record("decision", "defer"),
        Some(Decision::Refuse(refusal)) => span.record("decision", field::display(refusal.status)),
        None => span.record("decision", "failed"),
    };
}

/// The span of the connection at hand, where there is one.
pub(super) fn current() -> Option<Span> {
    (LevelFilter::current() >= LevelFilter::DEBUG).then(Span::current)
}
