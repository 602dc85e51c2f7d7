//! A policy that misbehaves on request: the path of the request, the session id, the options and the
//! saved state each say how. At `/` it is a well-behaved policy that picks its first worker.

#![allow(clippy::panic, reason = "this policy misbehaves on purpose")]

use std::hint::black_box;

use sidetrack_policy::{Decision, Policy, Refusal, Worker, WorkerId, export, host, request, store};

/// See the crate's documentation.
#[derive(Debug, Default)]
pub struct Hostile {
    workers: Vec<Worker>,
    rosters: u32,
    calls: u32,
    events: Vec<String>,
    /// Of the saved state.
    form: Option<String>,
    bent: Option<Bent>,
}

/// A lasting fault, by option: nothing that a request could bring about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bent {
    /// Knows the workers it was given first, for ever.
    Stale,
    /// Keeps a little of every call.
    Leaky,
    /// Takes every state for its own.
    Trusting,
    /// Says yes to its options and does not answer.
    Lying,
}

impl Policy for Hostile {
    fn configure(&mut self, json: &str) -> Result<(), String> {
        match json {
            "{}" => Ok(()),
            r#""loop""# => spin(),
            r#""panic""# => panic!("on purpose, while configuring"),
            r#""request""# => Err(request::path()),
            r#""another form""# => {
                self.form = Some("calls/2".into());
                Ok(())
            }
            r#"{"bent": "stale"}"# => self.bend(Bent::Stale),
            r#"{"bent": "leaky"}"# => self.bend(Bent::Leaky),
            r#"{"bent": "trusting"}"# => self.bend(Bent::Trusting),
            r#"{"bent": "lying"}"# => self.bend(Bent::Lying),
            r#""small states""# => {
                self.form = Some("small".into());
                Ok(())
            }
            other => Err(format!("I know no option {other}")),
        }
    }

    fn set_workers(&mut self, workers: &[Worker]) {
        if self.bent != Some(Bent::Stale) || self.workers.is_empty() {
            self.workers = workers.to_vec();
        }
        self.rosters += 1;
        if workers.iter().any(|worker| worker.name == "panic") {
            panic!("on purpose, at a worker");
        }
    }

    fn balance(&mut self, loads: &[u32]) -> Decision {
        self.calls += 1;
        match self.bent {
            Some(Bent::Lying) => panic!("on purpose, having said yes"),
            Some(Bent::Leaky) => drop(black_box(Vec::<u8>::with_capacity(1 << 9).leak())),
            _ => {}
        }
        match request::path().as_str() {
            "/loop" => spin(),
            "/ask" => loop {
                black_box(request::header("x"));
            },
            "/random" => loop {
                black_box(host::random_u64());
            },
            "/grow" => loop {
                black_box(Vec::<u8>::with_capacity(1 << 20).leak());
            },
            "/panic" => panic!("on purpose"),
            "/recurse" => say(&recurse(1).to_string()),
            "/huge" => say(&"x".repeat(100_000)),
            "/long" => say(&"ü".repeat(10_000)),
            "/huge-log" => {
                host::log(host::Level::Info, &"x".repeat(100_000));
                Decision::Defer
            }
            "/chatter" => {
                for line in 0..100 {
                    host::log(host::Level::Debug, &format!("line {line}\nforged"));
                }
                self.first()
            }
            "/stranger" => Decision::Worker(WorkerId::MAX),
            "/status" => Decision::Refuse(Refusal { status: 200, retry_after: None, text: String::new() }),
            "/refuse" => {
                Decision::Refuse(Refusal { status: 429, retry_after: Some(7), text: "later".into() })
            }
            "/defer" => Decision::Defer,
            "/explain" => {
                host::explain("because");
                self.first()
            }
            "/remember" => say(&store::add("remembered", 1).to_string()),
            "/overfill" => {
                say(&(0..).take_while(|n| store::set(&n.to_string(), &[0; 16 << 10])).count().to_string())
            }
            "/remember-and-panic" => {
                store::add("remembered", 1);
                panic!("on purpose")
            }
            "/seen" => say(&seen()),
            "/now" => say(&host::now().to_string()),
            "/self" => {
                let Self { rosters, calls, events, .. } = self;
                let labels: Vec<_> = self.workers.iter().map(|worker| worker.label("zone")).collect();
                say(&format!(
                    "calls {calls}, rosters {rosters}, loads {loads:?}, zones {labels:?}, events {events:?}"
                ))
            }
            _ => self.first(),
        }
    }

    fn find(&mut self, sid: &str, _loads: &[u32]) -> Decision {
        match sid {
            "loop" => spin(),
            "stranger" => Decision::Worker(WorkerId::MAX),
            _ => host::session_owner(sid).map_or(Decision::Defer, Decision::Worker),
        }
    }

    fn save(&mut self) -> Vec<u8> {
        assert!(!(100..110).contains(&self.calls), "on purpose, while saving");
        self.calls.to_le_bytes().to_vec()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        assert!(self.bent != Some(Bent::Trusting) || state.len() == 4, "on purpose, while restoring");
        let calls = u32::from_le_bytes(state.try_into().map_err(|_| "four bytes, please".to_owned())?);
        if self.form.as_deref() == Some("small") && calls > 5 {
            return Err(format!("{calls} calls are too many for me"));
        }
        self.calls = calls;
        Ok(())
    }

    fn schema(&self) -> &str {
        match self.form.as_deref() {
            Some("calls/2") => "calls/2",
            _ => "calls/1",
        }
    }

    fn session_opened(&mut self, sid: &str, worker: WorkerId) {
        self.events.push(format!("+{sid}@{worker}"));
    }

    fn session_closed(&mut self, sid: &str, worker: WorkerId) {
        self.events.push(format!("-{sid}@{worker}"));
    }

    fn worker_failed(&mut self, worker: WorkerId) {
        if worker == WorkerId::MAX {
            spin();
        }
        self.events.push(format!("!{worker}"));
    }
}

impl Hostile {
    #[allow(clippy::unnecessary_wraps, reason = "what `configure` answers")]
    fn bend(&mut self, bent: Bent) -> Result<(), String> {
        self.bent = Some(bent);
        Ok(())
    }

    fn first(&self) -> Decision {
        self.workers.first().map_or(Decision::Defer, |worker| Decision::Worker(worker.id))
    }
}

/// All that can be read during a call, in one line.
fn seen() -> String {
    let times = [host::now(), host::now()];
    format!(
        "{} {} q={:?} h={:?} none={:?} peer={:?} session={:?} hash={} upgrade={} attempt={} owner={:?} clock={}",
        request::method(),
        request::path(),
        request::query("a b"),
        request::header("X-Zone"),
        request::header("absent"),
        request::peer(),
        request::session(),
        request::session_hash() == request::hash_session("s-1"),
        request::is_upgrade(),
        request::attempt(),
        host::session_owner("s-1"),
        times[0] <= times[1],
    )
}

fn say(text: &str) -> Decision {
    Decision::Refuse(Refusal { status: 499, retry_after: None, text: text.to_owned() })
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn recurse(depth: u64) -> u64 {
    if black_box(depth) == 0 { 0 } else { recurse(depth + 1) + black_box(1) }
}

export!(Hostile, sessions, state, schema, events);
