//! `sidetrack policy check`, `test`, `bench` and `simulate`, as typed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use sidetrack::policy::BuiltIn;

use crate::support::{guest, root};

/// What a command line came to.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

fn policy(words: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_sidetrack"))
        .arg("policy")
        .args(words)
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it speaks UTF-8");
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The names of the cases with that outcome.
fn cases(verdict: &Value, outcome: &str) -> BTreeSet<String> {
    let cases = verdict["cases"].as_array().expect("a list of cases");
    let some = cases.iter().filter(|case| case["outcome"] == outcome);
    some.map(|case| case["case"].as_str().expect("a name").to_owned()).collect()
}

fn bent(how: &str) -> Said {
    policy(&["check", &format!("{}{{\"bent\": \"{how}\"}}", guest("policy_hostile").display()), "--json"])
}

#[test]
fn every_built_in_policy_is_fit_for_use_without_a_warning() {
    for known in BuiltIn::ALL {
        let said = policy(&["check", &format!("{known}{}", known.example()), "--strict", "--json"]);
        let verdict = said.json();
        assert_eq!((said.code, verdict["verdict"].as_str()), (Some(0), Some("ok")), "{}", said.out);
        assert!(cases(&verdict, "ok").len() >= 20, "{known}: {}", said.out);
    }
}

#[test]
fn a_policy_that_is_bent_fails_the_cases_that_show_it() {
    let verdict = bent("stale").json();
    for name in
        ["a worker that has left is not chosen", "a worker that was restarted is chosen by its new id"]
    {
        assert!(cases(&verdict, "failed").contains(name), "{verdict:#}");
    }
    let trusting = bent("trusting");
    assert_eq!(trusting.code, Some(1));
    let only = BTreeSet::from(["a state that is rubbish is refused in words".to_owned()]);
    assert_eq!(cases(&trusting.json(), "failed"), only, "{}", trusting.out);
    // Memory runs full before the case is through.
    let leaky = bent("leaky").json();
    assert!(cases(&leaky, "warning").contains("20,000 decisions do not pile up memory"), "{leaky:#}");
    let lying = bent("lying");
    assert_eq!((lying.code, lying.json()["verdict"].as_str()), (Some(1), Some("failed")));
    let found = lying.json()["cases"][0]["found"].to_string();
    assert!(found.contains("a trial call failed: balance trapped: panicked at"), "{found}");
}

#[test]
fn what_is_no_policy_is_told_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("mine.wasm");
    fs::write(&file, "no policy").expect("it can be written");
    let said = policy(&["check", &file.display().to_string()]);
    assert_eq!(said.code, Some(1));
    assert!(said.out.starts_with("FAILED   it loads: not WebAssembly"), "{}", said.out);
    let said = policy(&["check", "no-such"]);
    assert_eq!(said.code, Some(2), "{}", said.err);
    assert!(said.err.contains("no policy `no-such`: expected canary, hash"), "{}", said.err);
}

fn scenario(folder: &Path, text: &str) -> String {
    let file = folder.join("scenario.toml");
    fs::write(&file, text).expect("it can be written");
    file.display().to_string()
}

