//! Whatever a policy does, the process lives, the call is answered, and the next one works.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sidetrack::policy::{
    BuiltIn, Chain, Clock, Event, FaultCounts, Limits, LinkName, PolicySource, Settings,
};
use sidetrack::types::{Decision, Roster, WorkerId, WorkerInfo};

use crate::support::{Hostile, guest, request, roster};

const FIRST: Decision = Decision::Worker(WorkerId(5));

#[test]
fn faults_are_answered_natively_and_the_next_call_works() {
    let hostile = Hostile::patient();
    hostile.chain.listen(true);
    let cases = [
        ("/loop", "balance used up its budget"),
        ("/ask", "balance used up its budget"),
        ("/random", "balance used up its budget"),
        ("/grow", "balance wanted more memory than it may have"),
        ("/panic", "balance trapped: panicked at tests/policies/hostile/src/lib.rs"),
        ("/recurse", "balance trapped: "),
        ("/huge", "balance handed over too much data"),
        ("/huge-log", "balance handed over too much data"),
    ];
    for (path, expected) in cases {
        let answer = hostile.ask(path);
        assert!(matches!(answer.decision, Decision::Worker(_)), "{path}: {answer:?}");
        assert_eq!(answer.link, LinkName::Last, "{path}");
        let why = answer.explanation.unwrap_or_default();
        assert!(why.starts_with(&format!("the policy failed: {expected}")), "{path}: {why}");
        let next = hostile.ask("/");
        assert_eq!((next.decision, next.link), (FIRST, LinkName::Link(0)), "after {path}");
    }
    let counts = hostile.chain.counts();
    assert_eq!(counts.faults, FaultCounts { fuel: 3, deadline: 0, memory: 1, oversized: 2, trap: 2 });
    assert_eq!((counts.calls, counts.rebuilds, counts.native_calls), (16, 8, 8));
    assert_eq!((counts.quarantines, counts.bad_answers), (0, 0));
}

#[test]
fn runaway_calls_end_within_the_budget() {
    const CALLS: u32 = 20;
    // What is promised holds for an optimised build.
    let budget = Duration::from_millis(if cfg!(debug_assertions) { 60 } else { 5 });
    let hostile = Hostile::patient();
    for path in ["/loop", "/ask", "/random", "/grow", "/recurse"] {
        let begin = cpu_time();
        for _ in 0..CALLS {
            hostile.ask(path);
        }
        let mean = (cpu_time() - begin) / CALLS;
        println!("{path}: {mean:?}");
        assert!(mean < budget, "{path} took {mean:?} of CPU");
    }
}

/// CPU time of this thread, to a few milliseconds. The clock on the wall would blame the policy for a
/// busy machine.
fn cpu_time() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux keeps statistics");
    let nanoseconds = schedstat.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.expect("the first field is a number"))
}

#[test]
fn the_backstop_ends_what_fuel_allows() {
    let limits =
        Limits { decision_fuel: u64::MAX / 8, backstop: Duration::from_millis(50), ..Limits::default() };
    let hostile = Hostile::new(limits);
    let begin = Instant::now();
    assert_eq!(hostile.ask("/loop").link, LinkName::Last);
    assert!(begin.elapsed() >= limits.backstop);
    assert_eq!(hostile.chain.counts().faults.deadline, 1);
}

#[test]
fn bad_answers_count_as_defer_and_keep_the_instance() {
    let hostile = Hostile::patient();
    hostile.chain.listen(true);
    for (path, why) in [
        ("/stranger", "the policy answered worker 4294967295, which does not exist"),
        ("/status", "the policy answered a refusal with status 200"),
    ] {
        let answer = hostile.ask(path);
        assert!(matches!(answer.decision, Decision::Worker(_)), "{path}: {answer:?}");
        assert_eq!((answer.link, answer.explanation.as_deref()), (LinkName::Last, Some(why)));
    }
    assert_eq!(hostile.ask("/defer").link, LinkName::Last);
    let counts = hostile.chain.counts();
    assert_eq!((counts.bad_answers, counts.rebuilds, counts.faults.total()), (2, 0, 0));
}

