//! Traces, read by a collector that is none. With the feature `otlp`.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::Value;

use crate::support::{Client, PATIENCE, get, poll_session, session_at, sidetrack, worker};

/// Takes one message after another, and passes their spans on. It ends with the test's process.
fn collector() -> (String, Receiver<Vec<Value>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            let body = loop {
                let length = stream.read(&mut buffer).expect("a request");
                assert!(length > 0, "the request ends early");
                request.extend_from_slice(&buffer[..length]);
                let text = String::from_utf8_lossy(&request);
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let head = head.to_ascii_lowercase();
                let wanted =
                    head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                if wanted.is_some_and(|wanted: usize| body.len() >= wanted) {
                    assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
                    assert!(head.contains("content-type: application/json"), "{head}");
                    break body.to_owned();
                }
            };
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").expect("it listens");
            let message: Value = serde_json::from_str(&body).expect("JSON");
            let spans =
                message["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("spans").clone();
            if sender.send(spans).is_err() {
                return;
            }
        }
    });
    (address, receiver)
}

/// The value of an attribute, whatever its type.
fn attribute(span: &Value, name: &str) -> Option<String> {
    let attribute = span["attributes"].as_array()?.iter().find(|attribute| attribute["key"] == name)?;
    let value = attribute["value"].as_object()?.values().next()?;
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

#[test]
fn a_connection_is_a_span_below_that_of_whoever_asked() {
    let (address, spans) = collector();
    let running = sidetrack(worker("listen.js")).workers(1).with(&["--otlp-endpoint", &address]).start();
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let ask = |flags: &str| {
        let request = format!(
            "GET /pid?secret=1 HTTP/1.1\r\nHost: x\r\ntraceparent: 00-{trace}-{parent}-{flags}\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(Client::connect(running.address()).exchange(request).status, 200);
    };
    ask("01");
    // One that is not to be kept, and one of nobody's trace.
    ask("00");
    let (sid, _) = poll_session(running.address());
    session_at(running.address(), &format!("sid={sid}"));
    let mut all = Vec::new();
    let connections =
        |all: &[Value]| all.iter().filter(|span| span["name"] == "connection").cloned().collect::<Vec<_>>();
    while connections(&all).len() < 3 {
        all.extend(spans.recv_timeout(PATIENCE).expect("spans"));
    }
    let list = connections(&all);
    assert_eq!(list.len(), 3, "{list:?}");
    let [asked, opened, known] = &list[..] else { panic!("{list:?}") };
    assert_eq!((&asked["traceId"], &asked["parentSpanId"]), (&trace.into(), &parent.into()));
    assert_eq!(attribute(asked, "url.path").as_deref(), Some("/pid"));
    assert_eq!(attribute(asked, "sidetrack.worker").as_deref(), Some("w0"));
    assert_eq!(attribute(asked, "client.address").as_deref(), Some("127.0.0.1"));
    assert_ne!(opened["traceId"], trace);
    assert_eq!(attribute(opened, "sidetrack.session").as_deref(), Some("false"));
    assert_eq!(attribute(known, "sidetrack.session").as_deref(), Some("true"));
    let below = all.iter().find(|span| span["parentSpanId"] == asked["spanId"]).expect("a question");
    assert_eq!((&below["name"], &below["traceId"]), (&"policy balance".into(), &trace.into()));
    assert!(!serde_json::to_string(&all).expect("JSON").contains("secret"));
    running.stop();
}

#[test]
fn without_a_collector_traces_are_lost_and_nothing_else() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let running =
        sidetrack(worker("listen.js")).with(&["--otlp-endpoint", &format!("http://{nobody}")]).start();
    for _ in 0..20 {
        assert_eq!(get(running.address(), "/pid").status, 200);
    }
    running.logged("traces are lost");
    let stopped = running.stop();
    assert_eq!((stopped.count("accepted"), stopped.count("refused")), (20, 0));
}
