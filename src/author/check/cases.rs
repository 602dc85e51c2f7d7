//! The cases of `policy check`, each with a fresh instance.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Stop, Verdict};
use crate::author::figures;
use crate::author::ground::{client, request, roster, worker, workers};
use crate::policy::{Candidate, Event, Run, StartError};
use crate::types::{Decision, Request, Roster, WorkerId, WorkerInfo};

/// A decision that takes more of its budget than this share is worth a warning.
const DEAR: u64 = 4;
/// Decisions of a case that looks for growth or drift.
const MANY: u32 = 20_000;
/// Memory that a policy may gain in such a case without a warning: allocators round up.
const GROWTH: usize = 256 << 10;
/// The largest request head that sidetrack takes by default.
const LARGEST_HEAD: usize = 16 << 10;
/// What an attacker may put into a session id.
const ODD: [&str; 6] = ["", "%00", "../../etc", "\u{202e}\u{1f980}", "a\"b'c\\d{}[]", "w0"];

type Outcome = Result<Verdict, Stop>;

/// A question about a policy that has an answer whatever the policy is for.
pub(super) struct Case {
    /// What should be true.
    pub(super) name: &'static str,
    /// The optional interface it is about.
    pub(super) needs: Option<&'static str>,
    pub(super) run: fn(&Candidate) -> Outcome,
}

const fn case(name: &'static str, run: fn(&Candidate) -> Outcome) -> Case {
    Case { name, needs: None, run }
}

const fn about(interface: &'static str, name: &'static str, run: fn(&Candidate) -> Outcome) -> Case {
    Case { name, needs: Some(interface), run }
}

pub(super) const CASES: &[Case] = &[
    case("it starts well within its budget", starts),
    case("options that make no sense are taken or refused in words", odd_options),
    case("very long options are taken or refused in words", long_options),
    case("one worker", |candidate| some_workers(candidate, 1)),
    case("two workers", |candidate| some_workers(candidate, 2)),
    case("1,000 workers", |candidate| some_workers(candidate, 1000)),
    case("no worker for a while", no_workers),
    case("ids that are far apart", far_ids),
    case("names and labels with anything in them", odd_names),
    case("weights of zero and of billions", odd_weights),
    case("a worker that has left is not chosen", worker_left),
    case("a worker that was restarted is chosen by its new id", worker_restarted),
    case("a draining worker gets nothing new", draining),
    case("everybody draining", all_draining),
    case("2,000 changes of the roster", roster_changes),
    case("the highest loads there are", high_loads),
    case("different clients are spread over the workers", spread),
    case("a request with nothing in it", bare_request),
    case("the largest request head", large_request),
    case("targets that are badly encoded", odd_targets),
    case("session ids with anything in them", odd_sessions),
    case("clients without an address, and with every kind of one", peers),
    case("upgrades, rare methods, and a fourth attempt", rare_requests),
    about("sessions", "`find` for a session that nobody knows", find_unknown),
    about("sessions", "`find` for ids with anything in them", find_odd),
    about("sessions", "`find` for 20,000 sessions does not pile up memory", find_many),
    about("state", "what it saves fits and is taken back", state_back),
    about("state", "a state that is rubbish is refused in words", state_rubbish),
    about("state", "a state from other workers names no worker that is gone", state_moved),
    about("schema", "it reads the form that it writes", schema_own),
    about("schema", "it does not claim to read a form that it cannot know", schema_other),
    about("events", "news of strangers", events_strangers),
    about("events", "20,000 sessions that come and go do not pile up memory", events_balance),
    about("events", "20,000 sessions that stay", events_pile),
    case("20,000 decisions do not pile up memory", memory),
    case("no decision comes near its budget", budget),
    case("the same questions and random numbers give the same answers", repeatable),
];

/// Asks `balance` and insists on an answer that can be acted upon.
fn ask(run: &mut Run, loads: &[u32], request: &mut Request) -> Result<Decision, Stop> {
    let decision = run.balance(loads, request)?;
    run.judge(&decision).map_err(Stop::Answer)?;
    Ok(decision)
}

/// The same of `find`.
fn find(run: &mut Run, sid: &str, loads: &[u32]) -> Result<Decision, Stop> {
    let mut request = client(0);
    request.session = Some(sid.to_owned());
    let decision = run.find(sid, loads, &mut request)?;
    run.judge(&decision).map_err(Stop::Answer)?;
    Ok(decision)
}

