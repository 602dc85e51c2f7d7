//! The sessions that are this worker's. Knows no clock and no channel.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often a fleeting session that is used is announced again, and old ones are looked for.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Own {
    sessions: HashMap<Box<str>, Entry>,
    /// How long a fleeting session is remembered after it was last used.
    forgotten_after: Duration,
    swept: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Lasting,
    Fleeting { announced: Instant, used: Instant },
}

/// Whose a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Other,
    Here,
    /// Here, and it is time to say so again.
    HereAnnounce,
}

impl Own {
    pub(crate) fn new(forgotten_after: Duration) -> Self {
        Self { sessions: HashMap::new(), forgotten_after, swept: None }
    }

    /// From now on fleeting sessions are remembered so long.
    pub(crate) fn remember(&mut self, forgotten_after: Duration) {
        self.forgotten_after = forgotten_after;
    }

    /// Returns whether that is news.
    pub(crate) fn open(&mut self, sid: &str) -> bool {
        self.sessions.insert(sid.into(), Entry::Lasting) != Some(Entry::Lasting)
    }

    /// Returns whether that is to be announced. A session that will be closed stays as it is.
    pub(crate) fn open_fleeting(&mut self, sid: &str, now: Instant) -> bool {
        self.sweep(now);
        match self.use_it(sid, now) {
            Owner::Here => false,
            Owner::HereAnnounce => true,
            Owner::Other => {
                self.sessions.insert(sid.into(), Entry::Fleeting { announced: now, used: now });
                true
            }
        }
    }

    /// Notes that a session is in use, if it is ours.
    pub(crate) fn use_it(&mut self, sid: &str, now: Instant) -> Owner {
        match self.sessions.get_mut(sid) {
            None => Owner::Other,
            Some(Entry::Lasting) => Owner::Here,
            Some(entry) if entry.is_forgotten(now, self.forgotten_after) => Owner::Other,
            Some(Entry::Fleeting { announced, used }) => {
                *used = now;
                if now.saturating_duration_since(*announced) < AGAIN_AFTER {
                    return Owner::Here;
                }
                *announced = now;
                Owner::HereAnnounce
            }
        }
    }

    /// Returns whether that is news.
    pub(crate) fn close(&mut self, sid: &str) -> bool {
        self.sessions.remove(sid).is_some()
    }

    pub(crate) fn owns(&self, sid: &str, now: Instant) -> bool {
        self.sessions.get(sid).is_some_and(|entry| !entry.is_forgotten(now, self.forgotten_after))
    }

    pub(crate) fn count(&self, now: Instant) -> usize {
        self.sessions.values().filter(|entry| !entry.is_forgotten(now, self.forgotten_after)).count()
    }

    /// Every session, and whether its end will be announced. They count as announced now.
    pub(crate) fn announce_all(&mut self, now: Instant, mut say: impl FnMut(&str, bool)) {
        self.forget(now);
        for (sid, entry) in &mut self.sessions {
            if let Entry::Fleeting { announced, .. } = entry {
                *announced = now;
            }
            say(sid, *entry == Entry::Lasting);
        }
    }

    /// Once in a while, so that it costs nothing to speak of.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= AGAIN_AFTER) {
            self.swept = Some(now);
            self.forget(now);
        }
    }

    fn forget(&mut self, now: Instant) {
        let after = self.forgotten_after;
        self.sessions.retain(|_, entry| !entry.is_forgotten(now, after));
    }
}

impl Entry {
    fn is_forgotten(&self, now: Instant, after: Duration) -> bool {
        match self {
            Self::Lasting => false,
            Self::Fleeting { used, .. } => now.saturating_duration_since(*used) >= after,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_lasting_session_is_ours_until_it_is_closed() {
        let (mut own, now) = (Own::new(30 * MINUTE), Instant::now());
        assert!(own.open("a"));
        assert!(!own.open("a"));
        assert!(!own.open_fleeting("a", now));
        assert_eq!(own.use_it("a", now + 1000 * MINUTE), Owner::Here);
        assert!(own.close("a"));
        assert!(!own.close("a"));
        assert_eq!(own.use_it("a", now), Owner::Other);
    }

    #[test]
    fn a_fleeting_session_is_refreshed_while_used_and_forgotten_unseen() {
        let (mut own, now) = (Own::new(30 * MINUTE), Instant::now());
        assert!(own.open_fleeting("a", now));
        assert!(!own.open_fleeting("a", now));
        assert_eq!(own.use_it("a", now + MINUTE / 2), Owner::Here);
        assert_eq!(own.use_it("a", now + MINUTE), Owner::HereAnnounce);
        assert_eq!(own.use_it("a", now + MINUTE), Owner::Here);
        assert!(own.owns("a", now + 30 * MINUTE));
        assert!(!own.owns("a", now + 31 * MINUTE));
        assert_eq!(own.use_it("a", now + 31 * MINUTE), Owner::Other);
        assert!(own.open_fleeting("b", now + 31 * MINUTE));
        assert_eq!((own.sessions.len(), own.count(now + 31 * MINUTE)), (1, 1));
        // One whose end will be announced is one from then on.
        assert!(own.open("b"));
        assert!(own.owns("b", now + 100 * MINUTE));
    }

    #[test]
    fn how_long_a_fleeting_session_is_remembered_may_change() {
        let (mut own, now) = (Own::new(2 * MINUTE), Instant::now());
        assert!(own.open_fleeting("a", now));
        assert!(own.owns("a", now + 2 * MINUTE - MINUTE / 60));
        assert!(!own.owns("a", now + 2 * MINUTE));
        own.remember(3 * MINUTE);
        assert!(own.owns("a", now + 2 * MINUTE));
        assert_eq!(own.use_it("a", now + 3 * MINUTE), Owner::Other);
    }

    #[test]
    fn all_are_announced_again_as_what_they_are() {
        let (mut own, now) = (Own::new(30 * MINUTE), Instant::now());
        own.open("lasting");
        own.open_fleeting("old", now);
        own.open_fleeting("fleeting", now + 20 * MINUTE);
        let mut said = Vec::new();
        own.announce_all(now + 40 * MINUTE, |sid, ends| said.push((sid.to_owned(), ends)));
        said.sort();
        assert_eq!(said, [("fleeting".to_owned(), false), ("lasting".to_owned(), true)]);
        assert_eq!(own.use_it("fleeting", now + 40 * MINUTE), Owner::Here);
    }
}