#[test]
fn a_scenario_holds_or_says_what_does_not() {
    let example = "examples/policies/scenario.toml";
    let said = policy(&["test", example]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(said.out.contains("all holds"), "{}", said.out);
    let said = policy(&["test", example, "--policy", "random", "--json"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.json()["steps"][0]["wrong"][0].as_str().is_some_and(|text| text.starts_with("spread: w0 got "))
    );
    // The same each time.
    assert_eq!(policy(&["test", example, "--policy", "random", "--json"]).out, said.out);
    assert_ne!(policy(&["test", example, "--policy", "random", "--json", "--seed", "2"]).out, said.out);
}

#[test]
fn a_scenario_finds_what_a_chain_hides() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "
        [[step]]
        open = 10
        request = { target = '/{n}' }
        [[step]]
        open = 1
        request = { target = '/stranger' }
        [[step]]
        open = 1
        request = { target = '/panic' }
        [[step]]
        open = 1
        request = { target = '/refuse' }
        expect = 'refuse 429'
        [[step]]
        open = 1
        request = { target = '/defer' }
        expect = 'w0'";
    let hostile = guest("policy_hostile").display().to_string();
    let said = policy(&["test", &scenario(folder.path(), text), "--policy", &hostile, "--json"]);
    let wrong = |step: usize| said.json()["steps"][step]["wrong"][0].as_str().unwrap_or_default().to_owned();
    assert_eq!(said.code, Some(1));
    assert_eq!(wrong(0), "");
    assert_eq!(wrong(1), "policy_hostile: the policy answered worker 4294967295, which does not exist");
    assert!(
        wrong(2).starts_with("policy_hostile: the policy failed: balance trapped: panicked"),
        "{}",
        wrong(2)
    );
    assert_eq!(wrong(3), "");
    assert!(wrong(4).starts_with("expected w0, found w"), "{}", wrong(4));
}

#[test]
fn a_scenario_that_is_none_names_the_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = |text: &str| {
        let said = policy(&["test", &scenario(folder.path(), text)]);
        assert_eq!(said.code, Some(2), "{}{}", said.out, said.err);
        said.err
    };
    assert!(error("policy = 'random'\n[[step]]\nopne = 3").contains("unknown field `opne`"));
    assert!(error("[[step]]\nopen = 3").contains("names no policy"));
    assert!(error("policy = './none.wasm'\n[[step]]\nopen = 3").contains("none.wasm`: cannot read the file"));
}

#[test]
fn vectors_are_a_test_too() {
    let vectors = "policies/round-robin/vectors.json";
    let said = policy(&["test", vectors, "--policy", "round-robin"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(said.out.contains("answers as expected"), "{}", said.out);
    let said = policy(&["test", vectors, "--policy", "random"]);
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    assert!(said.out.contains("expected Worker("), "{}", said.out);
}

#[test]
fn a_benchmark_measures_what_it_names() {
    let words = ["bench", "tagged-sid", "--workers", "2,64", "--time", "20ms", "--json"];
    let figures = policy(&words).json()["figures"].clone();
    assert_eq!((&figures[0]["workers"], &figures[1]["workers"]), (&Value::from(2), &Value::from(64)));
    for row in figures.as_array().expect("rows") {
        for column in ["balance_ns", "balance_p99_ns", "native_ns", "find_ns", "fuel", "memory_bytes"] {
            assert!(row[column].as_f64().is_some_and(|number| number > 0.0), "{column}: {row}");
        }
    }
    let hostile = format!("{}{{\"bent\": \"lying\"}}", guest("policy_hostile").display());
    assert_eq!(policy(&["bench", &hostile]).code, Some(2));
}

#[test]
fn a_simulation_compares_policies_on_the_same_traffic() {
    let folder = tempfile::tempdir().expect("a folder");
    let svg = folder.path().join("balance.svg").display().to_string();
    let simulate = |more: &[&str]| {
        let words = ["simulate", "least-connection", "random", "--for", "2m", "--session", "10s", "--json"];
        policy(&[&words, more].concat())
    };
    let said = simulate(&["--svg", &svg]);
    let policies = said.json()["policies"].clone();
    let uneven = |at: usize| policies[at]["busiest_to_mean"]["mean"].as_f64().expect("a number");
    assert!(uneven(0) < 1.02 && uneven(1) > uneven(0) + 0.02, "{policies:#}");
    let opened = |at: usize| -> u64 {
        policies[at]["opened"].as_object().expect("workers").values().filter_map(Value::as_u64).sum()
    };
    assert_eq!(opened(0), opened(1));
    assert!((5000..7000).contains(&opened(0)), "50 a second for two minutes: {}", opened(0));
    assert_eq!(simulate(&[]).out, said.out, "the same each time");
    assert_ne!(simulate(&["--seed", "2"]).out, said.out);
    let drawn = fs::read_to_string(svg).expect("a drawing");
    assert!(drawn.starts_with("<svg") && drawn.contains("least-connection"));

    let killed = simulate(&["--kill", "w1@1m"]).json();
    assert!(killed["policies"][0]["lost"].as_u64().is_some_and(|lost| lost > 50), "{killed:#}");
    let unknown = simulate(&["--kill", "w9@1m"]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.err.contains("there is no worker `w9`: there are w0, w1, w2, w3"), "{}", unknown.err);
}
