//! The wasmtime engine every policy version is compiled by, and the thread that drives its clock.
//!
//! Calls are bounded by fuel, which counts instructions and so never blames a policy for a busy
//! machine. The clock is only the backstop for what fuel cannot see.

use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::component::Component;

/// How often the clock ticks: the grain of every deadline.
const TICK: Duration = Duration::from_millis(50);

/// Address space set aside per instance. More than any sensible memory limit, so that memory never
/// moves, and far less than wasmtime's 4 GiB, for the sake of limits on virtual memory.
const MEMORY_RESERVATION: u64 = 64 << 20;

/// An engine whose clock ticks for as long as it lives.
#[derive(Debug)]
pub(super) struct Engine {
    inner: wasmtime::Engine,
    /// The script engine, compiled once for all scripts.
    script: OnceLock<Component>,
    stop: Option<mpsc::Sender<()>>,
    ticker: Option<JoinHandle<()>>,
}

impl Engine {
    /// # Errors
    /// When the platform has no code generator or no thread can be started; as one line of text.
    pub(super) fn new() -> Result<Self, String> {
        let mut config = wasmtime::Config::new();
        config
            .consume_fuel(true)
            .epoch_interruption(true)
            .memory_reservation(MEMORY_RESERVATION)
            .memory_reservation_for_growth(0)
            // Optimised policies carry no names; collecting frames would only make traps dearer.
            .wasm_backtrace_max_frames(None);
        let inner = wasmtime::Engine::new(&config).map_err(|error| super::one_line(&format!("{error:#}")))?;
        let (stop, stopped) = mpsc::channel();
        let clock = inner.clone();
        let ticker = thread::Builder::new()
            .name("policy-clock".into())
            .spawn(move || {
                while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    clock.increment_epoch();
                }
            })
            .map_err(|error| format!("cannot start the policy clock: {error}"))?;
        Ok(Self { inner, script: OnceLock::new(), stop: Some(stop), ticker: Some(ticker) })
    }

    pub(super) const fn inner(&self) -> &wasmtime::Engine {
        &self.inner
    }

    /// The script engine, which `compile` makes when there is none yet.
    pub(super) fn for_scripts<E>(
        &self,
        compile: impl FnOnce() -> Result<Component, E>,
    ) -> Result<Component, E> {
        if let Some(component) = self.script.get() {
            return Ok(component.clone());
        }
        let component = compile()?;
        Ok(self.script.get_or_init(|| component).clone())
    }

    /// A deadline in ticks that is never reached before `time` has passed, and at most one tick
    /// later.
    pub(super) fn ticks(time: Duration) -> u64 {
        let ticks = time.as_nanos().div_ceil(TICK.as_nanos());
        u64::try_from(ticks).unwrap_or(u64::MAX - 1).saturating_add(1)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(ticker) = self.ticker.take() {
            // A clock that panicked has nothing left to say.
            let _ = ticker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_of_scripts_is_compiled_once() {
        let engine = Engine::new().unwrap();
        let compile = || Component::new(engine.inner(), b"\0asm\x0d\0\x01\0");
        assert!(engine.for_scripts(|| Err(())).is_err());
        assert!(engine.for_scripts(compile).is_ok());
        let again = || -> Result<Component, ()> { unreachable!("it is there already") };
        assert!(engine.for_scripts(again).is_ok());
    }

    #[test]
    fn a_deadline_is_never_early() {
        assert_eq!(Engine::ticks(Duration::ZERO), 1);
        assert_eq!(Engine::ticks(TICK), 2);
        assert_eq!(Engine::ticks(Duration::from_millis(250)), 6);
        assert_eq!(Engine::ticks(Duration::from_millis(251)), 7);
        assert_eq!(Engine::ticks(Duration::MAX), u64::MAX);
    }
}
