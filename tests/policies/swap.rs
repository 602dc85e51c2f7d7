//! One version in another one's place: state, refusals, the way back, and chains of several links.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sidetrack::policy::{
    Answer, BuiltIn, Carried, Chain, Ending, LinkName, PolicyLink, PolicySource, Replacement, Request,
    SessionOwner, Settings, Watch,
};
use sidetrack::types::{Decision, Roster, WorkerId};

use crate::support::{guest, request, roster};

const HOSTILE: &str = "policy_hostile";

fn chain(links: &[&str]) -> Chain {
    chain_with(links, &Settings::default())
}

fn chain_with(links: &[&str], settings: &Settings) -> Chain {
    let nobody: Arc<dyn SessionOwner> = Arc::new(|_: &str| None);
    let links: Vec<PolicyLink> = links.iter().map(|text| link(text)).collect();
    Chain::build(&links, settings, &nobody).unwrap_or_else(|error| panic!("{error}"))
}

/// `hostile` stands for the hostile policy's file.
fn link(text: &str) -> PolicyLink {
    match text.strip_prefix("hostile") {
        Some(options) => PolicyLink {
            source: PolicySource::File(guest(HOSTILE)),
            options: if options.is_empty() { "{}".to_owned() } else { options.to_owned() },
        },
        None => text.parse().unwrap_or_else(|error| panic!("{error}")),
    }
}

fn by(text: &str) -> Replacement {
    Replacement { link: link(text), discard_state: false, forgive: false }
}

fn workers() -> Roster {
    roster(1, [1, 2, 3])
}

fn ask(chain: &Chain, path: &str) -> Answer {
    let mut request = request(&format!("GET {path} HTTP/1.1\r\n\r\n"));
    chain.balance(&workers(), &[0, 0, 0], &mut request)
}

fn worker(answer: &Answer) -> u32 {
    match answer.decision {
        Decision::Worker(WorkerId(id)) => id,
        ref other => panic!("expected a worker, got {other:?}"),
    }
}

