//! Telling sidetrack which sessions live here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::channel::{Channel, Said};
use crate::own::{Own, Owner};
use crate::settings::Settings;
use crate::wire::encode;

/// Announces the sessions this worker owns, so that their later connections come here, and knows
/// which they are: requests of other sessions are handed back.
///
/// Cheap to clone; all clones of one listener's handle are one. Saying a thing twice is the same
/// as saying it once, so a session may be announced from several places; the first to close it
/// ends it.
///
/// ```no_run
/// # async fn handler(sessions: sidetrack_worker::Sessions) {
/// let session = sessions.open("abc").await;
/// // Now the client may be told its id. Later:
/// drop(session);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Sessions {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    channel: Arc<Channel>,
    settings: Mutex<Arc<Settings>>,
    own: Mutex<Own>,
    /// Sessions named by clients become ours when sidetrack knows of no owner.
    adopts: AtomicBool,
}

/// A session that lives here until this is dropped.
#[derive(Debug)]
#[must_use = "the session ends when this is dropped"]
pub struct Session {
    sessions: Sessions,
    sid: Box<str>,
}

impl Sessions {
    pub(crate) fn new(channel: Arc<Channel>, settings: Settings) -> Self {
        let own = Mutex::new(Own::new(settings.session_idle));
        let settings = Mutex::new(Arc::new(settings));
        Self { shared: Arc::new(Shared { channel, settings, own, adopts: false.into() }) }
    }

    /// Announces a session. Await it before the client can learn the id, that is before the
    /// response goes out: the client's next connection may come at once.
    ///
    /// Waits only while the channel is full. When sidetrack is gone there is nobody to tell, and
    /// it returns at once.
    ///
    /// Cancel safe: the announcement is on its way from the first poll, and cancelling ends the
    /// session.
    pub async fn open(&self, sid: &str) -> Session {
        let session = Session { sessions: self.clone(), sid: sid.into() };
        let said = {
            let mut own = self.own();
            own.open(sid).then(|| self.shared.channel.say(&encode::session_opened(sid)))
        };
        self.departure(said).await;
        session
    }

    /// Announces a session whose end nobody will see: it is forgotten, here and by sidetrack, when it
    /// has not been used for [`Settings::session_idle`] (half an hour). A request of the session is a use, and so is calling this
    /// again. Await it before the client can learn the id.
    ///
    /// Cancel safe: the announcement is on its way from the first poll.
    pub async fn open_fleeting(&self, sid: &str) {
        let said = self.say_fleeting(sid);
        self.departure(said).await;
    }

    /// Announces that a session has ended. Does not wait; it is not urgent.
    pub fn close(&self, sid: &str) {
        let mut own = self.own();
        if own.close(sid) {
            self.shared.channel.say(&encode::session_closed(sid));
        }
    }

    /// True when the session lives here.
    #[must_use]
    pub fn owns(&self, sid: &str) -> bool {
        self.own().owns(sid, Instant::now())
    }

    /// How many sessions live here now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.own().count(Instant::now())
    }

    /// The id that a new session shall have instead of this one: it begins with this worker's tag,
    /// once, where sidetrack wants that, so that requests find their way without a table.
    ///
    /// For programs that make the ids of their sessions. (`engineioxide`, and so `socketioxide`, makes
    /// its own and cannot be told.) To be asked for each id: the tag may change when the worker
    /// [joins](crate::Join) another sidetrack.
    ///
    /// ```no_run
    /// # async fn begin(sessions: sidetrack_worker::Sessions, random: String) {
    /// let sid = sessions.tagged(&random);
    /// sessions.open_fleeting(&sid).await;
    /// # }
    /// ```
    #[must_use]
    pub fn tagged(&self, id: &str) -> String {
        self.settings().tagged(id)
    }

    /// The worker's surroundings as they are now.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        let settings = self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&settings)
    }

    /// Goes on in other surroundings, where nothing is known of our sessions.
    pub(crate) fn move_to(&self, settings: Settings) {
        self.own().remember(settings.session_idle);
        *self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        let channel = &self.shared.channel;
        self.own().announce_all(Instant::now(), |sid, ends| {
            channel.say(&if ends {
                encode::session_opened(sid)
            } else {
                encode::fleeting_session_opened(sid)
            });
        });
    }

    pub(crate) fn channel(&self) -> &Arc<Channel> {
        &self.shared.channel
    }

    /// From now on sessions named by clients become ours when sidetrack knows of no owner.
    #[cfg(feature = "tower")]
    pub(crate) fn adopt_unknown(&self) {
        self.shared.adopts.store(true, Ordering::Relaxed);
    }

    pub(crate) fn adopts_unknown(&self) -> bool {
        self.shared.adopts.load(Ordering::Relaxed)
    }

    /// Notes that a session is in use; false when it does not live here.
    pub(crate) fn use_it(&self, sid: &str) -> bool {
        let mut own = self.own();
        match own.use_it(sid, Instant::now()) {
            Owner::Other => false,
            Owner::Here => true,
            Owner::HereAnnounce => {
                self.shared.channel.say(&encode::fleeting_session_opened(sid));
                true
            }
        }
    }

    /// Announces a fleeting session, if it is time to.
    pub(crate) fn say_fleeting(&self, sid: &str) -> Option<Said> {
        let mut own = self.own();
        let due = own.open_fleeting(sid, Instant::now());
        due.then(|| self.shared.channel.say(&encode::fleeting_session_opened(sid)))
    }

    async fn departure(&self, said: Option<Said>) {
        if let Some(said) = said {
            self.shared.channel.departure(said).await;
        }
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        // The set is whole whatever panicked.
        self.shared.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// The session's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.sid
    }

    /// Lets the session live on until [`Sessions::close`] ends it.
    pub fn keep(mut self) {
        // An empty id is nobody's, so that closing it says nothing.
        self.sid = Box::default();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.sid.is_empty() {
            self.sessions.close(&self.sid);
        }
    }
}
