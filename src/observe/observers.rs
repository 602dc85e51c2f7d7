//! Who watches, and how observations reach them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast::{self, error::RecvError, error::TryRecvError};

use super::interest::{SAMPLERS, Share};
use super::{Interest, Observation, Sampler};
use crate::policy::Chain;

/// Observations kept for followers who have not come to them yet: 50 ms at 40,000 connections a second,
/// and never more than 32 MiB of heads of the largest kind.
const KEPT: usize = 2048;

/// Followers at the same time.
pub const MOST_FOLLOWERS: usize = 16;

/// Observations that wait for a tap.
const TAP_QUEUE: usize = 2048;

/// Everybody who watches.
#[derive(Debug, Default)]
pub struct Observers {
    /// Whether anybody does; looked at before an observation is made.
    wanted: AtomicBool,
    /// Whether anybody wants everything.
    watched: AtomicBool,
    shares: [Share; SAMPLERS],
    watching: Mutex<Watching>,
}

#[derive(Debug, Default)]
struct Watching {
    /// Made with the first follower and dropped with the last.
    stream: Option<broadcast::Sender<Arc<Observation>>>,
    followers: usize,
    /// The shadow's.
    tap: Option<Tap>,
    samplers: [Option<Tap>; SAMPLERS],
}

/// One that gets what it wants on a thread of its own.
#[derive(Debug, Clone)]
pub struct Tap {
    queue: SyncSender<Told>,
    /// Which of several observers it is put in, for one that is put in all.
    source: usize,
    shared: Arc<Shared>,
}

/// What comes out of a tap.
#[derive(Debug)]
pub struct Told {
    pub source: usize,
    pub observation: Arc<Observation>,
}

/// A tap's other end.
#[derive(Debug)]
pub struct Tapped {
    pub queue: Receiver<Told>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    paused: AtomicBool,
    dropped: AtomicU64,
}

impl Tap {
    /// A tap and its end.
    #[must_use]
    pub fn new() -> (Self, Tapped) {
        let (sender, queue) = sync_channel(TAP_QUEUE);
        let shared = Arc::<Shared>::default();
        (Self { queue: sender, source: 0, shared: Arc::clone(&shared) }, Tapped { queue, shared })
    }

    /// The same, for another source.
    #[must_use]
    pub fn of(&self, source: usize) -> Self {
        Self { source, ..self.clone() }
    }

