//! Every metric is documented, and the dashboard and the alerts ask for metrics that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::support::{Client, Place, admin, eventually, get, root, worker};

/// Labels that come from Prometheus, or from there being several pools.
const ELSEWHERE: [&str; 4] = ["instance", "job", "le", "pool"];

const BEGIN: &str = "<!-- made by: cargo test --test it -- --ignored --exact metrics::refresh -->\n";
const END: &str = "<!-- end -->\n";

/// What is said of one metric.
#[derive(Debug, Default, Clone)]
struct Metric {
    kind: String,
    unit: String,
    help: String,
    labels: BTreeSet<String>,
}

/// A whole scrape.
#[derive(Debug, Default)]
struct Scrape {
    /// In the order of the scrape.
    order: Vec<String>,
    metrics: BTreeMap<String, Metric>,
    /// Names as queries have them, with their labels.
    samples: BTreeMap<String, BTreeSet<String>>,
}

impl Scrape {
    /// Of a run that has served, refused, and asked a shadow.
    fn new() -> Self {
        let place = Place::new();
        let socket = place.socket();
        let running = place.run(worker("listen.js")).with(&["--shadow", "random"]).start();
        get(running.address(), "/pid");
        let refused = Client::connect(running.address()).exchange("no request\r\n\r\n");
        assert_eq!(refused.status, 400);
        let text = eventually("a refusal is counted", || {
            Some(admin(&socket, "/metrics")).filter(|text| text.contains("sidetrack_refusals_total{"))
        });
        running.stop();
        Self::parse(&text)
    }

    fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# ") {
                let mut words = rest.splitn(3, ' ');
                let (Some(what), Some(name), Some(said)) = (words.next(), words.next(), words.next()) else {
                    continue;
                };
                let metric = scrape.metrics.entry(name.to_owned()).or_default();
                match what {
                    "HELP" => metric.help = said.trim_end_matches('.').to_owned(),
                    "TYPE" => metric.kind = said.to_owned(),
                    "UNIT" => metric.unit = said.to_owned(),
                    other => panic!("{other} in {line}"),
                }
                if !scrape.order.iter().any(|known| known == name) {
                    scrape.order.push(name.to_owned());
                }
            } else if let Some((sample, _)) = line.split_once(' ').filter(|_| line.starts_with("sidetrack_"))
            {
                let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
                let labels = labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty());
                let names: BTreeSet<String> =
                    labels.filter_map(|label| Some(label.split_once('=')?.0.to_owned())).collect();
                let longest = scrape.order.iter().filter(|known| name.starts_with(known.as_str()));
                let family = longest.max_by_key(|known| known.len()).expect("a family").clone();
                let own = names.iter().filter(|label| *label != "le").cloned();
                scrape.metrics.entry(family).or_default().labels.extend(own);
                scrape.samples.entry(name.to_owned()).or_default().extend(names);
            }
        }
        scrape
    }

    fn table(&self) -> String {
        let mut table = "| metric | type | unit | labels | |\n|---|---|---|---|---|\n".to_owned();
        for name in &self.order {
            let Metric { kind, unit, help, labels } = &self.metrics[name];
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            table += &format!("| `{name}` | {kind} | {unit} | {} | {help} |\n", labels.join(", "));
        }
        table
    }

    /// Everything in a text that asks for what is not there.
    fn complaints(&self, text: &str) -> Vec<String> {
        let mut complaints = Vec::new();
        let known = |label: &str| {
            ELSEWHERE.contains(&label) || self.samples.values().any(|labels| labels.contains(label))
        };
        for (at, _) in text.match_indices("sidetrack_") {
            let rest = &text[at..];
            let name =
                &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())];
            let Some(labels) = self.samples.get(name) else {
                complaints.push(format!("{name} is no metric"));
                continue;
            };
            let matchers = rest[name.len()..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
            for matcher in
                matchers.map_or("", |(inside, _)| inside).split(',').filter(|text| !text.is_empty())
            {
                let label = matcher.trim().split(['=', '!']).next().unwrap_or_default();
                if !ELSEWHERE.contains(&label) && !labels.contains(label) {
                    complaints.push(format!("{name} has no label {label}"));
                }
            }
        }
        for (word, close) in
            [("by (", ')'), ("without (", ')'), ("on (", ')'), ("{{", '}'), ("$labels.", ' ')]
        {
            for (at, _) in text.match_indices(word) {
                let inside = text[at + word.len()..].split(close).next().unwrap_or_default();
                let inside = inside.trim().trim_start_matches("$labels.");
                for label in inside.split(',').map(str::trim).filter(|label| !label.starts_with("$value")) {
                    if !known(label) {
                        complaints.push(format!("no metric has a label {label}"));
                    }
                }
            }
        }
        complaints
    }
}

