//! Which hand-offs are under way to one worker. Pure bookkeeping: no socket, no clock.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::upgrade::state;

/// Hand-offs to one worker: at most `limit` unacknowledged, at most `room` waiting behind them.
#[derive(Debug)]
pub struct Window<T> {
    limit: usize,
    room: usize,
    /// Sent, in order; acknowledgements carry no number.
    unacknowledged: VecDeque<Sent<T>>,
    /// Arrived in the worker process, not yet taken by its server. By number.
    accepting: HashMap<u64, Sent<T>>,
    waiting: VecDeque<(T, Instant)>,
    /// The last one sent must have arrived before another is.
    lone: bool,
}

/// Whether something may be sent behind an item before that is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    Freely,
    /// Its message is so long that the worker reads it in parts.
    AfterAcknowledgement,
}

#[derive(Debug)]
struct Sent<T> {
    item: T,
    /// The number under which a listening server will say whether it takes the connection.
    number: Option<u64>,
    at: Instant,
}

/// Whether a connection found a place.
#[derive(Debug)]
pub enum Queued<T> {
    Yes,
    /// The queue is full; here it is back.
    Full(T),
}

/// An acknowledgement for which nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an acknowledgement for nothing that was sent")]
pub struct Unearned;

impl<T> Window<T> {
    /// Everything under way, in order, for another program to go on with.
    pub fn carry(&self, now: Instant, mut item: impl FnMut(&T) -> state::Parcel) -> state::Window {
        let mut sent = |sent: &Sent<T>| state::Sent {
            parcel: item(&sent.item),
            number: sent.number,
            age: now.saturating_duration_since(sent.at),
        };
        let unacknowledged = self.unacknowledged.iter().map(&mut sent).collect();
        let accepting = self.accepting.values().map(&mut sent).collect();
        let waiting = self.waiting.iter();
        let waiting = waiting.map(|(it, since)| (item(it), now.saturating_duration_since(*since))).collect();
        state::Window { unacknowledged, accepting, waiting, lone: self.lone }
    }

    /// Goes on from there.
    ///
    /// # Errors
    /// What `item` says.
    pub fn resume<E>(
        limit: usize,
        room: usize,
        carried: state::Window,
        now: Instant,
        mut item: impl FnMut(state::Parcel) -> Result<T, E>,
    ) -> Result<Self, E> {
        let then = |age| now.checked_sub(age).unwrap_or(now);
        let mut window = Self::new(limit, room);
        for state::Sent { parcel, number, age } in carried.unacknowledged {
            window.unacknowledged.push_back(Sent { item: item(parcel)?, number, at: then(age) });
        }
        for state::Sent { parcel, number, age } in carried.accepting {
            let sent = Sent { item: item(parcel)?, number, at: then(age) };
            // Only numbered ones are accepted twice.
            window.accepting.insert(number.unwrap_or_default(), sent);
        }
        for (parcel, age) in carried.waiting {
            window.waiting.push_back((item(parcel)?, then(age)));
        }
        window.lone = carried.lone;
        Ok(window)
    }

    /// An empty window.
    #[must_use]
    pub fn new(limit: usize, room: usize) -> Self {
        Self {
            limit,
            room,
            unacknowledged: VecDeque::new(),
            accepting: HashMap::new(),
            waiting: VecDeque::new(),
            lone: false,
        }
    }

    /// Other bounds from now on. What is under way or waits stays, be it more than that.
    pub fn resize(&mut self, limit: usize, room: usize) {
        (self.limit, self.room) = (limit, room);
    }

    /// True when one more may be sent.
    #[must_use]
    pub fn open(&self) -> bool {
        self.pending() < self.limit && !self.lone
    }

