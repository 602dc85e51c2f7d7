//! Reading the request head without consuming it.
//!
//! The bytes stay in the kernel, so the worker reads exactly what the client sent. The head is
//! looked at before the socket is registered anywhere: with deferred accept it is nearly always
//! there, and only a connection whose head is still on its way costs a reactor entry.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use tokio::io::Interest;
use tokio::time::timeout;

use crate::sys::reactor::watch;
use crate::sys::socket;
use crate::types::{Accepted, Head, HeadError, Progress};

/// How much a client may ask for before it has said what it wants.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The longest head in bytes.
    pub limit: usize,
    /// The longest time from accept to the end of the head.
    pub timeout: Duration,
}

/// Why a connection has no head. Expected ends, not faults of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Headless {
    /// No byte ever came: a browser's spare connection, or a health check.
    #[error("nothing was sent")]
    Silent,
    /// The client left in the middle of the head.
    #[error("the client left before its request was complete")]
    Gone,
    #[error("the request head is too large")]
    TooLarge,
    #[error("the request head did not arrive in time")]
    TooSlow,
    #[error(transparent)]
    Invalid(#[from] HeadError),
}

thread_local! {
    /// One buffer for every peek on this thread: a peek never waits while it is borrowed.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Waits for the whole head of the first request.
///
/// Cancel safe: nothing is consumed, so another look begins from the same bytes.
///
/// # Errors
/// Why there is no head.
pub async fn peek(accepted: &Accepted, settings: Settings) -> Result<Head, Headless> {
    let mut seen = 0;
    match look(accepted, settings.limit, &mut seen)? {
        Progress::Complete(head) => Ok(head),
        Progress::Partial => wait(accepted, settings, &mut seen).await,
    }
}

async fn wait(accepted: &Accepted, settings: Settings, seen: &mut usize) -> Result<Head, Headless> {
    match timeout(settings.timeout, follow(accepted, settings.limit, seen)).await {
        Ok(outcome) => outcome,
        Err(_) if *seen == 0 => Err(Headless::Silent),
        Err(_) => Err(Headless::TooSlow),
    }
}

/// Looks again at each arrival of bytes. The reactor reports edges, so an unfinished head does
/// not spin although its bytes stay readable.
async fn follow(accepted: &Accepted, limit: usize, seen: &mut usize) -> Result<Head, Headless> {
    let socket = watch(accepted.socket.as_fd(), Interest::READABLE).map_err(|_| Headless::Gone)?;
    loop {
        let mut guard = socket.readable().await.map_err(|_| Headless::Gone)?;
        if let Progress::Complete(head) = look(accepted, limit, seen)? {
            return Ok(head);
        }
        if guard.ready().is_read_closed() {
            return Err(if *seen == 0 { Headless::Silent } else { Headless::Gone });
        }
        guard.clear_ready();
    }
}

/// One look at what has arrived. `seen` is how much was there at the last look.
///
/// What comes first has been read by the worker that handed the connection back, and is mostly the
/// whole head. It need not be: a worker that looks before it reads may leave in the kernel what one
/// before it had not read either.
fn look(accepted: &Accepted, limit: usize, seen: &mut usize) -> Result<Progress, Headless> {
    let read = &accepted.luggage.data;
    if *seen == 0 && !read.is_empty() {
        match Head::parse(read)? {
            Progress::Partial if read.len() >= limit => return Err(Headless::TooLarge),
            Progress::Partial => *seen = read.len(),
            complete @ Progress::Complete(_) => return Ok(complete),
        }
    }
    let left = |seen| if seen == 0 { Headless::Silent } else { Headless::Gone };
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(limit, 0);
        buffer[..read.len()].copy_from_slice(read);
        let length = match socket::peek(&accepted.socket, &mut buffer[read.len()..]) {
            Ok(0) => return Err(left(*seen)),
            Ok(length) => read.len() + length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Partial),
            Err(_) => return Err(left(*seen)),
        };
        let bytes = &buffer[..length];
        // A head ends, and a fault shows, with a line: without a new one there is nothing to
        // parse, however small the pieces are in which a hostile client sends it.
        let fresh = bytes.get(*seen..).unwrap_or_default();
        let progress =
            if *seen == 0 || fresh.contains(&b'\n') { Head::parse(bytes)? } else { Progress::Partial };
        *seen = length;
        match progress {
            Progress::Partial if length == limit => Err(Headless::TooLarge),
            progress => Ok(progress),
        }
    })
}
