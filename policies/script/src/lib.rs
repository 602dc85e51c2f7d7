//! The engine behind `--policy ./mine.js`: a policy that does what a script says.
//!
//! The script comes with `configure`, in an object beside its name and its options. It is an ES
//! module; what it exports is called when sidetrack calls the method of that name. `docs/policy-scripts.md`
//! describes what scripts can do; the modules here are
//!
//! - `js`: QuickJS, as safe Rust;
//! - `roster`: the workers as objects;
//! - `api`: what scripts call and read;
//! - `script`: the script itself, from its text to its answers.
//!
//! An exception in a script is logged with its place and ends the instance, as a panic does in a policy
//! written in Rust. So it is counted, and a script that keeps throwing is taken out of service.

mod api;
mod js;
mod roster;
mod script;

use std::cell::RefCell;

use serde_json::Value as Json;
use sidetrack_policy::host::{self, Level};
use sidetrack_policy::{Decision, Policy, Worker, WorkerId};

use script::{Call, Complaint, Script};

wit_bindgen::generate!({ path: "wit", world: "engine" });

/// The policy: nothing until it is configured.
#[derive(Debug, Default)]
struct Engine {
    script: Option<Script>,
}

impl Policy for Engine {
    fn configure(&mut self, json: &str) -> Result<(), String> {
        let given: Json = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let (Some(text), Some(name)) = (given["script"].as_str(), given["name"].as_str()) else {
            return Err("expected {\"script\": TEXT, \"name\": FILE, \"options\": …}".to_owned());
        };
        let bounds = script::Bounds {
            memory: given["memory"].as_u64().unwrap_or(16 << 20),
            fuel: given["fuel"].as_u64().unwrap_or(8_000_000),
        };
        let options = given.get("options").map_or_else(|| "{}".to_owned(), Json::to_string);
        let script = Script::load(text, name, &options, bounds).map_err(|complaint| complaint.text)?;
        INTERFACES.set(script.interfaces());
        self.script = Some(script);
        Ok(())
    }

    fn set_workers(&mut self, workers: &[Worker]) {
        self.tell(|_| Ok(roster::follow(workers)?));
    }

    fn balance(&mut self, loads: &[u32]) -> Decision {
        self.ask(|script| script.decide(Call::Balance, loads))
    }

    fn find(&mut self, sid: &str, loads: &[u32]) -> Decision {
        self.ask(|script| script.decide(Call::Find(sid), loads))
    }

    fn save(&mut self) -> Vec<u8> {
        self.ask(Script::save)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        match &mut self.script {
            Some(script) => script.restore(state).map_err(|complaint| complaint.text),
            None => Ok(()),
        }
    }

    fn schema(&self) -> &str {
        self.script.as_ref().map_or("", Script::schema)
    }

    fn reads(&self, form: &str) -> bool {
        match &self.script {
            Some(script) => script.reads(form).unwrap_or_else(|complaint| end(&complaint)),
            None => true,
        }
    }

    fn session_opened(&mut self, sid: &str, worker: WorkerId) {
        self.tell(|script| script.session_opened(sid, worker));
    }

    fn session_closed(&mut self, sid: &str, worker: WorkerId) {
        self.tell(|script| script.session_closed(sid, worker));
    }

    fn worker_failed(&mut self, worker: WorkerId) {
        self.tell(|script| script.worker_failed(worker));
    }
}

impl Engine {
    fn ask<T: Answer>(&mut self, ask: impl FnOnce(&mut Script) -> Result<T, Complaint>) -> T {
        match &mut self.script {
            Some(script) => ask(script).unwrap_or_else(|complaint| end(&complaint)),
            None => T::NOTHING,
        }
    }

    fn tell(&mut self, tell: impl FnOnce(&mut Script) -> Result<(), Complaint>) {
        self.ask(tell);
    }
}

/// What is answered without a script.
trait Answer {
    const NOTHING: Self;
}

impl Answer for () {
    const NOTHING: Self = ();
}

impl Answer for Decision {
    const NOTHING: Self = Self::Defer;
}

impl Answer for Vec<u8> {
    const NOTHING: Self = Self::new();
}

/// Says what is wrong and ends the instance.
fn end(complaint: &Complaint) -> ! {
    host::log(Level::Error, &complaint.text);
    std::process::abort()
}

thread_local! {
    static INTERFACES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Component;

impl exports::sidetrack::script::script::Guest for Component {
    fn interfaces() -> Vec<String> {
        INTERFACES.take()
    }
}

self::export!(Component);

sidetrack_policy::export!(Engine, sessions, state, schema, events);
