//! Telling sidetrack which sessions live here.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::channel::Channel;
use crate::wire::encode;

/// Announces the sessions this worker owns, so that their later connections come here.
///
/// Cheap to clone; all clones of one listener's handle are one. Saying a thing twice is the same
/// as saying it once, so a session may be announced from several places.
#[derive(Debug, Clone)]
pub struct Sessions {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    channel: Arc<Channel>,
    open: Mutex<HashSet<Box<str>>>,
}

impl Sessions {
    pub(crate) fn new(channel: Arc<Channel>) -> Self {
        Self { shared: Arc::new(Shared { channel, open: Mutex::default() }) }
    }

    /// Announces a session. Await it before the client can learn the id, that is before the
    /// response goes out: the client's next connection may come at once.
    ///
    /// Waits only while the channel is full. When sidetrack is gone there is nobody to tell, and
    /// it returns at once. Cancel safe: the announcement is on its way from the first poll.
    pub async fn opened(&self, sid: &str) {
        let announcement = {
            let mut open = self.open();
            if !open.insert(sid.into()) {
                return;
            }
            self.shared.channel.say(&encode::session_opened(sid))
        };
        self.shared.channel.departure(announcement).await;
    }

    /// Announces that a session has ended. Does not wait; it is not urgent.
    pub fn closed(&self, sid: &str) {
        let mut open = self.open();
        if open.remove(sid) {
            self.shared.channel.say(&encode::session_closed(sid));
        }
    }

    /// How many sessions are announced now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.open().len()
    }

    fn open(&self) -> MutexGuard<'_, HashSet<Box<str>>> {
        // The set is whole whatever panicked.
        self.shared.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
