//! A live policy instance and the calls into it, each with its budget.
//!
//! One store holds one instance and dies with it: a trap makes a store unusable, and instances are
//! only freed with their store.

use std::sync::{Arc, Mutex};

use wasmtime::Store;

use super::bindings::{events, routing, schema, script, sessions, state, types};
use super::cache::Cache;
use super::engine::Engine;
use super::fault::Fault;
use super::host::HostState;
use super::store::Store as Values;
use super::version::Version;
use super::{Clock, Event, Limits, Request, Role, SessionOwner, one_line, shorten};
use crate::types::{Decision, Refusal, Roster, WorkerId};

/// The most one result or one argument to the host may carry.
const HAND_OVER: usize = 64 << 10;
/// Longest name of a state's form, in characters.
const FORM: usize = 64;
/// Longest text of a refusal, in characters.
const REFUSAL_TEXT: usize = 256;
/// How many times a decision's time setting up may take.
const SETUP_PATIENCE: u32 = 20;
/// Fuel is about 8 to the nanosecond; the host's own time may be twice what the fuel is worth.
const FUEL_PER_HOST_NANOSECOND: u64 = 4;

/// What an instance is made with besides its version.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) engine: Arc<Engine>,
    pub(super) cache: Arc<Cache>,
    pub(super) sessions: Arc<dyn SessionOwner>,
    /// Of this link of the chain, whatever version it runs.
    pub(super) store: Arc<Mutex<Values>>,
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    pub(super) role: Role,
}

/// A question about one connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Question<'a> {
    Balance,
    Find(&'a str),
}

impl Question<'_> {
    /// As the contract calls it.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Balance => "balance",
            Self::Find(_) => "find",
        }
    }
}

/// The fuel and time of one call.
#[derive(Clone, Copy)]
struct Budget {
    fuel: u64,
    ticks: u64,
}

/// A policy instance. After any [`Fault`] it must be dropped.
pub(super) struct Instance {
    store: Store<HostState>,
    routing: routing::Routing,
    sessions: Option<sessions::RoutingSessions>,
    state: Option<state::RoutingState>,
    schema: Option<schema::RoutingSchema>,
    events: Option<events::RoutingEvents>,
    script: Option<script::Engine>,
    decision: Budget,
    limits: Limits,
    /// The roster it was given last.
    roster: Option<u64>,
    /// The workers' ids in that roster, for checking answers without walking the roster.
    known: Vec<WorkerId>,
}

/// Why an instance could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Fault(#[from] Fault),
    /// An exported function has another type than the contract's.
    #[error("it does not fit the contract: {0}")]
    Types(String),
    /// `configure` returned this error.
    #[error("`configure` refused the options: {0}")]
    Refused(String),
}

impl Instance {
    /// Instantiates and configures. `fuel` is for both together.
    pub(super) fn start(version: &Version, around: &Surroundings, fuel: u64) -> Result<Self, StartError> {
        Self::configured(version, &version.options, around, fuel)
    }

