//! What a decision costs: each built-in policy as component and as native twin.
//!
//! ```sh
//! cargo bench --bench policy
//! ```
//!
//! Wall-clock time of one thread, the quickest of many batches of a few milliseconds: interruptions
//! only ever add, so on a busy machine the minimum is the figure that repeats.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark speaks on stdout and stops when something is wrong"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sidetrack::policy::{BuiltIn, Chain, PolicyLink, PolicySource, Request, SessionOwner, Settings};
use sidetrack::types::{Decision, Head, Progress, Roster, WorkerId, WorkerInfo};

const BATCH: Duration = Duration::from_millis(3);
const BATCHES: usize = 200;

fn main() {
    println!("{:<32} {:>8} {:>8} {:>8}  ns per decision", "workers", 4, 64, 1024);
    for policy in BuiltIn::ALL {
        for source in [PolicySource::Native(policy), PolicySource::BuiltIn(policy)] {
            let [few, some, many] = [4, 64, 1024].map(|workers| decision(&source, workers));
            println!("{:<32} {few:>8.0} {some:>8.0} {many:>8.0}", source.to_string());
        }
    }
    let source = PolicySource::BuiltIn(BuiltIn::LeastConnection);
    let cold = quickest(|| drop(black_box(load(&source))));
    println!("loading least-connection: {:.1} ms", cold / 1e6);
}

fn load(source: &PolicySource) -> Chain {
    let (PolicySource::BuiltIn(policy) | PolicySource::Native(policy)) = source else {
        panic!("{source} is no built-in")
    };
    let link = PolicyLink { source: source.clone(), options: policy.example().to_owned() };
    let nobody: Arc<dyn SessionOwner> = Arc::new(|_: &str| None);
    match Chain::build(&[link], &Settings { cache: false, ..Settings::default() }, &nobody) {
        Ok(chain) => chain,
        Err(error) => panic!("{error}"),
    }
}

/// Nanoseconds of `Chain::balance`, loads and request in hand.
fn decision(source: &PolicySource, workers: u32) -> f64 {
    let chain = load(source);
    let worker = |id| WorkerInfo {
        id: WorkerId(id),
        name: format!("w{id}"),
        weight: 1,
        draining: false,
        labels: vec![],
    };
    let roster = Roster { version: 1, workers: (0..workers).map(worker).collect() };
    let mut loads: Vec<u32> = (0..workers).map(|id| 100 + id * 7 % 13).collect();
    let head = b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let Ok(Progress::Complete(head)) = Head::parse(head) else { panic!("that is a head") };
    let mut request = Request { head, ..Request::default() };
    let time = quickest(|| {
        let answer = chain.balance(&roster, &loads, &mut request);
        if let Decision::Worker(WorkerId(id)) = black_box(answer).decision {
            loads[id as usize] = loads[id as usize].wrapping_add(1);
        }
    });
    assert_eq!(chain.counts().faults.total(), 0, "{source}");
    time
}

/// Nanoseconds of one call in the quickest batch.
fn quickest(mut call: impl FnMut()) -> f64 {
    let mut calls = 1_u32;
    let mut best = f64::INFINITY;
    let mut batches = 0;
    while batches < BATCHES {
        let begin = Instant::now();
        for _ in 0..calls {
            call();
        }
        let time = begin.elapsed();
        if time < BATCH && calls < 1 << 24 {
            calls *= 2;
            continue;
        }
        batches += 1;
        best = best.min(time.as_nanos() as f64 / f64::from(calls));
        if time > BATCH * 4 {
            batches += BATCHES / 10;
        }
    }
    best
}