#[test]
fn refusals_arrive_and_their_text_is_bounded() {
    let hostile = Hostile::patient();
    match hostile.ask("/refuse").decision {
        Decision::Refuse(refusal) => {
            assert_eq!((refusal.status, refusal.retry_after, &*refusal.reason), (429, Some(7), "later"));
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
    assert_eq!(hostile.text("/long"), "ü".repeat(256));
    assert_eq!(hostile.ask("/chatter").decision, FIRST, "too many log lines are no fault");
}

#[test]
fn repeated_faults_end_the_service() {
    let hostile =
        Hostile::new(Limits { faults: 3, fault_window: Duration::from_secs(600), ..Limits::default() });
    for _ in 0..3 {
        assert!(hostile.chain.describe().links[0].in_service);
        hostile.ask("/panic");
    }
    assert!(!hostile.chain.describe().links[0].in_service);
    let counts = hostile.chain.counts();
    // Even a well-behaved call goes to the native link now, which serves equal workers in turn.
    let picks: Vec<_> = (0..4).map(|_| hostile.ask("/")).collect();
    assert!(picks.iter().all(|answer| answer.link == LinkName::Last && answer.generation == 1));
    assert!(picks.iter().any(|answer| answer.decision != picks[0].decision));
    assert_eq!(hostile.chain.counts().calls, counts.calls, "it is not called any more");
    assert_eq!((counts.quarantines, counts.faults.trap), (1, 3));
    assert!(hostile.chain.describe().to_string().contains("out of service"));
}

#[test]
fn getters_return_what_the_request_holds() {
    let hostile = Hostile::patient();
    let mut full = request(
        "POST /seen?x=1&a+b=c%20d%26&a+b=2 HTTP/1.1\r\nHost: h\r\nx-zone: eu\r\nX-ZONE: us\r\nUpgrade: websocket\r\n\r\n",
    );
    full.peer = Some("[::ffff:192.0.2.7]:4711".parse().expect("an address"));
    full.session = Some("s-1".into());
    full.attempt = 2;
    let seen = |request: &mut _| match hostile.chain.balance(&hostile.roster, &[0, 0], request).decision {
        Decision::Refuse(refusal) => refusal.reason,
        other => panic!("expected a refusal, got {other:?}"),
    };
    assert_eq!(
        seen(&mut full),
        "POST /seen q=Some(\"c d&\") h=Some(\"eu\") none=None peer=Some(\"192.0.2.7\") session=Some(\"s-1\") \
         hash=true upgrade=true attempt=2 owner=Some(6) clock=true"
    );
    assert_eq!(
        seen(&mut request("GET /seen HTTP/1.1\r\n\r\n")),
        "GET /seen q=None h=None none=None peer=None session=None hash=false upgrade=false attempt=0 \
         owner=Some(6) clock=true"
    );
}

#[test]
fn a_scripted_clock_is_all_the_time_there_is() {
    let clock = Clock::scripted();
    let settings = Settings { clock: clock.clone(), ..Settings::default() };
    let source = PolicySource::File(guest("policy_hostile"));
    let chain = Chain::load(&source, &settings, Arc::new(|_: &str| None)).expect("it loads");
    let now =
        || match chain.balance(&roster(1, [5]), &[0], &mut request("GET /now HTTP/1.1\r\n\r\n")).decision {
            Decision::Refuse(refusal) => refusal.reason,
            other => panic!("expected the time, got {other:?}"),
        };
    assert_eq!([now(), now()], ["0", "0"]);
    clock.set(1_000_000);
    assert_eq!([now(), now()], ["1000000", "1000000"]);
}

#[test]
fn a_roster_is_pushed_once_and_whole() {
    let mut hostile = Hostile::patient();
    assert_eq!(hostile.text("/self"), "calls 1, rosters 1, loads [0, 0], zones [None, None], events []");
    assert_eq!(hostile.text("/self"), "calls 2, rosters 1, loads [0, 0], zones [None, None], events []");
    let labelled = WorkerInfo { labels: vec![("zone".into(), "eu".into())], ..crate::support::worker(9) };
    hostile.roster = Roster { version: 2, workers: Arc::new([labelled]) };
    assert_eq!(hostile.text("/self"), "calls 3, rosters 2, loads [0], zones [Some(\"eu\")], events []");
    hostile.roster = roster(3, [5, 6]);
    assert_eq!(hostile.text("/self"), "calls 4, rosters 3, loads [0, 0], zones [None, None], events []");
}

#[test]
fn a_roster_that_kills_the_policy_is_a_fault_like_any_other() {
    let mut hostile = Hostile::patient();
    let killer = WorkerInfo { name: "panic".into(), ..crate::support::worker(7) };
    hostile.roster = Roster { version: 2, workers: Arc::new([killer]) };
    for _ in 0..2 {
        let answer = hostile.ask("/");
        assert_eq!((answer.decision, answer.link), (Decision::Worker(WorkerId(7)), LinkName::Last));
    }
    hostile.roster = roster(3, [5, 6]);
    assert_eq!(hostile.ask("/").link, LinkName::Link(0));
    assert_eq!(hostile.chain.counts().faults.trap, 2);
}

#[test]
fn without_workers_nobody_is_asked() {
    let mut hostile = Hostile::patient();
    hostile.roster = roster(2, []);
    let answer = hostile.ask("/panic");
    assert_eq!((answer.decision, answer.link), (Decision::Defer, LinkName::Last));
    assert_eq!(hostile.chain.counts().calls, 0);
}

#[test]
fn state_survives_a_fault_up_to_the_last_save() {
    let hostile = Hostile::new(Limits { save_every: 10, faults: usize::MAX, ..Limits::default() });
    for _ in 0..25 {
        hostile.ask("/");
    }
    hostile.ask("/panic");
    // Saved after 20 calls, the five since are forgotten.
    assert!(hostile.text("/self").starts_with("calls 21, rosters 1,"));
    // The save soon after the hundredth call fails: that call is answered all the same.
    while hostile.chain.counts().faults.trap < 2 {
        assert_eq!(hostile.ask("/").decision, FIRST);
        assert!(hostile.chain.counts().calls < 1000, "that save comes");
    }
    assert_eq!(hostile.ask("/").link, LinkName::Link(0));
    assert_eq!(hostile.chain.counts().states_lost, 0);
}

#[test]
fn sessions_are_found_by_the_policy_that_wants_to() {
    let hostile = Hostile::patient();
    let find = |sid: &str| {
        let mut request = request("GET / HTTP/1.1\r\n\r\n");
        let answer = hostile.chain.find(sid, &hostile.roster, &[0, 0], &mut request);
        (answer.decision, answer.link)
    };
    assert_eq!(find("s-1"), (Decision::Worker(WorkerId(6)), LinkName::Link(0)));
    assert_eq!(find("unknown"), (Decision::Defer, LinkName::Link(0)));
    assert_eq!(find("loop"), (Decision::Defer, LinkName::Last));
    assert_eq!(find("stranger"), (Decision::Defer, LinkName::Last));
    assert_eq!(hostile.chain.counts().native_calls, 0, "balance is for the caller to ask");

    let plain = PolicySource::BuiltIn(BuiltIn::Random);
    let plain =
        Chain::load(&plain, &Settings::default(), Arc::new(|_: &str| None)).expect("a built-in loads");
    let answer = plain.find("s-1", &hostile.roster, &[0, 0], &mut request("GET / HTTP/1.1\r\n\r\n"));
    assert_eq!((answer.decision, answer.link), (Decision::Defer, LinkName::Last));
    assert_eq!(plain.counts().calls, 0);
}

#[test]
fn events_reach_the_policy() {
    let hostile = Hostile::patient();
    let worker = WorkerId(5);
    hostile.chain.notice(Event::SessionOpened { sid: "a", worker });
    hostile.chain.notice(Event::SessionClosed { sid: "a", worker });
    hostile.chain.notice(Event::WorkerFailed { worker });
    assert!(hostile.text("/self").ends_with(r#"events ["+a@5", "-a@5", "!5"]"#));
    hostile.chain.notice(Event::WorkerFailed { worker: WorkerId(u32::MAX) });
    assert_eq!(hostile.chain.counts().faults.fuel, 1);
    assert_eq!(hostile.ask("/").link, LinkName::Link(0));
}

#[test]
fn explanations_are_kept_while_somebody_listens() {
    let hostile = Hostile::patient();
    assert_eq!(hostile.ask("/explain").explanation, None);
    hostile.chain.listen(true);
    assert_eq!(hostile.ask("/explain").explanation.as_deref(), Some("because"));
    assert_eq!(hostile.ask("/").explanation, None);
    hostile.chain.listen(false);
    assert_eq!(hostile.ask("/explain").explanation, None);
}

#[test]
fn many_threads_share_one_exact_counter() {
    let source = PolicySource::BuiltIn(BuiltIn::RoundRobin);
    let chain =
        Chain::load(&source, &Settings::default(), Arc::new(|_: &str| None)).expect("a built-in loads");
    let roster = roster(1, 0..4);
    let shares: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut shares = vec![0; 4];
                    for _ in 0..1000 {
                        let mut request = request("GET / HTTP/1.1\r\n\r\n");
                        match chain.balance(&roster, &[0; 4], &mut request).decision {
                            Decision::Worker(id) => shares[id.0 as usize] += 1,
                            other => panic!("expected a worker, got {other:?}"),
                        }
                    }
                    shares
                })
            })
            .collect();
        let shares: Vec<Vec<usize>> =
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        (0..4).map(|worker| shares.iter().map(|share| share[worker]).sum()).collect()
    });
    assert_eq!(shares, [1000; 4]);
}

