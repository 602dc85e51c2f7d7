//! Tools for whoever writes a policy. No sidetrack needs to run for them, and no worker either.
//!
//! `new` begins one in a language of choice; `check` asks a policy by itself whether it behaves,
//! whatever it is meant to do; `scenario` lets things happen to it in a made-up host, the `world`;
//! `simulate` sends it the traffic of hours, and `bench` says what an answer costs. `dev` puts every
//! change into a running sidetrack.

mod bench;
mod check;
mod dev;
mod figures;
mod ground;
mod new;
mod scenario;
mod simulate;
mod world;

pub use bench::Bench;
pub use check::Check;
pub use dev::Dev;
pub use new::{Language, New};
pub use scenario::Test;
pub use simulate::{Lengths, Simulate};

/// What an author wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    Check(Check),
    New(New),
    Test(Test),
    Bench(Bench),
    Simulate(Simulate),
    Dev(Dev),
}

/// Does it and prints what came of it. False when the policy is not as it should be.
///
/// # Errors
/// When it cannot be done; in words.
pub fn perform(task: &Task) -> Result<bool, String> {
    match task {
        Task::Check(check) => check.perform(),
        Task::New(new) => new.perform(),
        Task::Test(test) => test.perform(),
        Task::Bench(bench) => bench.perform(),
        Task::Simulate(simulate) => simulate.perform(),
        Task::Dev(dev) => dev.perform(),
    }
}
