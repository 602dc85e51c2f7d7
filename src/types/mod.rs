//! The nouns shared by every stage. Plain data: nothing here touches a socket, a clock or a worker.

mod decision;
mod head;
mod worker;

pub use decision::{Decision, Refusal};
pub use head::{Head, HeadError, Progress};
pub use worker::{Roster, WorkerId, WorkerInfo};
