//! `sidetrack policy bench`: what a decision of a policy costs, beside one that is compiled natively.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::figures;
use super::ground;
use crate::cli::print;
use crate::policy::{BuiltIn, Candidate, Chain, Limits, PolicyLink, PolicySource, SessionOwner, Settings};
use crate::types::{Decision, Request, Roster};

/// Different clients that ask in turn.
const CLIENTS: u32 = 64;
/// Calls that are timed together, so that reading the clock costs nothing.
const BATCH: Duration = Duration::from_micros(200);
/// Calls that are timed one by one, for the slow ones among them.
const SINGLE: usize = 20_000;

/// `sidetrack policy bench`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bench {
    pub policy: PolicyLink,
    /// Sizes of the roster.
    pub workers: Vec<u32>,
    /// For each figure.
    pub time: Duration,
    pub json: bool,
}

/// What one question costs with so many workers. Times in nanoseconds.
struct Figures {
    workers: u32,
    median: f64,
    p99: f64,
    /// Of the native policy it is compared with.
    native: f64,
    fuel: u64,
    /// Of `find`, where it is exported.
    find: Option<f64>,
    memory: usize,
}

impl Bench {
    pub(super) fn perform(&self) -> Result<bool, String> {
        let begin = Instant::now();
        let candidate =
            Candidate::load(&self.policy, Limits::default()).map_err(|error| error.to_string())?;
        let load = begin.elapsed();
        let begin = Instant::now();
        candidate.start().map_err(|error| error.to_string())?;
        let start = begin.elapsed();
        let twin = self.twin();
        let mut rows = Vec::new();
        for &workers in &self.workers {
            rows.push(self.measure(&candidate, &twin, workers)?);
        }
        let start_share = figures::percent(candidate.start_fuel(), candidate.limits().setup_fuel);
        if self.json {
            let value = json!({
                "policy": self.policy.to_string(),
                "digest": format!("{:#}", candidate.digest()),
                "bytes": candidate.size(),
                "load_ns": nanoseconds(load),
                "start_ns": nanoseconds(start),
                "compared_with": twin.to_string(),
                "figures": rows.iter().map(Figures::value).collect::<Vec<_>>(),
            });
            print(&format!("{value:#}\n"));
            return Ok(true);
        }
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{}: {}, loaded in {:.1} ms, an instance starts in {:.0} µs ({start_share} of its budget)",
            self.policy,
            figures::bytes(candidate.size()),
            load.as_secs_f64() * 1e3,
            start.as_secs_f64() * 1e6,
        );
        let _ = writeln!(
            out,
            "{:>8} {:>12} {:>12} {:>12} {:>12} {:>10} {:>10}",
            "workers", "balance", "99th of 100", "native", "find", "budget", "memory"
        );
        for row in &rows {
            let _ = writeln!(
                out,
                "{:>8} {:>9.0} ns {:>9.0} ns {:>9.0} ns {:>12} {:>10} {:>10}",
                row.workers,
                row.median,
                row.p99,
                row.native,
                row.find.map_or_else(|| "-".to_owned(), |time| format!("{time:.0} ns")),
                figures::percent(row.fuel, candidate.limits().decision_fuel),
                figures::bytes(row.memory),
            );
        }
        let _ = writeln!(
            out,
            "balance: median of batches, what sidetrack adds included; native: {twin}; budget: of the dearest call"
        );
        print(&out);
        Ok(true)
    }

    /// The native policy to compare with: its own twin, or the default policy's.
    fn twin(&self) -> PolicyLink {
        match self.policy.source {
            PolicySource::BuiltIn(known) | PolicySource::Native(known) => {
                PolicyLink { source: PolicySource::Native(known), options: self.policy.options.clone() }
            }
            PolicySource::File(_) => PolicyLink::plain(PolicySource::Native(BuiltIn::LeastConnection)),
        }
    }

    fn measure(&self, candidate: &Candidate, twin: &PolicyLink, workers: u32) -> Result<Figures, String> {
        let roster = ground::workers(workers);
        let (fuel, memory) = appetite(candidate, &roster)?;
        let mut asked = Asked::new(&self.policy, roster.clone())?;
        let median = asked.median(self.time, Asked::balance);
        let p99 = asked.p99();
        let find = candidate.interfaces().contains(&"sessions").then(|| asked.median(self.time, Asked::find));
        let native = Asked::new(twin, roster)?.median(self.time, Asked::balance);
        let counts = asked.chain.counts();
        if counts.faults.total() + counts.bad_answers > 0 {
            return Err(format!(
                "{} failed {} times and gave {} bad answers with {workers} workers, so its figures mean nothing; see `sidetrack policy check`",
                self.policy,
                counts.faults.total(),
                counts.bad_answers,
            ));
        }
        Ok(Figures { workers, median, p99, native, fuel, find, memory })
    }
}

