//! sidetrack (map to be written)
pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
pub mod drain;
pub mod handoff;
pub mod listener;
pub mod peek;
pub mod pipeline;
pub mod policy;
pub mod route;
pub mod session;
pub mod sys;
pub mod telemetry;
pub mod types;
pub mod worker;
