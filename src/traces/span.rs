//! Connections as OTLP spans in JSON: `ExportTraceServiceRequest` of opentelemetry-proto, with ids in hexadecimal
//! and 64-bit numbers as texts, as its JSON form has them.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::parent::Parent;
use crate::observe::{Call, Routing};

/// Kinds of spans, and the one status that is not left out.
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
const ERROR: u8 = 2;

/// Who sends spans.
#[derive(Debug)]
pub(super) struct Resource(Value);

impl Resource {
    pub(super) fn new() -> Self {
        // Other programs of the machine are told their names like this too.
        let name = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
        Self(json!([
            text("service.name", name.as_deref().unwrap_or("sidetrack")),
            text("service.version", env!("CARGO_PKG_VERSION")),
            number("process.pid", u64::from(std::process::id())),
        ]))
    }

    /// A message of all spans of these connections, each with the time of its decision. None when there is
    /// nothing to send.
    pub(super) fn message<'a>(
        &self,
        routings: impl Iterator<Item = (Instant, &'a Routing)>,
    ) -> Option<String> {
        let clock = Clock::now();
        let spans: Vec<Value> = routings.flat_map(|(at, routing)| spans(&clock, at, routing)).collect();
        let scope = json!({ "name": "sidetrack", "version": env!("CARGO_PKG_VERSION") });
        (!spans.is_empty()).then(|| {
            json!({ "resourceSpans": [{
                "resource": { "attributes": self.0 },
                "scopeSpans": [{ "scope": scope, "spans": spans }],
            }] })
            .to_string()
        })
    }
}

/// The connection's span first. None when whoever asked has decided that their trace is not kept.
fn spans(clock: &Clock, at: Instant, routing: &Routing) -> Vec<Value> {
    let parent = Parent::of(&routing.request.head);
    if parent.as_ref().is_some_and(|parent| !parent.sampled) {
        return Vec::new();
    }
    let (above, trace) = match parent {
        Some(parent) => (Some(parent.span), parent.trace),
        None => (None, id(16)),
    };
    let own = id(8);
    let mut span = json!({
        "traceId": trace,
        "spanId": own,
        "name": "connection",
        "kind": SERVER,
        "startTimeUnixNano": clock.at(routing.began),
        "endTimeUnixNano": clock.at(at),
        "attributes": attributes(routing),
    });
    if let Some(above) = above {
        span["parentSpanId"] = above.into();
    }
    if routing.outcome.as_ref().is_err_and(|refusal| refusal.status >= 500) {
        span["status"] = json!({ "code": ERROR });
    }
    let calls = routing.calls.iter().map(|call| policy(clock, &trace, &own, call));
    std::iter::once(span).chain(calls).collect()
}

fn attributes(routing: &Routing) -> Vec<Value> {
    let request = &routing.request;
    let mut attributes = vec![
        text("http.request.method", request.head.method()),
        text("url.path", short(request.head.path())),
        json!({ "key": "sidetrack.session", "value": { "boolValue": request.session.is_some() } }),
        number("sidetrack.attempt", u64::from(request.attempt)),
    ];
    if let Some(peer) = request.peer {
        attributes.push(text("client.address", &peer.ip().to_string()));
        attributes.push(number("client.port", u64::from(peer.port())));
    }
    match &routing.outcome {
        Ok(worker) => {
            attributes.push(text("sidetrack.outcome", "handed-off"));
            attributes.push(text("sidetrack.worker", &routing.name(*worker)));
        }
        Err(refusal) => {
            attributes.push(text("sidetrack.outcome", "refused"));
            attributes.push(number("http.response.status_code", u64::from(refusal.status)));
        }
    }
    if let Some(answer) = routing.decisive() {
        attributes.push(number("sidetrack.generation", answer.generation));
        if let Some(link) = routing.link() {
            attributes.push(text("sidetrack.link", link));
        }
        if let Some(why) = &answer.explanation {
            attributes.push(text("sidetrack.why", why));
        }
    }
    attributes
}

fn policy(clock: &Clock, trace: &str, above: &str, call: &Call) -> Value {
    json!({
        "traceId": trace,
        "spanId": id(8),
        "parentSpanId": above,
        "name": format!("policy {}", call.question),
        "kind": INTERNAL,
        "startTimeUnixNano": clock.at(call.began),
        "endTimeUnixNano": clock.at(call.began + call.took),
        "attributes": [number("sidetrack.generation", call.generation)],
    })
}

/// What the time of day is to the clock that only goes forward.
struct Clock {
    instant: Instant,
    since_1970: u128,
}

