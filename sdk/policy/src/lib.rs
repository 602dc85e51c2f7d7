//! Write a sidetrack policy: the thing that decides which worker process gets a connection.
//!
//! A policy is a type that implements [`Policy`]. Compiled for `wasm32-unknown-unknown` it is a file
//! that sidetrack loads; compiled natively it is an ordinary type with ordinary unit tests.
//!
//! ```
//! use sidetrack_policy::{Decision, Policy, Worker, WorkerId};
//!
//! /// Everything goes to the first worker.
//! #[derive(Default)]
//! struct First(Option<WorkerId>);
//!
//! impl Policy for First {
//!     fn set_workers(&mut self, workers: &[Worker]) {
//!         self.0 = workers.first().map(|worker| worker.id);
//!     }
//!
//!     fn balance(&mut self, _loads: &[u32]) -> Decision {
//!         self.0.map_or(Decision::Defer, Decision::Worker)
//!     }
//! }
//!
//! sidetrack_policy::export!(First);
//! # fn main() {}
//! ```
//!
//! What a policy may ask for during a call is in [`request`], [`host`] and [`store`]. In a component these
//! reach sidetrack; natively a thread-local stand-in answers, which a test scripts with
//! [`native::scripted`]. The contract with all its limits is the WIT package in this crate's `wit`
//! folder.

mod export;
#[cfg(target_arch = "wasm32")]
mod guest;
pub mod host;
#[cfg(not(target_arch = "wasm32"))]
pub mod native;
pub mod request;
pub mod store;
mod types;

pub use types::{Decision, Refusal, Worker, WorkerId};

/// What [`export!`] expands to names these. Not for anyone else.
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod __private {
    pub use crate::guest::*;
}

/// A routing policy. `default()` is what a fresh instance starts from.
///
/// Calls never overlap, so fields are exact state. Only [`balance`](Policy::balance) and
/// [`set_workers`](Policy::set_workers) must be written; a policy that overrides a method marked
/// with an interface names that interface in [`export!`], or sidetrack will not call it.
pub trait Policy: Default {
    /// Takes the options, JSON text, before any other call. The default ignores them.
    ///
    /// # Errors
    /// One line for a human; the policy is then not loaded.
    fn configure(&mut self, json: &str) -> Result<(), String> {
        let _ = json;
        Ok(())
    }

    /// Takes all workers that may be chosen from now on. Called before the first
    /// [`balance`](Policy::balance) and whenever anything about them changes.
    fn set_workers(&mut self, workers: &[Worker]);

    /// Chooses a worker for a connection whose session is new or absent. `loads` holds one number
    /// per worker, in the order of the last [`set_workers`](Policy::set_workers).
    fn balance(&mut self, loads: &[u32]) -> Decision;

    /// Interface `sessions`: chooses the worker for a connection of session `sid`.
    fn find(&mut self, sid: &str, loads: &[u32]) -> Decision {
        let _ = (sid, loads);
        Decision::Defer
    }

    /// Interface `state`: what a later instance shall be given, at most 64 KiB.
    fn save(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// Interface `state`: takes what an earlier instance saved, which may have been another version
    /// of this policy. Comes after [`set_workers`](Policy::set_workers).
    ///
    /// # Errors
    /// One line for a human; a replacement is then called off.
    fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        let _ = state;
        Ok(())
    }

    /// Interface `schema`: names the form of what [`save`](Policy::save) returns, such as
    /// `counters/2`.
    fn schema(&self) -> &str {
        ""
    }

    /// Interface `schema`: whether [`restore`](Policy::restore) takes that form, the old version's
    /// [`schema`](Policy::schema).
    fn reads(&self, form: &str) -> bool {
        form == self.schema()
    }

    /// Interface `events`: a worker announced a session of its own.
    fn session_opened(&mut self, sid: &str, worker: WorkerId) {
        let _ = (sid, worker);
    }

    /// Interface `events`: a session ended.
    fn session_closed(&mut self, sid: &str, worker: WorkerId) {
        let _ = (sid, worker);
    }

    /// Interface `events`: a worker died or stopped answering.
    fn worker_failed(&mut self, worker: WorkerId) {
        let _ = worker;
    }
}
