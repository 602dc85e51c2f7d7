//! What a policy can ask for during a call: the other side of the contract's imports.
//!
//! Every answer is immediate. Fuel does not run while the host works, so each call is charged for it
//! separately, and nothing here blocks.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wasmtime::{ResourceLimiter, Trap, UpdateDeadline};

use super::bindings::{host, request, store, types};
use super::engine::Engine;
use super::store::Store;
use super::{Clock, Request, Role, SessionOwner, lock, shorten};
use crate::sys::cpu;

/// Longest log line of a policy, in characters.
const LOG_LINE: usize = 512;
/// Longest explanation, in characters.
const EXPLANATION: usize = 256;
/// Log lines a policy may write in a burst, and per second after it.
const LOG_BURST: u32 = 10;
const LOG_INTERVAL: Duration = Duration::from_millis(100);

/// The tables, memories and core instances one component may have: far more than any toolchain
/// makes, few enough to be free.
const MAX_PARTS: usize = 64;
const MAX_TABLE_ELEMENTS: usize = 100_000;

/// The host as one policy instance sees it.
pub(super) struct HostState {
    policy: Arc<str>,
    sessions: Arc<dyn SessionOwner>,
    store: Arc<Mutex<Store>>,
    clock: Clock,
    role: Role,
    memory: usize,
    /// The largest linear memory it was given, in bytes.
    pub(super) memory_peak: usize,
    /// Set when the instance was refused memory; tells that trap from others.
    pub(super) memory_refused: bool,
    /// What is left of the host's time for this call, in rough nanoseconds.
    pub(super) host_budget: u64,
    pub(super) host_budget_spent: bool,
    /// What the thread had used of a CPU when the clock first found the running call late.
    pub(super) overdue_since: Option<Duration>,
    /// The request of the running call, and whether one is running.
    pub(super) request: Request,
    pub(super) in_call: bool,
    /// Whether anyone wants to know why, and what was said.
    pub(super) keep_explanation: bool,
    pub(super) explanation: Option<String>,
    /// The last line logged as an error in this call: a panic's message, if it traps now.
    pub(super) last_error: Option<String>,
    log: LogLimiter,
}

impl HostState {
    pub(super) fn new(
        policy: Arc<str>,
        sessions: Arc<dyn SessionOwner>,
        store: Arc<Mutex<Store>>,
        clock: Clock,
        memory: usize,
        role: Role,
    ) -> Self {
        Self {
            policy,
            sessions,
            store,
            clock,
            role,
            memory,
            memory_peak: 0,
            memory_refused: false,
            host_budget: 0,
            host_budget_spent: false,
            overdue_since: None,
            request: Request::default(),
            in_call: false,
            keep_explanation: false,
            explanation: None,
            last_error: None,
            log: LogLimiter::new(Instant::now()),
        }
    }

    /// The clock says that the running call takes long. It may be the machine that does: a thread can
    /// wait for a CPU longer than any decision takes. So the call goes on, and ends when it has really
    /// used half of `backstop` by the time the clock asks again.
    pub(super) fn overdue(&mut self, backstop: Duration) -> wasmtime::Result<UpdateDeadline> {
        let used = cpu::thread_time();
        let since = *self.overdue_since.get_or_insert(used);
        if used.saturating_sub(since) >= backstop / 2 {
            return Err(Trap::Interrupt.into());
        }
        Ok(UpdateDeadline::Continue(Engine::ticks(backstop)))
    }

    /// The request of the running call.
    fn request(&self) -> wasmtime::Result<&Request> {
        if self.in_call {
            Ok(&self.request)
        } else {
            Err(wasmtime::Error::msg("asked for a request outside `balance` and `find`"))
        }
    }