fn text(answer: Answer) -> String {
    match answer.decision {
        Decision::Refuse(refusal) => refusal.reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_counter_goes_on_through_every_swap() {
    let chain = chain(&["round-robin"]);
    let mut turns = Vec::new();
    for swap in 0..30 {
        turns.push(worker(&ask(&chain, "/")));
        let swapped = chain.replace(None, &by("round-robin")).unwrap();
        assert_eq!((swapped.state, swapped.generation), (Carried::Taken, swap + 2));
    }
    let expected: Vec<u32> = (0..30).map(|turn| turn % 3 + 1).collect();
    assert_eq!(turns, expected);
    let status = &chain.describe().links[0];
    assert_eq!((status.counts.calls, status.counts.swaps), (30, 30));
    assert_eq!(status.history.len(), 16, "the latest are remembered");
    assert_eq!(status.history[0].generation, 30);
}

#[test]
fn whatever_is_wrong_keeps_the_old_one() {
    let chain = chain(&["round-robin"]);
    assert_eq!(worker(&ask(&chain, "/")), 1);
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.wasm");
    fs::write(&cut, &BuiltIn::Random.wasm()[..1000]).unwrap();
    for (wrong, reason) in [
        (format!("{}", cut.display()), "cut short"),
        ("/nowhere.wasm".to_owned(), "cannot read the file"),
        ("hostile5".to_owned(), "refused the options: I know no option 5"),
        ("hostile\"panic\"".to_owned(), "on purpose, while configuring"),
        ("hostile".to_owned(), "four bytes, please; to begin without state use --discard-state"),
    ] {
        let error = chain.replace(None, &by(&wrong)).unwrap_err().to_string();
        assert!(error.contains(reason) && error.lines().count() == 1, "{wrong}: {error}");
    }
    let answer = ask(&chain, "/");
    assert_eq!((worker(&answer), answer.generation), (2, 1), "with its counter");

    let error = chain.replace(Some("nobody"), &by("random")).unwrap_err().to_string();
    assert_eq!(error, "there is no link `nobody`: the chain is round-robin");
    let error = chain.roll_back(None).unwrap_err().to_string();
    assert_eq!(error, "the link `round-robin` has no version before that could return");
    let error = self::chain(&["native:random"]).replace(None, &by("random")).unwrap_err().to_string();
    assert_eq!(error, "there is no link `1`: the chain is random (native)");
}

#[test]
fn the_form_of_a_state_is_asked_about_before() {
    let chain = chain(&["hostile"]);
    for _ in 0..9 {
        ask(&chain, "/");
    }
    let error = chain.replace(None, &by("hostile\"another form\"")).unwrap_err().to_string();
    assert!(error.contains("whose form is `calls/1`") && error.contains("--discard-state"), "{error}");
    assert!(error.ends_with("policy_hostile.wasm) stays"), "{error}");
    let error = chain.replace(None, &by("hostile\"small states\"")).unwrap_err().to_string();
    assert!(
        error.contains("refused the state of the version before: 9 calls are too many for me"),
        "{error}"
    );
    assert!(text(ask(&chain, "/self")).starts_with("calls 10,"), "the state before is untouched");

    let discarding = Replacement { discard_state: true, ..by("hostile\"another form\"") };
    assert_eq!(chain.replace(None, &discarding).unwrap().state, Carried::Discarded);
    assert!(text(ask(&chain, "/self")).starts_with("calls 1,"));
    assert_eq!(chain.replace(None, &by("random")).unwrap().state, Carried::Dropped);
    assert_eq!(chain.replace(None, &by("round-robin")).unwrap().state, Carried::Nothing);
}

#[test]
fn the_store_outlives_traps_and_versions() {
    let chain = chain(&["hostile"]);
    assert_eq!(text(ask(&chain, "/remember")), "1");
    assert_eq!(ask(&chain, "/remember-and-panic").link, LinkName::Last);
    assert_eq!(text(ask(&chain, "/remember")), "3");
    chain.replace(None, &by("hostile")).unwrap();
    assert_eq!(text(ask(&chain, "/remember")), "4");
    let fitting: usize = text(ask(&chain, "/overfill")).parse().unwrap();
    assert!((60..=64).contains(&fitting), "1 MiB of 16 KiB each: {fitting}");
    let (keys, bytes) = chain.describe().links[0].stored;
    assert!(keys == fitting + 1 && bytes <= 1 << 20, "{keys} keys, {bytes} bytes");
}

#[test]
fn a_version_that_keeps_failing_is_quarantined_and_the_last_good_one_returns() {
    let chain = chain(&["round-robin"]);
    assert_eq!(worker(&ask(&chain, "/")), 1);
    let discarding = Replacement { discard_state: true, ..by("hostile") };
    chain.replace(None, &discarding).unwrap();
    for _ in 0..5 {
        assert_eq!(ask(&chain, "/loop").link, LinkName::Last, "traffic goes on");
    }
    let answer = ask(&chain, "/loop");
    assert_eq!((worker(&answer), answer.link, answer.generation), (2, LinkName::Link(0), 3));
    let status = &chain.describe().links[0];
    assert!(status.in_service && status.policy == "round-robin");
    assert_eq!((status.counts.quarantines, status.counts.rollbacks), (1, 1));
    let Ending::Quarantined(reason) = &status.history[0].ending else { panic!("{:?}", status.history[0]) };
    assert_eq!(reason, "5 faults within 10s, the last: balance used up its budget");

    let error = chain.replace(None, &discarding).unwrap_err().to_string();
    assert!(error.contains("was quarantined before; change it, or use --forgive"), "{error}");
    let forgiving = Replacement { forgive: true, ..discarding };
    assert_eq!(chain.replace(None, &forgiving).unwrap().generation, 4);
}

#[test]
fn a_failed_trial_brings_the_version_before_back() {
    // Loads that only get steeper while the new version serves.
    let chain = chain(&["round-robin"]);
    let eight = roster(1, 0..8);
    let mut request = Request::default();
    let mut balance = |high: u32| {
        let loads = [high, 10, 10, 10, 10, 10, 10, 10];
        chain.balance(&eight, &loads, &mut request).generation
    };
    chain.replace(None, &by("round-robin")).unwrap();
    assert!(chain.describe().links[0].trial.is_some());
    assert!((0..250).all(|_| balance(10) == 2), "nothing is wrong");
    assert_eq!(balance(200), 2);
    assert_eq!(balance(200), 3, "the version before, with the next generation");
    let past = chain.describe().links[0].history[0].clone();
    assert_eq!(past.generation, 2);
    let Ending::RolledBack(reason) = past.ending else { panic!("{past:?}") };
    assert!(reason.contains("times the mean load"), "{reason}");

    // Without a trial nobody watches.
    let settings = Settings { trial: Duration::ZERO, ..Settings::default() };
    let chain = chain_with(&["round-robin"], &settings);
    chain.replace(None, &by("round-robin")).unwrap();
    let steep = |high| chain.balance(&eight, &[high, 10, 10, 10, 10, 10, 10, 10], &mut Request::default());
    steep(10);
    assert!((0..300).all(|_| steep(500).generation == 2));
}

#[test]
fn somebody_may_want_the_version_before_back() {
    let chain = chain(&["round-robin"]);
    ask(&chain, "/");
    chain.replace(None, &by("round-robin")).unwrap();
    ask(&chain, "/");
    let swapped = chain.roll_back(None).unwrap();
    assert_eq!((swapped.generation, swapped.state), (3, Carried::Taken));
    assert_eq!(worker(&ask(&chain, "/")), 3, "with the present state");
    assert!(chain.roll_back(None).is_err(), "there is nothing before it");
}

#[test]
fn a_version_that_returns_takes_no_state_of_another_form() {
    let chain = chain(&["hostile"]);
    for _ in 0..9 {
        ask(&chain, "/");
    }
    let discarding = Replacement { discard_state: true, ..by("hostile\"another form\"") };
    chain.replace(None, &discarding).unwrap();
    ask(&chain, "/");
    // The present state is of form calls/2, which the first version does not read.
    assert_eq!(chain.roll_back(None).unwrap().state, Carried::Own);
    assert!(text(ask(&chain, "/self")).starts_with("calls 10,"));
    // Nothing of either state is of use to one that keeps none.
    let chain = self::chain(&["random"]);
    chain.replace(None, &by("round-robin")).unwrap();
    ask(&chain, "/");
    assert_eq!(chain.roll_back(None).unwrap().state, Carried::Dropped);
}

#[test]
fn a_chain_asks_one_after_another() {
    let chain = chain(&["hostile", "round-robin"]);
    let description = chain.describe();
    let names: Vec<_> = description.links.iter().map(|link| link.name.as_str()).collect();
    assert_eq!(names, ["policy_hostile", "round-robin"]);
    assert_eq!((description.links[1].generation, description.fallback), (2, BuiltIn::RoundRobin));

    assert_eq!(ask(&chain, "/").link, LinkName::Link(0));
    for (path, turn) in [("/defer", 1), ("/panic", 2), ("/stranger", 3)] {
        let answer = ask(&chain, path);
        assert_eq!((worker(&answer), answer.link, answer.generation), (turn, LinkName::Link(1), 2), "{path}");
    }
    let swapped = chain.replace(Some("round-robin"), &by("random")).unwrap();
    assert_eq!(
        (swapped.link.as_str(), swapped.policy.as_str(), swapped.generation),
        ("round-robin", "random", 3)
    );
    assert_eq!(ask(&chain, "/").generation, 1, "the other link is as it was");

    let explained = chain.explain(&workers(), &[0; 3], &mut request("GET /panic HTTP/1.1\r\n\r\n"));
    let steps: Vec<_> =
        explained.steps.iter().map(|step| (step.link.as_str(), step.decision.is_some())).collect();
    assert_eq!(steps, [("policy_hostile", false), ("round-robin", true)]);
    let said = explained.steps[0].explanation.as_deref().unwrap();
    assert!(said.starts_with("the policy failed: balance trapped: panicked at"), "{said}");
    assert!(ask(&chain, "/").steps.is_empty(), "nobody listens any more");
}

#[test]
fn links_of_one_name_are_told_apart_and_natives_take_part() {
    let chain = chain(&["round-robin", "native:round-robin", "round-robin", "least-connection"]);
    let names: Vec<_> = chain.describe().links.into_iter().map(|link| link.name).collect();
    assert_eq!(names, ["round-robin", "round-robin-2", "round-robin-3", "least-connection"]);
    let error = chain.replace(Some("round-robin-2"), &by("random")).unwrap_err().to_string();
    assert_eq!(error, "the link `round-robin-2` is native and cannot be replaced");
}

/// A file in a folder of its own, replaced as editors and deployments do.
struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl File {
    fn new(bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.wasm");
        fs::write(&path, bytes).unwrap();
        Self { _folder: folder, path }
    }

    fn rename_over(&self, bytes: &[u8]) {
        let new = self.path.with_extension("new");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, &self.path).unwrap();
    }
}

fn watched(path: &Path, follow: bool) -> (Arc<Chain>, Watch) {
    let chain = Arc::new(chain(&[&path.display().to_string()]));
    let watch = Watch::start(Arc::clone(&chain), follow).unwrap();
    (chain, watch)
}

/// Asks for as long as generation `before` answers; the first of another.
fn next(chain: &Chain, before: u64) -> Answer {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = ask(chain, "/");
        if answer.generation != before {
            return answer;
        }
        assert!(Instant::now() < deadline, "generation {before} stays");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_changed_file_is_loaded_however_it_changes() {
    let [robin, least, random] =
        [BuiltIn::RoundRobin, BuiltIn::LeastConnection, BuiltIn::Random].map(BuiltIn::wasm);
    let file = File::new(robin);
    let (chain, _watch) = watched(&file.path, true);
    file.rename_over(least);
    assert_eq!(next(&chain, 1).generation, 2);
    fs::write(&file.path, random).unwrap();
    assert_eq!(next(&chain, 2).generation, 3);
    // Gone for a while, then back; garbage in between changes nothing.
    fs::remove_file(&file.path).unwrap();
    fs::write(&file.path, b"garbage").unwrap();
    file.rename_over(robin);
    assert_eq!(next(&chain, 3).generation, 4);
    assert_eq!(chain.describe().links[0].history.len(), 3);
}

#[test]
fn a_file_is_looked_at_again_when_asked() {
    let file = File::new(BuiltIn::RoundRobin.wasm());
    let (chain, watch) = watched(&file.path, false);
    file.rename_over(BuiltIn::Random.wasm());
    watch.again();
    assert_eq!(next(&chain, 1).generation, 2);
}