impl Clock {
    fn now() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), since_1970: now.as_nanos() }
    }

    fn at(&self, instant: Instant) -> String {
        let before = self.instant.saturating_duration_since(instant).as_nanos();
        self.since_1970.saturating_sub(before).to_string()
    }
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn number(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

/// A path may be as long as a head, and a collector takes no endless messages.
fn short(path: &str) -> &str {
    const LONGEST: usize = 1024;
    path.get(..path.floor_char_boundary(LONGEST)).unwrap_or(path)
}

/// A random id of so many bytes, not all of them zero.
fn id(bytes: usize) -> String {
    let mut id: String = (0..bytes).map(|_| format!("{:02x}", fastrand::u8(..))).collect();
    if id.bytes().all(|byte| byte == b'0') {
        id.replace_range(..1, "1");
    }
    id
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::{Answer, LinkName, Step};
    use crate::types::{Decision, Head, Refusal, Request, Roster, WorkerId};

    fn routing(headers: &[(String, String)], outcome: Result<WorkerId, Refusal>) -> Routing {
        let began = Instant::now();
        Routing {
            request: Request {
                head: Head::compose("GET", "/a?secret=1", headers).unwrap(),
                peer: Some("192.0.2.1:99".parse().unwrap()),
                session: Some("x".into()),
                attempt: 2,
            },
            roster: Roster::default(),
            loads: vec![],
            found: None,
            owner: None,
            balanced: Some(Answer {
                decision: Decision::Worker(WorkerId(7)),
                generation: 3,
                link: LinkName::Link(0),
                explanation: Some("because".into()),
                steps: vec![Step {
                    link: "mine".into(),
                    generation: 3,
                    decision: Some(Decision::Worker(WorkerId(7))),
                    explanation: None,
                }],
            }),
            outcome,
            took: Duration::from_micros(5),
            began,
            calls: vec![Call { question: "balance", began, took: Duration::from_micros(5), generation: 3 }],
            by_hand: false,
        }
    }

    fn spans(routing: &Routing) -> Vec<Value> {
        let resource = Resource::new();
        let at = routing.began + Duration::from_micros(20);
        let Some(message) = resource.message(std::iter::once((at, routing))) else { return vec![] };
        let message: Value = serde_json::from_str(&message).unwrap();
        let resource = &message["resourceSpans"][0];
        assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "sidetrack");
        resource["scopeSpans"][0]["spans"].as_array().unwrap().clone()
    }

    fn nanoseconds(span: &Value) -> u128 {
        let time = |key: &str| span[key].as_str().unwrap().parse::<u128>().unwrap();
        time("endTimeUnixNano") - time("startTimeUnixNano")
    }

    #[test]
    fn a_connection_and_its_questions_are_spans() {
        let spans = spans(&routing(&[], Ok(WorkerId(7))));
        let [connection, policy] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((&connection["name"], &policy["name"]), (&"connection".into(), &"policy balance".into()));
        assert_eq!(
            (&policy["traceId"], &policy["parentSpanId"]),
            (&connection["traceId"], &connection["spanId"])
        );
        assert_eq!(connection["traceId"].as_str().unwrap().len(), 32);
        assert_eq!(nanoseconds(policy), 5_000);
        assert!(connection["parentSpanId"].is_null() && connection["status"].is_null());
        let text = connection["attributes"].to_string();
        for expected in
            ["/a\"", "192.0.2.1", "handed-off", "worker 7", "mine", "because", "\"intValue\":\"3\""]
        {
            assert!(text.contains(expected), "{expected} is missing in {text}");
        }
        assert!(!text.contains("secret"), "queries are not told");
    }

    #[test]
    fn whoever_asked_decides_on_their_trace() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let header = |flags: &str| [("traceparent".to_owned(), format!("00-{trace}-{span}-{flags}"))];
        let kept = spans(&routing(&header("01"), Ok(WorkerId(7))));
        assert_eq!((&kept[0]["traceId"], &kept[0]["parentSpanId"]), (&trace.into(), &span.into()));
        assert!(spans(&routing(&header("00"), Ok(WorkerId(7)))).is_empty());
    }

    #[test]
    fn a_refusal_has_its_status_and_ours_are_errors() {
        let refusal = |status| Refusal { status, retry_after: None, reason: String::new() };
        let ours = spans(&routing(&[], Err(refusal(503))));
        assert_eq!(ours[0]["status"]["code"], 2);
        assert!(ours[0]["attributes"].to_string().contains("\"503\""));
        assert!(spans(&routing(&[], Err(refusal(429))))[0]["status"].is_null());
    }
}
