//! `sidetrack policy dev`: every change is built, checked and put into the running sidetrack.

mod recipe;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use notify::{EventKind, RecursiveMode, Watcher as _};
use serde_json::{Value, json};

use super::check;
use crate::admin;
use crate::cli::print;
use crate::policy::{Digest, PolicyLink, PolicySource};
use recipe::Recipe;

/// Quiet for so long means that a change is complete.
const QUIET: Duration = Duration::from_millis(50);
/// A sidetrack that watches the file itself takes it within this time.
const ITSELF: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// `sidetrack policy dev`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dev {
    /// A project's folder, or a policy that needs no building.
    pub path: PathBuf,
    /// A shell command, in place of what the folder suggests.
    pub build: Option<String>,
    /// What the build makes; the newest .wasm file when not given.
    pub artefact: Option<PathBuf>,
    /// JSON text for the policy; those of the link when not given.
    pub options: Option<String>,
    pub link: Option<String>,
    pub at: admin::Wanted,
    /// Do it once and end.
    pub once: bool,
}

impl Dev {
    pub(super) fn perform(&self) -> Result<bool, String> {
        let recipe = Recipe::new(&self.path, self.build.as_deref(), self.artefact.as_deref())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("no runtime: {error}"))?;
        // Watched before the first build, so that no change falls between the two.
        let (tell, told) = mpsc::channel();
        let ours = recipe.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| is_change(&event, &ours)) {
                // It ends only with the program.
                let _ = tell.send(());
            }
        })
        .map_err(|error| format!("changes cannot be watched: {error}"))?;
        watcher
            .watch(recipe.folder(), RecursiveMode::Recursive)
            .map_err(|error| format!("{} cannot be watched: {error}", recipe.folder().display()))?;
        loop {
            let begin = Instant::now();
            let good = match self.turn(&recipe, &runtime) {
                Ok(said) => {
                    print(&format!("{said} ({} ms)\n", begin.elapsed().as_millis()));
                    true
                }
                Err(said) => {
                    print(&format!("{said}\n"));
                    false
                }
            };
            if self.once {
                return Ok(good);
            }
            print(&format!("watching {} …\n", recipe.folder().display()));
            if !settled(&told) {
                return Err("changes are no longer told".to_owned());
            }
        }
    }

    /// Builds, checks and swaps; says what came of it.
    fn turn(&self, recipe: &Recipe, runtime: &tokio::runtime::Runtime) -> Result<String, String> {
        let artefact = recipe.build()?;
        let options = self.options.clone().unwrap_or_else(|| "{}".to_owned());
        let policy = PolicyLink { source: PolicySource::File(artefact.clone()), options };
        let failures = check::failures(&policy).map_err(|error| format!("not swapped in: {error}"))?;
        if !failures.is_empty() {
            return Err(format!(
                "not swapped in: {} fails {} cases of `sidetrack policy check`\n  {}",
                artefact.display(),
                failures.len(),
                failures.join("\n  ")
            ));
        }
        runtime.block_on(self.swap(&artefact))
    }

    async fn swap(&self, artefact: &Path) -> Result<String, String> {
        let place = self.at.place().map_err(|error| {
            format!(
                "built and checked; to see it at work: sidetrack run --policy {} -- COMMAND\n  ({error})",
                artefact.display()
            )
        })?;
        let ask = async |path: &str, body: Option<&Value>| {
            let answer = admin::ask(&place, path, body).await.map_err(|error| error.to_string())?;
            if answer.good {
                Ok(answer.value)
            } else {
                Err(format!("not swapped in: {}", answer.value["error"]))
            }
        };
        let bytes = std::fs::read(artefact).map_err(|error| format!("{}: {error}", artefact.display()))?;
        let digest = format!("{:#}", Digest::of(&bytes));
        let full = std::path::absolute(artefact).unwrap_or_else(|_| artefact.to_owned());
        let full = full.display().to_string();

        let end = Instant::now() + ITSELF;
        loop {
            let status = ask("/v1/policy", None).await?;
            let links = status["links"].as_array().cloned().unwrap_or_default();
            let wanted = |link: &&Value| self.link.as_ref().is_none_or(|name| link["name"] == **name);
            let Some(link) = links.iter().find(wanted) else { break };
            if link["digest"] == digest {
                return Ok(format!(
                    "{} runs it as generation {}",
                    link["name"].as_str().unwrap_or("it"),
                    link["generation"]
                ));
            }
            let follows = link["policy"]
                .as_str()
                .is_some_and(|path| Path::new(path).ends_with(artefact) || path == full);
            if !follows || Instant::now() > end {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let policy = format!("{full}{}", self.options.as_deref().unwrap_or_default());
        let mut order = json!({ "policy": policy });
        if let Some(link) = &self.link {
            order["link"] = json!(link);
        }
        let swapped = ask("/v1/policy/set", Some(&order)).await?;
        Ok(format!(
            "{} runs it as generation {}; {}",
            swapped["link"].as_str().unwrap_or("it"),
            swapped["generation"],
            swapped["state"].as_str().unwrap_or_default()
        ))
    }
}

/// Whether something has changed that goes into the policy.
fn is_change(event: &notify::Event, recipe: &Recipe) -> bool {
    let writes = !matches!(event.kind, EventKind::Access(_));
    writes && event.paths.iter().any(|path| recipe.concerns(path))
}

/// Waits for a change and until it is quiet again. False when nobody can tell any more.
fn settled(told: &Receiver<()>) -> bool {
    if told.recv().is_err() {
        return false;
    }
    loop {
        match told.recv_timeout(QUIET) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}