    /// The same with another text for `configure` than the version's.
    pub(super) fn configured(
        version: &Version,
        options: &str,
        around: &Surroundings,
        fuel: u64,
    ) -> Result<Self, StartError> {
        let limits = around.limits;
        let state = HostState::new(
            Arc::clone(&version.name),
            Arc::clone(&around.sessions),
            Arc::clone(&around.store),
            around.clock.clone(),
            limits.memory,
            around.role,
        );
        let mut store = Store::new(around.engine.inner(), state);
        store.limiter(|state| state);
        store.set_hostcall_fuel(HAND_OVER);
        store.epoch_deadline_callback(move |mut context| context.data_mut().overdue(limits.backstop));
        let setup = Budget { fuel, ticks: Engine::ticks(limits.backstop.saturating_mul(SETUP_PATIENCE)) };
        setup.apply(&mut store);

        let instance = match version.pre.instantiate(&mut store) {
            Ok(instance) => instance,
            Err(error) => return Err(Fault::new("instantiation", &error, store.data()).into()),
        };
        let (routing, sessions, state, schema, events, script) = (|| {
            let store = &mut store;
            let sessions = version.sessions.as_ref().map(|found| found.load(&mut *store, &instance));
            let state = version.state.as_ref().map(|found| found.load(&mut *store, &instance));
            let schema = version.schema.as_ref().map(|found| found.load(&mut *store, &instance));
            let events = version.events.as_ref().map(|found| found.load(&mut *store, &instance));
            let script = version.script.as_ref().map(|found| found.load(&mut *store, &instance));
            let routing = version.routing.load(&mut *store, &instance)?;
            let (sessions, state) = (sessions.transpose()?, state.transpose()?);
            let (schema, events) = (schema.transpose()?, events.transpose()?);
            Ok((routing, sessions, state, schema, events, script.transpose()?))
        })()
        .map_err(|error: wasmtime::Error| StartError::Types(one_line(&format!("{error:#}"))))?;
        match routing.sidetrack_policy_policy().call_configure(&mut store, options) {
            Ok(Ok(())) => {}
            Ok(Err(said)) => return Err(StartError::Refused(shorten(&said, REFUSAL_TEXT))),
            Err(error) => return Err(Fault::new("configure", &error, store.data()).into()),
        }
        let decision = Budget { fuel: limits.decision_fuel, ticks: Engine::ticks(limits.backstop) };
        Ok(Self {
            store,
            routing,
            sessions,
            state,
            schema,
            events,
            script,
            decision,
            limits,
            roster: None,
            known: Vec::new(),
        })
    }

    /// Fuel left of the budget the last call had.
    pub(super) fn fuel_left(&self) -> u64 {
        self.store.get_fuel().unwrap_or(0)
    }

    /// Gives it the roster unless it has it.
    pub(super) fn follow(&mut self, roster: &Roster) -> Result<(), Fault> {
        if self.roster == Some(roster.version) {
            return Ok(());
        }
        let fuel = self.limits.roster_fuel(roster.workers.len());
        let workers: Vec<types::Worker> = roster
            .workers
            .iter()
            .map(|worker| types::Worker {
                id: worker.id.0,
                name: worker.name.clone(),
                weight: worker.weight,
                draining: worker.draining,
                labels: worker.labels.clone(),
            })
            .collect();
        self.begin(Budget { fuel, ..self.decision });
        let done = self.routing.sidetrack_policy_policy().call_set_workers(&mut self.store, &workers);
        self.end("set-workers", done)?;
        self.roster = Some(roster.version);
        self.known.clear();
        self.known.extend(roster.workers.iter().map(|worker| worker.id));
        Ok(())
    }

    /// Asks about the connection behind `request`, which is lent to the instance for the call.
    pub(super) fn ask(
        &mut self,
        question: Question<'_>,
        loads: &[u32],
        request: &mut Request,
    ) -> Result<Decision, Fault> {
        self.begin(self.decision);
        self.lend(request);
        let (call, answer) = match (question, &self.sessions) {
            (Question::Balance, _) => {
                ("balance", self.routing.sidetrack_policy_policy().call_balance(&mut self.store, loads))
            }
            (Question::Find(sid), Some(sessions)) => {
                ("find", sessions.sidetrack_policy_sessions().call_find(&mut self.store, sid, loads))
            }
            (Question::Find(_), None) => ("find", Ok(types::Decision::Defer)),
        };
        self.take_back(request);
        self.end(call, answer).map(decision)
    }

    /// Whether the instance was given this worker.
    pub(super) fn knows(&self, worker: WorkerId) -> bool {
        self.known.contains(&worker)
    }

    /// The optional interfaces that its script needs; none when it is not the script engine.
    pub(super) fn interfaces(&mut self) -> Result<Option<Vec<String>>, Fault> {
        self.begin(self.decision);
        let Some(script) = &self.script else { return Ok(None) };
        let interfaces = script.sidetrack_script_script().call_interfaces(&mut self.store);
        self.end("interfaces", interfaces).map(Some)
    }

    /// Its state, when it has any to save.
    pub(super) fn save(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        self.begin(self.decision);
        let Some(state) = &self.state else { return Ok(None) };
        let saved = state.sidetrack_policy_state().call_save(&mut self.store);
        self.end("save", saved).map(Some)
    }

