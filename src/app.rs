//! A run: everything is opened as a [`Config`] says, then started, attended to, and ended in order.

mod control;
mod doors;
mod ending;
mod inheritance;
mod limits;
mod opened;
pub mod privileges;
mod ready;
mod rolling;
mod running;
mod signals;
mod status;
mod summary;
mod testament;
mod watchers;

use std::sync::Arc;

use self::opened::Opened;
use self::running::Running;
use self::signals::Signals;
use crate::config::{Config, Problems, Source};
use crate::pool::Draft;
use crate::sys;
use crate::systemd::Passed;
use crate::upgrade::{Carried, state};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everybody left by themselves.
    Drained,
    /// Nothing works any more.
    GaveUp,
    /// The configuration, or what it meets on this machine, is at fault.
    Misconfigured,
    /// Workers had to be ended.
    Cut,
}

impl Outcome {
    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Drained => 0,
            Self::GaveUp => 1,
            Self::Misconfigured => 2,
            Self::Cut => 3,
        }
    }
}

/// Everything a run needs before its first worker starts.
#[derive(Debug)]
pub struct App {
    config: Config,
    drafts: Vec<Draft>,
    /// What the program before has left, if there was one in this process.
    carried: Option<Carried>,
}

impl App {
    /// Loads the policies; starts nothing.
    ///
    /// # Errors
    /// When a policy cannot be used.
    pub fn new(config: Config) -> Result<Self, Problems> {
        Ok(Self { drafts: drafts(&config, &[])?, config, carried: None })
    }

    /// Loads the policies with the states that the program before has left; touches nothing else of it yet.
    ///
    /// # Errors
    /// When a policy cannot be used, or the settings name something that was opened otherwise.
    pub fn resume(config: Config, carried: Carried) -> Result<Self, Problems> {
        inheritance::fits(&config, &carried)?;
        Ok(Self { drafts: drafts(&config, &carried.run.pools)?, config, carried: Some(carried) })
    }

    /// One line on what would run.
    #[must_use]
    pub fn describe(&self) -> String {
        let one = |(draft, (name, config)): (&Draft, (Arc<str>, &Config))| {
            let policy = summary::policy(&draft.policy);
            let pool = if self.drafts.len() > 1 { format!("{name}: ") } else { String::new() };
            match config.workers {
                0 => format!("{pool}workers that join, policy {policy}"),
                workers => format!("{pool}{workers} × {}, policy {policy}", config.command.join(" ")),
            }
        };
        self.drafts.iter().zip(self.config.each()).map(one).collect::<Vec<_>>().join("; ")
    }

    /// Serves until a signal ends it or nothing works any more; on sockets that were `passed` where there
    /// are any. `source` is what the configuration was read from, and is read from again.
    ///
    /// # Errors
    /// What is wrong with the configuration on this machine, such as a port that is taken.
    pub async fn run(self, source: Source, passed: Passed) -> Result<Outcome, Problems> {
        let mut signals = Signals::new().map_err(|error| Problems::one("signals", error.to_string()))?;
        let own = sys::exec::own_file().map_err(|error| Problems::one("own file", error.to_string()))?;
        limits::report(&self.config);
        let opened = Opened::new(self, passed).await?;
        let mut running = Running::start(opened, source, own)?;
        sys::signals::release();
        let ended = running.attend(&mut signals).await;
        let cut = running.end(&mut signals).await;
        match ended {
            Ok(Outcome::Drained) if cut => Ok(Outcome::Cut),
            ended => ended,
        }
    }
}

/// The pools of the configuration, going on where those of the program before have stopped.
fn drafts(config: &Config, before: &[state::Pool]) -> Result<Vec<Draft>, Problems> {
    let mut problems = Problems::default();
    let mut drafts = Vec::new();
    for (name, own) in config.each() {
        let before = before.iter().find(|pool| *pool.name == *name);
        match Draft::load(name, own, before) {
            Ok(draft) => drafts.push(draft),
            Err(problem) => problems.append("", problem),
        }
    }
    problems.into_result(drafts)
}
