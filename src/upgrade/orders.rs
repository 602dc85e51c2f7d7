//! Orders to upgrade, one at a time.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::check;
use super::file::Carried;

/// How long another program may take to check itself, unless somebody says otherwise. Compiling its
/// policies may be part of it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An order to upgrade.
#[derive(Debug)]
pub struct Order {
    /// The program that goes on; without it, the one in the place of this one.
    pub binary: Option<PathBuf>,
    /// How long it may take to check itself.
    pub within: Duration,
    /// Whoever waits for the outcome, which can only be a bad one: nobody is there to tell a good one.
    pub reply: Option<oneshot::Sender<String>>,
}

impl Default for Order {
    /// As a signal gives it.
    fn default() -> Self {
        Self { binary: None, within: PATIENCE, reply: None }
    }
}

/// Where orders are given.
pub type Desk = mpsc::Sender<Order>;

/// The order under way, if there is one.
#[derive(Debug)]
pub struct Orders {
    /// This program's own file.
    own: PathBuf,
    trying: Option<Trying>,
}

#[derive(Debug)]
struct Trying {
    reply: Option<oneshot::Sender<String>>,
    program: PathBuf,
    checking: JoinHandle<Result<String, String>>,
    since: Instant,
}

/// A program that has found itself fit.
#[derive(Debug)]
pub struct Fit {
    pub program: PathBuf,
    pub version: String,
    /// How long the check took.
    pub took: Duration,
    reply: Option<oneshot::Sender<String>>,
}

impl Orders {
    /// Nobody has ordered anything yet.
    #[must_use]
    pub const fn new(own: PathBuf) -> Self {
        Self { own, trying: None }
    }

    /// Has the program of an order check itself. `state` describes this one.
    pub fn take(&mut self, order: Order, state: impl FnOnce() -> Carried) {
        let Order { binary, within, reply } = order;
        if let Some(trying) = &self.trying {
            let program = trying.program.display();
            return refuse(reply, format!("an upgrade to {program} is under way already"));
        }
        let program = binary.unwrap_or_else(|| self.own.clone());
        let (state, child) = (state(), program.clone());
        let checking = tokio::spawn(async move { check::check(&child, &state, within).await });
        self.trying = Some(Trying { reply, program, checking, since: Instant::now() });
    }

    /// The next program that has found itself fit. Whoever has ordered one that has not is told. Cancel
    /// safe.
    pub async fn fit(&mut self) -> Fit {
        loop {
            let Some(trying) = &mut self.trying else { return std::future::pending().await };
            let outcome = (&mut trying.checking).await.unwrap_or_else(|error| Err(error.to_string()));
            let Some(Trying { reply, program, since, .. }) = self.trying.take() else { continue };
            match outcome {
                Ok(version) => return Fit { program, version, took: since.elapsed(), reply },
                Err(why) => refuse(reply, why),
            }
        }
    }
}

impl Fit {
    /// It came to nothing after all.
    pub fn refuse(self, why: String) {
        refuse(self.reply, why);
    }
}

fn refuse(reply: Option<oneshot::Sender<String>>, why: String) {
    tracing::error!(why, "not upgraded; everything goes on as before");
    if let Some(reply) = reply {
        // Whoever asked may have gone.
        let _ = reply.send(why);
    }
}