fn documented() -> (String, String, String) {
    let text = fs::read_to_string(root().join("docs/metrics.md")).expect("the documentation");
    let (before, rest) = text.split_once(BEGIN).expect("where the table begins");
    let (table, after) = rest.split_once(END).expect("where the table ends");
    (before.to_owned(), table.to_owned(), after.to_owned())
}

#[test]
fn documentation_dashboard_and_alerts_are_about_what_there_is() {
    let scrape = Scrape::new();
    let (_, table, _) = documented();
    assert_eq!(
        table,
        scrape.table(),
        "docs/metrics.md is out of date: cargo test --test it -- --ignored --exact metrics::refresh"
    );

    let dashboard = fs::read_to_string(root().join("docs/grafana/sidetrack.json")).expect("the dashboard");
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let annotations = dashboard["annotations"]["list"].as_array().expect("annotations").iter();
    let mut asked = 0;
    for target in targets.chain(annotations) {
        let text = |key: &str| target[key].as_str().unwrap_or_default().to_owned();
        let query = text("expr");
        assert!(query.contains("sidetrack_"), "{target}");
        let complaints = scrape.complaints(&format!("{query} {}", text("legendFormat")));
        assert!(complaints.is_empty(), "{complaints:?} in {query}");
        asked += 1;
    }
    assert!(asked > 50, "{asked}");

    let alerts = fs::read_to_string(root().join("docs/grafana/alerts.yml")).expect("the alerts");
    assert!(alerts.matches("- alert: ").count() > 10);
    let complaints = scrape.complaints(&alerts);
    assert!(complaints.is_empty(), "{complaints:?}");

    // What is not there is found.
    let wrong =
        "sum by (shelf) (sidetrack_accepted_total{colour=\"red\"}) / sidetrack_nothing_total {{wheel}}";
    assert_eq!(scrape.complaints(wrong).len(), 4, "{:?}", scrape.complaints(wrong));
}

#[test]
fn versions_have_their_own_figures_and_old_ones_are_gone() {
    let place = Place::new();
    let socket = place.socket();
    let running = place.run(worker("listen.js")).policy("random").start();
    let set = |policy: &str| place.ask(&["policy", "set", policy]);
    for round in 0..6 {
        get(running.address(), "/pid");
        get(running.address(), "/pid");
        assert_eq!(set(["round-robin", "random"][round % 2]).0, Some(0));
    }
    assert_ne!(set("/nowhere/mine.wasm").0, Some(0));
    let text = admin(&socket, "/metrics");
    let calls: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("sidetrack_policy_calls_total{link=\"random\","))
        .collect();
    let expected = ["4\"} 2", "5\"} 2", "6\"} 2", "7\"} 0"].map(|end| format!("generation=\"{end}"));
    let mut sorted = calls.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected, "{calls:?}");
    for (result, count) in [("taken", 6), ("refused", 1), ("quarantined", 0), ("returned", 0)] {
        let line = format!("sidetrack_policy_swaps_total{{link=\"random\",result=\"{result}\"}} {count}\n");
        assert!(text.contains(&line), "{line} is missing");
    }
    // The first call of each version is timed, and the last bucket has them all.
    let all = "sidetrack_policy_call_seconds_bucket{le=\"+Inf\",link=\"random\",generation=\"6\"} 1\n";
    assert!(text.contains(all), "{text}");
    running.stop();
}

#[test]
#[ignore = "writes docs/metrics.md anew: for whoever changes a metric"]
fn refresh() {
    let (before, _, after) = documented();
    let text = format!("{before}{BEGIN}{}{END}{after}", Scrape::new().table());
    fs::write(root().join("docs/metrics.md"), text).expect("the documentation");
}
