//! Two workers, one connection.

use std::time::Duration;

use fastrand::Rng;
use sidetrack_worker::Sessions;
use sidetrack_worker::wire::encode;
use tokio::time::timeout;

use crate::client::{Ask, Client, ask};
use crate::host::{Host, PATIENCE, until};
use crate::server::serve;

/// Sessions `a0`, `a1` live with worker `a`, `b0` and `b1` with `b`.
async fn two_workers() -> (Host, Vec<Sessions>) {
    let (host, listeners) = Host::with_workers(2, "query:sid");
    let mut handles = Vec::new();
    for (listener, name) in listeners.into_iter().zip(["a", "b"]) {
        let sessions = listener.sessions();
        for number in 0..2 {
            let sid = format!("{name}{number}");
            sessions.open(&sid).await.keep();
            host.knows(&sid).await;
        }
        handles.push(sessions);
        tokio::spawn(serve(listener, name));
    }
    (host, handles)
}

/// One of the four sessions, and its owner.
fn session(random: &mut Rng) -> (String, String) {
    let owner = if random.bool() { "a" } else { "b" };
    (format!("{owner}{}", random.u8(..2)), owner.to_owned())
}

fn random_asks(count: usize, random: &mut Rng, longest: usize) -> Vec<Ask> {
    let paths = ["/", "/slow", "/chunked"];
    (0..count)
        .map(|_| {
            let (sid, owner) = session(random);
            ask(paths[random.usize(..paths.len())], &sid, &owner, random, longest)
        })
        .collect()
}

/// How often the next request is another worker's, when worker `a` has the connection first.
fn changes(asks: &[Ask]) -> usize {
    let owners = std::iter::once("a").chain(asks.iter().map(|ask| ask.owner.as_str()));
    owners.clone().zip(owners.skip(1)).filter(|(before, after)| before != after).count()
}

#[tokio::test]
async fn interleaved_sessions_are_each_served_by_their_owner() {
    let (host, _) = two_workers().await;
    let mut random = Rng::with_seed(1);
    let asks = random_asks(60, &mut random, 0);
    let mut client = Client::new(host.client(0).await);
    for ask in &asks {
        client.write(&ask.bytes).await;
        client.expect(ask).await;
    }
    assert!(changes(&asks) > 20);
    assert_eq!(host.handed_back(), changes(&asks));
    assert_eq!(host.acknowledged(), changes(&asks) + 1);
    // What has been handed back is no open connection of the worker's any more.
    let closed = || host.lines().iter().filter(|line| line.contains("sockets-closed")).count();
    until(|| closed() > 0).await;
}

