//! A counter for each visitor, in the memory of the worker that the visitor came to first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse};
use axum::routing::get;
use sidetrack_worker::{KeepaliveLayer, Listener, SessionLayer};
use tokio::signal::unix::{SignalKind, signal};

/// What `--session-key cookie:visitor` names.
const NAME: &str = "visitor";

struct Counters {
    slot: String,
    visits: Mutex<HashMap<String, u64>>,
}

#[tokio::main(flavor = "current_thread")] // the other cores have their own workers
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = Listener::from_env()?.leave_when(async move {
        terminate.recv().await;
    });
    let (drain, idle) = (listener.drain(), listener.idle());
    let slot = listener.settings().slot.unwrap_or_else(|| "w?".to_owned());
    let counters = Arc::new(Counters { slot, visits: Mutex::default() });
    let app = Router::new()
        .route("/", get(visit).delete(forget))
        .with_state(counters)
        // Sees the cookie in a response and tells sidetrack before the visitor has it.
        .layer(SessionLayer::new(listener.sessions()))
        .layer(KeepaliveLayer::new(&listener));
    axum::serve(listener, app).with_graceful_shutdown(drain).await?;
    idle.await;
    Ok(())
}

async fn visit(State(counters): State<Arc<Counters>>, headers: HeaderMap) -> impl IntoResponse {
    let mut visits = counters.visits.lock().unwrap_or_else(PoisonError::into_inner);
    // A visitor of a worker that is no more, or of nobody, gets a new name.
    let known = visitor(&headers).filter(|name| visits.contains_key(*name)).map(str::to_owned);
    let name = known.clone().unwrap_or_else(|| format!("{:016x}", fastrand::u64(..)));
    let count = visits.entry(name.clone()).or_default();
    *count += 1;
    let text = format!("visit {count} of {name} on {}\n", counters.slot);
    let cookie =
        known.is_none().then(|| (SET_COOKIE, format!("{NAME}={name}; Path=/; HttpOnly; SameSite=Lax")));
    (AppendHeaders(cookie), text)
}

/// A `DELETE` that succeeds ends the session for sidetrack too.
async fn forget(State(counters): State<Arc<Counters>>, headers: HeaderMap) -> StatusCode {
    let mut visits = counters.visits.lock().unwrap_or_else(PoisonError::into_inner);
    match visitor(&headers).and_then(|name| visits.remove(name)) {
        Some(_) => StatusCode::NO_CONTENT,
        None => StatusCode::NOT_FOUND,
    }
}

fn visitor(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == NAME).map(|(_, value)| value)
}