/// Asks for `count` different clients and returns how many each worker got.
fn ask_many(
    run: &mut Run,
    roster: &Roster,
    loads: &mut [u32],
    count: u32,
) -> Result<BTreeMap<u32, u32>, Stop> {
    run.follow(roster)?;
    let mut got = BTreeMap::new();
    for number in 0..count {
        if let Decision::Worker(id) = ask(run, loads, &mut client(number))? {
            *got.entry(id.0).or_default() += 1;
            if let Some(load) = roster.position(id).and_then(|at| loads.get_mut(at)) {
                *load += 1;
            }
        }
    }
    Ok(got)
}

fn started(candidate: &Candidate, roster: &Roster) -> Result<Run, Stop> {
    let mut run = candidate.start()?;
    run.follow(roster)?;
    Ok(run)
}

fn good() -> Outcome {
    Ok(Verdict::Good(String::new()))
}

fn starts(candidate: &Candidate) -> Outcome {
    let run = candidate.start()?;
    let (fuel, most) = (candidate.start_fuel(), candidate.limits().setup_fuel);
    let found =
        format!("{} of the budget, {} of memory", figures::percent(fuel, most), figures::bytes(run.memory()));
    Ok(if fuel > most / 2 { Verdict::Warning(found) } else { Verdict::Good(found) })
}

fn odd_options(candidate: &Candidate) -> Outcome {
    let mut refused = 0;
    for options in
        ["null", "[]", "\"text\"", "-1e308", "{\"\\u0000\": [{}, null, -1, \"\\ud83e\\udd80\"]}", "no JSON"]
    {
        match candidate.configured(options) {
            Ok(_) => {}
            Err(StartError::Refused(_)) => refused += 1,
            Err(failure) => return Ok(Verdict::Bad(format!("with `{options}`: {failure}"))),
        }
    }
    Ok(Verdict::Good(format!("{refused} of 6 refused")))
}

fn long_options(candidate: &Candidate) -> Outcome {
    let options = format!("{{\"a\": \"{}\"}}", "x".repeat(60 << 10));
    match candidate.configured(&options) {
        Ok(_) | Err(StartError::Refused(_)) => good(),
        Err(failure) => Err(failure.into()),
    }
}

fn some_workers(candidate: &Candidate, count: u32) -> Outcome {
    let roster = workers(count);
    let mut run = started(candidate, &roster)?;
    let mut loads = vec![0; count as usize];
    let got = ask_many(&mut run, &roster, &mut loads, 64)?;
    Ok(Verdict::Good(match got.values().sum() {
        64 => String::new(),
        answered => format!("left {} of 64 clients to others", 64_u32.saturating_sub(answered)),
    }))
}

fn no_workers(candidate: &Candidate) -> Outcome {
    let mut run = started(candidate, &workers(0))?;
    // Nobody is asked without workers; then they come, go, and come again.
    for roster in [workers(2), workers(0), workers(3)] {
        let mut loads = vec![0; roster.workers.len()];
        run.follow(&roster)?;
        if !loads.is_empty() {
            ask_many(&mut run, &roster, &mut loads, 16)?;
        }
    }
    good()
}

fn far_ids(candidate: &Candidate) -> Outcome {
    let roster = roster([0, 1, 65_536, u32::MAX - 1, u32::MAX].map(worker));
    ask_many(&mut candidate.start()?, &roster, &mut [0; 5], 64)?;
    good()
}

fn odd_names(candidate: &Candidate) -> Outcome {
    let long = "l".repeat(4096);
    let odd = ["", "w0", "w0", "\u{1f980} \"'\\\n\r\0", "=,;{}[]", &long];
    let named = (0..).zip(odd).map(|(id, name)| WorkerInfo {
        name: name.to_owned(),
        labels: odd.iter().map(|text| ((*text).to_owned(), name.to_owned())).collect(),
        ..worker(id)
    });
    ask_many(&mut candidate.start()?, &roster(named), &mut [0; 6], 64)?;
    good()
}

fn odd_weights(candidate: &Candidate) -> Outcome {
    for weights in [[0, 0, 0], [0, 1, u32::MAX], [u32::MAX; 3]] {
        let weighted = (0..).zip(weights).map(|(id, weight)| WorkerInfo { weight, ..worker(id) });
        ask_many(&mut candidate.start()?, &roster(weighted), &mut [0; 3], 64)?;
    }
    good()
}

fn worker_left(candidate: &Candidate) -> Outcome {
    let mut run = started(candidate, &workers(4))?;
    ask_many(&mut run, &workers(4), &mut [0; 4], 64)?;
    // `ask` takes nobody who is not there.
    ask_many(&mut run, &roster([worker(1), worker(3)]), &mut [0; 2], 64)?;
    good()
}

