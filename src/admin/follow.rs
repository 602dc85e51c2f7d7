//! Decisions as they are made, a line each, for as long as somebody reads.
//!
//! Lines are made on a thread that is not routing's, some milliseconds' worth at a time. Whoever reads
//! slowly loses observations and gets a line that says how many; nothing here grows with them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::RawQuery;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Bytes, Frame};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::server::{Chosen, failure};
use crate::observe::{Follower, Heard, MOST_FOLLOWERS};
use crate::policy::States;
use crate::record::{Form, Keep, Writer};

/// What comes within so long is written together: routing is not to wake somebody for every connection.
const TOGETHER: Duration = Duration::from_millis(10);
/// … but no more than this many at a time.
const MOST: usize = 256;
/// Pieces that wait to be read. A follower behind them loses the rest.
const PIECES: usize = 2;
/// Whoever reads nothing at all for so long is let go.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the query asks for.
#[derive(Debug, Default)]
struct Wanted {
    form: Form,
    keep: Vec<Keep>,
    /// As they were written, for the recording to name.
    kept: Vec<String>,
    steps: bool,
}

impl Wanted {
    fn parse(query: &str) -> Result<Self, String> {
        let mut wanted = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match (&*name, &*value) {
                ("form", "full") => wanted.form = Form::Full,
                ("form", "hashed") => wanted.form = Form::Hashed,
                ("keep", text) => {
                    wanted.keep.push(text.parse().map_err(|error| format!("keep: {error}"))?);
                    wanted.kept.push(text.to_owned());
                }
                ("steps", value) => {
                    wanted.steps = value
                        .parse()
                        .map_err(|_| format!("steps: expected true or false, found \"{value}\""))?;
                }
                ("pool", _) => {}
                _ => {
                    return Err(format!(
                        "expected form=full|hashed, keep=WHAT or steps=true, found \"{name}={value}\""
                    ));
                }
            }
        }
        Ok(wanted)
    }
}

pub(super) async fn follow(Chosen(pool): Chosen, RawQuery(query): RawQuery) -> Response {
    let wanted = match Wanted::parse(&query.unwrap_or_default()) {
        Ok(wanted) => wanted,
        Err(error) => return failure(StatusCode::BAD_REQUEST, &error),
    };
    let Wanted { form, keep, kept, steps } = wanted;
    let key = &pool.router.settings.session_key;
    let mut writer = match Writer::new(form, keep, steps, key.clone()) {
        Ok(writer) => writer,
        Err(error) => return failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    };
    // No decision falls between the two: this thread is the one that makes them.
    let Some(follower) = pool.observers.follow(&pool.policy) else {
        let error = format!("{MOST_FOLLOWERS} follow already");
        return failure(StatusCode::SERVICE_UNAVAILABLE, &error);
    };
    let states = if steps {
        // Somebody who only reads along needs no states, and no policy is to be asked for one in vain.
        States::unsaved(&pool.policy.describe())
    } else {
        pool.policy.states()
    };
    let (roster, _) = pool.fleet.roster();
    let mut first = String::new();
    writer.begin(&mut first, &states, &roster, key, kept);

    let (sender, pieces) = mpsc::channel(PIECES);
    // The channel is new and has room.
    let _ = sender.try_send(Bytes::from(first));
    tokio::spawn(feed(follower, writer, sender));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(Pieces(pieces))).into_response()
}

/// Ends when its reader does.
async fn feed(mut follower: Follower, mut writer: Writer, sender: mpsc::Sender<Bytes>) {
    let mut more = false;
    loop {
        let first = tokio::select! {
            () = sender.closed() => return,
            first = follower.next() => first,
        };
        let Some(first) = first else { return };
        if !more {
            sleep(TOGETHER).await;
        }
        let mut heard: Vec<Heard> = vec![first];
        while heard.len() < MOST
            && let Some(next) = follower.ready()
        {
            heard.push(next);
        }
        more = heard.len() == MOST;
        let written = tokio::task::spawn_blocking(move || {
            let mut lines = String::new();
            for heard in &heard {
                writer.write(&mut lines, heard);
            }
            (writer, lines)
        });
        let Ok((back, lines)) = written.await else { return };
        writer = back;
        if !matches!(timeout(PATIENCE, sender.send(Bytes::from(lines))).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// A body of pieces as they come.
struct Pieces(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_is_wanted() {
        let wanted = Wanted::parse("form=full&keep=query%3Aroom&keep=peer&steps=true").unwrap();
        assert_eq!((wanted.form, wanted.steps), (Form::Full, true));
        assert_eq!(wanted.keep, [Keep::Query("room".into()), Keep::Peer]);
        assert_eq!(wanted.kept, ["query:room", "peer"]);
        for (query, expected) in [
            ("form=half", "found \"form=half\""),
            ("keep=all", "keep: expected query:NAME"),
            ("steps=1", "steps: expected true"),
            ("x", "found \"x=\""),
        ] {
            let error = Wanted::parse(query).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
