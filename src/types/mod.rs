//! The nouns shared by every stage. Plain data: nothing here touches a socket, a clock or a worker.

mod connection;
mod decision;
mod head;
mod request;
mod share;
mod worker;

pub use connection::{Accepted, Opening, ServerId};
pub use decision::{Decision, Refusal};
pub use head::{Head, HeadError, Progress};
pub use request::Request;
pub use share::{Share, Shares};
pub use worker::{Roster, WorkerId, WorkerInfo};