    /// How many observations found the queue full, or were lost behind it.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    fn tell(&self, observation: &Arc<Observation>) {
        if self.shared.paused.load(Ordering::Relaxed) {
            return;
        }
        let told = Told { source: self.source, observation: Arc::clone(observation) };
        match self.queue.try_send(told) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => drop(self.shared.dropped.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

impl Tapped {
    /// So many came out of it and were lost after all.
    pub fn lost(&self, count: u64) {
        self.shared.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// How many have been lost, in its queue and behind it.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Wants nothing for now, or something again.
    pub fn pause(&self, observers: &Observers, paused: bool) {
        self.shared.paused.store(paused, Ordering::Relaxed);
        let watching = observers.lock();
        observers.reckon(&watching);
    }
}

impl Observers {
    /// Whether to make observations of what is no connection.
    #[must_use]
    pub fn watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// Who wants to be told of the next connection.
    #[must_use]
    pub fn interest(&self) -> Interest {
        if !self.wanted.load(Ordering::Relaxed) {
            return Interest::default();
        }
        let watched = self.watched();
        let sampled = std::array::from_fn(|at| self.shares.get(at).is_some_and(Share::draw));
        Interest { watched, sampled }
    }

    /// Tells everybody who wants to know. Never waits.
    pub fn tell(&self, observation: Observation) {
        let Interest { watched, sampled } = observation.interest;
        let observation = Arc::new(observation);
        let watching = self.lock();
        let taps = watching.samplers.iter().zip(sampled);
        for tap in taps.filter(|(_, wanted)| *wanted).filter_map(|(tap, _)| tap.as_ref()) {
            tap.tell(&observation);
        }
        if !watched {
            return;
        }
        if let Some(tap) = &watching.tap {
            tap.tell(&observation);
        }
        if let Some(stream) = &watching.stream {
            // The last follower may just have left.
            let _ = stream.send(observation);
        }
    }

    /// Puts a tap in the place of the one before, whose end then hears that it is over.
    pub fn tap(&self, tap: Option<Tap>) {
        let mut watching = self.lock();
        watching.tap = tap;
        self.reckon(&watching);
    }

    /// Has a share of the connections told to a tap from now on; or none any more.
    pub fn sample(&self, sampler: Sampler, tap: Option<Tap>, share: f64) {
        let at = sampler as usize;
        let mut watching = self.lock();
        if let (Some(place), Some(drawn)) = (watching.samplers.get_mut(at), self.shares.get(at)) {
            drawn.set(if tap.is_some() { share } else { 0.0 });
            *place = tap;
        }
        self.reckon(&watching);
    }

    /// How many observations a sampler was too slow for.
    #[must_use]
    pub fn dropped(&self, sampler: Sampler) -> u64 {
        self.lock().samplers.get(sampler as usize).and_then(Option::as_ref).map_or(0, Tap::dropped)
    }

    /// Follows from now on; explanations are kept for as long as anybody does. None when there are
    /// followers enough.
    #[must_use]
    pub fn follow(self: &Arc<Self>, policy: &Arc<Chain>) -> Option<Follower> {
        let mut watching = self.lock();
        if watching.followers >= MOST_FOLLOWERS {
            return None;
        }
        watching.followers += 1;
        let stream = watching.stream.get_or_insert_with(|| broadcast::Sender::new(KEPT)).subscribe();
        policy.listen(true);
        self.reckon(&watching);
        Some(Follower { stream, observers: Arc::clone(self), policy: Arc::clone(policy) })
    }

    fn leave(&self, policy: &Chain) {
        let mut watching = self.lock();
        watching.followers -= 1;
        if watching.followers == 0 {
            watching.stream = None;
            policy.listen(false);
        }
        self.reckon(&watching);
    }

    fn reckon(&self, watching: &Watching) {
        let tapped = watching.tap.as_ref().is_some_and(|tap| !tap.shared.paused.load(Ordering::Relaxed));
        let watched = watching.stream.is_some() || tapped;
        self.watched.store(watched, Ordering::Relaxed);
        self.wanted.store(watched || self.shares.iter().any(Share::is_any), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Watching> {
        // Nothing panics under the lock.
        self.watching.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who follows. Dropped, they leave.
#[derive(Debug)]
pub struct Follower {
    stream: broadcast::Receiver<Arc<Observation>>,
    observers: Arc<Observers>,
    policy: Arc<Chain>,
}

/// What a follower hears.
#[derive(Debug, Clone)]
pub enum Heard {
    Observation(Arc<Observation>),
    /// So many were lost, since the follower was slow.
    Missed(u64),
}

impl Follower {
    /// The next that happens; none when nothing more will. Cancel safe.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.stream.recv().await {
            Ok(observation) => Some(Heard::Observation(observation)),
            Err(RecvError::Lagged(missed)) => Some(Heard::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }

    /// What is there already.
    pub fn ready(&mut self) -> Option<Heard> {
        match self.stream.try_recv() {
            Ok(observation) => Some(Heard::Observation(observation)),
            Err(TryRecvError::Lagged(missed)) => Some(Heard::Missed(missed)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.observers.leave(&self.policy);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Note;
    use super::*;
    use crate::policy::{self, BuiltIn, PolicySource, Settings};
    use crate::types::{Request, Roster, WorkerId, WorkerInfo};

    fn event(number: u32) -> Observation {
        Observation::event(policy::Event::WorkerFailed { worker: WorkerId(number) })
    }

    fn chain() -> Arc<Chain> {
        let source = PolicySource::Native(BuiltIn::Random);
        let settings = Settings { cache: false, ..Settings::default() };
        Arc::new(Chain::load(&source, &settings, Arc::new(|_: &str| None)).unwrap())
    }

    #[test]
    fn nothing_is_wanted_once_everybody_has_left() {
        let (observers, chain) = (Arc::new(Observers::default()), chain());
        assert!(!observers.watched());
        let first = observers.follow(&chain).unwrap();
        let second = observers.follow(&chain).unwrap();
        drop(first);
        assert!(observers.watched());
        let reasons = || {
            let workers = [WorkerInfo {
                id: WorkerId(1),
                name: "w0".into(),
                weight: 1,
                draining: false,
                labels: vec![],
            }];
            let roster = Roster { version: 1, workers: workers.into() };
            chain.balance(&roster, &[0], &mut Request::default()).steps.len()
        };
        assert_eq!(reasons(), 1, "explanations are kept while somebody follows");
        drop(second);
        assert!(!observers.watched() && observers.lock().stream.is_none());
        assert_eq!(reasons(), 0);

        let (tap, tapped) = Tap::new();
        observers.tap(Some(tap));
        assert!(observers.watched());
        tapped.pause(&observers, true);
        assert!(!observers.watched());
        tapped.pause(&observers, false);
        assert!(observers.watched());
        observers.tap(None);
        assert!(!observers.watched());
        assert!(tapped.queue.recv().is_err(), "its end hears that it is over");
    }

    #[test]
    fn a_sampler_gets_its_connections_and_nothing_else() {
        let observers = Observers::default();
        assert_eq!(observers.interest(), Interest::default());
        let (tap, tapped) = Tap::new();
        observers.sample(Sampler::AccessLog, Some(tap), 1.0);
        assert!(!observers.watched(), "sessions and the like need not be told");
        let interest = observers.interest();
        assert_eq!(interest, Interest { watched: false, sampled: [true, false] });
        let told = |interest: Interest| {
            let note = Note::begin(interest);
            if let Some(observation) = note.finish(&Request::default(), Ok(WorkerId(1))) {
                observers.tell(observation);
            }
        };
        told(interest);
        told(Interest { watched: false, sampled: [false, true] });
        observers.tell(event(1));
        assert_eq!(tapped.queue.try_iter().count(), 1);
    }

    #[test]
    fn followers_are_few() {
        let (observers, chain) = (Arc::new(Observers::default()), chain());
        let all: Vec<_> = (0..MOST_FOLLOWERS).map(|_| observers.follow(&chain).unwrap()).collect();
        assert!(observers.follow(&chain).is_none());
        drop(all);
        assert!(observers.follow(&chain).is_some());
    }

    #[test]
    fn whoever_is_slow_is_told_how_much_was_lost() {
        let (observers, chain) = (Arc::new(Observers::default()), chain());
        let (tap, tapped) = Tap::new();
        observers.tap(Some(tap.clone()));
        let mut follower = observers.follow(&chain).unwrap();
        let more = 100;
        let all = KEPT + more;
        for number in 0..all {
            observers.tell(event(u32::try_from(number).unwrap()));
        }
        assert!(matches!(follower.ready(), Some(Heard::Missed(missed)) if missed == more as u64));
        let heard = std::iter::from_fn(|| follower.ready()).count();
        assert_eq!(heard, KEPT);
        assert_eq!((tapped.queue.try_iter().count(), tap.dropped()), (TAP_QUEUE, (all - TAP_QUEUE) as u64));
    }
}