    /// How many were sent and not acknowledged.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.unacknowledged.len() + self.accepting.len()
    }

    /// How many wait to be sent.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Records what has just been sent.
    pub fn sent(&mut self, item: T, number: Option<u64>, at: Instant, follows: Follows) {
        self.unacknowledged.push_back(Sent { item, number, at });
        self.lone = follows == Follows::AfterAcknowledgement;
    }

    /// The oldest descriptor that was sent has arrived, or is lost.
    fn arrived(&mut self) -> Result<Sent<T>, Unearned> {
        let sent = self.unacknowledged.pop_front().ok_or(Unearned)?;
        self.lone &= !self.unacknowledged.is_empty();
        Ok(sent)
    }

    /// The worker process has the oldest descriptor. Returns the item if that is the end of it;
    /// a numbered one goes on waiting for its server.
    ///
    /// # Errors
    /// [`Unearned`] when nothing was sent.
    pub fn acknowledged(&mut self) -> Result<Option<T>, Unearned> {
        let sent = self.arrived()?;
        match sent.number {
            Some(number) => {
                self.accepting.insert(number, sent);
                Ok(None)
            }
            None => Ok(Some(sent.item)),
        }
    }

    /// The oldest descriptor was lost on its way.
    ///
    /// # Errors
    /// [`Unearned`] when nothing was sent.
    pub fn lost(&mut self) -> Result<T, Unearned> {
        self.arrived().map(|sent| sent.item)
    }

    /// A listening server has spoken about a numbered item.
    pub fn answered(&mut self, number: u64) -> Option<T> {
        self.accepting.remove(&number).map(|sent| sent.item)
    }

    /// Puts an item behind those that wait.
    pub fn queue(&mut self, item: T, now: Instant) -> Queued<T> {
        if self.waiting.len() >= self.room {
            return Queued::Full(item);
        }
        self.waiting.push_back((item, now));
        Queued::Yes
    }

    /// The next item to send, if one waits and the window is open.
    pub fn next_waiting(&mut self) -> Option<(T, Instant)> {
        if self.open() { self.waiting.pop_front() } else { None }
    }

    /// Puts an item that could not be sent after all back to the front.
    pub fn put_back(&mut self, item: T, since: Instant) {
        self.waiting.push_front((item, since));
    }

    /// Items that have waited longer than `longest`.
    pub fn overdue(&mut self, now: Instant, longest: Duration) -> Vec<T> {
        let mut overdue = Vec::new();
        while let Some((item, since)) = self.waiting.pop_front() {
            if now.saturating_duration_since(since) <= longest {
                self.waiting.push_front((item, since));
                break;
            }
            overdue.push(item);
        }
        overdue
    }

    /// When the oldest unacknowledged item was sent.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        let accepting = self.accepting.values().map(|sent| sent.at).min();
        let unacknowledged = self.unacknowledged.front().map(|sent| sent.at);
        accepting.into_iter().chain(unacknowledged).min()
    }

    /// Takes everything that is not in the worker's hands, oldest first.
    pub fn drain(&mut self) -> Vec<T> {
        let mut accepting: Vec<_> = self.accepting.drain().collect();
        accepting.sort_unstable_by_key(|(number, _)| *number);
        let sent = accepting.into_iter().map(|(_, sent)| sent).chain(self.unacknowledged.drain(..));
        sent.map(|sent| sent.item).chain(self.waiting.drain(..).map(|(item, _)| item)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_come_in_sending_order() {
        let now = Instant::now();
        let mut window = Window::new(2, 1);
        window.sent("plain", None, now, Follows::Freely);
        window.sent("numbered", Some(7), now, Follows::Freely);
        assert!(!window.open());
        assert_eq!(window.acknowledged(), Ok(Some("plain")));
        assert_eq!(window.acknowledged(), Ok(None));
        assert_eq!(window.pending(), 1, "the server has not taken it yet");
        assert_eq!(window.answered(7), Some("numbered"));
        assert_eq!(window.answered(7), None);
        assert_eq!(window.acknowledged(), Err(Unearned));
    }

    #[test]
    fn nothing_follows_a_long_one_until_it_has_arrived() {
        let now = Instant::now();
        let mut window = Window::new(8, 8);
        window.sent("before", None, now, Follows::Freely);
        window.sent("long", Some(1), now, Follows::AfterAcknowledgement);
        assert!(matches!(window.queue("behind", now), Queued::Yes));
        window.acknowledged().unwrap();
        assert!(!window.open() && window.next_waiting().is_none());
        window.acknowledged().unwrap();
        assert!(window.open(), "it has arrived, whether its server takes it or not");
        assert_eq!(window.next_waiting().map(|(item, _)| item), Some("behind"));
    }

    #[test]
    fn the_queue_is_bounded_in_number_and_time() {
        let start = Instant::now();
        let later = start + Duration::from_secs(3);
        let mut window = Window::new(1, 2);
        window.sent(0, None, start, Follows::Freely);
        assert!(matches!(window.queue(1, start), Queued::Yes));
        assert!(matches!(window.queue(2, later), Queued::Yes));
        assert!(matches!(window.queue(3, later), Queued::Full(3)));
        assert!(window.next_waiting().is_none(), "the window is closed");
        assert_eq!(window.overdue(later, Duration::from_secs(2)), [1]);
        window.acknowledged().unwrap();
        assert_eq!(window.next_waiting().map(|(item, _)| item), Some(2));
    }

    #[test]
    fn a_smaller_window_lets_what_is_under_way_end_first() {
        let now = Instant::now();
        let mut window = Window::new(2, 2);
        window.sent(1, None, now, Follows::Freely);
        window.sent(2, None, now, Follows::Freely);
        assert!(matches!(window.queue(3, now), Queued::Yes));
        window.resize(1, 0);
        assert!(matches!(window.queue(4, now), Queued::Full(4)));
        window.acknowledged().unwrap();
        assert!(!window.open(), "the other one fills it");
        window.acknowledged().unwrap();
        assert_eq!(window.next_waiting().map(|(item, _)| item), Some(3), "what waited is not lost");
    }

    #[test]
    fn a_death_gives_everything_back_oldest_first() {
        let now = Instant::now();
        let mut window = Window::new(8, 8);
        window.sent(1, Some(1), now, Follows::Freely);
        window.sent(2, None, now, Follows::Freely);
        window.acknowledged().unwrap();
        assert!(matches!(window.queue(3, now), Queued::Yes));
        assert_eq!(window.drain(), [1, 2, 3]);
        assert_eq!((window.pending(), window.waiting()), (0, 0));
    }
}
