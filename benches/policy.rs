//! What a decision costs: each built-in policy as component and as native twin, and scripts.
//!
//! ```sh
//! cargo bench --bench policy
//! cargo bench --bench policy -- script     # only what has this in its name
//! ```
//!
//! Wall-clock time of one thread, the quickest of many batches of a few milliseconds: interruptions
//! only ever add, so on a busy machine the minimum is the figure that repeats.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark speaks on stdout and stops when something is wrong"
)]

mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Arg;
use sidetrack::policy::{
    BuiltIn, Chain, PolicyLink, PolicySource, Replacement, Request, SessionOwner, Settings,
};
use sidetrack::types::{Decision, Head, Progress, Roster, WorkerId, WorkerInfo};
use support::arguments;

const BATCH: Duration = Duration::from_millis(3);
const BATCHES: usize = 200;

/// Scripts that look at nothing, at all workers, and at the request.
const SCRIPTS: [&str; 3] = ["round-robin.js", "least-connection.js", "rooms.js"];

fn main() {
    let asked = arguments::read(
        "Nanoseconds of a decision: built-in policies as component and as native twin, and scripts",
        [Arg::new("name").help("Only what has this in its name")],
    );
    let wanted = asked.get_one::<String>("name").map_or("", String::as_str);
    println!("{:<32} {:>8} {:>8} {:>8}  ns per decision", "workers", 4, 64, 1024);
    let built_in = BuiltIn::ALL.map(|policy| [PolicySource::Native(policy), PolicySource::BuiltIn(policy)]);
    let scripts = SCRIPTS.map(script);
    for source in built_in.into_iter().flatten().chain(scripts) {
        if shown(&source).contains(wanted) {
            let [few, some, many] = [4, 64, 1024].map(|workers| decision(&source, workers));
            println!("{:<32} {few:>8.0} {some:>8.0} {many:>8.0}", shown(&source));
        }
    }
    let least = PolicySource::BuiltIn(BuiltIn::LeastConnection);
    for (source, what) in
        [(least, "least-connection"), (script("round-robin.js"), "a script, engine included")]
    {
        let cold = quickest(|| drop(black_box(load(&source))));
        println!("loading {what}: {:.1} ms", cold / 1e6);
    }
    let source = script("round-robin.js");
    let chain = load(&source);
    let by = Replacement { link: PolicyLink::plain(source), discard_state: false, forgive: false };
    let swap = quickest(|| drop(black_box(chain.replace(None, &by))));
    println!("replacing a script: {:.2} ms", swap / 1e6);
}

fn script(name: &str) -> PolicySource {
    PolicySource::File(format!("{}/examples/policies/script/{name}", env!("CARGO_MANIFEST_DIR")).into())
}

/// A script by its file, anything else as the user writes it.
fn shown(source: &PolicySource) -> String {
    if source.is_script() { format!("script {}", source.name()) } else { source.to_string() }
}

fn load(source: &PolicySource) -> Chain {
    let options = match source {
        PolicySource::BuiltIn(policy) | PolicySource::Native(policy) => policy.example(),
        PolicySource::File(_) => "{}",
    };
    let link = PolicyLink { source: source.clone(), options: options.to_owned() };
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