/// The most fuel a decision takes, and the memory after many.
fn appetite(candidate: &Candidate, roster: &Roster) -> Result<(u64, usize), String> {
    let mut run = candidate.start().map_err(|error| error.to_string())?;
    let mut loads = vec![0; roster.workers.len()];
    let mut dearest = 0;
    let mut ask = || {
        run.follow(roster)?;
        for number in 0..1000 {
            let decision = run.balance(&loads, &mut ground::client(number))?;
            dearest = dearest.max(run.fuel());
            if let Decision::Worker(id) = decision
                && let Some(load) = roster.position(id).and_then(|at| loads.get_mut(at))
            {
                *load += 1;
            }
        }
        Ok(())
    };
    ask().map_err(|fault: crate::policy::Fault| fault.to_string())?;
    Ok((dearest, run.memory()))
}

/// A chain with what it is asked.
struct Asked {
    chain: Chain,
    roster: Roster,
    loads: Vec<u32>,
    clients: Vec<Request>,
    next: usize,
}

impl Asked {
    fn new(policy: &PolicyLink, roster: Roster) -> Result<Self, String> {
        let nobody: Arc<dyn SessionOwner> = Arc::new(|_: &str| None);
        let settings = Settings { cache: false, ..Settings::default() };
        let chain = Chain::build(std::slice::from_ref(policy), &settings, &nobody)
            .map_err(|error| error.to_string())?;
        let loads = roster.workers.iter().map(|worker| 100 + worker.id.0 * 7 % 13).collect();
        let clients = (0..CLIENTS).map(ground::client).collect();
        Ok(Self { chain, roster, loads, clients, next: 0 })
    }

    fn client(&mut self) -> usize {
        self.next = (self.next + 1) % self.clients.len();
        self.next
    }

    fn balance(&mut self) {
        let at = self.client();
        let answer = self.chain.balance(&self.roster, &self.loads, &mut self.clients[at]);
        if let Decision::Worker(id) = black_box(answer).decision
            && let Some(load) = self.roster.position(id).and_then(|at| self.loads.get_mut(at))
        {
            *load = load.wrapping_add(1);
        }
    }

    fn find(&mut self) {
        let at = self.client();
        let sid = ["w0.Zx3VfQ0n7PBy", "Zx3VfQ0n7PByAAAB", "w1.AAAB"][at % 3];
        black_box(self.chain.find(sid, &self.roster, &self.loads, &mut self.clients[at]));
    }

    /// Nanoseconds of a call: the median of batches.
    fn median(&mut self, time: Duration, call: fn(&mut Self)) -> f64 {
        let mut calls = 1_u32;
        let mut batches = Vec::new();
        let end = Instant::now() + time;
        while batches.len() < 3 || Instant::now() < end {
            let begin = Instant::now();
            for _ in 0..calls {
                call(self);
            }
            let taken = begin.elapsed();
            if taken < BATCH && calls < 1 << 20 {
                calls *= 2;
                continue;
            }
            batches.push(taken.as_nanos() as f64 / f64::from(calls));
        }
        batches.sort_by(f64::total_cmp);
        batches[batches.len() / 2]
    }

    /// Nanoseconds that 99 of 100 calls stay below. Includes reading the clock, some 25 ns.
    fn p99(&mut self) -> f64 {
        let mut times: Vec<u64> = (0..SINGLE)
            .map(|_| {
                let begin = Instant::now();
                self.balance();
                nanoseconds(begin.elapsed())
            })
            .collect();
        times.sort_unstable();
        times[SINGLE * 99 / 100] as f64
    }
}

impl Figures {
    fn value(&self) -> Value {
        let whole = |time: f64| time.round();
        json!({
            "workers": self.workers,
            "balance_ns": whole(self.median),
            "balance_p99_ns": whole(self.p99),
            "native_ns": whole(self.native),
            "find_ns": self.find.map(whole),
            "fuel": self.fuel,
            "memory_bytes": self.memory,
        })
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
