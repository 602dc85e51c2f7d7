//! The admin interface over TCP: who may ask, what is answered, and that its description is true.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{
    Client, Place, Response, Sidetrack, admin, check, eventually, get, poll_session, root, sidetrack, worker,
};

pub const TOKEN: &str = "a-token-that-only-tests-know";

/// An admin interface on a port of the system's choice.
pub struct Over {
    pub token_file: String,
    token: bool,
}

impl Over {
    /// That asks for [`TOKEN`].
    pub fn with_token(folder: &Path) -> Self {
        let path = folder.join("token");
        fs::write(&path, format!("{TOKEN}\n")).expect("it can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        Self { token_file: path.display().to_string(), token: true }
    }

    fn open() -> Self {
        Self { token_file: String::new(), token: false }
    }

    pub fn words(&self) -> Vec<&str> {
        let words = ["--admin-listen", "127.0.0.1:0", "--admin-token-file", &self.token_file];
        words[..if self.token { 4 } else { 2 }].to_vec()
    }

    #[track_caller]
    pub fn address(&self, running: &Sidetrack) -> SocketAddr {
        let log = running.log();
        let line = log.lines().find(|line| line.contains("admin interface over TCP")).expect("it is said");
        let line: Value = serde_json::from_str(line).expect("JSON");
        let page = line["page"].as_str().expect("an address").trim_start_matches("http://");
        page.trim_end_matches('/').parse().expect("an address")
    }
}

/// One request with these headers.
#[track_caller]
fn ask(address: SocketAddr, method: &str, target: &str, headers: &[&str], body: &str) -> Response {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    Client::connect(address).exchange(format!(
        "{method} {target} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    ))
}

const JSON: &str = "Content-Type: application/json";

#[test]
fn beyond_this_machine_a_token_is_needed() {
    let complaint = |words: &[&str]| {
        let (code, said) = check(&[words, &["--", "true"]].concat());
        assert_eq!(code, Some(2), "{said}");
        assert_eq!(said.lines().count(), 1, "one line: {said}");
        said
    };
    for address in ["0.0.0.0:9000", "[::]:9000", "192.0.2.1:9000"] {
        let said = complaint(&["--admin-listen", address]);
        assert!(
            said.contains(&format!("admin-listen: {address} can be reached from other machines")),
            "{said}"
        );
        assert!(said.contains("admin-token-file") && said.contains("127.0.0.1:9000"), "the way out: {said}");
    }
    let stopped = sidetrack(vec!["true".into()]).with(&["--admin-listen", "0.0.0.0:0"]).finish();
    assert_eq!(stopped.code, Some(2));
    assert!(!stopped.log.contains("worker started"), "{}", stopped.log);

    for address in ["localhost", "9000", ":9000", "example.org:9000", "127.0.0.1"] {
        let said = complaint(&["--admin-listen", address]);
        assert!(said.contains("expected an IP address and a port") && said.contains(address), "{said}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token").display().to_string();
    let said = complaint(&["--admin-token-file", &path]);
    assert!(said.contains("say where to listen with admin-listen"), "{said}");
    fs::write(&path, "short").expect("it can be written");
    let said = complaint(&["--admin-listen", "127.0.0.1:0", "--admin-token-file", &path]);
    assert!(said.contains("at least 16 visible characters"), "{said}");
    let said = complaint(&["--admin-listen", "127.0.0.1:0", "--admin-token-file", "/nowhere/token"]);
    assert!(said.contains("the folder /nowhere does not exist"), "{said}");
}

#[test]
fn on_this_machine_other_peoples_pages_are_kept_out() {
    let over = Over::open();
    let running = sidetrack(worker("listen.js")).with(&over.words()).start();
    let admin = over.address(&running);
    let host = format!("Host: {admin}");
    let status =
        |method: &str, target: &str, headers: &[&str]| ask(admin, method, target, headers, "").status;
    assert_eq!(status("GET", "/v1/status", &[&host]), 200);
    assert_eq!(status("GET", "/v1/status", &[&format!("Host: localhost:{}", admin.port())]), 200);
    assert_eq!(status("GET", "/v1/status", &["Host: evil.example"]), 421);
    assert_eq!(status("GET", "/", &["Host: evil.example"]), 421);
    assert_eq!(status("GET", "/v1/status", &[&host, "Origin: http://evil.example"]), 403);

    let drain = "/v1/workers/w0/drain";
    assert_eq!(status("POST", drain, &[&host, JSON, "Origin: http://evil.example"]), 403);
    assert_eq!(status("POST", drain, &[&host, JSON, "Origin: null"]), 403);
    assert_eq!(status("POST", drain, &[&host, "Content-Type: text/plain"]), 415);
    assert_eq!(status("POST", drain, &[&host]), 415);
    assert_eq!(status("POST", drain, &["Host: evil.example", JSON]), 421);
    assert_eq!(status("OPTIONS", drain, &[&host, "Origin: http://evil.example"]), 403);
    assert_eq!(status("GET", "/v1/decisions", &[&host, "Sec-Fetch-Site: cross-site"]), 403);
    assert_eq!(status("GET", drain, &[&host]), 405);
    assert_eq!(status("GET", "/v2", &[&host]), 404);
    let workers = ask(admin, "GET", "/v1/workers", &[&host], "").json();
    assert!(
        workers.as_array().expect("a list").iter().all(|worker| worker["draining"] == false),
        "{workers}"
    );

    // The page's own requests.
    let own = format!("Origin: http://{admin}");
    let drained = ask(admin, "POST", drain, &[&host, JSON, &own, "Sec-Fetch-Site: same-origin"], "{}");
    assert_eq!(drained.status, 200, "{drained:?}");
    assert_eq!(drained.json()[0]["draining"], true);

    let page = ask(admin, "GET", "/", &[&host], "");
    let rules = page.header("content-security-policy").expect("rules");
    assert!(rules.contains("default-src 'none'") && !rules.contains("unsafe"), "{rules}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    // What it names, it has, and nothing is elsewhere or within.
    let text = page.text();
    let named: Vec<_> = text.split('"').filter(|part| part.starts_with("/dashboard/")).collect();
    assert!(named.len() >= 3, "{named:?}");
    for path in named {
        assert_eq!(status("GET", path, &[&host]), 200, "{path}");
    }
    assert!(
        !["<style", "style=", "onclick", "onload", "http"].iter().any(|part| text.contains(part)),
        "{text}"
    );
    running.stop();
}

#[test]
fn the_socket_has_the_page_too() {
    let place = Place::new();
    let socket = place.socket();
    let running = place.run(worker("listen.js")).start();
    let page = admin(&socket, "/");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("<title>sidetrack</title>"), "{page}");
    // As through a tunnel that a page of somebody else has found.
    let foreign = admin(&socket, "/v1/status HTTP/1.1\r\nOrigin: http://evil.example\r\nX:");
    assert!(foreign.starts_with("HTTP/1.1 403"), "{foreign}");
    running.stop();
}

#[test]
fn a_token_lets_in_and_nothing_else_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    let words = ["--admin-listen", "127.0.0.1:0", "--admin-token-file", path.to_str().expect("plain text")];
    let running = sidetrack(worker("listen.js")).with(&words).start();
    let admin = Over::open().address(&running);
    // It was not there.
    let token = fs::read_to_string(&path).expect("it was made");
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
    let token = token.trim();
    assert!(token.len() == 64 && !running.log().contains(token), "{}", running.log());

    let status = |target: &str, headers: &[&str]| ask(admin, "GET", target, headers, "").status;
    let right = format!("Authorization: Bearer {token}");
    // Any name will do: whoever has pointed it here has not got the token.
    assert_eq!(status("/v1/status", &["Host: ops.example", &right]), 200);
    for path in ["/v1/status", "/v1/decisions", "/metrics", "/v1/openapi.json", "/v1/sessions/x"] {
        let refused = ask(admin, "GET", path, &["Host: localhost"], "");
        assert_eq!((refused.status, refused.header("www-authenticate").is_some()), (401, true), "{path}");
    }
    for wrong in ["Bearer wrong", "Bearer ", &format!("Bearer {token}x"), &format!("Basic {token}"), token] {
        assert_eq!(
            status("/v1/status", &["Host: localhost", &format!("Authorization: {wrong}")]),
            401,
            "{wrong}"
        );
    }
    let drain = |headers: &[&str]| ask(admin, "POST", "/v1/workers/w0/drain", headers, "{}").status;
    assert_eq!(drain(&["Host: localhost", JSON]), 401);
    assert_eq!(drain(&["Host: localhost", &right, "Origin: http://evil.example"]), 403);
    assert_eq!(drain(&["Host: localhost", &right]), 200);
    assert_eq!(status("/", &["Host: ops.example"]), 200, "the page has to ask for it");
    assert_eq!(running.log().matches("wrong tokens at the admin interface").count(), 1, "said once");
    running.stop();
}

#[test]
fn a_token_that_others_can_read_is_mentioned() {
    let folder = tempfile::tempdir().expect("a folder");
    let over = Over::with_token(folder.path());
    fs::set_permissions(&over.token_file, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let running = sidetrack(worker("listen.js")).with(&over.words()).start();
    running.logged("chmod 600");
    running.stop();
}

#[test]
fn every_command_works_over_tcp() {
    let folder = tempfile::tempdir().expect("a folder");
    let over = Over::with_token(folder.path());
    let running = sidetrack(worker("listen.js")).with(&over.words()).with(&["--admin", "off"]).start();
    let admin = format!("http://{}", over.address(&running));
    let program = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidetrack"));
        command.args(words).args(["--admin", &admin, "--token-file", &over.token_file]).stdin(Stdio::null());
        command
    };
    let said = |words: &[&str]| {
        let output = program(words).output().expect("the program starts");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(0), "{words:?}: {said}");
        said
    };
    let (sid, pid) = poll_session(running.address());
    for (words, expected) in [
        (&["ctl", "status"][..], "1 accepted"),
        (&["ctl", "workers", "--json"], "\"standing\": \"ready\""),
        (&["ctl", "session", &sid], &format!("has it, process {pid}, since 20")),
        (&["ctl", "policy", "status"], "least-connection: generation 1"),
        (&["ctl", "policy", "set", "round-robin"], "now runs round-robin as generation 2"),
        (&["ctl", "policy", "rollback"], "generation 3"),
        (&["ctl", "policy", "explain", "--session", &sid], "decision: w"),
        (&["ctl", "policy", "shadow", "set", "random"], "is asked beside the real policy"),
        (&["ctl", "policy", "shadow", "status"], "shadow: random"),
        (&["policy", "shadow", "off"], "no shadow any more"),
        (&["policy", "status", "--json"], "\"generation\": 3"),
        (&["ctl", "drain", "w1"], "draining"),
        (&["ctl", "undrain", "w1"], "ready"),
        (&["ctl", "restart", "w2"], "has followed"),
    ] {
        let said = said(words);
        assert!(said.contains(expected), "{words:?}: {said}");
    }
    let follow = program(&["ctl", "policy", "explain", "--follow", "--limit", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let log = folder.path().join("log").display().to_string();
    let record = program(&["record", "--out", &log, "--max", "1"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut both = [follow, record];
    eventually("both have seen one", || {
        get(running.address(), "/pid");
        both.iter_mut().all(|child| child.try_wait().expect("a child of ours").is_some()).then_some(())
    });
    let [follow, record] = both.map(|child| child.wait_with_output().expect("a child of ours"));
    assert!(String::from_utf8_lossy(&follow.stdout).starts_with("GET /pid from 127.0.0.1"), "{follow:?}");
    assert!(String::from_utf8_lossy(&record.stderr).contains("enough: 1 decisions"), "{record:?}");

    let without = Command::new(env!("CARGO_BIN_EXE_sidetrack"))
        .args(["ctl", "status", "--admin", &admin])
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&without.stderr);
    assert_eq!(without.status.code(), Some(2));
    assert!(said.contains("a token is needed") && said.contains("--token-file"), "{said}");
    running.stop();
}

/// Whether a value is what a schema says: all fields that must be there, no field that is not described.
fn fits(description: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let found = description.pointer(reference.trim_start_matches('#'));
        return fits(
            description,
            found.ok_or_else(|| format!("{at}: {reference} leads nowhere"))?,
            value,
            at,
        );
    }
    if let Some(options) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array) {
        let wrong: Vec<_> = options.iter().map(|option| fits(description, option, value, at)).collect();
        return if wrong.iter().any(Result::is_ok) { Ok(()) } else { Err(format!("{at}: {wrong:?}")) };
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        Value::Null => Vec::new(),
        kind => vec![kind.clone()],
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let number = kind == "integer" && kinds.contains(&json!("number"));
    if !kinds.is_empty() && !number && !kinds.contains(&json!(kind)) {
        return Err(format!("{at}: expected {kinds:?}, found {value}"));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return Err(format!("{at}: expected {allowed:?}, found {value}"));
    }
    for item in value.as_array().into_iter().flatten() {
        fits(description, &schema["items"], item, &format!("{at}[]"))?;
    }
    let Some(object) = value.as_object() else { return Ok(()) };
    for field in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        object.get(field).ok_or_else(|| format!("{at}: {field} is missing in {value}"))?;
    }
    for (field, value) in object {
        let known = schema["properties"].get(field).or_else(|| schema.get("additionalProperties"));
        let known = known.filter(|known| *known != false);
        let known = known.ok_or_else(|| format!("{at}: {field} is not described"))?;
        fits(description, known, value, &format!("{at}.{field}"))?;
    }
    Ok(())
}

#[test]
fn replies_are_as_described() {
    let over = Over::open();
    let running = sidetrack(worker("listen.js")).with(&over.words()).with(&["--label", "w1:zone=eu"]).start();
    let admin = over.address(&running);
    let host = format!("Host: {admin}");
    let description = ask(admin, "GET", "/v1/openapi.json", &[&host], "").json();
    let kept = fs::read_to_string(root().join("docs/openapi.json")).expect("it is checked in");
    assert_eq!(serde_json::from_str::<Value>(&kept).expect("JSON"), description);
    assert_eq!(description["openapi"], "3.1.0");

    let (sid, _) = poll_session(running.address());
    let session = format!("/v1/sessions/{sid}");
    // Every operation that replies in JSON, in an order that makes sense; then one that is refused.
    let asked = [
        ("get", "/v1/status", "/v1/status", ""),
        ("get", "/v1/workers", "/v1/workers", ""),
        ("post", "/v1/workers/{slot}/drain", "/v1/workers/w0/drain", r#"{"within_ms":60000}"#),
        ("post", "/v1/workers/{slot}/undrain", "/v1/workers/w0/undrain", ""),
        ("post", "/v1/workers/restart", "/v1/workers/restart", r#"{"slots":["w2"],"within_ms":1000}"#),
        ("get", "/v1/status", "/v1/status", ""),
        ("post", "/v1/workers/{slot}/restart", "/v1/workers/w1/restart", "{}"),
        ("post", "/v1/workers/scale", "/v1/workers/scale", r#"{"workers":3,"within_ms":1000}"#),
        ("post", "/v1/reload", "/v1/reload", r#"{"dry_run":true}"#),
        ("get", "/v1/log", "/v1/log", ""),
        ("post", "/v1/log", "/v1/log", r#"{"filter":"info"}"#),
        ("get", "/v1/sessions/{sid}", &session, ""),
        ("post", "/v1/policy/set", "/v1/policy/set", r#"{"policy":"round-robin"}"#),
        ("post", "/v1/policy/rollback", "/v1/policy/rollback", "{}"),
        ("get", "/v1/policy/shadow", "/v1/policy/shadow", ""),
        ("post", "/v1/policy/shadow", "/v1/policy/shadow", r#"{"policy":"random"}"#),
        ("get", "/v1/policy", "/v1/policy", ""),
        ("get", "/v1/policy/shadow", "/v1/policy/shadow", ""),
        ("post", "/v1/policy/shadow/off", "/v1/policy/shadow/off", ""),
        (
            "post",
            "/v1/policy/explain",
            "/v1/policy/explain",
            r#"{"target":"/a","headers":[["Cookie","a=b"]]}"#,
        ),
        ("post", "/v1/policy/explain", "/v1/policy/explain", &json!({ "session": sid }).to_string()),
    ];
    for (method, path, target, body) in asked {
        let operation = &description["paths"][path][method];
        let reply = ask(admin, &method.to_uppercase(), target, &[&host, JSON], body);
        assert_eq!(reply.status, 200, "{method} {target}: {reply:?}");
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{method} {path}: {operation}");
        fits(&description, schema, &reply.json(), path).expect("it is as described");
        if !body.is_empty() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let body = serde_json::from_str(body).expect("JSON");
            fits(&description, schema, &body, path).expect("the request is as described");
        }
    }
    // None is forgotten.
    let operations =
        description["paths"].as_object().expect("paths").iter().flat_map(|(path, operations)| {
            operations
                .as_object()
                .into_iter()
                .flatten()
                .map(move |(method, operation)| (path, method, operation))
        });
    for (path, method, operation) in operations {
        let json = operation["responses"]["200"]["content"]["application/json"]["schema"].is_object();
        let tried = asked.iter().any(|(tried, at, ..)| tried == method && at == path);
        assert!(tried || !json, "{method} {path} is not tried");
    }
    let refused = ask(admin, "POST", "/v1/policy/set", &[&host, JSON], r#"{"policy":"none such"}"#);
    assert_eq!(refused.status, 409);
    let schema = &description["paths"]["/v1/policy/set"]["post"]["responses"]["default"]["content"]["application/json"]
        ["schema"];
    fits(&description, schema, &refused.json(), "refused").expect("it is as described");
    let refused = ask(admin, "POST", "/v1/policy/set", &[&host, JSON], r#"{"polcy":"random"}"#);
    assert_eq!(refused.status, 400);
    running.stop();
}

#[test]
fn replies_about_several_pools_are_as_described() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sidetrack.toml");
    let command = worker("listen.js");
    let pool = |name: &str, host: &str| {
        format!("[[pool]]\nname = \"{name}\"\nmatch = [\"{host}\"]\nworkers = 1\ncommand = {command:?}\n")
    };
    let config = pool("api", "api.example") + &pool("web", "web.example");
    fs::write(&file, config).expect("it can be written");
    let over = Over::open();
    let running = sidetrack(Vec::new())
        .workers(2)
        .with(&["-c", file.to_str().expect("plain text")])
        .with(&over.words())
        .start();
    let admin = over.address(&running);
    let host = format!("Host: {admin}");
    let description = ask(admin, "GET", "/v1/openapi.json", &[&host], "").json();
    for (method, path, target, body) in [
        ("get", "/v1/status", "/v1/status", ""),
        ("get", "/v1/workers", "/v1/workers", ""),
        ("get", "/v1/policy", "/v1/policy", ""),
        ("get", "/v1/policy", "/v1/policy?pool=web", ""),
        ("post", "/v1/policy/set", "/v1/policy/set?pool=web", r#"{"policy":"random"}"#),
        ("post", "/v1/policy/explain", "/v1/policy/explain", r#"{"headers":[["Host","api.example"]]}"#),
    ] {
        let reply = ask(admin, &method.to_uppercase(), target, &[&host, JSON], body);
        assert_eq!(reply.status, 200, "{method} {target}: {reply:?}");
        let schema =
            &description["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"];
        fits(&description, schema, &reply.json(), path).expect("it is as described");
        assert!(
            target.contains('?') || reply.text().contains("\"pool\":\"api\""),
            "{target}: {}",
            reply.text()
        );
    }
    assert_eq!(ask(admin, "GET", "/v1/policy?pool=none", &[&host], "").status, 404);
    running.stop();
}