fn worker_restarted(candidate: &Candidate) -> Outcome {
    let mut run = started(candidate, &workers(2))?;
    ask_many(&mut run, &workers(2), &mut [0; 2], 64)?;
    let again = WorkerInfo { name: "w0".to_owned(), ..worker(7) };
    ask_many(&mut run, &roster([again, worker(1)]), &mut [0; 2], 64)?;
    good()
}

fn draining(candidate: &Candidate) -> Outcome {
    let roster = roster([worker(0), WorkerInfo { draining: true, ..worker(1) }, worker(2)]);
    let got = ask_many(&mut candidate.start()?, &roster, &mut [9, 0, 9], 256)?;
    Ok(match got.get(&1) {
        None => Verdict::Good(String::new()),
        Some(count) => {
            Verdict::Warning(format!("{count} of 256 new clients went to a worker that is being emptied"))
        }
    })
}

fn all_draining(candidate: &Candidate) -> Outcome {
    let roster = roster((0..3).map(|id| WorkerInfo { draining: true, ..worker(id) }));
    ask_many(&mut candidate.start()?, &roster, &mut [0; 3], 64)?;
    good()
}

fn roster_changes(candidate: &Candidate) -> Outcome {
    let mut run = candidate.start()?;
    let mut before = 0;
    for round in 0..2000 {
        let roster = roster((round..round + 4).map(worker));
        ask_many(&mut run, &roster, &mut [0; 4], 1)?;
        if round == 100 {
            before = run.memory();
        }
    }
    Ok(growth(before, run.memory(), "changes"))
}

fn high_loads(candidate: &Candidate) -> Outcome {
    let mut run = started(candidate, &workers(3))?;
    for loads in [[u32::MAX; 3], [u32::MAX, 0, u32::MAX - 1], [0; 3]] {
        for number in 0..16 {
            ask(&mut run, &loads, &mut client(number))?;
        }
    }
    good()
}

fn spread(candidate: &Candidate) -> Outcome {
    const CLIENTS: u32 = 4000;
    let roster = workers(4);
    let got = ask_many(&mut candidate.start()?, &roster, &mut [0; 4], CLIENTS)?;
    let answered: u32 = got.values().sum();
    let shares: Vec<String> = (0..4).map(|id| got.get(&id).copied().unwrap_or(0).to_string()).collect();
    let found = format!("{} of {CLIENTS}", shares.join(", "));
    Ok(if answered > 0 && got.len() == 1 {
        Verdict::Warning(format!("all to one: {found}"))
    } else {
        Verdict::Good(found)
    })
}

fn bare_request(candidate: &Candidate) -> Outcome {
    let mut run = started(candidate, &workers(2))?;
    ask(&mut run, &[0, 0], &mut request("GET", "/", &[], None))?;
    ask(&mut run, &[0, 0], &mut Request::default())?;
    good()
}

fn large_request(candidate: &Candidate) -> Outcome {
    let mut run = started(candidate, &workers(2))?;
    let lines: Vec<_> = (0..100).map(|number| (format!("X-Line-{number}"), "v".repeat(100))).collect();
    let mut wide = request("GET", "/", &lines, None);
    let mut long = request("GET", &format!("/?{}", "a=b&".repeat(LARGEST_HEAD / 4 - 16)), &[], None);
    let cookie = ("Cookie".to_owned(), "k=v; ".repeat(LARGEST_HEAD / 5 - 16));
    let mut baked = request("GET", "/", &[cookie], None);
    for request in [&mut wide, &mut long, &mut baked] {
        ask(&mut run, &[0, 0], request)?;
    }
    good()
}

fn odd_targets(candidate: &Candidate) -> Outcome {
    let mut run = started(candidate, &workers(2))?;
    for target in [
        "*",
        "/%",
        "/%zz%00%ff?%=%&&&=&a",
        "//?room=%F0%9F%A6%80&room=2&room",
        "http://example.org:80/a?b#c",
        "/?user=+%2B+&EIO",
    ] {
        ask(&mut run, &[0, 0], &mut request("GET", target, &[], None))?;
    }
    good()
}

fn odd_sessions(candidate: &Candidate) -> Outcome {
    let mut run = started(candidate, &workers(2))?;
    let longest = "\u{1f980}".repeat(64);
    for sid in ODD.into_iter().chain([longest.as_str()]) {
        let mut request = client(1);
        request.session = Some(sid.to_owned());
        ask(&mut run, &[0, 0], &mut request)?;
    }
    good()
}

