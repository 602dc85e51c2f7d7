//! The sessions of a simulation: made up, or those of a recording.

use std::collections::HashMap;
use std::io::BufRead;
use std::path::Path;
use std::time::Duration;

use super::{Lengths, Simulate};
use crate::author::ground;
use crate::record::Reader;
use crate::record::format::{Decision, Entry};
use crate::types::{Request, WorkerInfo};

/// How many connections a worker may have got after one whose session it then announces.
const ANNOUNCED_WITHIN: usize = 64;

/// What comes to the workers, and when.
#[derive(Debug)]
pub(super) struct Traffic {
    pub(super) workers: Vec<WorkerInfo>,
    /// In the order of their times.
    pub(super) arrivals: Vec<Arrival>,
    /// How long it all takes.
    pub(super) time: Duration,
}

/// A session to come: who, when, for how long.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) at: Duration,
    client: Client,
    pub(super) length: Duration,
}

#[derive(Debug)]
enum Client {
    /// One of many, by number.
    MadeUp(u32),
    Recorded(Box<Decision>),
}

impl Arrival {
    /// What its client asks for.
    pub(super) fn request(&self) -> Request {
        match &self.client {
            Client::MadeUp(number) => ground::client(*number),
            Client::Recorded(decision) => {
                let Decision { method, target, headers, peer, .. } = &**decision;
                ground::request(method, target, headers, *peer)
            }
        }
    }
}

/// Sessions that arrive by chance.
pub(super) fn made_up(wanted: &Simulate) -> Vec<Arrival> {
    let mut random = fastrand::Rng::with_seed(wanted.seed);
    let mut arrivals = Vec::new();
    let mut at = 0.0;
    // Never 0, whose logarithm is none.
    let uniform = |random: &mut fastrand::Rng| 1.0 - random.f64();
    loop {
        at += -uniform(&mut random).ln() / wanted.arrivals;
        if at >= wanted.time.as_secs_f64() {
            return arrivals;
        }
        let mean = wanted.session.as_secs_f64();
        let length = match wanted.lengths {
            Lengths::Fixed => mean,
            Lengths::Exponential => -uniform(&mut random).ln() * mean,
            // The mean of a Pareto distribution is its smallest value times a / (a - 1).
            Lengths::HeavyTailed => mean / 3.0 * uniform(&mut random).powf(-1.0 / 1.5),
        };
        // A tail has no end, and a duration has one.
        let length = Duration::from_secs_f64(length.min(wanted.time.as_secs_f64() * 2.0));
        let client = Client::MadeUp(random.u32(..wanted.clients.max(1)));
        arrivals.push(Arrival { at: Duration::from_secs_f64(at), client, length });
    }
}

impl Traffic {
    /// The workers and sessions of a recording. A session is taken to begin with the latest connection
    /// without one that went to the worker which announced it; one that does not end lasts as long as the
    /// recording.
    ///
    /// # Errors
    /// When the file is no recording, or nobody comes in it.
    pub(super) fn recorded(path: &Path) -> Result<Self, String> {
        let log = Reader::open(path).map_err(|error| error.to_string())?;
        let traffic = read(log).map_err(|error| error.to_string())?;
        if traffic.arrivals.is_empty() {
            return Err(format!(
                "{}: no session begins in it, so there is nothing to simulate",
                path.display()
            ));
        }
        Ok(traffic)
    }

    pub(super) fn mean_length(&self) -> Duration {
        let total: Duration = self.arrivals.iter().map(|arrival| arrival.length).sum();
        let mean = total / u32::try_from(self.arrivals.len().max(1)).unwrap_or(u32::MAX);
        // Nobody wants to read nanoseconds.
        Duration::from_millis(u64::try_from(mean.as_millis()).unwrap_or(u64::MAX))
    }
}

