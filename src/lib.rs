//! sidetrack puts a server on all cores and keeps every session with the worker process that owns
//! it. It accepts a connection, **peeks** at the request head without consuming it, asks a
//! **policy** which worker shall have it, and **hands the socket itself** to that worker. From then
//! on no payload byte passes through here.
//!
//! # The map
//!
//! Data flows one way. Each stage consumes what the one before it made, so a descriptor has one
//! owner at any time; [`pipeline`] is the only place that knows their order.
//!
//! ```text
//!  client ──► listener ──► peek ──► route ──► handoff ──► worker process
//!             Accepted     Head    Routed   (our copy is kept
//!                                   ▲  ▲     until acknowledged)
//!                          session ─┘  └─ policy
//!                          (table)        (component, then its native twin)
//! ```
//!
//! | module | what it is for |
//! |---|---|
//! | [`cli`], [`config`] | words typed and written → a configuration that cannot be wrong |
//! | [`app`] | builds everything, owns the tasks, reloads, ends the run |
//! | [`pipeline`] | a connection's whole life on one page |
//! | [`pool`] | one command's workers and what decides among them |
//! | [`listener`] | bind, permit, accept; which socket feeds which server of the workers |
//! | [`front`] | who a client truly is when a proxy is in front; client limits, health checks |
//! | [`peek`] | the request head, bounded and timed, not consumed |
//! | [`session`] | where a request carries its session id; session → worker |
//! | [`policy`] | the WebAssembly host and the chain with its native last link |
//! | [`route`] | table, policy and patience make a choice |
//! | [`handoff`] | what is under way to a worker; our own answers |
//! | [`worker`] | processes, channels, and the roster routing sees |
//! | [`author`] | tools for who writes a policy: check it, before anybody runs it |
//! | [`admin`] | HTTP request → command → reply, on a Unix socket and over TCP; a page for people |
//! | [`telemetry`] | events that log and count |
//! | [`observe`] | what routing decided and from what, for whoever watches |
//! | [`shadow`] | a policy asked beside the real one, compared and never heeded |
//! | [`record`] | recordings of decisions, and other policies asked the same |
//! | [`access_log`] | a line for each decision, off the path of connections |
//! | `traces` | spans for a collector, with the feature `otlp` |
//! | [`drain`] | the phases of a run |
//! | [`systemd`] | sockets that were opened for us, and who is told how it goes |
//! | [`live`] | settings that a reload may change |
//! | [`upgrade`] | another program goes on in this process, with everything |
//! | [`sys`] | raw Linux |
//! | [`types`] | shared nouns |
//! | [`watching`] | folders watched for changes |
//! | [`join`] | becoming a worker of a sidetrack that runs already |
//! | [`demo`] | a Socket.IO worker inside this binary |
//!
//! What comes back from the workers (who is ready, how loaded) reaches routing as a snapshot, the
//! roster; nothing downstream calls upstream. The channel's wire lives in `sidetrack_worker::wire`,
//! shared with Rust workers.
//!
//! # Trust
//!
//! Client bytes are hostile: bounded, timed, parsed by a real parser, never a cause to panic. A proxy
//! in front is believed about its clients where the configuration says so, and nobody else is. A policy
//! is bounded: whatever it does, its native twin answers. A worker may crash or lie, but it can claim
//! sessions only for itself, and what it has not acknowledged goes elsewhere. Who may write the
//! configuration or signal the process has authority.
//!
//! # Words
//!
//! A **pool** is one command's workers and what decides among them; without `[[pool]]` there is one.
//! A **worker** is an operating-system process, never a thread or a wasm instance. A **slot** is its
//! place (`w0`, `w1`, …, in named pools `api.w0`); a restarted worker is a new worker in the same slot. The **roster** is the
//! workers that may be chosen now, with their loads. A **session** must stay with one worker; its id is
//! the **sid**. A **preamble** is the PROXY header that a proxy may send first. A **head** is the
//! request line and headers of the first unread request. A **decision** is a policy's answer: a worker,
//! defer, or refuse. A **generation** numbers the policy version that made it. The **channel** is the
//! Unix socket between sidetrack and one worker; the **shim** is the script preloaded into Node
//! workers.

pub mod access_log;
pub mod admin;
pub mod app;
pub mod author;
pub mod cli;
pub mod config;
pub mod demo;
pub mod drain;
pub mod front;
pub mod handoff;
pub mod join;
pub mod listener;
pub mod live;
pub mod observe;
pub mod peek;
pub mod pipeline;
pub mod policy;
pub mod pool;
pub mod record;
pub mod route;
pub mod session;
pub mod shadow;
pub mod sys;
pub mod systemd;
pub mod telemetry;
#[cfg(any(test, feature = "otlp"))]
pub mod traces;
pub mod types;
pub mod upgrade;
pub mod watching;
pub mod worker;
