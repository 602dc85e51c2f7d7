//! Orders of the command line, carried out at the admin interface, and what a person sees of it.

use std::fmt::Write as _;

use serde_json::Value;

use super::fields::{items, refusal, text};
use super::tail::tail;
use super::{Answer, ask, of_pool};
use crate::cli::{Order, Verb, print};
use crate::policy::BuiltIn;

/// Carries out an order and prints what came of it. False when it was refused.
///
/// # Errors
/// When nobody could be asked; in words.
pub async fn carry_out(order: &Order) -> Result<bool, String> {
    type Shown = fn(&Value) -> String;
    let place = || order.at.place().map_err(|error| error.to_string());
    let (path, body, shown): (_, _, Shown) = match &order.verb {
        Verb::List => {
            print(&list());
            return Ok(true);
        }
        Verb::Status => ("/v1/policy", None, status),
        Verb::Set(body) => ("/v1/policy/set", Some(body), swapped),
        Verb::Rollback(body) => ("/v1/policy/rollback", Some(body), swapped),
        Verb::Explain(body) => ("/v1/policy/explain", Some(body), explained),
        Verb::Follow(filter) => {
            return tail(&place()?, order.pool.as_deref(), filter, order.json).await.map(|()| true);
        }
        Verb::ShadowStatus => ("/v1/policy/shadow", None, shadow),
        Verb::ShadowSet(body) => ("/v1/policy/shadow", Some(body), |value| {
            format!("{} is asked beside the real policy from now on\n", text(&value["policy"]))
        }),
        Verb::ShadowOff => {
            ("/v1/policy/shadow/off", Some(&Value::Null), |_| "no shadow any more\n".to_owned())
        }
    };
    let place = place()?;
    let path = of_pool(path, order.pool.as_deref());
    let Answer { good, value } = ask(&place, &path, body).await.map_err(|error| error.to_string())?;
    if order.json {
        print(&format!("{value:#}\n"));
    } else if good {
        print(&shown(&value));
    } else {
        return Err(refusal(&value));
    }
    Ok(good)
}

fn list() -> String {
    let mut out = String::new();
    for policy in BuiltIn::ALL {
        let _ = writeln!(out, "{:<18} {}", policy.name(), policy.about());
        if policy.example() != "{}" {
            let _ = writeln!(out, "{:<18} such as {policy}{}", "", policy.example());
        }
    }
    out
}

fn status(value: &Value) -> String {
    let pool = |value: &Value| format!("pool {}\n{}\n", text(&value["pool"]), chain(value));
    match value["pools"].as_array() {
        Some(pools) => pools.iter().map(pool).collect(),
        None => chain(value),
    }
}