fn read<R: BufRead>(mut log: Reader<R>) -> Result<Traffic, crate::record::LogError> {
    // All that there ever were, by name: a restarted worker is the same one here.
    let mut workers: Vec<WorkerInfo> = Vec::new();
    // By worker, the latest last.
    let mut without: HashMap<u32, Vec<Box<Decision>>> = HashMap::new();
    let mut open: HashMap<String, usize> = HashMap::new();
    let mut arrivals: Vec<Arrival> = Vec::new();
    let mut end = 0;
    let moment = Duration::from_micros;
    while let Some(entry) = log.entry()? {
        end = end.max(entry.time());
        match entry {
            Entry::Roster(roster) => {
                for worker in roster.roster {
                    if !workers.iter().any(|known| known.name == worker.name) {
                        workers.push(worker.into());
                    }
                }
            }
            Entry::Decision(decision) => {
                if let (Some(worker), None, false) = (decision.worker, &decision.session, decision.hand) {
                    let list = without.entry(worker).or_default();
                    if list.len() >= ANNOUNCED_WITHIN {
                        list.remove(0);
                    }
                    list.push(decision);
                }
            }
            Entry::Opened(opened) => {
                let Some(decision) = without.get_mut(&opened.w).and_then(Vec::pop) else { continue };
                open.insert(opened.open, arrivals.len());
                let (at, client) = (moment(decision.t), Client::Recorded(decision));
                arrivals.push(Arrival { at, client, length: Duration::ZERO });
            }
            Entry::Closed(closed) => {
                if let Some(arrival) = open.remove(&closed.close).and_then(|at| arrivals.get_mut(at)) {
                    arrival.length = moment(closed.t).saturating_sub(arrival.at);
                }
            }
            Entry::Failed(_) | Entry::Gap(_) | Entry::End(_) => {}
        }
    }
    let time = moment(end.max(1));
    for at in open.into_values() {
        if let Some(arrival) = arrivals.get_mut(at) {
            arrival.length = time.saturating_sub(arrival.at);
        }
    }
    // Numbered anew: ids count on where a made-up world begins at 0.
    workers.iter_mut().zip(0..).for_each(|(worker, id)| worker.id.0 = id);
    arrivals.sort_by_key(|arrival| arrival.at);
    Ok(Traffic { workers, arrivals, time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_becomes_sessions() {
        let log = r#"{"sidetrack":"decisions/1","began":"","program":"","session_key":"query:sid","form":"full","chain":[],"last":{"link":"random","policy":"native:random","generation":0}}
{"t":1,"roster":[{"id":7,"name":"w0"},{"id":9,"name":"w1","weight":2}]}
{"t":1000,"u":"/?room=a","l":[0,0],"b":7,"w":7}
{"t":2000,"open":"s1","w":7}
{"t":2500,"u":"/?sid=s1","s":"s1","l":[1,0],"o":7,"w":7}
{"t":3000,"u":"/plain","l":[1,0],"b":9,"w":9}
{"t":4000,"u":"/?room=b","l":[1,0],"b":9,"w":9}
{"t":5000,"open":"s2","w":9}
{"t":6000,"close":"s1","w":7}
{"t":7000,"end":{"decisions":4,"lost":0}}
"#;
        let traffic = read(Reader::new("log".into(), log.as_bytes()).unwrap()).unwrap();
        let names: Vec<_> =
            traffic.workers.iter().map(|worker| (worker.id.0, worker.name.as_str(), worker.weight)).collect();
        assert_eq!(names, [(0, "w0", 1), (1, "w1", 2)]);
        let sessions: Vec<_> = traffic
            .arrivals
            .iter()
            .map(|arrival| {
                let request = arrival.request();
                (arrival.at.as_micros(), request.head.target().to_owned(), arrival.length.as_micros())
            })
            .collect();
        assert_eq!(sessions, [(1000, "/?room=a".to_owned(), 5000), (4000, "/?room=b".to_owned(), 3000)]);
        assert_eq!(traffic.time, Duration::from_micros(7000));
    }
}
