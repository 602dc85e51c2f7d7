//! A script, from its text to its answers.

use std::fmt;

use sidetrack_policy::host::{self, Level};
use sidetrack_policy::{Decision, Refusal, WorkerId};

use crate::js::{self, Exception, Name, Thrown, Value};
use crate::{api, roster};

/// QuickJS asks whether to go on after 10,000 turns of a loop. If each takes less than 200 units of
/// fuel, as in most loops that do not end, the budget is not used up when this many were spent for each
/// question; and the script's place is known. Others end when the fuel does.
const FUEL_PER_PATIENCE: u64 = 2_000_000;
/// How often the top level and `configure` may be asked; they have a larger budget.
const SETUP: u32 = 400;
/// What the component itself needs of its memory, before any script.
const OWN_MEMORY: u64 = 3 << 20;

/// What a script may use, as far as it can be told before the host stops it: then the script's place
/// is known.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub memory: u64,
    /// Of a decision.
    pub fuel: u64,
}

impl Bounds {
    /// How often a decision may be asked whether it goes on. Once means nothing, since turns are counted
    /// across calls.
    fn patience(self) -> u32 {
        u32::try_from(self.fuel / FUEL_PER_PATIENCE).unwrap_or(u32::MAX).max(1)
    }
}

/// A script in service.
pub struct Script {
    name: String,
    bounds: Bounds,
    /// The object that stands for whatever request there is.
    request: Value,
    names: Names,
    balance: Option<Value>,
    find: Option<Value>,
    save: Option<Value>,
    restore: Option<Value>,
    reads: Option<Value>,
    session_opened: Option<Value>,
    session_closed: Option<Value>,
    worker_failed: Option<Value>,
    schema: String,
    /// It has named a worker that does not exist, and that was said.
    complained: bool,
}

#[derive(Debug)]
struct Names {
    status: Name,
    retry_after: Name,
    text: Name,
}

/// What is asked about one connection.
#[derive(Debug, Clone, Copy)]
pub enum Call<'a> {
    Balance,
    Find(&'a str),
}

/// What is wrong with a script, in one line that begins with the place.
#[derive(Debug)]
pub struct Complaint {
    pub text: String,
}

