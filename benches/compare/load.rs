//! Many clients at once, for a time; and what that cost whom.

use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::Effort;
use crate::support::awake::until;
use crate::support::peers::Peer;
use crate::support::{cores, median, process};
use crate::table::{Column, Table};

/// How often the peers are started.
const STARTS: usize = 3;

/// How many rounds a peer warms up for: code in JavaScript gets faster for its first seconds, and a server
/// runs for weeks.
const WARM: u32 = 4;

/// One peer's round.
#[derive(Debug, Clone, Copy)]
struct Round {
    rate: f64,
    /// Microseconds: p50, p99, p99.9.
    latencies: [f64; 3],
    /// CPU time in microseconds for each.
    front: Option<f64>,
    backs: Option<f64>,
    /// For each thousand.
    errors: f64,
}

/// What clients do: how many there are, and one's first and further steps.
#[derive(Debug)]
pub struct Work<Begin, Step> {
    pub clients: usize,
    /// How many steps all of them together begin in a second; one that has to wait for the one before counts
    /// from when it was due. Without it each begins the next one when it has done the last.
    pub rate: Option<u32>,
    /// Sets a client up; not counted.
    pub begin: Begin,
    /// What is counted.
    pub step: Step,
}

/// Rounds among the peers, and the table of their medians. `what` is one step's name.
///
/// The peers are started several times. Of two processes that run the same program one may be slower by a
/// tenth for as long as it lives, by where its memory happens to lie.
pub fn compare<State, Begin, Step>(
    title: &str,
    what: &str,
    start: impl Fn() -> Vec<Peer>,
    effort: Effort,
    work: &Work<Begin, Step>,
) -> Table
where
    Begin: Fn(&Peer, usize) -> State + Sync,
    Step: Fn(&mut State) -> io::Result<()> + Sync,
{
    let mut all = Rounds::default();
    for _ in 0..STARTS {
        all.add(&start(), effort.rounds.div_ceil(STARTS), effort.round, work);
    }
    all.table(title, what)
}

/// The rounds of each peer.
#[derive(Debug, Default)]
pub struct Rounds {
    names: Vec<String>,
    rounds: Vec<Vec<Round>>,
}

impl Rounds {
    /// More of them, among peers that run: the same ones as before, or others of the same names.
    pub fn add<State, Begin, Step>(
        &mut self,
        peers: &[Peer],
        number: usize,
        time: Duration,
        work: &Work<Begin, Step>,
    ) where
        Begin: Fn(&Peer, usize) -> State + Sync,
        Step: Fn(&mut State) -> io::Result<()> + Sync,
    {
        self.names = peers.iter().map(|peer| peer.name.clone()).collect();
        self.rounds.resize_with(peers.len(), Vec::new);
        for peer in peers {
            round(peer, time * WARM, None, work);
        }
        for _ in 0..number {
            for (peer, rounds) in peers.iter().zip(&mut self.rounds) {
                rounds.push(round(peer, time, work.rate, work));
            }
        }
    }

    /// Their medians.
    pub fn table(&self, title: &str, what: &str) -> Table {
        let each = [
            Column::new(&format!("{what}s/s"), 0),
            Column::new("to the first", 2),
            Column::new("p50 µs", 0),
            Column::new("p99 µs", 0),
            Column::new("p99.9 µs", 0),
            Column::new(&format!("proxy µs CPU/{what}"), 1),
            Column::new(&format!("workers µs CPU/{what}"), 1),
            Column::new("to the first", 2),
            Column::new("errors of 1000", 1),
        ];
        let mut table = Table::new(title, each.to_vec());
        for (name, own) in self.names.iter().zip(&self.rounds) {
            let all = |figure: fn(&Round) -> f64| median(own.iter().map(figure).collect());
            let ratio = |figure: fn(&Round) -> f64| {
                median(
                    own.iter().zip(&self.rounds[0]).map(|(own, first)| figure(own) / figure(first)).collect(),
                )
            };
            let known = |figure: fn(&Round) -> Option<f64>| {
                own.iter().map(figure).collect::<Option<Vec<_>>>().map(median)
            };
            let dearer = own.iter().zip(&self.rounds[0]).map(|(own, first)| Some(own.backs? / first.backs?));
            table.row(
                name,
                vec![
                    Some(all(|round| round.rate)),
                    Some(ratio(|round| round.rate)),
                    Some(all(|round| round.latencies[0])),
                    Some(all(|round| round.latencies[1])),
                    Some(all(|round| round.latencies[2])),
                    known(|round| round.front),
                    known(|round| round.backs),
                    dearer.collect::<Option<Vec<_>>>().map(median),
                    Some(all(|round| round.errors)),
                ],
            );
        }
        table
    }
}

fn round<State, Begin, Step>(
    peer: &Peer,
    time: Duration,
    rate: Option<u32>,
    work: &Work<Begin, Step>,
) -> Round
where
    Begin: Fn(&Peer, usize) -> State + Sync,
    Step: Fn(&mut State) -> io::Result<()> + Sync,
{
    let spent = |pids: Vec<u32>| pids.into_iter().map(process::cpu).sum::<Duration>();
    // Between the first steps of one client and the next one.
    let pause = rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate);
    let taken = Mutex::new((Vec::new(), 0_u64));
    let ready = std::sync::Barrier::new(work.clients + 1);
    let (mut fronts, mut backs, mut begin) = (Duration::ZERO, Duration::ZERO, Instant::now());
    std::thread::scope(|scope| {
        for client in 0..work.clients {
            let (ready, taken) = (&ready, &taken);
            scope.spawn(move || {
                cores::of_clients();
                let mut state = (work.begin)(peer, client);
                ready.wait();
                let begin = Instant::now();
                let (end, mut due) = (begin + time, begin + pause.mul_f64(client as f64));
                let (mut latencies, mut errors) = (Vec::new(), 0);
                while Instant::now() < end {
                    let start = if pause.is_zero() { Instant::now() } else { due };
                    until(start);
                    due += pause.mul_f64(work.clients as f64);
                    match (work.step)(&mut state) {
                        Ok(()) => latencies.push(start.elapsed()),
                        Err(_) => errors += 1,
                    }
                }
                if let Ok(mut taken) = taken.lock() {
                    taken.0.append(&mut latencies);
                    taken.1 += errors;
                }
            });
        }
        (fronts, backs) = (spent(peer.front()), spent(peer.backs()));
        ready.wait();
        begin = Instant::now();
    });
    let wall = begin.elapsed().as_secs_f64();
    // The last acknowledgements are on their way; they belong to this round.
    std::thread::sleep(Duration::from_millis(20));
    let (front, back) = (spent(peer.front()) - fronts, spent(peer.backs()) - backs);
    let (mut latencies, errors) = taken.into_inner().unwrap_or_default();
    assert!(!latencies.is_empty(), "{}: nothing succeeded", peer.name);
    latencies.sort_unstable();
    let done = latencies.len() as f64;
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let at = |permille: usize| micros(latencies[(latencies.len() - 1) * permille / 1000]);
    Round {
        rate: done / wall,
        latencies: [at(500), at(990), at(999)],
        front: (!peer.front().is_empty()).then(|| micros(front) / done),
        backs: (!peer.backs().is_empty()).then(|| micros(back) / done),
        errors: errors as f64 * 1000.0 / (done + errors as f64),
    }
}