    /// Gives it a state; its own complaint is the inner error.
    pub(super) fn restore(&mut self, saved: &[u8]) -> Result<Result<(), String>, Fault> {
        self.begin(self.decision);
        let Some(state) = &self.state else { return Ok(Ok(())) };
        let restored = state.sidetrack_policy_state().call_restore(&mut self.store, saved);
        Ok(self.end("restore", restored)?.map_err(|said| shorten(&said, REFUSAL_TEXT)))
    }

    /// The form of what it saves, when it names one.
    pub(super) fn form(&mut self) -> Result<Option<String>, Fault> {
        self.begin(self.decision);
        let Some(schema) = &self.schema else { return Ok(None) };
        let form = schema.sidetrack_policy_schema().call_current(&mut self.store);
        Ok(Some(shorten(&self.end("schema", form)?, FORM)))
    }

    /// Whether it takes a state of that form; one that does not say is to be tried.
    pub(super) fn reads(&mut self, form: &str) -> Result<bool, Fault> {
        self.begin(self.decision);
        let Some(schema) = &self.schema else { return Ok(true) };
        let reads = schema.sidetrack_policy_schema().call_reads(&mut self.store, form);
        self.end("reads", reads)
    }

    /// What the last call took of a decision's budget.
    pub(super) fn fuel_spent(&self) -> u64 {
        self.decision.fuel.saturating_sub(self.fuel_left())
    }

    /// The most memory it has had, in bytes.
    pub(super) fn memory_peak(&self) -> usize {
        self.store.data().memory_peak
    }

    /// Tells it what happened, when it wants to know.
    pub(super) fn notice(&mut self, event: Event<'_>) -> Result<(), Fault> {
        self.begin(self.decision);
        let Some(events) = &self.events else { return Ok(()) };
        let events = events.sidetrack_policy_events();
        let store = &mut self.store;
        let (call, done) = match event {
            Event::SessionOpened { sid, worker } => {
                ("session-opened", events.call_session_opened(store, sid, worker.0))
            }
            Event::SessionClosed { sid, worker } => {
                ("session-closed", events.call_session_closed(store, sid, worker.0))
            }
            Event::WorkerFailed { worker } => ("worker-failed", events.call_worker_failed(store, worker.0)),
        };
        self.end(call, done)
    }

    /// Whether to keep what the policy explains.
    pub(super) fn listen(&mut self, listening: bool) {
        self.store.data_mut().keep_explanation = listening;
    }

    /// What it explained in the last call.
    pub(super) fn explanation(&mut self) -> Option<String> {
        self.store.data_mut().explanation.take()
    }

    fn begin(&mut self, budget: Budget) {
        budget.apply(&mut self.store);
        self.store.data_mut().last_error = None;
    }

    fn end<T>(&self, call: &'static str, result: wasmtime::Result<T>) -> Result<T, Fault> {
        result.map_err(|error| Fault::new(call, &error, self.store.data()))
    }

    fn lend(&mut self, request: &mut Request) {
        let state = self.store.data_mut();
        std::mem::swap(&mut state.request, request);
        state.in_call = true;
    }

    fn take_back(&mut self, request: &mut Request) {
        let state = self.store.data_mut();
        std::mem::swap(&mut state.request, request);
        state.in_call = false;
    }
}

impl Budget {
    fn apply(self, store: &mut Store<HostState>) {
        // Fails only where fuel is not configured, and the engine always configures it.
        let fuelled = store.set_fuel(self.fuel);
        debug_assert!(fuelled.is_ok(), "the engine counts fuel");
        store.set_epoch_deadline(self.ticks);
        let state = store.data_mut();
        state.overdue_since = None;
        state.host_budget = self.fuel / FUEL_PER_HOST_NANOSECOND;
    }
}

fn decision(answer: types::Decision) -> Decision {
    match answer {
        types::Decision::Worker(id) => Decision::Worker(WorkerId(id)),
        types::Decision::Defer => Decision::Defer,
        types::Decision::Refuse(types::Refusal { status, retry_after, text }) => {
            Decision::Refuse(Refusal { status, retry_after, reason: shorten(&text, REFUSAL_TEXT) })
        }
    }
}
