//! Rolling restarts, whoever has asked for one: a person, a reload, or code that has changed.
//!
//! There is one at a time. Another one takes its place and its turns along with it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::control::{Control, Parts};
use crate::config::{Config, Problems};
use crate::live::Live;
use crate::pool::{Pool, Pools};
use crate::worker::{Rolling, Turn};

/// The rolling restarts of a run.
#[derive(Debug)]
pub(super) struct Rolls {
    pools: Arc<Pools>,
    /// How far the last one has come, for whoever wants to know.
    progress: Live<Option<Rolling>>,
    last: Option<Roll>,
}

/// A rolling restart, under way or over.
#[derive(Debug)]
struct Roll {
    task: AbortHandle,
    /// What ran before the settings that it starts workers with; none when they are the same.
    before: Option<Config>,
}

impl Rolls {
    pub(super) const fn new(pools: Arc<Pools>, progress: Live<Option<Rolling>>) -> Self {
        Self { pools, progress, last: None }
    }

    /// Starts one in place of another that may be under way. With a configuration `before`, the program is a
    /// new one, which is given up when its first worker does not become ready.
    pub(super) fn begin(
        &mut self,
        control: &Control,
        mut turns: Vec<Turn>,
        mut before: Option<Config>,
    ) -> Rolling {
        let mut number = 0;
        if let Some(other) = &*self.progress.now() {
            number = other.number + 1;
            if !other.over {
                turns = together(turns, &other.left);
                if let Some(last) = self.last.take() {
                    last.task.abort();
                    // What that one was to try out has not proved itself, unless somebody has followed.
                    before = last.before.filter(|_| other.followed.is_empty()).or(before);
                }
            }
        }
        let rolling = Rolling { number, left: turns, ..Rolling::default() };
        self.start(control, rolling.clone(), before);
        rolling
    }

    /// Goes on with one that the program before has begun.
    pub(super) fn go_on(&mut self, control: &Control) {
        let carried = self.progress.whole();
        if let Some(rolling) = carried.as_ref().as_ref().filter(|rolling| !rolling.over) {
            self.start(control, rolling.clone(), None);
        }
    }

    fn start(&mut self, control: &Control, rolling: Rolling, before: Option<Config>) {
        let (pools, progress) = (Arc::clone(&self.pools), self.progress.clone());
        let (control, returning) = (control.clone(), before.clone());
        progress.set(Some(rolling.clone()));
        let task = tokio::spawn(async move {
            let Rolling { followed, failed, left, .. } = roll(&pools, rolling, &progress).await;
            let followed = followed.len();
            match (failed, returning) {
                (None, _) => tracing::info!(followed, "new workers have followed in all slots"),
                (Some((slot, reason)), Some(before)) if followed == 0 => {
                    tracing::error!(
                        slot,
                        reason,
                        "the new workers do not become ready: the old ones stay, and the settings that new workers are started with are those before"
                    );
                    if let Err(problems) = control.give_up(&before).await {
                        tracing::error!(%problems, "new workers go on being started as the configuration says");
                    }
                }
                (Some((slot, reason)), _) => tracing::error!(
                    slot,
                    reason,
                    followed,
                    left = left.len(),
                    "a new worker did not become ready: the old one stays, and those of the slots behind it"
                ),
            }
        });
        self.last = Some(Roll { task: task.abort_handle(), before });
    }
}

impl Parts {
    /// The turns of all slots of a pool, or of the run.
    pub(super) fn all_turns(
        &self,
        pool: Option<&str>,
        within: Option<Duration>,
    ) -> Result<Vec<Turn>, Problems> {
        let concerned: Vec<_> = match pool {
            None => self.pools.iter().collect(),
            Some(_) => vec![self.pools.named(pool).map_err(|error| Problems::one("pool", error))?],
        };
        let turns: Vec<_> = concerned.into_iter().flat_map(|pool| self.turns_of(pool, within)).collect();
        if turns.is_empty() {
            let problem = "there is none to follow: workers that have joined are restarted by whoever has started them, and drained ones come back with `undrain`";
            return Err(Problems::one("workers", problem));
        }
        Ok(turns)
    }

    /// The turns of slots that are named, in their order.
    pub(super) fn some_turns(
        &self,
        pool: Option<&str>,
        slots: &[String],
        within: Option<Duration>,
    ) -> Result<Vec<Turn>, Problems> {
        let turn = |slot: &String| {
            let of_slot = self.pools.of_slot(slot)?;
            if pool.is_some_and(|pool| *pool != *of_slot.name) {
                return Err(format!("`{slot}` is in the pool `{}`", of_slot.name));
            }
            self.revive(of_slot);
            of_slot.fleet.turn(slot, within).map_err(|error| error.to_string())
        };
        let (mut problems, mut turns) = (Problems::default(), Vec::<Turn>::new());
        for slot in slots {
            match turn(slot) {
                Ok(turn) if turns.iter().any(|other| other.slot == turn.slot) => {}
                Ok(turn) => turns.push(turn),
                Err(error) => problems.add("slots", error),
            }
        }
        if slots.is_empty() {
            problems.add("slots", "expected at least one; without `slots`, all are meant");
        }
        problems.into_result(turns)
    }

    /// A turn for each slot of a pool.
    pub(super) fn turns_of(&self, pool: &Arc<Pool>, within: Option<Duration>) -> Vec<Turn> {
        self.revive(pool);
        // One that is closed this very moment has no turn.
        pool.fleet.open_slots().iter().filter_map(|slot| pool.fleet.turn(slot, within).ok()).collect()
    }

    /// Slots that were given up get another try.
    fn revive(&self, pool: &Arc<Pool>) {
        let config = self.config.now();
        self.resize(pool, config.of(&pool.name).workers, config.retire_timeout);
    }
}

/// The turns that were asked for and those that are left of another restart, whose present turn goes first: a new
/// worker is on its way there.
fn together(asked: Vec<Turn>, left: &[Turn]) -> Vec<Turn> {
    let others = |left: &[Turn]| -> Vec<Turn> {
        left.iter().filter(|turn| !asked.iter().any(|other| other.slot == turn.slot)).cloned().collect()
    };
    let (present, later) = left.split_at(left.len().min(1));
    let (present, later) = (others(present), others(later));
    [present, asked, later].concat()
}

/// One slot after another, each when the one before is ready. Goes no further when one does not become ready:
/// its slot's old worker stays, and so do those of the slots behind it. Cancelled, it stops where it is.
async fn roll(pools: &Pools, mut rolling: Rolling, progress: &Live<Option<Rolling>>) -> Rolling {
    while let Some(turn) = rolling.left.first() {
        let followed = match pools.of_slot(&turn.slot) {
            Ok(pool) => pool.fleet.follow(turn).await,
            // The next program knows the pool no more.
            Err(_) => Ok(None),
        };
        match followed {
            Ok(pid) => {
                let slot = rolling.left.remove(0).slot;
                rolling.followed.extend(pid.map(|pid| (slot, pid)));
            }
            Err(reason) => {
                rolling.failed = Some((turn.slot.clone(), reason));
                break;
            }
        }
        progress.set(Some(rolling.clone()));
    }
    rolling.over = true;
    progress.set(Some(rolling.clone()));
    rolling
}