fn chain(value: &Value) -> String {
    let mut out = String::new();
    for link in items(&value["links"]) {
        let mut standing =
            if link["in_service"] == true { "in service" } else { "OUT OF SERVICE" }.to_owned();
        if let Some(left) = link["trial_left_ms"].as_u64() {
            let _ = write!(standing, ", on trial for {} s more", left.div_ceil(1000));
        }
        let _ = writeln!(out, "{}: generation {}, {standing}", text(&link["name"]), link["generation"]);
        let mut line = |name: &str, value: &str| out.push_str(&line(name, value));
        line("policy", text(&link["policy"]));
        line("options", options(&link["options"]));
        line("digest", digest(&link["digest"]));
        line("interfaces", &items(&link["interfaces"]).iter().map(text).collect::<Vec<_>>().join(", "));
        line("since", text(&link["since"]));
        let counts = &link["counts"];
        let faults = faults(counts);
        line(
            "calls",
            &format!("{}, {faults} faults, {} bad answers", counts["calls"], counts["bad_answers"]),
        );
        if link["store"]["keys"] != 0 {
            line("store", &format!("{} keys, {} bytes", link["store"]["keys"], link["store"]["bytes"]));
        }
        for past in items(&link["history"]) {
            let reason = past["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
            line(
                "before",
                &format!(
                    "generation {} ({}), {} at {}{reason}",
                    past["generation"],
                    text(&past["policy"]),
                    text(&past["ended"]),
                    text(&past["until"]),
                ),
            );
        }
    }
    let _ = writeln!(out, "last: {} (native)", text(&value["last"]));
    if !value["shadow"].is_null() {
        out.push_str(&shadow(&value["shadow"]));
    }
    out
}

/// A line about a policy, unless there is nothing to say.
fn line(name: &str, value: &str) -> String {
    if value.is_empty() { String::new() } else { format!("  {name:<11} {value}\n") }
}

/// Those that say something.
fn options(value: &Value) -> &str {
    Some(text(value)).filter(|text| *text != "{}").unwrap_or_default()
}

/// As much of it as a person compares.
fn digest(value: &Value) -> &str {
    let text = text(value);
    text.get(..12).unwrap_or(text)
}

fn swapped(value: &Value) -> String {
    format!(
        "{} now runs {} as generation {}; {}\n",
        text(&value["link"]),
        text(&value["policy"]),
        value["generation"],
        text(&value["state"]),
    )
}

fn shadow(value: &Value) -> String {
    if value.is_null() {
        return "no shadow\n".to_owned();
    }
    let mut out = String::new();
    let standing = if value["in_service"] == true { "asked" } else { "SWITCHED OFF after repeated faults" };
    let _ = writeln!(out, "shadow: {}, {standing}", text(&value["policy"]));
    let mut line = |name: &str, value: &str| out.push_str(&line(name, value));
    line("options", options(&value["options"]));
    line("digest", digest(&value["digest"]));
    line("since", text(&value["since"]));
    let count = |name: &str| value[name].as_u64().unwrap_or(0);
    let share = value["agreement"].as_f64().map(|share| format!(" ({:.1} % agree)", share * 100.0));
    line(
        "connections",
        &format!(
            "{}: {} alike, {} otherwise{}, {} left to the next policy, {} failed, {} not asked",
            count("asked"),
            count("agreed"),
            count("differed"),
            share.unwrap_or_default(),
            count("deferred"),
            count("failed"),
            count("dropped"),
        ),
    );
    let faults = faults(&value["counts"]);
    if faults > 0 {
        line("faults", &faults.to_string());
    }
    for worker in items(&value["spread"]) {
        let name = text(&worker["worker"]);
        line("new to", &format!("{name:<8} {:>8} live {:>8} shadow", worker["live"], worker["shadow"]));
    }
    for who in ["live", "shadow"] {
        let times = &value["latency_ns"][who];
        if let (Some(half), Some(most)) = (times["p50"].as_u64(), times["p99"].as_u64()) {
            line("takes", &format!("{who:<8} {half:>8} ns (p50) {most:>8} ns (p99)"));
        }
    }
    out
}

/// All kinds together.
fn faults(counts: &Value) -> u64 {
    counts["faults"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum()
}

fn explained(value: &Value) -> String {
    let mut out = String::new();
    if let Some(pool) = value["pool"].as_str() {
        let _ = writeln!(out, "pool {pool}");
    }
    for worker in items(&value["workers"]) {
        let _ = writeln!(
            out,
            "{:<8} load {:<6} weight {}",
            text(&worker["name"]),
            worker["load"],
            worker["weight"]
        );
    }
    for step in items(&value["steps"]) {
        let says = step["says"].as_str().map(|says| format!(": {says}")).unwrap_or_default();
        let generation = match step["generation"].as_u64() {
            Some(0) | None => "native".to_owned(),
            Some(generation) => format!("generation {generation}"),
        };
        let _ =
            writeln!(out, "{} ({generation}) → {}{says}", text(&step["link"]), decision(&step["decision"]));
    }
    if !value["owner"].is_null() {
        let _ = writeln!(out, "session table → {}", decision(&value["owner"]));
    }
    let _ = writeln!(out, "decision: {}", decision(&value["decision"]));
    out
}

fn decision(value: &Value) -> String {
    match (value["worker"].as_str(), value["refuse"].as_u64()) {
        (Some(worker), _) => worker.to_owned(),
        (_, Some(status)) => format!("refuse with {status} {}", text(&value["text"])),
        _ => text(value).to_owned(),
    }
}