#[tokio::test]
async fn bodies_of_every_kind_arrive_whole_however_they_are_cut() {
    for seed in 0..8 {
        let (host, _) = two_workers().await;
        let mut random = Rng::with_seed(seed);
        let longest = [2, 300, 70_000, 1_000_000][usize::try_from(seed).unwrap() % 4];
        let asks = random_asks(8, &mut random, longest);
        let mut client = Client::new(host.client(0).await);
        for ask in &asks {
            client.write_in_pieces(&ask.bytes, &mut random).await;
            timeout(PATIENCE, client.expect(ask)).await.unwrap_or_else(|_| panic!("seed {seed}"));
        }
        assert_eq!(host.handed_back(), changes(&asks), "seed {seed}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_each_by_its_owner() {
    pipelined_requests().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn also_on_several_threads() {
    pipelined_requests().await;
}

async fn pipelined_requests() {
    for seed in 0..12 {
        let (host, _) = two_workers().await;
        let mut random = Rng::with_seed(seed);
        let asks = random_asks(20, &mut random, if seed % 2 == 0 { 0 } else { 3000 });
        let bytes: Vec<u8> = asks.iter().flat_map(|ask| ask.bytes.clone()).collect();
        let mut client = Client::new(host.client(0).await);
        if seed % 3 == 0 {
            client.write(&bytes).await;
        } else {
            client.write_in_pieces(&bytes, &mut random).await;
        }
        for ask in &asks {
            timeout(PATIENCE, client.expect(ask)).await.unwrap_or_else(|_| panic!("seed {seed}"));
        }
        assert_eq!(host.handed_back(), changes(&asks), "seed {seed}");
    }
}

#[tokio::test]
async fn a_foreign_request_waits_for_the_response_under_way() {
    let (host, _) = two_workers().await;
    let mut random = Rng::with_seed(3);
    let asks = [ask("/slow", "a0", "a", &mut random, 0), ask("/", "b0", "b", &mut random, 0)];
    let mut client = Client::new(host.client(0).await);
    client.write(&asks[0].bytes).await;
    client.write(&asks[1].bytes).await;
    until(|| host.acknowledged() == 1).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(host.handed_back(), 0);
    client.expect(&asks[0]).await;
    client.expect(&asks[1]).await;
    assert_eq!(host.handed_back(), 1);
}

#[tokio::test]
async fn a_response_before_the_end_of_the_body_does_not_let_the_body_pass_for_a_request() {
    let (host, _) = two_workers().await;
    let mut client = Client::new(host.client(0).await);
    let body = "GET /?sid=b0 HTTP/1.1\r\n\r\n";
    let request = format!("POST /early?sid=a0 HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    client.write(request.as_bytes()).await;
    let early = client.answer().await;
    assert_eq!((early.worker.as_str(), early.body.as_str()), ("a", "early"));
    let next = ask("/", "a0", "a", &mut Rng::with_seed(4), 0);
    client.write(&next.bytes).await;
    client.expect(&next).await;
    assert_eq!(host.handed_back(), 0);
}

#[tokio::test]
async fn a_used_connection_is_upgraded_by_the_owner_and_left_alone_then() {
    let (host, _) = two_workers().await;
    let mut random = Rng::with_seed(5);
    let mut client = Client::new(host.client(0).await);
    for (sid, owner) in [("a0", "a"), ("b0", "b"), ("a1", "a")] {
        let ask = ask("/", sid, owner, &mut random, 50);
        client.write(&ask.bytes).await;
        client.expect(&ask).await;
    }
    let upgrade = "GET /upgrade?sid=b1 HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    client.write(upgrade.as_bytes()).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.worker.as_str()), (101, "b"));
    assert_eq!(client.exactly(1).await, b"b");
    let before = host.handed_back();
    for _ in 0..3 {
        let foreign = b"GET /?sid=a0 HTTP/1.1\r\n\r\n";
        client.write(foreign).await;
        assert_eq!(client.exactly(foreign.len()).await, foreign);
    }
    assert_eq!(host.handed_back(), before);
}

#[tokio::test]
async fn an_unknown_session_is_answered_after_one_round_and_moves_on_when_it_is_known() {
    let (host, sessions) = two_workers().await;
    let mut client = Client::new(host.client(0).await);
    client.write(b"GET /?sid=unknown HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(host.handed_back(), 1);
    let _session = sessions[1].open("unknown").await;
    host.knows("unknown").await;
    client.write(b"GET /?sid=unknown HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.answer().await.worker, "b");
    assert_eq!(host.handed_back(), 2);
}

#[tokio::test]
async fn a_drain_ends_the_worker_and_connections_go_on_with_the_other() {
    let (host, mut listeners) = Host::with_workers(2, "query:sid");
    let second = listeners.pop().unwrap();
    let first = listeners.pop().unwrap();
    second.sessions().open("b0").await.keep();
    host.knows("b0").await;
    let (drain, idle) = (first.drain(), first.idle());
    let server = tokio::spawn(serve(first, "a"));
    tokio::spawn(serve(second, "b"));
    let mut client = Client::new(host.client(0).await);
    client.write(b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.answer().await.worker, "a");
    host.send(0, &encode::disconnect(1), None).await;
    timeout(PATIENCE, server).await.unwrap().unwrap();
    timeout(PATIENCE, drain).await.unwrap();
    // The connection is still open, and leaves with its next foreign request.
    client.write(b"GET /?sid=b0 HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.answer().await.worker, "b");
    timeout(PATIENCE, idle).await.unwrap();
}

#[tokio::test]
async fn a_client_that_closes_in_the_middle_of_a_head_is_seen_by_the_server() {
    let (host, _) = two_workers().await;
    let mut client = Client::new(host.client(0).await);
    client.write(b"GET /?sid=a0 HTTP/1.1\r\nHo").await;
    client.end().await;
    assert!(timeout(PATIENCE, client.is_closed()).await.unwrap());
    assert_eq!(host.handed_back(), 0);
}
