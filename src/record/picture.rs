//! A replay's outcome for people and for machines.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::report::{Change, Report, Side, Spread};
use crate::observe::Latencies;

/// The longest bar.
const BAR: u64 = 24;
/// Changes shown to people.
const SHOWN: usize = 5;

/// A report as text for a terminal.
#[must_use]
pub fn picture(report: &Report) -> String {
    let mut out = String::new();
    let Report { beginning, new, known, sessions, .. } = report;
    let (before, after) =
        if report.against.is_some() { ("against", "replayed") } else { ("recorded", "replayed") };
    let _ = writeln!(
        out,
        "{} decisions in {}, recorded {}",
        new.all + known.all,
        humantime::format_duration(round(report.time)),
        beginning.began
    );
    let recorded: Vec<_> = beginning.chain.iter().map(|link| link.policy.as_str()).collect();
    let recorded = if recorded.is_empty() { beginning.last.policy.clone() } else { recorded.join(", ") };
    let _ =
        writeln!(out, "{before:<9} {}", report.against.as_ref().map_or(recorded, |chain| chain.join(", ")));
    let _ = writeln!(out, "{after:<9} {}\n", report.chain.join(", "));

    side(&mut out, "new connections", *new, "go elsewhere");
    side(&mut out, "of known sessions", *known, "go elsewhere");
    side(&mut out, "sessions begun", *sessions, "live elsewhere");
    out.push('\n');
    spread(&mut out, report, before, after);
    if new.changed > 0 {
        table(&mut out, report);
    }
    for change in report.changes.iter().take(SHOWN) {
        let at = Duration::from_micros(change.t).as_secs_f64();
        let session = change.session.as_ref().map(|sid| format!(" session {sid}")).unwrap_or_default();
        let _ = writeln!(out, "at {at:.3} s {}{session}: {} → {}", change.target, change.from, change.to);
    }
    if new.changed + known.changed > SHOWN as u64 {
        out.push_str("…\n");
    }
    if !report.changes.is_empty() {
        out.push('\n');
    }
    let faults = report.counts.faults.total();
    let _ = writeln!(
        out,
        "faults {faults}, bad answers {}; a call took {} (p50), {} (p99)",
        report.counts.bad_answers,
        time(&report.latency.0, 50),
        time(&report.latency.0, 99)
    );
    for note in notes(report) {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

fn side(out: &mut String, what: &str, side: Side, happens: &str) {
    let _ = writeln!(
        out,
        "{what:<18} {:>8}   {:>8} ({}) {happens}",
        side.all,
        side.changed,
        percent(side.changed, side.all)
    );
}

fn spread(out: &mut String, report: &Report, before: &str, after: &str) {
    let most = report.spread.values().flat_map(|spread| [spread.before, spread.after]).max().unwrap_or(0);
    let bar = |count: u64| {
        // Half blocks: a bar is right to a 48th.
        let halves = (count * BAR * 2).checked_div(most).unwrap_or(0);
        let bar = "█".repeat(usize::try_from(halves / 2).unwrap_or(0));
        format!("{bar}{}", if halves % 2 == 1 { "▌" } else { "" })
    };
    let wide = usize::try_from(BAR).unwrap_or(0);
    let name = width(report.spread.keys());
    let _ = writeln!(out, "{:<name$}  {before:>8}  {:<wide$}  {after:>8}", "worker", "");
    for (worker, Spread { before, after }) in &report.spread {
        let _ = writeln!(
            out,
            "{worker:<name$}  {before:>8}  {:<wide$}  {after:>8}  {}",
            bar(*before),
            bar(*after)
        );
    }
    if report.spread.len() > 1 {
        let peaks =
            [|spread: &Spread| spread.before, |spread: &Spread| spread.after].map(|side| peak(report, side));
        let _ = writeln!(
            out,
            "{:<name$}  {:>8}  {:<wide$}  {:>8}",
            "most/mean",
            shown(peaks[0]),
            "",
            shown(peaks[1])
        );
    }
    out.push('\n');
}

/// The busiest worker, in mean workers.
fn peak(report: &Report, side: impl Fn(&Spread) -> u64) -> Option<f64> {
    let all: u64 = report.spread.values().map(&side).sum();
    let most = report.spread.values().map(side).max()?;
    (all > 0).then(|| most as f64 * report.spread.len() as f64 / all as f64)
}

fn shown(part: Option<f64>) -> String {
    part.map_or_else(|| "–".to_owned(), |part| format!("{part:.2}"))
}

fn table(out: &mut String, report: &Report) {
    let columns: BTreeSet<_> = report.table.keys().map(|(_, to)| to).collect();
    let rows: BTreeSet<_> = report.table.keys().map(|(from, _)| from).collect();
    let name = width(rows.iter().copied()).max("from \\ to".len());
    let cell = width(columns.iter().copied()).max(7);
    let _ = write!(out, "{:<name$}", "from \\ to");
    for column in &columns {
        let _ = write!(out, "  {column:>cell$}");
    }
    out.push('\n');
    for row in rows {
        let _ = write!(out, "{row:<name$}");
        for column in &columns {
            let count = report.table.get(&(row.clone(), (*column).clone())).copied().unwrap_or(0);
            let text = if count == 0 { "·".to_owned() } else { count.to_string() };
            let _ = write!(out, "  {text:>cell$}");
        }
        out.push('\n');
    }
    out.push('\n');
}

/// What somebody should know before they conclude anything.
fn notes(report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    if report.beginning.form != "full" && report.against.is_none() {
        notes.push(
            "the recording has pseudonyms: a policy that decides by an address, a session id, a cookie or a query \
             value sees other ones than the live policy did; compare two policies with --against, or record with \
             --keep or --full"
                .to_owned(),
        );
    }
    if report.lost > 0 {
        notes.push(format!("{} observations are missing, since the recorder was slow", report.lost));
    }
    if report.cut {
        notes.push("the last line is only the beginning of one and was left out".to_owned());
    }
    if !report.adopted.is_empty() {
        let names: BTreeSet<_> = report.adopted.iter().map(String::as_str).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        notes.push(format!("began with the state recorded at the beginning: {names}"));
    }
    notes
}

fn width<'a>(names: impl Iterator<Item = &'a String>) -> usize {
    names.map(|name| name.chars().count()).max().unwrap_or(0).max("most/mean".len())
}

fn percent(part: u64, all: u64) -> String {
    if all == 0 { "–".to_owned() } else { format!("{:.1} %", part as f64 * 100.0 / all as f64) }
}

fn time(times: &Latencies, percent: u64) -> String {
    times.percentile(percent).map_or_else(|| "–".to_owned(), |time| format!("{} ns", time.as_nanos()))
}

/// To something one can read.
fn round(time: Duration) -> Duration {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    if millis < 10_000 { Duration::from_millis(millis) } else { Duration::from_secs(millis / 1000) }
}

impl Report {
    /// For machines.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let side = |side: Side| json!({ "all": side.all, "changed": side.changed });
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let latency = |times: &Latencies| {
            let at = |percent| times.percentile(percent).map(nanoseconds);
            json!({ "p50": at(50), "p99": at(99) })
        };
        let spread = |(worker, spread): (&String, &Spread)| json!({ "worker": worker, "before": spread.before, "after": spread.after });
        let cell = |((from, to), count): (&(String, String), &u64)| json!({ "from": from, "to": to, "count": count });
        let change = |change: &Change| {
            json!({
                "t": change.t,
                "target": change.target,
                "session": change.session,
                "from": change.from,
                "to": change.to,
            })
        };
        json!({
            "began": self.beginning.began,
            "form": self.beginning.form,
            "recorded": self.beginning.chain.iter().map(|link| &link.policy).collect::<Vec<_>>(),
            "against": self.against,
            "policy": self.chain,
            "time_us": u64::try_from(self.time.as_micros()).unwrap_or(u64::MAX),
            "new": side(self.new),
            "known": side(self.known),
            "sessions": side(self.sessions),
            "spread": self.spread.iter().map(spread).collect::<Vec<_>>(),
            "table": self.table.iter().map(cell).collect::<Vec<_>>(),
            "changes": self.changes.iter().map(change).collect::<Vec<_>>(),
            "faults": self.counts.faults.total(),
            "bad_answers": self.counts.bad_answers,
            "calls": self.counts.calls,
            "latency_ns": { "replayed": latency(&self.latency.0), "recorded": latency(&self.latency.1) },
            "lost": self.lost,
            "cut": self.cut,
            "state_of": self.adopted,
            "notes": notes(self),
        })
    }
}