impl From<Thrown> for Complaint {
    /// Where it is not a script's own doing.
    fn from(thrown: Thrown) -> Self {
        Self { text: js::caught(thrown).text }
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Script {
    /// Runs a script's top level and its `configure`.
    pub fn load(text: &str, name: &str, options: &str, bounds: Bounds) -> Result<Self, Complaint> {
        if text.contains('\0') {
            return Err(Complaint { text: format!("{name}: a script is text, and here is a zero byte") });
        }
        // Where nothing is left, 0 is no limit but the host's.
        js::start(usize::try_from(bounds.memory.saturating_sub(OWN_MEMORY)).unwrap_or(usize::MAX));
        let request = api::install()?;
        js::be_patient(SETUP);
        let failed = |thrown| complaint(name, js::caught(thrown));
        let plain = |what: String| Complaint { text: format!("{name}: {what}") };
        let exports = js::module(text, name).map_err(failed)?.map_err(plain)?;
        let function = |wanted: &str| -> Result<Option<Value>, Complaint> {
            let found = exports.get_by(wanted).map_err(failed)?;
            match found {
                _ if found.is_function() => Ok(Some(found)),
                _ if found.is_nothing() => Ok(None),
                _ => Err(plain(format!("the export `{wanted}` is no function"))),
            }
        };
        let form = exports.get_by("schema").map_err(failed)?;
        let schema = match form {
            _ if form.is_string() => form.to_text()?,
            _ if form.is_nothing() => String::new(),
            _ => return Err(plain("the export `schema` is no string".to_owned())),
        };
        let script = Self {
            name: name.to_owned(),
            bounds,
            request,
            names: Names {
                status: Name::new("status"),
                retry_after: Name::new("retryAfter"),
                text: Name::new("text"),
            },
            balance: function("balance")?,
            find: function("find")?,
            save: function("save")?,
            restore: function("restore")?,
            reads: function("reads")?,
            session_opened: function("sessionOpened")?,
            session_closed: function("sessionClosed")?,
            worker_failed: function("workerFailed")?,
            schema,
            complained: false,
        };
        let found = js::names(&exports)?;
        if let Some((meant, name)) = found.iter().find_map(|name| Some((nearly(name)?, name))) {
            return Err(plain(format!("the export `{name}` is never called: it should be `{meant}`")));
        }
        if script.balance.is_none() && script.find.is_none() {
            let found = if found.is_empty() { "no export".to_owned() } else { found.join(", ") };
            return Err(plain(format!(
                "expected `export function balance(workers, request)`, found {found}"
            )));
        }
        if script.save.is_some() != script.restore.is_some() {
            return Err(plain("`save` and `restore` only make sense together: export both".to_owned()));
        }
        match function("configure")? {
            Some(configure) => {
                let options = Value::from_json(options, "options").map_err(failed)?;
                let configured = configure.call(&[&options]).map_err(failed)?;
                if configured.is_promise() {
                    return Err(plain(format!("`configure` {PROMISE}")));
                }
            }
            None if options.trim() != "{}" => {
                return Err(plain(format!(
                    "it takes no options, as it exports no `configure`; found {options}"
                )));
            }
            None => {}
        }
        Ok(script)
    }

    /// The optional interfaces of the contract that it needs.
    pub fn interfaces(&self) -> Vec<String> {
        let events = [&self.session_opened, &self.session_closed, &self.worker_failed];
        [
            ("sessions", self.find.is_some()),
            ("state", self.save.is_some()),
            ("schema", self.save.is_some() && (!self.schema.is_empty() || self.reads.is_some())),
            ("events", events.iter().any(|event| event.is_some())),
        ]
        .into_iter()
        .filter(|(_, needed)| *needed)
        .map(|(name, _)| name.to_owned())
        .collect()
    }

    pub fn decide(&mut self, call: Call<'_>, loads: &[u32]) -> Result<Decision, Complaint> {
        let workers = roster::loaded(loads)?;
        let (function, sid) = match call {
            Call::Balance => (&self.balance, None),
            Call::Find(sid) => (&self.find, Some(Value::text(sid)?)),
        };
        let Some(function) = function else { return Ok(Decision::Defer) };
        self.be_patient();
        api::set_inside(true);
        let answer = match &sid {
            None => function.call(&[&workers, &self.request]),
            Some(sid) => function.call(&[sid, &workers, &self.request]),
        };
        api::set_inside(false);
        let answer = answer.map_err(|thrown| self.complaint(thrown))?;
        if answer.is_nothing() {
            return Ok(Decision::Defer);
        }
        match self.decision(&answer) {
            Ok(Some(decision)) => Ok(decision),
            Ok(None) => Err(self.no_decision(call, &answer)),
            Err(thrown) => Err(self.complaint(thrown)),
        }
    }

    /// A script's answer in the contract's terms.
    fn decision(&mut self, answer: &Value) -> js::Result<Option<Decision>> {
        if answer.is_object() {
            if let Some(id) = roster::id_of(answer)? {
                return Ok(Some(Decision::Worker(id)));
            }
            return match answer.get(&self.names.status)?.whole() {
                Some(status) => self.refusal(status, answer).map(|refusal| Some(Decision::Refuse(refusal))),
                None => Ok(None),
            };
        }
        if answer.is_string() {
            let name = answer.to_text()?;
            return Ok(Some(Decision::Worker(roster::named(&name).unwrap_or_else(|| self.nobody(&name)))));
        }
        Ok(answer.whole().map(Decision::Worker))
    }

    fn refusal(&self, status: u32, answer: &Value) -> js::Result<Refusal> {
        let text = answer.get(&self.names.text)?;
        Ok(Refusal {
            // The host knows what to think of a status.
            status: u16::try_from(status).unwrap_or(0),
            retry_after: answer.get(&self.names.retry_after)?.number().map(seconds),
            text: if text.is_nothing() { String::new() } else { text.to_text()? },
        })
    }

    /// An id that nobody has, for a name that nobody has: the host counts that. It is said here, where
    /// the name is known, for the first time.
    fn nobody(&mut self, name: &str) -> WorkerId {
        let said = format!("{}: no worker is named `{name}`", self.name);
        if !std::mem::replace(&mut self.complained, true) {
            host::log(Level::Warn, &said);
        }
        host::explain(&said);
        WorkerId::MAX
    }

    fn no_decision(&self, call: Call<'_>, answer: &Value) -> Complaint {
        let (name, function) = match call {
            Call::Balance => ("balance", &self.balance),
            Call::Find(_) => ("find", &self.find),
        };
        let place = function.as_ref().map_or_else(|| self.name.clone(), |function| self.place_of(function));
        if answer.is_promise() {
            return Complaint { text: format!("{place}: `{name}` {PROMISE}") };
        }
        let json = if answer.is_function() { None } else { answer.to_json().ok().flatten() };
        let found = json.unwrap_or_else(|| "something else".to_owned());
        let text = format!(
            "{place}: `{name}` returned {found}: expected a worker, its id or name, refuse(…), or nothing"
        );
        Complaint { text }
    }

    /// Where a function is in the script.
    fn place_of(&self, function: &Value) -> String {
        let number = |name| function.get_by(name).ok().and_then(|number| number.whole());
        match (number("lineNumber"), number("columnNumber")) {
            (Some(line), Some(column)) => format!("{}:{line}:{column}", self.name),
            _ => self.name.clone(),
        }
    }

    /// The state as JSON.
    pub fn save(&mut self) -> Result<Vec<u8>, Complaint> {
        let Some(save) = &self.save else { return Ok(Vec::new()) };
        self.be_patient();
        let state = save.call(&[]).and_then(|state| state.to_json());
        Ok(state.map_err(|thrown| self.complaint(thrown))?.unwrap_or_default().into_bytes())
    }

    pub fn restore(&mut self, state: &[u8]) -> Result<(), Complaint> {
        let Some(restore) = self.restore.as_ref().filter(|_| !state.is_empty()) else { return Ok(()) };
        let state = std::str::from_utf8(state).ok().and_then(|json| Value::from_json(json, "state").ok());
        let Some(state) = state else {
            return Err(Complaint { text: format!("{}: the saved state is not JSON", self.name) });
        };
        self.be_patient();
        restore.call(&[&state]).map(drop).map_err(|thrown| self.complaint(thrown))
    }

    pub fn schema(&self) -> &str {
        &self.schema
    }

    pub fn reads(&self, form: &str) -> Result<bool, Complaint> {
        let Some(reads) = &self.reads else { return Ok(form == self.schema) };
        self.be_patient();
        let answer = reads.call(&[&Value::text(form)?]).map_err(|thrown| self.complaint(thrown))?;
        Ok(answer.is_true())
    }

    pub fn session_opened(&mut self, sid: &str, worker: WorkerId) -> Result<(), Complaint> {
        self.tell(&self.session_opened, &[&Value::text(sid)?, &someone(worker)?])
    }

    pub fn session_closed(&mut self, sid: &str, worker: WorkerId) -> Result<(), Complaint> {
        self.tell(&self.session_closed, &[&Value::text(sid)?, &someone(worker)?])
    }

    pub fn worker_failed(&mut self, worker: WorkerId) -> Result<(), Complaint> {
        self.tell(&self.worker_failed, &[&someone(worker)?])
    }

    fn tell(&self, function: &Option<Value>, arguments: &[&Value]) -> Result<(), Complaint> {
        let Some(function) = function else { return Ok(()) };
        self.be_patient();
        function.call(arguments).map(drop).map_err(|thrown| self.complaint(thrown))
    }

    fn be_patient(&self) {
        js::be_patient(self.bounds.patience());
    }

    fn complaint(&self, thrown: Thrown) -> Complaint {
        complaint(&self.name, js::caught(thrown))
    }
}

/// What sidetrack calls or reads.
const EXPORTS: [&str; 10] = [
    "balance",
    "find",
    "configure",
    "save",
    "restore",
    "schema",
    "reads",
    "sessionOpened",
    "sessionClosed",
    "workerFailed",
];

/// The export that a name would be, were it not for capitals and underscores.
fn nearly(name: &str) -> Option<&'static str> {
    let plain = |name: &str| name.replace('_', "").to_lowercase();
    EXPORTS.into_iter().find(|export| *export != name && plain(export) == plain(name))
}

const PROMISE: &str = "returned a promise: policies answer at once, without async or await";

/// A worker, or what is known of one that is gone.
fn someone(id: WorkerId) -> js::Result<Value> {
    if let Some(worker) = roster::object(id) {
        return Ok(worker);
    }
    let gone = Value::object()?;
    gone.define(&Name::new("id"), id.into())?;
    Ok(gone)
}

/// At least what was asked for.
fn seconds(number: f64) -> u32 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let seconds = number.ceil() as u32;
    seconds
}

/// An exception in one line, with the innermost place in the script itself.
fn complaint(name: &str, exception: Exception) -> Complaint {
    let Exception { mut text, stack } = exception;
    if text == "InternalError: interrupted" {
        "it takes too long, perhaps for ever".clone_into(&mut text);
    }
    let text = text.split(['\n', '\r']).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    match place(&stack, name) {
        Some((line, column)) => Complaint { text: format!("{name}:{line}:{column}: {text}") },
        None => Complaint { text: format!("{name}: {text}") },
    }
}

/// The first place in a stack that is in this script. Its lines are `at function (name:12:3)`.
fn place(stack: &str, name: &str) -> Option<(u32, u32)> {
    stack.lines().find_map(|line| {
        let (_, place) = line.rsplit_once(name)?;
        let mut numbers = place.trim_end_matches(')').strip_prefix(':')?.split(':').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    })
}
