//! What a policy can ask for during a call: the other side of the contract's imports.
//!
//! Every answer is immediate. Fuel does not run while the host works, so nothing here may block or
//! take longer the more the policy asks for, beyond the 64 KiB it can hand over.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use wasmtime::ResourceLimiter;

use super::bindings::{host, request, types};
use super::{Request, SessionOwner, shorten};

/// Where `now` counts from: once per process, so that it never goes back, whatever is rebuilt.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

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
    memory: usize,
    /// Set when the instance was refused memory; tells that trap from others.
    pub(super) memory_refused: bool,
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
    pub(super) fn new(policy: Arc<str>, sessions: Arc<dyn SessionOwner>, memory: usize) -> Self {
        Self {
            policy,
            sessions,
            memory,
            memory_refused: false,
            request: Request::default(),
            in_call: false,
            keep_explanation: false,
            explanation: None,
            last_error: None,
            log: LogLimiter::new(Instant::now()),
        }
    }

    fn request(&self) -> wasmtime::Result<&Request> {
        if self.in_call {
            Ok(&self.request)
        } else {
            Err(wasmtime::Error::msg("asked for a request outside `balance` and `find`"))
        }
    }
}

impl types::Host for HostState {}

impl request::Host for HostState {
    fn method(&mut self) -> wasmtime::Result<String> {
        Ok(self.request()?.head.method().to_owned())
    }

    fn path(&mut self) -> wasmtime::Result<String> {
        Ok(self.request()?.head.path().to_owned())
    }

    fn query(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        let mut parameters = form_urlencoded::parse(self.request()?.head.query().as_bytes());
        Ok(parameters.find(|(key, _)| *key == name).map(|(_, value)| value.into_owned()))
    }

    fn header(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        Ok(self.request()?.head.header(&name).next().map(ToOwned::to_owned))
    }

    fn peer(&mut self) -> wasmtime::Result<Option<String>> {
        // A dual-stack listener reports IPv4 clients as mapped addresses; a policy sees one form.
        Ok(self.request()?.peer.map(|peer| peer.ip().to_canonical().to_string()))
    }

    fn session(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(self.request()?.session.clone())
    }

    fn session_hash(&mut self) -> wasmtime::Result<u64> {
        let session = self.request()?.session.as_deref();
        Ok(session.map_or(0, sidetrack_policy::request::hash_session))
    }

    fn is_upgrade(&mut self) -> wasmtime::Result<bool> {
        Ok(self.request()?.head.is_upgrade())
    }

    fn attempt(&mut self) -> wasmtime::Result<u32> {
        Ok(self.request()?.attempt)
    }
}

impl host::Host for HostState {
    fn session_owner(&mut self, sid: String) -> Option<types::WorkerId> {
        self.sessions.owner(&sid).map(|worker| worker.0)
    }

    fn random_u64(&mut self) -> u64 {
        // The generator of the native twins, so that one script drives both in tests.
        sidetrack_policy::host::random_u64()
    }

    fn now(&mut self) -> u64 {
        u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn log(&mut self, level: host::Level, text: String) {
        let text = shorten(&text, LOG_LINE);
        match self.log.admit(Instant::now()) {
            Some(0) => {}
            Some(dropped) => {
                tracing::warn!(policy = %self.policy, dropped, "policy logs too much; lines were dropped");
            }
            None => {
                if matches!(level, host::Level::Error) {
                    self.last_error = Some(text);
                }
                return;
            }
        }
        match level {
            host::Level::Error => {
                tracing::error!(policy = %self.policy, "{text}");
                self.last_error = Some(text);
            }
            host::Level::Warn => tracing::warn!(policy = %self.policy, "{text}"),
            host::Level::Info => tracing::info!(policy = %self.policy, "{text}"),
            host::Level::Debug => tracing::debug!(policy = %self.policy, "{text}"),
        }
    }

    fn explain(&mut self, text: String) {
        if self.keep_explanation {
            self.explanation = Some(shorten(&text, EXPLANATION));
        }
    }
}

impl ResourceLimiter for HostState {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired <= self.memory {
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
            self.tokens = LOG_BURST.min(self.tokens.saturating_add(u32::try_from(earned).unwrap_or(LOG_BURST)));
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
