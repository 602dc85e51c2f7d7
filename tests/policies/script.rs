//! Policies as JavaScript: every part of what scripts can do, and everything that can go wrong.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sidetrack::policy::{
    Answer, Carried, Chain, Event, Limits, LinkName, PolicyLink, PolicySource, Replacement, SessionOwner,
    Settings, Watch,
};
use sidetrack::types::{Decision, Refusal, Roster, WorkerId, WorkerInfo};

use crate::support::{request, roster};

/// A script in a file, loaded as the only link of a chain.
struct Script {
    folder: tempfile::TempDir,
    chain: Arc<Chain>,
    roster: Roster,
}

fn link(path: PathBuf, options: &str) -> PolicyLink {
    PolicyLink { source: PolicySource::File(path), options: options.to_owned() }
}

/// Why a script is not loaded.
fn refused(text: &str, options: &str) -> String {
    match Script::load(text, options, Limits::default()) {
        Ok(_) => panic!("it is loaded: {text}"),
        Err(error) => {
            assert_eq!(error.lines().count(), 1, "{error}");
            error.split_once("/mine.js`: ").map(|(_, said)| said.to_owned()).unwrap_or(error)
        }
    }
}

impl Script {
    fn load(text: &str, options: &str, limits: Limits) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.js");
        fs::write(&path, text).unwrap();
        let owner: Arc<dyn SessionOwner> = Arc::new(|sid: &str| (sid == "s-1").then_some(WorkerId(6)));
        let settings = Settings { limits, ..Settings::default() };
        let chain =
            Chain::build(&[link(path, options)], &settings, &owner).map_err(|error| error.to_string())?;
        chain.listen(true);
        Ok(Self { folder, chain: Arc::new(chain), roster: roster(1, [5, 6, 7]) })
    }

    fn new(text: &str) -> Self {
        // Any number of faults is forgiven.
        let limits = Limits { faults: usize::MAX, ..Limits::default() };
        Self::load(text, "{}", limits).unwrap_or_else(|error| panic!("{error}"))
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("mine.js")
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
    }

    /// Loads the file again.
    fn reload(&self) -> Result<Carried, String> {
        match self.chain.reload("mine.js") {
            Ok(swapped) => Ok(swapped.expect("it has changed").state),
            Err(error) => Err(error.to_string()),
        }
    }

    fn ask(&self, loads: &[u32], head: &str) -> Answer {
        self.chain.balance(&self.roster, loads, &mut request(head))
    }

    fn plain(&self) -> Answer {
        let loads = vec![0; self.roster.workers.len()];
        self.ask(&loads, "GET / HTTP/1.1\r\n\r\n")
    }

    /// The worker it chooses.
    fn pick(&self, loads: &[u32]) -> u32 {
        worker(&self.ask(loads, "GET / HTTP/1.1\r\n\r\n"))
    }

    /// What it says by refusing.
    fn says(&self, head: &str) -> String {
        match self.ask(&[0; 3], head).decision {
            Decision::Refuse(refusal) => refusal.reason,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    /// Why it failed.
    fn fault(&self) -> String {
        let answer = self.plain();
        assert_eq!(answer.link, LinkName::Last, "{answer:?}");
        let why = answer.explanation.unwrap_or_default();
        why.strip_prefix("the policy failed: ").unwrap_or_else(|| panic!("{why}")).to_owned()
    }
}

fn worker(answer: &Answer) -> u32 {
    match (&answer.decision, answer.link) {
        (Decision::Worker(id), LinkName::Link(0)) => id.0,
        _ => panic!("expected a worker, got {answer:?}"),
    }
}

/// A script that refuses with what an expression comes to.
fn saying(expression: &str) -> String {
    format!(
        "export function balance(workers, request) {{ return refuse(500, {{ text: String({expression}) }}); }}"
    )
}

#[test]
fn a_worker_is_named_in_any_way() {
    let script = Script::new(
        "let turn = 0;
         export function balance(workers) {
           const answers = [workers[1], 7, 'w5', { ...workers[2] }, undefined, null, workers.find(w => w.name === 'w6')];
           return answers[turn++ % answers.length];
         }",
    );
    // The trial was on another instance.
    let picks: Vec<_> = (0..7).map(|_| script.plain()).collect();
    let decided: Vec<_> =
        picks.iter().filter(|answer| answer.link == LinkName::Link(0)).map(worker).collect();
    assert_eq!(decided, [6, 7, 5, 7, 6]);
    assert_eq!((picks[4].link, picks[5].link), (LinkName::Last, LinkName::Last));
    assert_eq!(script.chain.counts().faults.total(), 0);
}

#[test]
fn workers_have_what_the_roster_says() {
    let mut script = Script::new(&saying(
        "JSON.stringify(workers) + workers.map(w => w.labels.zone) + Object.keys(workers[0].labels)",
    ));
    let labels = [("zone", "eu"), ("constructor", "x"), ("zone", "us")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let first = WorkerInfo { weight: 3, draining: true, labels, ..crate::support::worker(5) };
    script.roster = Roster { version: 2, workers: Arc::new([first, crate::support::worker(6)]) };
    let answer = script.ask(&[4, 9], "GET / HTTP/1.1\r\n\r\n");
    let Decision::Refuse(Refusal { reason, .. }) = answer.decision else { panic!("{answer:?}") };
    assert!(
        reason.starts_with(
            r#"[{"id":5,"name":"w5","weight":3,"draining":true,"labels":{"zone":"eu","constructor":"x"},"load":4},{"id":6,"#
        ),
        "{reason}"
    );
    assert!(reason.ends_with(r#""labels":{},"load":9}]eu,zone,constructor"#), "{reason}");
}

#[test]
fn loads_are_up_to_date_and_workers_keep_their_objects() {
    let mut script = Script::new(
        "const seen = new Map();
         export function balance(workers) {
           for (const worker of workers) seen.set(worker, (seen.get(worker) ?? 0) + 1);
           const best = workers.reduce((a, b) => (b.load < a.load ? b : a));
           explain([...seen].map(([worker, times]) => worker.name + times).join());
           return best;
         }",
    );
    assert_eq!([[3, 2, 1], [0, 2, 1], [9, 0, 9]].map(|loads| script.pick(&loads)), [7, 5, 6]);
    // w5 goes, w8 comes, the others have moved up.
    script.roster = roster(2, [6, 7, 8]);
    let answer = script.ask(&[1, 0, 1], "GET / HTTP/1.1\r\n\r\n");
    assert_eq!(worker(&answer), 7);
    assert_eq!(answer.explanation.as_deref(), Some("w53,w64,w74,w81"));
}

/// The host grants so much for each worker of a roster, whatever their number.
#[test]
fn large_rosters_stay_within_their_budget() {
    let limits = Limits { decision_fuel: 400_000, ..Limits::default() };
    let mut script = Script::load("export const balance = workers => workers.at(-1);", "{}", limits).unwrap();
    for (version, ids) in [(2, 0..2000), (3, 1..2001), (4, 1000..3000)] {
        let last = ids.end - 1;
        script.roster = roster(version, ids);
        assert_eq!(script.pick(&vec![0; script.roster.workers.len()]), last);
    }
    assert_eq!(script.chain.counts().faults.total(), 0);
}

#[test]
fn workers_cannot_be_changed() {
    for (attempt, expected) in [
        ("workers[0].load = 7", "'load' is read-only"),
        ("workers[0].labels.zone = 'x'", "object is not extensible"),
        ("workers.reverse()", "read-only"),
        ("workers.pop()", ""),
        ("request.path = '/'", ""),
    ] {
        let script = Script::new(&format!(
            "export function balance(workers, request) {{\n  if (request.query('x'))\n    {attempt};\n  return workers[0];\n}}"
        ));
        let answer = script.ask(&[0; 3], "GET /?x=1 HTTP/1.1\r\n\r\n");
        let why = answer.explanation.clone().unwrap_or_default();
        assert!(
            why.contains("mine.js:3:") && why.contains("TypeError: ") && why.contains(expected),
            "{attempt}: {why}"
        );
        assert_eq!(script.pick(&[0, 0, 0]), 5);
    }
}

#[test]
fn the_request_is_read_lazily_and_whole() {
    let fields = "[request.method, request.path, request.query('a b'), request.header('x-zone'), request.header('none'), \
                  request.cookie('user'), request.peer, request.session, request.isUpgrade, request.attempt].join('|')";
    let script = Script::new(&saying(fields));
    let mut full = request(
        "POST /seen?x=1&a+b=c%20d%26 HTTP/1.1\r\nHost: h\r\nx-zone: eu\r\nCookie: a=b; user=c%2Dd\r\nUpgrade: websocket\r\n\r\n",
    );
    full.peer = Some("[::ffff:192.0.2.7]:4711".parse().expect("an address"));
    full.session = Some("s-1".into());
    full.attempt = 2;
    let answer = script.chain.balance(&script.roster, &[0; 3], &mut full);
    let Decision::Refuse(Refusal { reason, .. }) = answer.decision else { panic!("{answer:?}") };
    assert_eq!(reason, "POST|/seen|c d&|eu||c-d|192.0.2.7|s-1|true|2");
    assert_eq!(script.says("GET / HTTP/1.1\r\n\r\n"), "GET|/|||||||false|0");
    let script = Script::new(&saying("typeof request.query('x') + typeof request.session"));
    assert_eq!(script.says("GET / HTTP/1.1\r\n\r\n"), "undefinedundefined");
}

#[test]
fn there_is_no_request_outside_a_decision() {
    let script = Script::new(
        "let kept;
         export function balance(workers, request) { kept = request; return workers[0]; }
         export function workerFailed(worker) {
           try { kept.path } catch (error) { log(error); store.set('error', `${error}`) }
         }
         export function find(sid) { return refuse(500, { text: store.get('error') }) }",
    );
    script.plain();
    script.chain.notice(Event::WorkerFailed { worker: WorkerId(5) });
    let answer = script.chain.find("x", &script.roster, &[0; 3], &mut request("GET / HTTP/1.1\r\n\r\n"));
    let Decision::Refuse(refusal) = answer.decision else { panic!("{answer:?}") };
    assert_eq!(refusal.reason, "TypeError: there is no request outside `balance` and `find`");
}

#[test]
fn refusals_are_checked_where_they_are_made() {
    let script = Script::new("export const balance = () => refuse(429, { retryAfter: 6.2, text: 'later' });");
    let Decision::Refuse(refusal) = script.plain().decision else { panic!("a refusal") };
    assert_eq!((refusal.status, refusal.retry_after, &*refusal.reason), (429, Some(7), "later"));
    let script = Script::new("export const balance = () => refuse(503);");
    let Decision::Refuse(refusal) = script.plain().decision else { panic!("a refusal") };
    assert_eq!((refusal.status, refusal.retry_after, &*refusal.reason), (503, None, ""));
    for (wrong, expected) in [
        ("refuse(200)", "RangeError: refuse: expected a status from 400 to 599"),
        ("refuse()", "RangeError: refuse: expected a status from 400 to 599"),
        (
            "refuse(500, 'no')",
            "TypeError: refuse: expected an object such as { retryAfter: 5, text: 'later' }",
        ),
    ] {
        let error = refused(&format!("export const balance = () =>\n  {wrong};"), "{}");
        assert!(error.starts_with("a trial call failed: balance trapped: mine.js:2:"), "{error}");
        assert!(error.ends_with(expected), "{error}");
    }
}

#[test]
fn an_answer_nobody_can_use_is_an_error_that_says_so() {
    for (answer, found) in [
        ("true", "true"),
        ("({ worker: 5 })", r#"{"worker":5}"#),
        ("-1", "-1"),
        ("1.5", "1.5"),
        ("workers", r#"[{"id":0,"#),
        ("balance", "something else"),
    ] {
        let error =
            refused(&format!("// One.\nexport function balance(workers) {{ return {answer}; }}"), "{}");
        assert!(error.contains(&format!("mine.js:2:8: `balance` returned {found}")), "{answer}: {error}");
    }
    let error = refused("export async function balance(workers) { return workers[0]; }", "{}");
    assert!(
        error.ends_with(
            "mine.js:1:7: `balance` returned a promise: policies answer at once, without async or await"
        ),
        "{error}"
    );
}

#[test]
fn a_worker_that_does_not_exist_is_a_bad_answer() {
    let script = Script::new(
        "let turn = 0; export const balance = workers => turn++ ? ['w99', 99, { id: 99 }][turn - 2] : workers[0];",
    );
    script.plain();
    for why in [
        "the policy answered worker 4294967295, which does not exist; it said: mine.js: no worker is named `w99`",
        "the policy answered worker 99, which does not exist",
        "the policy answered worker 99, which does not exist",
    ] {
        let answer = script.plain();
        assert_eq!((answer.link, answer.explanation.as_deref()), (LinkName::Last, Some(why)));
    }
    let counts = script.chain.counts();
    assert_eq!((counts.bad_answers, counts.faults.total()), (3, 0));
}

#[test]
fn what_does_not_load_is_told_with_its_line() {
    for (text, expected) in [
        (
            "export function balance() {\n  return }\n}",
            "mine.js:3:1: SyntaxError: unexpected token in expression: '}'",
        ),
        (
            "let x = 1;\nx.y.z;\nexport const balance = () => {};",
            "mine.js:2:1: TypeError: cannot read property 'z' of undefined",
        ),
        ("\nthrow new RangeError('no\\nway');", "mine.js:2:11: RangeError: no; way"),
        ("throw 'a string';", "mine.js: thrown: a string"),
        ("", "mine.js: expected `export function balance(workers, request)`, found no export"),
        (
            "export function blance() {} export default 1;",
            "mine.js: expected `export function balance(workers, request)`, found blance, default",
        ),
        (
            "export const balance = () => {}; export function session_opened() {}",
            "mine.js: the export `session_opened` is never called: it should be `sessionOpened`",
        ),
        ("export const balance = 5;", "mine.js: the export `balance` is no function"),
        ("export const balance = () => {}, schema = 5;", "mine.js: the export `schema` is no string"),
        (
            "export const balance = () => {}, save = () => 1;",
            "mine.js: `save` and `restore` only make sense together: export both",
        ),
        (
            "import fs from 'fs'; export const balance = () => {};",
            "mine.js: ReferenceError: could not load module 'fs'",
        ),
        (
            "await new Promise(() => {}); export const balance = () => {};",
            "mine.js: it waits at top level for something that never comes",
        ),
        (
            "await null; null.x; export const balance = () => {};",
            "mine.js:1:12: TypeError: cannot read property 'x' of null",
        ),
        ("std.exit(); export const balance = () => {};", "mine.js:1:1: ReferenceError: std is not defined"),
        ("for (;;) {}", "mine.js:1:1: it takes too long, perhaps for ever"),
        (
            "export function balance(workers) {\n  return workers[0].labels.zone.length;\n}",
            "a trial call failed: balance trapped: mine.js:2:10: TypeError: cannot read property 'length' of undefined",
        ),
        (
            "export const balance = () => {}, restore = () => { throw new Error('not mine') }, save = () => 1;",
            "`restore` refused what `save` had just returned: mine.js:1:62: Error: not mine",
        ),
    ] {
        assert_eq!(refused(text, "{}"), expected, "{text}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.js");
    let nobody: Arc<dyn SessionOwner> = Arc::new(|_: &str| None);
    for (bytes, expected) in [
        (&b"// one\n// \xff\n"[..], "not a script: expected text in UTF-8, found other bytes in line 2"),
        (b"\0", "mine.js: a script is text, and here is a zero byte"),
        (&[b' '; (1 << 20) + 1], "a script may have 1048576 bytes, and this one has 1048577"),
    ] {
        fs::write(&path, bytes).unwrap();
        let error =
            Chain::build(&[link(path.clone(), "{}")], &Settings::default(), &nobody).unwrap_err().to_string();
        assert!(error.ends_with(&format!("mine.js`: {expected}")), "{error}");
    }
}

#[test]
fn options_reach_configure() {
    let text = "let key;
         export function configure(options) {
           if (typeof options.key !== 'string') throw new Error(`expected \"key\", found ${JSON.stringify(options)}`);
           key = options.key;
         }
         export function balance(workers, request) { return refuse(500, { text: key }) }";
    let script = Script::load(text, r#"{"key": "a\"b"}"#, Limits::default()).unwrap();
    assert_eq!(script.says("GET / HTTP/1.1\r\n\r\n"), "a\"b");
    assert_eq!(refused(text, r#"{"kee": 1}"#), r#"mine.js:3:105: Error: expected "key", found {"kee":1}"#);
    assert_eq!(
        refused("export const balance = () => {};", r#"{"a":1}"#),
        r#"mine.js: it takes no options, as it exports no `configure`; found {"a":1}"#
    );
    assert!(
        refused("export const balance = () => {}; export async function configure() {}", "{}")
            .contains("`configure` returned a promise")
    );
}

#[test]
fn exceptions_are_faults_with_a_place_and_the_next_call_works() {
    let script = Script::new(
        "let calls = 0;
export function balance(workers, request) {
  calls += 1;
  if (calls % 2 === 0)
    help(request.query('x'));
  return workers[0];
}
function help(text) {
  return text.length;
}
export const save = () => calls;
export function restore(state) { calls = state }",
    );
    assert_eq!(script.pick(&[0; 3]), 5);
    assert_eq!(
        script.fault(),
        "balance trapped: mine.js:9:10: TypeError: cannot read property 'length' of undefined"
    );
    assert_eq!(script.pick(&[0; 3]), 5, "the next instance");
    let counts = script.chain.counts();
    assert_eq!((counts.faults.trap, counts.rebuilds), (1, 1));
}

#[test]
fn runaway_scripts_are_stopped() {
    let script = Script::new(
        "export function balance(workers, request) {
           switch (request.query('do')) {
             case 'loop': for (;;) {}
             case 'catch': for (;;) { try { for (;;) {} } catch {} finally {} }
             case 'recurse': return (function again() { return again() + 1 })();
             case 'grow': { const all = []; for (;;) all.push('x'.repeat(1000) + all.length) }
             case 'double': { let text = 'x'; for (;;) text += text + '!' }
             case 'array': return new Array(1e9).fill(0);
             case 'buffer': return new ArrayBuffer(1e9);
             case 'regexp': return /^(a+)+$/.test('a'.repeat(40) + 'b');
             case 'jobs': { const again = () => Promise.resolve().then(again); again() }
             case 'ask': for (;;) request.header('x');
             case 'sort': for (;;) workers.toSorted(() => Math.random() - 0.5);
           }
           return workers[0];
         }",
    );
    for (what, expected) in [
        ("loop", "trapped: mine.js:2:28: it takes too long, perhaps for ever"),
        ("catch", "trapped: mine.js:2:28: it takes too long, perhaps for ever"),
        ("recurse", "trapped: mine.js:5:64: RangeError: Maximum call stack size exceeded"),
        ("grow", "used up its budget"),
        ("double", "trapped: mine.js:7:71: InternalError: string too long"),
        ("array", "used up its budget"),
        ("buffer", "trapped: mine.js:9:40: InternalError: out of memory"),
        ("regexp", "used up its budget"),
        ("jobs", "used up its budget"),
        ("ask", "used up its budget"),
        ("sort", "used up its budget"),
    ] {
        let answer = script.ask(&[0; 3], &format!("GET /?do={what} HTTP/1.1\r\n\r\n"));
        assert_eq!(answer.link, LinkName::Last, "{what}");
        let why = answer.explanation.unwrap_or_default();
        assert_eq!(why, format!("the policy failed: balance {expected}"), "{what}");
        assert_eq!(script.pick(&[0; 3]), 5, "after {what}");
    }
    let counts = script.chain.counts();
    assert_eq!(counts.faults.deadline, 0, "the clock is only a backstop");
    assert_eq!(counts.rebuilds, counts.faults.total());
}

#[test]
fn memory_is_bounded_and_a_script_may_notice() {
    // Fuel ends sooner than memory, so there must be more of it.
    let fuel = 1 << 40;
    let limits = Limits { decision_fuel: fuel, backstop: Duration::from_secs(100), ..Limits::default() };
    let text = "export function balance(workers, request) {
  const all = [];
  const grow = () => { for (;;) all.push('x'.repeat(1000) + all.length); };
  if (request.query('do') === 'grow') grow();
  if (request.query('do') === 'catch') try { grow() } catch {}
  if (request.query('do') === 'garbage') for (let i = 0; i < 1e5; i++) { const a = { i: new Array(100).fill(i) }; a.a = a }
  return refuse(500, { text: String(all.length) });
}";
    let script = Script::load(text, "{}", limits).unwrap();
    let ask = |what: &str| script.ask(&[0; 3], &format!("GET /?do={what} HTTP/1.1\r\n\r\n"));
    let why = ask("grow").explanation.unwrap_or_default();
    assert_eq!(why, "the policy failed: balance trapped: mine.js:3:46: InternalError: out of memory");
    let Decision::Refuse(refusal) = ask("catch").decision else { panic!("it goes on") };
    let megabytes = refusal.reason.parse::<u32>().unwrap() / 1000;
    assert!((9..13).contains(&megabytes), "of 16 MiB: {megabytes}");
    // 80 MB of cycles: they are collected.
    let answer = ask("garbage");
    assert!(matches!(answer.decision, Decision::Refuse(_)), "{answer:?}");
    assert_eq!(script.chain.counts().faults.total(), 1);
}

#[test]
fn helpers_choose_among_any_workers() {
    let mut script = Script::new(
        "export function balance(workers, request) {
           const some = request.query('zone') ? workers.filter(w => w.labels.zone === request.query('zone')) : workers;
           const key = request.query('key');
           return key ? byHash(some, key) : leastLoaded(some);
         }",
    );
    let zone = |id: u32, zone: &str| WorkerInfo {
        labels: vec![("zone".into(), zone.into())],
        draining: id == 4,
        ..crate::support::worker(id)
    };
    let workers = [zone(1, "eu"), zone(2, "us"), zone(3, "eu"), zone(4, "eu"), zone(5, "us")];
    script.roster = Roster { version: 2, workers: Arc::new(workers) };
    let ask = |loads: [u32; 5], query: &str| script.ask(&loads, &format!("GET /?{query} HTTP/1.1\r\n\r\n"));
    let least = |loads, query: &str| worker(&ask(loads, query));
    assert_eq!([(); 6].map(|()| least([1, 1, 1, 0, 1], "")), [1, 2, 3, 5, 1, 2], "equals in turn");
    assert_eq!(least([1, 1, 1, 0, 0], ""), 5);
    assert_eq!([(); 4].map(|()| least([1, 0, 1, 0, 0], "zone=eu")), [1, 3, 1, 3]);
    assert_eq!(least([1, 0, 2, 0, 0], "zone=eu"), 1);
    assert_eq!(ask([0; 5], "zone=mars").link, LinkName::Last, "none of none");
    assert_eq!(ask([0; 5], "zone=mars&key=a").link, LinkName::Last);

    // The same workers as those of the built-in policy, by the same key.
    let hash: PolicyLink = r#"hash{"key": "query:key"}"#.parse().unwrap();
    let nobody: Arc<dyn SessionOwner> = Arc::new(|_: &str| None);
    let hash = Chain::build(&[hash], &Settings::default(), &nobody).unwrap();
    let mut zones = std::collections::HashSet::new();
    for key in 0..50 {
        let query = format!("key=room-{key}");
        let picked = least([0; 5], &query);
        let head = format!("GET /?{query} HTTP/1.1\r\n\r\n");
        assert_eq!(
            Decision::Worker(WorkerId(picked)),
            hash.balance(&script.roster, &[0; 5], &mut request(&head)).decision
        );
        zones.insert(least([0; 5], &format!("{query}&zone=eu")));
    }
    assert_eq!(zones.len(), 2, "w1 and w3: {zones:?}");

    for (wrong, expected) in [
        ("leastLoaded()", "expected an array of workers"),
        ("leastLoaded('w1')", "expected an array of workers"),
        ("byHash(5, 'x')", "expected an array of workers"),
    ] {
        let error = refused(&format!("export const balance = () => {wrong};"), "{}");
        assert!(error.ends_with(expected), "{wrong}: {error}");
    }
}

#[test]
fn the_host_lends_what_the_contract_says() {
    let script = Script::new(
        "export function balance(workers, request) {
           switch (request.query('what')) {
             case 'owner': return sessionOwner('s-1') === workers[1] && sessionOwner('s-2') === undefined ? 'w6' : 'w5';
             case 'random': return refuse(500, { text: [random(), random(10), Math.random(), random(3)].join() });
             case 'now': { const a = now(); return refuse(500, { text: String(a > 0 && now() >= a && Date.now() <= now() && new Date().getFullYear()) }) }
             case 'explain': explain('because', { of: workers[0].id }, new Error('x'), 1n, undefined); return 5;
             case 'chatter': for (let i = 0; i < 50; i++) log('line', i); console.debug(1); return 5;
             case 'globals': return refuse(500, { text: [typeof std, typeof os, typeof setTimeout, typeof fetch, typeof require, typeof process, typeof performance].join() });
           }
         }",
    );
    let ask = |what: &str| script.ask(&[0; 3], &format!("GET /?what={what} HTTP/1.1\r\n\r\n"));
    let says = |what: &str| script.says(&format!("GET /?what={what} HTTP/1.1\r\n\r\n"));
    assert_eq!(worker(&ask("owner")), 6);
    let drawn = [1 << 63, u64::MAX / 2 + 1, u64::MAX, 0];
    let scripted = sidetrack_policy::native::Script { random: drawn.into(), ..Default::default() };
    let (numbers, _) = sidetrack_policy::native::scripted(scripted, || says("random"));
    assert_eq!(numbers, "0.5,5,0.9999999999999999,0");
    assert_eq!(says("now"), "1970");
    assert_eq!(ask("explain").explanation.as_deref(), Some("because {\"of\":5} Error: x 1 undefined"));
    assert_eq!(worker(&ask("chatter")), 5);
    assert_eq!(says("globals"), "undefined,undefined,undefined,undefined,undefined,undefined,undefined");
}

#[test]
fn the_store_keeps_json_and_numbers() {
    let script = Script::new(
        "export function balance(workers, request) {
           const key = request.query('key');
           switch (request.query('do')) {
             case 'get': return refuse(500, { text: JSON.stringify(store.get(key)) ?? 'nothing' });
             case 'set': return refuse(500, { text: store.set(key, JSON.parse(request.query('value'))) });
             case 'add': return refuse(500, { text: store.add(key) + store.add(key, 9) });
             case 'delete': store.delete(key); break;
             case 'crash': store.add('crashes'); null.x;
             case 'large': return refuse(500, { text: store.set('large', 'x'.repeat(20000)) });
             case 'wrong': return store.set('f', () => 1);
           }
           return workers[0];
         }",
    );
    let says = |query: &str| script.says(&format!("GET /?{query} HTTP/1.1\r\n\r\n"));
    let ask = |query: &str| script.ask(&[0; 3], &format!("GET /?{query} HTTP/1.1\r\n\r\n"));
    assert_eq!(says("do=get&key=a"), "nothing");
    // The second is eight bytes long, as counters are.
    for value in [r#"{"b":[1,"ü"]}"#, "12345678", "null", "false"] {
        assert_eq!(says(&format!("do=set&key=a&value={value}")), "true");
        assert_eq!(says("do=get&key=a"), value);
    }
    ask("do=delete&key=a");
    assert_eq!(says("do=get&key=a"), "nothing");
    assert_eq!((says("do=add&key=n"), says("do=get&key=n")), ("11".to_owned(), "10".to_owned()));
    ask("do=crash");
    assert_eq!(says("do=get&key=crashes"), "1");
    assert_eq!(says("do=large"), "false");
    let why = ask("do=wrong").explanation.unwrap_or_default();
    assert!(why.ends_with("TypeError: store.set: expected a value that JSON can hold"), "{why}");
}

#[test]
fn what_is_not_exported_is_not_asked_for() {
    let interfaces = |text: &str| Script::new(text).chain.describe().links[0].interfaces.clone();
    let balance = "export const balance = workers => workers[0];";
    assert_eq!(interfaces(balance), [""; 0]);
    assert_eq!(interfaces("export const find = () => {};"), ["sessions"]);
    assert_eq!(
        interfaces(&format!("{balance} export const save = () => 1, restore = () => {{}};")),
        ["state"]
    );
    assert_eq!(
        interfaces(&format!("{balance} export const save = () => 1, restore = () => {{}}, schema = 'a/1';")),
        ["state", "schema"]
    );
    assert_eq!(interfaces(&format!("{balance} export function workerFailed() {{}}")), ["events"]);

    let script = Script::new(balance);
    let answer = script.chain.find("s-1", &script.roster, &[0; 3], &mut request("GET / HTTP/1.1\r\n\r\n"));
    assert_eq!((answer.link, script.chain.counts().calls), (LinkName::Last, 0), "the table is asked at once");
}

#[test]
fn sessions_and_events_reach_the_script() {
    let script = Script::new(
        "const homes = new Map();
         export const sessionOpened = (sid, worker) => { homes.set(sid, worker) };
         export const sessionClosed = (sid, worker) => { if (worker.name === undefined || worker === homes.get(sid)) homes.delete(sid) };
         export const workerFailed = worker => { for (const [sid, home] of homes) if (home === worker) homes.delete(sid) };
         export function find(sid, workers, request) { return sid === 'no' ? refuse(410) : homes.get(sid) }",
    );
    let find =
        |sid: &str| script.chain.find(sid, &script.roster, &[0; 3], &mut request("GET / HTTP/1.1\r\n\r\n"));
    assert_eq!((find("a").decision, find("a").link), (Decision::Defer, LinkName::Link(0)));
    for (sid, id) in [("a", 5), ("b", 6), ("c", 6)] {
        script.chain.notice(Event::SessionOpened { sid, worker: WorkerId(id) });
    }
    assert_eq!((worker(&find("a")), worker(&find("b"))), (5, 6));
    script.chain.notice(Event::SessionClosed { sid: "a", worker: WorkerId(5) });
    script.chain.notice(Event::WorkerFailed { worker: WorkerId(6) });
    assert_eq!(
        ["a", "b", "c"].map(|sid| find(sid).decision),
        [Decision::Defer, Decision::Defer, Decision::Defer]
    );
    script.chain.notice(Event::SessionOpened { sid: "a", worker: WorkerId(5) });
    script.chain.notice(Event::SessionClosed { sid: "a", worker: WorkerId(99) });
    assert_eq!(find("a").decision, Decision::Defer, "a worker that is gone has only its id");
    assert!(matches!(find("no").decision, Decision::Refuse(Refusal { status: 410, .. })));
    // Without `balance` the next link decides.
    assert_eq!(script.plain().link, LinkName::Last);
    assert_eq!(script.chain.counts().faults.total(), 0);
}

const COUNTING: &str = "let calls = 0;
export const schema = 'calls/1';
export function balance(workers) { return workers[calls++ % workers.length] }
export const save = () => ({ calls });
export const restore = state => { calls = state.calls };
";

#[test]
fn state_goes_from_text_to_text() {
    let script = Script::new(COUNTING);
    assert_eq!([(); 4].map(|()| script.pick(&[0; 3])), [5, 6, 7, 5]);
    script.write(&format!("{COUNTING}// Changed.\n"));
    assert_eq!(script.reload(), Ok(Carried::Taken));
    assert_eq!(script.pick(&[0; 3]), 6, "it goes on where the one before was");

    // Another form, and one that reads this one.
    let another = COUNTING.replace("calls/1", "calls/2");
    script.write(&another);
    let error = script.reload().unwrap_err();
    assert!(error.contains("whose form is `calls/1`") && error.lines().count() == 1, "{error}");
    script.write(&format!("{another}export const reads = form => form.startsWith('calls/');\n"));
    assert_eq!(script.reload(), Ok(Carried::Taken));
    assert_eq!(script.pick(&[0; 3]), 7);
    script.write("export const balance = workers => workers[2], save = () => 1, reads = () => true; export function restore(state) {\n if (state !== 1) throw new Error('what?') }");
    let error = script.reload().unwrap_err();
    assert!(error.contains("it refused the state of the version before: mine.js:2:29: Error: what?; to begin without state use --discard-state"), "{error}");
    script.write("export const balance = workers => workers[2];");
    assert_eq!(script.reload(), Ok(Carried::Dropped));
    assert_eq!(script.pick(&[0; 3]), 7);
    let swapped = script.chain.roll_back(None).unwrap();
    assert_eq!((swapped.policy, script.pick(&[0; 3])), (script.path().display().to_string(), 5));

    // After an error the last saved state is there again.
    let limits = Limits { save_every: 2, ..Limits::default() };
    let failing = COUNTING
        .replace("return", "if (calls === 5 && !store.get('once')) { store.set('once', 1); null.x } return");
    let script = Script::load(&failing, "{}", limits).unwrap();
    let picks = [(); 5].map(|()| script.pick(&[0; 3]));
    assert_eq!(
        (picks, script.fault().as_str()),
        ([5, 6, 7, 5, 6], "balance trapped: mine.js:3:99: TypeError: cannot read property 'x' of null")
    );
    assert_eq!(script.pick(&[0; 3]), 6, "saved after four calls, the fifth is forgotten");
    assert_eq!(script.chain.counts().states_lost, 0);
}

#[test]
fn a_script_takes_the_place_of_a_component_and_back() {
    let script = Script::new("export const balance = workers => workers[1];");
    let by = |text: &str| Replacement { link: text.parse().unwrap(), discard_state: false, forgive: false };
    assert_eq!(script.chain.replace(None, &by("round-robin")).unwrap().state, Carried::Nothing);
    assert_eq!([(); 2].map(|()| script.pick(&[0; 3])), [5, 6]);
    script.write(COUNTING);
    let path = script.path();
    let error = script.chain.replace(None, &by(&path.display().to_string())).unwrap_err().to_string();
    assert!(error.contains("to begin without state use --discard-state"), "{error}");
    let discarding = Replacement { discard_state: true, ..by(&path.display().to_string()) };
    assert_eq!(script.chain.replace(Some("mine.js"), &discarding).unwrap().state, Carried::Discarded);
    assert_eq!(script.pick(&[0; 3]), 5);
    let description = script.chain.describe();
    assert!(
        description.links[0].script && description.to_string().starts_with("mine.js (script "),
        "{description}"
    );
}

#[test]
fn a_script_that_keeps_throwing_is_quarantined() {
    let script =
        Script::load("export const balance = workers => workers[1];", "{}", Limits::default()).unwrap();
    script.write("export function balance(workers, request) { if (request.path === '/x') throw new Error('no'); return workers[2] }");
    assert_eq!(script.reload(), Ok(Carried::Nothing));
    for _ in 0..5 {
        assert_eq!(script.ask(&[0; 3], "GET /x HTTP/1.1\r\n\r\n").link, LinkName::Last);
    }
    assert_eq!(script.pick(&[0; 3]), 6, "the version before has returned");
    let error = script.reload().unwrap_err();
    assert!(error.contains("was quarantined before; change it, or use --forgive"), "{error}");
}

#[test]
fn a_changed_text_is_loaded_and_a_broken_one_is_not() {
    let script = Script::new("export const balance = workers => workers[0];");
    let _watch = Watch::start(Arc::clone(&script.chain), true).unwrap();
    let until = |wanted: u32| {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while script.pick(&[0; 3]) != wanted {
            assert!(std::time::Instant::now() < deadline, "w{wanted} is never chosen");
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    script.write("export const balance = workers => workers[1];");
    until(6);
    script.write("export const balance = workers => workers[");
    script.write("export const balance = workers => workers[2];");
    until(7);
    assert!(script.chain.describe().links[0].generation >= 3);
}

/// Every script in `examples/policies/script` and in the documentation.
#[test]
fn the_examples_do_what_they_say() {
    let read = |name: &str| {
        fs::read_to_string(crate::support::root().join("examples/policies/script").join(name)).unwrap()
    };
    let zoned = |id: u32, tenant: &str| WorkerInfo {
        labels: vec![("tenant".into(), tenant.into())],
        ..crate::support::worker(id)
    };
    let workers =
        Roster { version: 9, workers: Arc::new([zoned(1, "acme"), zoned(2, "acme"), zoned(3, "")]) };

    let mut rooms = Script::new(&read("rooms.js"));
    rooms.roster = workers.clone();
    let of = |room: &str, loads: [u32; 3]| {
        worker(&rooms.ask(&loads, &format!("GET /socket.io/?room={room} HTTP/1.1\r\n\r\n")))
    };
    for room in ["blue", "red", "green"] {
        assert_eq!(of(room, [0; 3]), of(room, [9, 0, 3]), "a room has one worker");
    }
    assert_eq!(rooms.pick(&[3, 1, 2]), 2, "who is in no room goes where there is least to do");

    let mut tenants =
        Script::load(&read("tenants.js"), r#"{"header": "x-customer"}"#, Limits::default()).unwrap();
    tenants.roster = workers.clone();
    let ask = |head: &str| tenants.ask(&[1, 0, 0], &format!("GET / HTTP/1.1\r\n{head}\r\n"));
    assert_eq!(worker(&ask("X-Customer: acme\r\n")), 2);
    let answer = ask("X-Customer: nobody\r\n");
    assert!(
        matches!(&answer.decision, Decision::Refuse(Refusal { status: 503, retry_after: Some(5), .. })),
        "{answer:?}"
    );
    assert_eq!(ask("").link, LinkName::Last, "who is no tenant's is for the next policy");
    assert!(refused(&read("tenants.js"), r#"{"header": 5}"#).contains("expected a header's name"));

    let mut turns = Script::new(&read("round-robin.js"));
    turns.roster = workers.clone();
    assert_eq!([(); 4].map(|()| turns.pick(&[9, 0, 0])), [1, 2, 3, 1]);
    let mut least = Script::new(&read("least-connection.js"));
    least.roster = workers.clone();
    assert_eq!([[2, 1, 1], [1, 1, 0], [0, 0, 0]].map(|loads| least.pick(&loads)), [2, 3, 1]);

    let mut warm = Script::new(&read("warm-up.js"));
    warm.roster = workers;
    // All are new, and so all are equal; later w1 is known for long and takes its full share.
    let picks: Vec<_> = (0..30).map(|_| warm.pick(&[10, 0, 0])).collect();
    assert!(picks.iter().all(|&id| id != 1), "{picks:?}");
}

/// Whatever a script can call or read is in the documentation and in what editors are told.
#[test]
fn the_interface_is_documented() {
    let read = |path: &str| fs::read_to_string(crate::support::root().join(path)).unwrap();
    let api = read("policies/script/src/api.rs");
    let names: Vec<_> =
        api.split("native(Home::").skip(1).filter_map(|entry| entry.split('"').nth(1)).collect();
    assert!(names.len() > 25 && names.contains(&"isUpgrade"), "{names:?}");
    let (page, types) = (read("docs/policy-scripts.md"), read("examples/policies/script/sidetrack.d.ts"));
    for name in names {
        assert!(page.contains(name) && types.contains(name), "`{name}` is not documented");
    }
    // And so are the exports.
    let engine = read("policies/script/src/script.rs");
    for export in engine.split("function(\"").skip(1).filter_map(|entry| entry.split('"').next()) {
        assert!(page.contains(&format!("`{export}(")), "`{export}` is not documented");
    }
}