fn peers(candidate: &Candidate) -> Outcome {
    let mut run = started(candidate, &workers(2))?;
    let v4 = Ipv4Addr::new(192, 0, 2, 1);
    for peer in [
        None,
        Some(IpAddr::V4(v4)),
        Some(IpAddr::V4(Ipv4Addr::BROADCAST)),
        Some(IpAddr::V6(v4.to_ipv6_mapped())),
        Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        Some(IpAddr::V6(Ipv6Addr::from_bits(u128::MAX))),
    ] {
        ask(&mut run, &[0, 0], &mut request("GET", "/", &[], peer))?;
    }
    good()
}

fn rare_requests(candidate: &Candidate) -> Outcome {
    let mut run = started(candidate, &workers(2))?;
    let upgrade =
        [("Upgrade".to_owned(), "websocket".to_owned()), ("Connection".to_owned(), "Upgrade".to_owned())];
    for method in ["GET", "OPTIONS", "CONNECT", "M-SEARCH"] {
        let mut request = request(method, "/", &upgrade, None);
        request.attempt = 3;
        ask(&mut run, &[0, 0], &mut request)?;
    }
    good()
}

fn find_unknown(candidate: &Candidate) -> Outcome {
    let mut run = started(candidate, &workers(3))?;
    Ok(match find(&mut run, "check-nobody-knows-this", &[0; 3])? {
        Decision::Defer => Verdict::Good("defers, so the session table is asked".to_owned()),
        Decision::Worker(_) => Verdict::Warning(
            "names a worker at once: the session table is not asked, and such a session may live elsewhere"
                .to_owned(),
        ),
        Decision::Refuse(refusal) => Verdict::Warning(format!("refuses with {}", refusal.status)),
    })
}

fn find_odd(candidate: &Candidate) -> Outcome {
    let mut run = started(candidate, &workers(3))?;
    let longest = "x".repeat(256);
    for sid in ODD.into_iter().chain([longest.as_str()]) {
        find(&mut run, sid, &[0; 3])?;
    }
    good()
}

fn find_many(candidate: &Candidate) -> Outcome {
    let mut run = started(candidate, &workers(3))?;
    let mut before = 0;
    for number in 0..MANY {
        find(&mut run, &format!("check-{number}"), &[0; 3])?;
        if number == MANY / 10 {
            before = run.memory();
        }
    }
    Ok(growth(before, run.memory(), "lookups"))
}

fn state_back(candidate: &Candidate) -> Outcome {
    let roster = workers(3);
    let mut run = candidate.start()?;
    ask_many(&mut run, &roster, &mut [0; 3], 2000)?;
    let Some(saved) = run.save()? else { return Ok(Verdict::Nothing("state")) };
    let mut next = started(candidate, &roster)?;
    if let Err(said) = next.restore(&saved)? {
        return Ok(Verdict::Bad(format!("`restore` refused what `save` returned: {said}")));
    }
    ask_many(&mut next, &roster, &mut [0; 3], 16)?;
    Ok(Verdict::Good(format!("{} after 2,000 decisions", figures::bytes(saved.len()))))
}

fn state_rubbish(candidate: &Candidate) -> Outcome {
    let taken = workers(3);
    let long = vec![0xff; 60 << 10];
    let mut refused = 0;
    let rubbish: [&[u8]; 6] = [&[], &[0], &[0xff; 7], b"not a state", b"{\"a\": [1, 2", &long];
    for state in rubbish {
        let mut run = started(candidate, &taken)?;
        refused += u32::from(run.restore(state)?.is_err());
        // What it took it must live with.
        ask_many(&mut run, &taken, &mut [0; 3], 16)?;
    }
    Ok(Verdict::Good(format!("{refused} of 6 refused")))
}

fn state_moved(candidate: &Candidate) -> Outcome {
    let mut run = candidate.start()?;
    ask_many(&mut run, &workers(4), &mut [0; 4], 500)?;
    let Some(saved) = run.save()? else { return Ok(Verdict::Nothing("state")) };
    let others = roster([worker(2), worker(9)]);
    let mut next = started(candidate, &others)?;
    let taken = next.restore(&saved)?.is_ok();
    ask_many(&mut next, &others, &mut [0; 2], 64)?;
    Ok(Verdict::Good(if taken { String::new() } else { "refused".to_owned() }))
}