    /// Charges a call for the host's own time, which fuel does not see: `cost` is in nanoseconds,
    /// roughly, and rather too many.
    fn charge(&mut self, cost: usize) -> wasmtime::Result<()> {
        if let Some(left) = self.host_budget.checked_sub(cost as u64) {
            self.host_budget = left;
            return Ok(());
        }
        self.host_budget_spent = true;
        Err(wasmtime::Error::msg("asked the host too much"))
    }
}

/// What calls cost; see [`HostState::charge`].
mod cost {
    /// A number that is at hand.
    pub(super) const NUMBER: usize = 50;
    /// A string of no length, to which its length is added.
    pub(super) const TEXT: usize = 200;
    /// A walk over all header lines of the largest head.
    pub(super) const HEADERS: usize = 10_000;
    /// A line that may end up in a terminal.
    pub(super) const LOG: usize = 2_000;
}

impl types::Host for HostState {}

impl request::Host for HostState {
    fn method(&mut self) -> wasmtime::Result<String> {
        self.charge(cost::TEXT)?;
        Ok(self.request()?.head.method().to_owned())
    }

    fn path(&mut self) -> wasmtime::Result<String> {
        let length = self.request()?.head.path().len();
        self.charge(cost::TEXT + length)?;
        Ok(self.request.head.path().to_owned())
    }

    fn query(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        let length = self.request()?.head.query().len();
        self.charge(cost::TEXT + 4 * length)?;
        let mut parameters = form_urlencoded::parse(self.request.head.query().as_bytes());
        Ok(parameters.find(|(key, _)| *key == name).map(|(_, value)| value.into_owned()))
    }

    fn header(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.charge(cost::HEADERS)?;
        Ok(self.request()?.head.header(&name).next().map(ToOwned::to_owned))
    }

    fn peer(&mut self) -> wasmtime::Result<Option<String>> {
        self.charge(cost::TEXT)?;
        // A dual-stack listener reports IPv4 clients as mapped addresses; a policy sees one form.
        Ok(self.request()?.peer.map(|peer| peer.ip().to_canonical().to_string()))
    }

    fn session(&mut self) -> wasmtime::Result<Option<String>> {
        let length = self.request()?.session.as_ref().map_or(0, String::len);
        self.charge(cost::TEXT + length)?;
        Ok(self.request.session.clone())
    }

    fn session_hash(&mut self) -> wasmtime::Result<u64> {
        let length = self.request()?.session.as_ref().map_or(0, String::len);
        self.charge(cost::NUMBER + length)?;
        Ok(self.request.session.as_deref().map_or(0, sidetrack_policy::request::hash_session))
    }

    fn is_upgrade(&mut self) -> wasmtime::Result<bool> {
        self.charge(cost::HEADERS)?;
        Ok(self.request()?.head.is_upgrade())
    }

    fn attempt(&mut self) -> wasmtime::Result<u32> {
        self.charge(cost::NUMBER)?;
        Ok(self.request()?.attempt)
    }
}

impl host::Host for HostState {
    fn session_owner(&mut self, sid: String) -> wasmtime::Result<Option<types::WorkerId>> {
        self.charge(cost::TEXT + sid.len())?;
        Ok(self.sessions.owner(&sid).map(|worker| worker.0))
    }

    fn random_u64(&mut self) -> wasmtime::Result<u64> {
        self.charge(cost::NUMBER)?;
        // The generator of the native twins, so that one script drives both in tests.
        Ok(sidetrack_policy::host::random_u64())
    }

    fn now(&mut self) -> wasmtime::Result<u64> {
        self.charge(cost::NUMBER)?;
        Ok(self.clock.now())
    }

