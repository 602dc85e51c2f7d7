//! The real program between real workers and real clients.
//!
//! Needs Node.js 18 with npm, Python 3.10 with venv, and Chromium; the packages of `tests/node` are installed by
//! the tests. At most two programs run at a time, whatever the number of test threads.

#![allow(clippy::panic, clippy::unwrap_used, reason = "in a test a panic is the message")]
#![allow(clippy::print_stdout, reason = "figures for whoever runs a test with --nocapture")]

mod access_log;
mod admin;
mod balance;
mod broadcast;
mod browser;
mod code;
mod ctl;
mod dashboard;
mod death;
mod dev;
mod front;
#[path = "../guests.rs"]
#[allow(dead_code, reason = "shared with the tests of policies")]
mod guests;
mod handback;
mod head;
mod hostile;
mod join;
mod languages;
mod limits;
mod metrics;
#[cfg(feature = "otlp")]
mod otlp;
mod peers;
mod policy;
mod pools;
mod programs;
mod regressions;
mod reload;
mod script;
mod start;
mod stop;
mod suites;
mod support;
mod systemd;
mod upgrade;
mod watch;