fn schema_own(candidate: &Candidate) -> Outcome {
    let mut run = candidate.start()?;
    let Some(form) = run.form()? else { return Ok(Verdict::Nothing("schema")) };
    Ok(match (form.is_empty(), run.reads(&form)?) {
        (true, _) => Verdict::Warning("the form has no name".to_owned()),
        (false, true) => Verdict::Good(format!("`{form}`")),
        (false, false) => Verdict::Bad(format!("writes `{form}` and does not read it")),
    })
}

fn schema_other(candidate: &Candidate) -> Outcome {
    let reads = candidate.start()?.reads("check/nobody-writes-this")?;
    Ok(if reads {
        Verdict::Warning("claims to read `check/nobody-writes-this`".to_owned())
    } else {
        Verdict::Good(String::new())
    })
}

fn events_strangers(candidate: &Candidate) -> Outcome {
    let stranger = WorkerId(4711);
    let mut run = started(candidate, &workers(2))?;
    for sid in ODD {
        run.notice(Event::SessionClosed { sid, worker: stranger })?;
        run.notice(Event::SessionOpened { sid, worker: stranger })?;
        // Twice is once too many.
        run.notice(Event::SessionOpened { sid, worker: WorkerId(0) })?;
    }
    run.notice(Event::WorkerFailed { worker: stranger })?;
    run.notice(Event::WorkerFailed { worker: WorkerId(0) })?;
    ask_many(&mut run, &workers(2), &mut [0; 2], 16)?;
    for sid in ODD {
        find(&mut run, sid, &[0; 2])?;
    }
    good()
}

fn events_balance(candidate: &Candidate) -> Outcome {
    let mut run = started(candidate, &workers(2))?;
    let mut before = 0;
    for number in 0..MANY {
        let (sid, worker) = (format!("check-{number}"), WorkerId(number % 2));
        run.notice(Event::SessionOpened { sid: &sid, worker })?;
        run.notice(Event::SessionClosed { sid: &sid, worker })?;
        if number == MANY / 10 {
            before = run.memory();
        }
    }
    Ok(growth(before, run.memory(), "sessions"))
}

fn events_pile(candidate: &Candidate) -> Outcome {
    let mut run = started(candidate, &workers(2))?;
    for number in 0..MANY {
        let (sid, worker) = (format!("check-{number}"), WorkerId(number % 2));
        run.notice(Event::SessionOpened { sid: &sid, worker })?;
    }
    ask_many(&mut run, &workers(2), &mut [0; 2], 16)?;
    Ok(Verdict::Good(format!("{} of memory", figures::bytes(run.memory()))))
}

fn memory(candidate: &Candidate) -> Outcome {
    let roster = workers(4);
    let mut run = candidate.start()?;
    ask_many(&mut run, &roster, &mut [0; 4], MANY / 10)?;
    let before = run.memory();
    ask_many(&mut run, &roster, &mut [0; 4], MANY)?;
    Ok(growth(before, run.memory(), "decisions"))
}

fn budget(candidate: &Candidate) -> Outcome {
    let most = candidate.limits().decision_fuel;
    let mut dearest = 0;
    for count in [2, 64, 512] {
        let mut run = started(candidate, &workers(count))?;
        let mut loads = vec![0; count as usize];
        for number in 0..200 {
            ask(&mut run, &loads, &mut client(number))?;
            dearest = dearest.max(run.fuel());
            loads[number as usize % count as usize] += 1;
        }
    }
    let found = format!("the dearest of 600 took {}", figures::percent(dearest, most));
    Ok(if dearest > most / DEAR { Verdict::Warning(found) } else { Verdict::Good(found) })
}

fn repeatable(candidate: &Candidate) -> Outcome {
    let roster = workers(5);
    let play = || {
        let script = sidetrack_policy::native::Script { seed: 7, ..Default::default() };
        let (got, _) = sidetrack_policy::native::scripted(script, || {
            let mut run = started(candidate, &roster)?;
            let mut decisions = Vec::new();
            for number in 0..500 {
                decisions.push(ask(&mut run, &[number % 3, 1, 2, number % 2, 1], &mut client(number))?);
            }
            Ok::<_, Stop>(decisions)
        });
        got
    };
    Ok(if play()? == play()? {
        Verdict::Good(String::new())
    } else {
        Verdict::Warning("it decides by something else, such as the clock: tests of it need care".to_owned())
    })
}

fn growth(before: usize, after: usize, of: &str) -> Verdict {
    let grown = after.saturating_sub(before);
    if grown > GROWTH {
        Verdict::Warning(format!("{} more, and more with more {of}", figures::bytes(grown)))
    } else {
        Verdict::Good(String::new())
    }
}