#[test]
fn a_chain_describes_itself() {
    let describe = |source: &PolicySource, fallback| {
        let settings = Settings { fallback, ..Settings::default() };
        let chain = Chain::load(source, &settings, Arc::new(|_: &str| None)).expect("it loads");
        let description = chain.describe();
        let digest = description.links[0].digest.map(|digest| digest.to_string()).unwrap_or_default();
        description.to_string().replace(&digest, "DIGEST")
    };
    assert_eq!(
        describe(&PolicySource::BuiltIn(BuiltIn::RoundRobin), None),
        "round-robin (component DIGEST, generation 1, with state), then round-robin (native)"
    );
    assert_eq!(
        describe(&PolicySource::File(guest("policy_hostile")), Some(BuiltIn::Random)),
        "policy_hostile (component DIGEST, generation 1, with sessions, state, schema, events), then random (native)"
    );
    let native = PolicySource::Native(BuiltIn::Random);
    let chain = Chain::load(&native, &Settings::default(), Arc::new(|_: &str| None)).expect("it loads");
    assert_eq!(chain.describe().to_string(), "random (native)");
    let answer = chain.balance(&roster(1, [3]), &[0], &mut request("GET / HTTP/1.1\r\n\r\n"));
    assert_eq!((answer.decision, answer.link), (Decision::Worker(WorkerId(3)), LinkName::Last));
}
