//! `sidetrack policy explain --follow`: decisions as they are made, with their reasons.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use super::{Place, lines, of_pool};
use crate::record::format::{Decision, Entry, Refused, Said};

/// Which decisions to show, and how many.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// A worker's name.
    pub worker: Option<String>,
    /// A session's id.
    pub session: Option<String>,
    pub limit: Option<u64>,
}

/// The workers as they were named last.
#[derive(Debug, Default)]
struct Names {
    /// In the order of the loads.
    roster: Vec<String>,
    all: HashMap<u32, String>,
}

/// Prints decisions until there have been enough, nobody reads, or sidetrack ends.
///
/// # Errors
/// When nobody can be followed; in words.
pub async fn tail(place: &Place, pool: Option<&str>, filter: &Filter, json: bool) -> Result<(), String> {
    let path = of_pool("/v1/decisions?form=full&steps=true", pool);
    let mut lines = lines(place, &path).await.map_err(|error| error.to_string())??;
    let (mut names, mut shown) = (Names::default(), 0);
    while filter.limit.is_none_or(|limit| shown < limit) {
        let Some(line) = lines.next().await else { break };
        let Ok(line) = String::from_utf8(line) else { continue };
        let text = match Entry::parse(&line) {
            Ok(Entry::Roster(roster)) => {
                names.roster = roster.roster.iter().map(|worker| worker.name.clone()).collect();
                names.all.extend(roster.roster.into_iter().map(|worker| (worker.id, worker.name)));
                continue;
            }
            Ok(Entry::Decision(decision)) if !decision.hand && filter.admits(&decision, &names) => {
                shown += 1;
                if json { names.told(&line) } else { Some(explained(&decision, &names)) }
            }
            Ok(Entry::Gap(gap)) => {
                let text = format!("… {} observations were not seen, since this was too slow", gap.gap);
                Some(if json { line } else { text })
            }
            _ => continue,
        };
        let Some(text) = text else { continue };
        // Whoever reads may have gone, as `head` does.
        if writeln!(io::stdout(), "{text}").and_then(|()| io::stdout().flush()).is_err() {
            break;
        }
    }
    Ok(())
}

impl Filter {
    fn admits(&self, decision: &Decision, names: &Names) -> bool {
        let worker = decision.worker.map(|id| names.name(id));
        let fits = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        fits(&self.worker, &worker) && fits(&self.session, &decision.session)
    }
}

impl Names {
    fn name(&self, id: u32) -> String {
        self.all.get(&id).cloned().unwrap_or_else(|| format!("worker {id}"))
    }

    fn said(&self, said: &Said) -> String {
        match said {
            Said::Worker(id) => self.name(*id),
            Said::Defer(_) => "defer".to_owned(),
            Said::Refuse(Refused { refuse, text, .. }) => format!("refuse with {refuse} {text}"),
        }
    }

    /// A decision as JSON, with the workers' names beside it: whoever reads has not seen the roster.
    fn told(&self, line: &str) -> Option<String> {
        let mut value: serde_json::Value = serde_json::from_str(line).ok()?;
        let worker = value["w"].as_u64().and_then(|id| u32::try_from(id).ok()).map(|id| self.name(id));
        let object = value.as_object_mut()?;
        object.insert("worker".to_owned(), worker.into());
        object.insert("workers".to_owned(), self.roster.clone().into());
        Some(value.to_string())
    }
}

/// A decision in a few lines: the connection and where it went, then who said what.
fn explained(decision: &Decision, names: &Names) -> String {
    let went = match (decision.worker, &decision.refused) {
        (Some(id), _) => names.name(id),
        (None, Some(Refused { refuse, text, .. })) => format!("refused with {refuse} {text}"),
        (None, None) => "nobody".to_owned(),
    };
    let mut out = String::new();
    let _ = write!(out, "{} {}", decision.method, decision.target);
    if let Some(peer) = decision.peer {
        let _ = write!(out, " from {peer}");
    }
    if let Some(session) = &decision.session {
        let _ = write!(out, ", session {session}");
    }
    if decision.attempt > 0 {
        let _ = write!(out, ", attempt {}", decision.attempt + 1);
    }
    let _ = write!(out, " → {went}");
    match (decision.owner, decision.balanced.is_some(), &decision.link) {
        (Some(_), false, None) => out.push_str(", which has the session"),
        (_, _, Some(link)) => {
            let _ = write!(out, ", says {link}");
            if let Some(generation) = decision.generation {
                let _ = write!(out, " (generation {generation})");
            }
        }
        _ => {}
    }
    for step in &decision.steps {
        let said = step.said.as_ref().map_or_else(|| "failed".to_owned(), |said| names.said(said));
        let generation = step
            .generation
            .map_or_else(|| "native".to_owned(), |generation| format!("generation {generation}"));
        let why = step.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let _ = write!(out, "\n  {} ({generation}) → {said}{why}", step.link);
    }
    let loads: Vec<_> =
        names.roster.iter().zip(&decision.loads).map(|(name, load)| format!("{name} {load}")).collect();
    let _ = write!(out, "\n  loads: {}", loads.join(", "));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(line: &str) -> Decision {
        match Entry::parse(line).unwrap() {
            Entry::Decision(decision) => *decision,
            other => panic!("{other:?}"),
        }
    }

    fn names() -> Names {
        let all = HashMap::from([(4, "w0".to_owned()), (5, "w1".to_owned())]);
        Names { roster: vec!["w0".to_owned(), "w1".to_owned()], all }
    }

    #[test]
    fn a_decision_is_told_with_everything_that_led_to_it() {
        let line = r#"{"t":1,"u":"/a?b=1","p":"192.0.2.1","s":"x","a":1,"l":[3,0],"f":"defer","b":5,"w":5,"k":"mine","g":2,
            "steps":[{"link":"sticky","generation":1,"said":"defer","why":"no cookie"},{"link":"mine","generation":2,"said":5},{"link":"last","said":null}]}"#;
        assert_eq!(
            explained(&decision(line), &names()),
            "GET /a?b=1 from 192.0.2.1, session x, attempt 2 → w1, says mine (generation 2)\n  sticky (generation 1) → defer: no \
             cookie\n  mine (generation 2) → w1\n  last (native) → failed\n  loads: w0 3, w1 0"
        );
        let line = r#"{"t":1,"u":"/","s":"x","l":[3,0],"f":"defer","o":4,"w":4}"#;
        let text = explained(&decision(line), &names());
        assert!(text.starts_with("GET /, session x → w0, which has the session"), "{text}");
    }

    #[test]
    fn a_filter_admits_what_fits() {
        let decision = decision(r#"{"t":1,"u":"/","s":"x","l":[0,0],"b":4,"w":4}"#);
        let filter = |worker: Option<&str>, session: Option<&str>| Filter {
            worker: worker.map(str::to_owned),
            session: session.map(str::to_owned),
            limit: None,
        };
        for (filter, expected) in [
            (filter(None, None), true),
            (filter(Some("w0"), Some("x")), true),
            (filter(Some("w1"), None), false),
            (filter(None, Some("y")), false),
        ] {
            assert_eq!(filter.admits(&decision, &names()), expected, "{filter:?}");
        }
    }
}
