//! Recordings of what policies decided, and running them against other policies.
//!
//! A recording is a text file with one JSON object a line; `docs/watching-policies.md` describes it for
//! users, [`mod@format`] for programs. [`Writer`] makes it of what [`crate::observe`] tells, with session ids,
//! addresses and the like under pseudonyms unless told otherwise ([`mask`]). [`Replay`] reads it and asks
//! other policies the same questions: the same requests, rosters, times and random numbers each time, so
//! the outcome is the same each time too.

pub mod format;
mod loads;
pub mod mask;
mod picture;
mod read;
mod replay;
mod report;
mod writer;

pub use mask::{Form, Keep, KeepError, Mask};
pub use picture::picture;
pub use read::{LogError, Problem, Reader};
pub use replay::{Loads, Replay, ReplayError};
pub use report::{Change, Report, Side, Spread};
pub use writer::Writer;
