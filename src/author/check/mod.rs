//! Whether a policy behaves, whatever it is meant to do: the contract, and what a bad day brings.

mod cases;

use std::fmt::Write as _;

use serde_json::{Value, json};
use sidetrack_policy::native::{Script, scripted};

use super::figures;
use crate::cli::print;
use crate::policy::{Candidate, Fault, Limits, LoadError, PolicyLink, StartError};
use cases::{CASES, Case};

/// `sidetrack policy check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub policy: PolicyLink,
    pub limits: Limits,
    /// Warnings count as failures.
    pub strict: bool,
    pub json: bool,
}

/// What came of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// As it should be; with what was seen, if that is worth saying.
    Good(String),
    /// It works, and is likely not what was meant.
    Warning(String),
    Bad(String),
    /// It concerns an interface that the policy does not export.
    Nothing(&'static str),
}

/// Why a case cannot go on.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("{0}")]
    Fault(#[from] Fault),
    #[error("{0}")]
    Start(#[from] StartError),
    /// An answer that nobody can act upon.
    #[error("answered {0}")]
    Answer(String),
}

/// The case before all others.
const LOADS: &str = "it loads";

impl Verdict {
    const FAILED: &str = "FAILED";
    const WARNING: &str = "warning";

    const fn word(&self) -> &'static str {
        match self {
            Self::Good(_) => "ok",
            Self::Warning(_) => Self::WARNING,
            Self::Bad(_) => Self::FAILED,
            Self::Nothing(_) => "none",
        }
    }

    fn found(&self) -> String {
        match self {
            Self::Good(found) | Self::Warning(found) | Self::Bad(found) => found.clone(),
            Self::Nothing(interface) => format!("does not export `{interface}`"),
        }
    }
}

impl Check {
    pub(super) fn perform(&self) -> Result<bool, String> {
        let candidate = match candidate(&self.policy, self.limits) {
            Ok(candidate) => candidate,
            // The cases need something that loads; why it does not is the whole verdict.
            Err(error) => {
                let LoadError { policy, problem } = &error;
                print(&if self.json {
                    let case = json!({ "case": LOADS, "outcome": "failed", "found": problem.to_string() });
                    format!("{:#}\n", json!({ "policy": policy, "verdict": "failed", "cases": [case] }))
                } else {
                    format!("{:<8} {LOADS}: {problem}\n{policy}: not fit for use\n", Verdict::FAILED)
                });
                return Ok(false);
            }
        };
        let verdicts: Vec<_> = CASES.iter().map(|case| (case, judge(case, &candidate))).collect();
        let any = |wanted: &str| verdicts.iter().any(|(_, verdict)| verdict.word() == wanted);
        let good = !(any(Verdict::FAILED) || any(Verdict::WARNING) && self.strict);
        let show = if self.json { machine } else { human };
        print(&show(&candidate, &self.policy, &verdicts, good));
        Ok(good)
    }
}

/// What is wrong with a policy, a line for each case that it fails; warnings are not among them.
///
/// # Errors
/// Why it does not load.
pub(super) fn failures(policy: &PolicyLink) -> Result<Vec<String>, String> {
    let candidate = candidate(policy, Limits::default()).map_err(|error| error.to_string())?;
    let failed = CASES.iter().filter_map(|case| match judge(case, &candidate) {
        Verdict::Bad(found) => Some(format!("{}: {found}", case.name)),
        _ => None,
    });
    Ok(failed.collect())
}

fn candidate(policy: &PolicyLink, limits: Limits) -> Result<Candidate, LoadError> {
    Candidate::load(policy, limits)
}

/// Runs a case, every time with the same random numbers.
fn judge(case: &Case, candidate: &Candidate) -> Verdict {
    if let Some(interface) = case.needs
        && !candidate.interfaces().contains(&interface)
    {
        return Verdict::Nothing(interface);
    }
    let script = Script { seed: 1, ..Script::default() };
    let (verdict, _) = scripted(script, || (case.run)(candidate));
    verdict.unwrap_or_else(|stop| Verdict::Bad(stop.to_string()))
}

fn human(candidate: &Candidate, policy: &PolicyLink, verdicts: &[(&Case, Verdict)], good: bool) -> String {
    let mut out = String::new();
    let interfaces = match candidate.interfaces().as_slice() {
        [] => String::new(),
        some => format!(", with {}", some.join(", ")),
    };
    let _ =
        writeln!(out, "{policy}: {}, {}{interfaces}", candidate.digest(), figures::bytes(candidate.size()));
    for (case, verdict) in verdicts {
        let found = match verdict.found() {
            found if found.is_empty() => found,
            found => format!(": {found}"),
        };
        let _ = writeln!(out, "{:<8} {}{found}", verdict.word(), case.name);
    }
    let count = |word: &str| verdicts.iter().filter(|(_, verdict)| verdict.word() == word).count();
    let _ = writeln!(
        out,
        "{} cases: {} ok, {} warnings, {} failed, {} do not concern it",
        verdicts.len(),
        count("ok"),
        count(Verdict::WARNING),
        count(Verdict::FAILED),
        count("none"),
    );
    let _ = writeln!(out, "{policy}: {}", if good { "fit for use" } else { "not fit for use" });
    out
}

fn machine(candidate: &Candidate, policy: &PolicyLink, verdicts: &[(&Case, Verdict)], good: bool) -> String {
    let cases: Vec<Value> = verdicts
        .iter()
        .map(|(case, verdict)| {
            json!({ "case": case.name, "outcome": verdict.word().to_lowercase(), "found": verdict.found() })
        })
        .collect();
    let value = json!({
        "policy": policy.to_string(),
        "digest": format!("{:#}", candidate.digest()),
        "bytes": candidate.size(),
        "interfaces": candidate.interfaces(),
        "verdict": if good { "ok" } else { "failed" },
        "cases": cases,
    });
    format!("{value:#}\n")
}
