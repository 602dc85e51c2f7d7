//! Connections that are nobody's yet: put aside by their own lives when the program stops, described for
//! the next one, and taken up again there, or here if it comes to nothing.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sidetrack_worker::wire::Luggage;
use tokio::sync::Notify;

use super::descriptors::{Incoming, Outgoing};
use super::state;
use crate::handoff::Routed;
use crate::types::{Accepted, Head, Progress, Request, Share};
use crate::worker::{HandedBack, Returned};

/// A connection in the middle of its life, by how far it has come.
#[derive(Debug)]
pub enum Waiting {
    /// Nothing of it was looked at, or not enough.
    Accepted(Accepted),
    Routed(Box<Routed>),
    /// It has had its answer, and may still read it.
    Refused(Accepted),
    Returned(Returned),
}

/// Where lives put their connections aside.
#[derive(Debug, Default)]
pub struct Pause {
    called: AtomicBool,
    call: Notify,
    /// Lives that wait for something.
    lives: AtomicUsize,
    aside: Mutex<Vec<Waiting>>,
}

/// A life that waits, counted.
#[derive(Debug)]
pub struct Life(Arc<Pause>);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.lives.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pause {
    /// A life has begun to wait.
    #[must_use]
    pub fn begun(self: &Arc<Self>) -> Life {
        self.lives.fetch_add(1, Ordering::Relaxed);
        Life(Arc::clone(self))
    }

    /// Waits until connections are to be put aside. Cancel safe.
    pub async fn called(&self) {
        loop {
            let heard = self.call.notified();
            if self.called.load(Ordering::Relaxed) {
                return;
            }
            heard.await;
        }
    }

    /// Puts a connection aside.
    pub fn put(&self, waiting: Waiting) {
        self.list().push(waiting);
    }

    /// Has every life put its connection aside. What this returns is all there is for as long as nothing
    /// is awaited; then [`Self::end`] it, or leave the program.
    pub async fn begin(&self) -> Vec<Waiting> {
        self.called.store(true, Ordering::Relaxed);
        loop {
            self.call.notify_waiters();
            tokio::task::yield_now().await;
            if self.lives.load(Ordering::Relaxed) == 0 {
                return std::mem::take(&mut *self.list());
            }
        }
    }

    /// Lives may wait again.
    pub fn end(&self) {
        self.called.store(false, Ordering::Relaxed);
    }

    fn list(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    pub(crate) fn carry(&self, out: &mut Outgoing) -> state::Connection {
        match self {
            Self::Accepted(accepted) => state::Connection::Accepted(accepted.carry(out)),
            Self::Routed(routed) => state::Connection::Routed(Box::new(routed.carry(out))),
            Self::Refused(accepted) => state::Connection::Refused(accepted.carry(out)),
            Self::Returned(Returned::Undelivered { routed, why, from }) => {
                state::Connection::Undelivered { routed: Box::new(routed.carry(out)), why: *why, from: *from }
            }
            Self::Returned(Returned::HandedBack(back)) => state::Connection::HandedBack {
                socket: out.add(&back.socket),
                server: back.server,
                data: state::Bytes(back.data.to_vec()),
                announced: back.peer,
            },
        }
    }

    pub(crate) fn resume(carried: state::Connection, incoming: &mut Incoming) -> io::Result<Self> {
        Ok(match carried {
            state::Connection::Accepted(accepted) => Self::Accepted(Accepted::resume(accepted, incoming)?),
            state::Connection::Routed(routed) => Self::Routed(Box::new(Routed::resume(*routed, incoming)?)),
            state::Connection::Refused(accepted) => Self::Refused(Accepted::resume(accepted, incoming)?),
            state::Connection::Undelivered { routed, why, from } => {
                let routed = Box::new(Routed::resume(*routed, incoming)?);
                Self::Returned(Returned::Undelivered { routed, why, from })
            }
            state::Connection::HandedBack { socket, server, data, announced } => {
                let (socket, data) = (incoming.take(socket)?, data.0.into_boxed_slice());
                Self::Returned(Returned::HandedBack(HandedBack { socket, server, data, peer: announced }))
            }
        })
    }
}

impl Accepted {
    pub(crate) fn carry(&self, out: &mut Outgoing) -> state::Accepted {
        state::Accepted {
            socket: out.add(&self.socket),
            peer: self.peer,
            announced: self.luggage.peer,
            opening: self.opening,
            server: self.server,
            data: state::Bytes(self.luggage.data.to_vec()),
            last_stop: self.luggage.last_stop,
            share: self.share.as_ref().map(Share::client),
        }
    }

    pub(crate) fn resume(carried: state::Accepted, incoming: &mut Incoming) -> io::Result<Self> {
        let state::Accepted { socket, peer, announced, opening, server, data, last_stop, share } = carried;
        let luggage = Luggage { data: data.0.into_boxed_slice(), last_stop, peer: announced };
        let (socket, permit) = (incoming.take(socket)?, incoming.permit()?);
        let share = share.and_then(|client| incoming.share(client));
        Ok(Self { socket, peer, opening, server, luggage, permit, share })
    }
}

impl Routed {
    pub(crate) fn carry(&self, out: &mut Outgoing) -> state::Routed {
        let Self { accepted, request } = self;
        state::Routed {
            accepted: accepted.carry(out),
            head: state::Bytes(request.head.as_bytes().to_vec()),
            client: request.peer,
            session: request.session.clone(),
            attempt: request.attempt,
        }
    }

    pub(crate) fn resume(carried: state::Routed, incoming: &mut Incoming) -> io::Result<Self> {
        let state::Routed { accepted, head, client, session, attempt } = carried;
        let accepted = Accepted::resume(accepted, incoming)?;
        let Ok(Progress::Complete(head)) = Head::parse(&head.0) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a request's head is none"));
        };
        let request = Request { head, peer: client, session, attempt };
        Ok(Self { accepted, request })
    }
}
