//! Decisions as they are made, a line each, for as long as somebody reads.
//!
//! Lines are made on a thread that is not routing's, some milliseconds' worth at a time. Whoever reads
//! slowly loses observations and gets a line that says how many; nothing here grows with them.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::RawQuery;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Bytes, Frame};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::reply::No;
use super::routes::Chosen;
use super::thin::Thin;
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

/// What the answer is: JSON, a line each.
pub(super) const CONTENT_TYPE: &str = "application/x-ndjson";

/// What may be in the query.
pub(super) const QUERY: &[(&str, &str)] = &[
    ("form", "full or hashed, which leaves out or replaces what clients have said; hashed without it"),
    ("keep", "what a hashed one keeps as it is, such as query:room; repeatable"),
    ("steps", "true for what every link said"),
    ("headers", "false for none"),
    ("rate", "at most so many decisions in a second, and nothing else but how many were left out"),
    super::routes::POOL,
];

/// What the query asks for.
#[derive(Debug, Default)]
struct Wanted {
    form: Form,
    keep: Vec<Keep>,
    /// As they were written, for the recording to name.
    kept: Vec<String>,
    steps: bool,
    no_headers: bool,
    rate: Option<NonZeroU32>,
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
                ("headers", "false") => wanted.no_headers = true,
                ("rate", value) => {
                    let rate = value.parse();
                    wanted.rate = Some(rate.map_err(|_| {
                        format!("rate: expected how many decisions in a second, found \"{value}\"")
                    })?);
                }
                ("steps", value) => {
                    wanted.steps = value
                        .parse()
                        .map_err(|_| format!("steps: expected true or false, found \"{value}\""))?;
                }
                ("pool", _) => {}
                _ => {
                    return Err(format!(
                        "expected form=full|hashed, keep=WHAT, steps=true, headers=false or rate=N, found \"{name}={value}\""
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
        Err(error) => return No::new(StatusCode::BAD_REQUEST, error).into_response(),
    };
    let Wanted { form, keep, kept, steps, no_headers, rate } = wanted;
    let key = &pool.router.settings.now().session_key.clone();
    let mut writer = match Writer::new(form, keep, steps, key.clone()) {
        Ok(writer) => writer,
        Err(error) => {
            return No::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
        }
    };
    if no_headers {
        writer.leave_headers_out();
    }
    // No decision falls between the two: this thread is the one that makes them.
    let Some(follower) = pool.observers.follow(&pool.policy) else {
        let error = format!("{MOST_FOLLOWERS} follow already");
        return No::new(StatusCode::SERVICE_UNAVAILABLE, error).into_response();
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
    let thin = rate.map(|rate| Thin::new(rate.get(), Instant::now()));
    tokio::spawn(feed(follower, writer, thin, sender));
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::new(Pieces(pieces))).into_response()
}

/// Ends when its reader does.
async fn feed(
    mut follower: Follower,
    mut writer: Writer,
    mut thin: Option<Thin>,
    sender: mpsc::Sender<Bytes>,
) {
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
        if let Some(thin) = &mut thin {
            heard = thin.out(heard);
            if heard.is_empty() {
                continue;
            }
        }
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
        let wanted = Wanted::parse("rate=30&headers=false").unwrap();
        assert_eq!((wanted.rate.map(NonZeroU32::get), wanted.no_headers), (Some(30), true));
        let wanted = Wanted::parse("form=full&keep=query%3Aroom&keep=peer&steps=true").unwrap();
        assert_eq!((wanted.form, wanted.steps), (Form::Full, true));
        assert_eq!(wanted.keep, [Keep::Query("room".into()), Keep::Peer]);
        assert_eq!(wanted.kept, ["query:room", "peer"]);
        for (query, expected) in [
            ("form=half", "found \"form=half\""),
            ("keep=all", "keep: expected query:NAME"),
            ("steps=1", "steps: expected true"),
            ("rate=0", "rate: expected how many"),
            ("headers=1", "found \"headers=1\""),
            ("x", "found \"x=\""),
        ] {
            let error = Wanted::parse(query).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