    fn log(&mut self, level: host::Level, text: String) -> wasmtime::Result<()> {
        self.charge(cost::LOG + text.len())?;
        let text = escape(&shorten(&text, LOG_LINE));
        let policy = &*self.policy;
        let admitted = self.log.admit(Instant::now());
        if let Some(dropped @ 1..) = admitted {
            match self.role {
                Role::Deciding => tracing::warn!(policy, dropped, "policy logs too much: lines were dropped"),
                Role::Shadow => {
                    tracing::debug!(policy, dropped, "shadow policy logs too much: lines were dropped")
                }
            }
        }
        if admitted.is_some() {
            match level {
                // Whatever happens to it happens to nobody.
                _ if self.role == Role::Shadow => tracing::debug!(policy, "shadow: {text}"),
                host::Level::Error => tracing::error!(policy, "{text}"),
                host::Level::Warn => tracing::warn!(policy, "{text}"),
                host::Level::Info => tracing::info!(policy, "{text}"),
                host::Level::Debug => tracing::debug!(policy, "{text}"),
            }
        }
        if let host::Level::Error = level {
            self.last_error = Some(text);
        }
        Ok(())
    }

    fn explain(&mut self, text: String) -> wasmtime::Result<()> {
        self.charge(cost::TEXT + text.len())?;
        if self.keep_explanation {
            self.explanation = Some(escape(&shorten(&text, EXPLANATION)));
        }
        Ok(())
    }
}

impl store::Host for HostState {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        self.charge(cost::TEXT + key.len())?;
        let value = lock(&self.store).get(&key).map(ToOwned::to_owned);
        self.charge(value.as_ref().map_or(0, Vec::len))?;
        Ok(value)
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<bool> {
        self.charge(cost::TEXT + key.len() + value.len())?;
        Ok(lock(&self.store).set(key, value))
    }

    fn delete(&mut self, key: String) -> wasmtime::Result<()> {
        self.charge(cost::TEXT + key.len())?;
        lock(&self.store).delete(&key);
        Ok(())
    }

    fn add(&mut self, key: String, number: i64) -> wasmtime::Result<i64> {
        self.charge(cost::TEXT + key.len())?;
        Ok(lock(&self.store).add(key, number).unwrap_or(0))
    }
}

/// Makes control characters visible, so that a policy cannot forge lines or colours of the log.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

impl ResourceLimiter for HostState {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired <= self.memory {
            self.memory_peak = self.memory_peak.max(desired);
            return Ok(true);
        }
        // Refusing politely would end in an abort without a reason; trapping names it.
        self.memory_refused = true;
        Err(wasmtime::Error::msg(format!("asked for {desired} bytes of memory")))
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        MAX_PARTS
    }

    fn tables(&self) -> usize {
        MAX_PARTS
    }

    fn memories(&self) -> usize {
        MAX_PARTS
    }
}

/// A token bucket for log lines.
#[derive(Debug)]
struct LogLimiter {
    tokens: u32,
    refilled: Instant,
    dropped: u64,
}

impl LogLimiter {
    const fn new(now: Instant) -> Self {
        Self { tokens: LOG_BURST, refilled: now, dropped: 0 }
    }

    /// Whether a line may pass, and then how many were dropped since the last that did.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let earned = now.saturating_duration_since(self.refilled).as_nanos() / LOG_INTERVAL.as_nanos();
        if earned > 0 {
            self.tokens =
                LOG_BURST.min(self.tokens.saturating_add(u32::try_from(earned).unwrap_or(LOG_BURST)));
            self.refilled = now;
        }
        if self.tokens == 0 {
            self.dropped += 1;
            return None;
        }
        self.tokens -= 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(escape("a\nb\u{1b}[31m ü"), "a\\nb\\u{1b}[31m ü");
    }

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let start = Instant::now();
        let mut log = LogLimiter::new(start);
        for _ in 0..LOG_BURST {
            assert_eq!(log.admit(start), Some(0));
        }
        assert_eq!(log.admit(start), None);
        assert_eq!(log.admit(start + LOG_INTERVAL / 2), None);
        assert_eq!(log.admit(start + LOG_INTERVAL), Some(2), "the next line says what was dropped");
        assert_eq!(log.admit(start + LOG_INTERVAL), None);
        assert_eq!(log.admit(start + LOG_INTERVAL * 1000), Some(1));
    }
}
