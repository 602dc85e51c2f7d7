//! The listener against sidetrack's end of a channel.

use super::*;
use crate::fake::{Fake, PATIENCE, connect, tcp_pair};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const READY: &str = r#"{"type":"sidetrack:ready","replays":true}"#;
const ACK: &str = r#"{"cmd":"NODE_HANDLE_ACK"}"#;
const NACK: &str = r#"{"cmd":"NODE_HANDLE_NACK"}"#;
const LEAVING: &str = r#"{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":0}"#;

fn closed(count: u64) -> String {
    format!(r#"{{"count":{count},"type":"sidetrack:sockets-closed"}}"#)
}

async fn accept(listener: &mut Listener) -> (Stream, Peer) {
    timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().unwrap()
}

#[tokio::test]
async fn a_connection_comes_with_its_bytes_unread_and_its_address() {
    let (mut fake, mut listener) = Fake::with_listener();
    let (mut client, addr) = connect(&fake);
    client.write_all(b"hello").unwrap();
    let (mut stream, peer) = accept(&mut listener).await;
    assert_eq!(peer, Peer::Tcp(addr));
    // Both went out before anybody could read.
    assert_eq!(fake.waiting(), [READY, ACK]);

    let mut bytes = [0; 5];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"hello");
    stream.write_all(b"world").await.unwrap();
    drop(stream);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "world");
    assert_eq!(fake.lines(1).await, [closed(1)]);
}

#[tokio::test]
async fn one_end_of_a_socket_pair_is_a_connection_too() {
    let (mut fake, mut listener) = Fake::with_listener();
    let (mut here, there) = UnixStream::pair().unwrap();
    fake.send(encode::PROBE, Some(there.as_fd()));
    drop(there);
    let (mut stream, peer) = accept(&mut listener).await;
    assert_eq!((peer, peer.to_string().as_str()), (Peer::Unix, "unix"));
    stream.write_all(b"alive").await.unwrap();
    drop(stream);
    let mut answer = String::new();
    here.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "alive");
    // Not counted, so not reported: the next line is about the next connection.
    let (_client, _) = connect(&fake);
    drop(accept(&mut listener).await);
    assert_eq!(fake.lines(4).await, [READY, ACK, ACK, &closed(1)]);
}

#[tokio::test]
async fn messages_may_be_joined_or_cut_anywhere() {
    let (fake, mut listener) = Fake::with_listener();
    for cut in 1..encode::CONNECTION.len() {
        let (mut client, accepted, _) = tcp_pair();
        client.write_all(&[u8::try_from(cut).unwrap()]).unwrap();
        let (front, back) = encode::CONNECTION.split_at(cut);
        let mut first = b"{\"a\":1}\n\"text\"\nrubbish\n".to_vec();
        first.extend_from_slice(front);
        // The descriptor may ride on either part.
        let on_back = cut % 2 == 0;
        fake.send(&first, (!on_back).then(|| accepted.as_fd()));
        assert!(timeout(std::time::Duration::from_millis(1), listener.accept()).await.is_err());
        fake.send(back, on_back.then(|| accepted.as_fd()));
        let (mut stream, _) = accept(&mut listener).await;
        assert_eq!(usize::from(stream.read_u8().await.unwrap()), cut);
    }
}

#[tokio::test]
async fn a_connection_without_its_descriptor_is_refused_and_accepting_goes_on() {
    let (mut fake, mut listener) = Fake::with_listener();
    fake.send(encode::CONNECTION, None);
    let (reader, _writer) = std::io::pipe().unwrap();
    fake.hand_over(reader.as_fd());
    let (_client, addr) = connect(&fake);
    assert_eq!(accept(&mut listener).await.1, Peer::Tcp(addr));
    assert_eq!(fake.waiting(), [READY, NACK, NACK, ACK]);
}

#[tokio::test]
async fn damaged_luggage_is_refused_and_answers_to_hand_backs_are_no_hand_offs() {
    let (mut fake, mut listener) = Fake::with_listener();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let damaged = b"{\"cmd\":\"NODE_HANDLE\",\"msg\":{\"sidetrack\":{\"data\":\"?\"}}}\n";
    fake.send(damaged, Some(writer.as_fd()));
    drop(writer);
    fake.send(encode::HANDLE_ACK, None);
    fake.send(encode::HANDLE_NACK, None);
    let (_client, addr) = connect(&fake);
    assert_eq!(accept(&mut listener).await.1, Peer::Tcp(addr));
    assert_eq!(fake.waiting(), [READY, NACK, ACK]);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

#[tokio::test]
async fn a_descriptor_nobody_spoke_of_is_closed() {
    let (fake, mut listener) = Fake::with_listener();
    let (mut reader, writer) = std::io::pipe().unwrap();
    fake.send(b"{\"type\":\"stray\"}\n", Some(writer.as_fd()));
    drop(writer);
    let (_client, addr) = connect(&fake);
    assert_eq!(accept(&mut listener).await.1, Peer::Tcp(addr));
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_has_gone_costs_nothing_and_is_reported() {
    let (mut fake, mut listener) = Fake::with_listener();
    let (client, accepted, _) = tcp_pair();
    // Closing with bytes unread resets the connection.
    (&accepted).write_all(b"unread").unwrap();
    while client.peek(&mut [0]).unwrap() == 0 {}
    drop(client);
    while accepted.peer_addr().is_ok() {
        tokio::task::yield_now().await;
    }
    fake.hand_over(accepted.as_fd());
    assert!(timeout(std::time::Duration::from_millis(50), listener.accept()).await.is_err());
    assert_eq!(fake.lines(3).await, [READY.to_owned(), ACK.to_owned(), closed(1)]);
}

#[tokio::test]
async fn streams_dropped_together_are_reported_together() {
    let (mut fake, mut listener) = Fake::with_listener();
    let mut streams = Vec::new();
    for _ in 0..10 {
        connect(&fake);
        streams.push(accept(&mut listener).await.0);
    }
    fake.lines(11).await;
    let idle = listener.idle();
    streams.clear();
    assert_eq!(fake.lines(1).await, [closed(10)]);
    timeout(PATIENCE, idle).await.unwrap();
}

#[tokio::test]
async fn a_full_channel_delays_connections_and_announcements_but_loses_none() {
    let (mut fake, mut listener) = Fake::with_listener();
    listener.ready();
    let sessions = listener.sessions();
    let mut open = Vec::new();
    loop {
        let sid = format!("s{}", open.len());
        let Ok(session) = timeout(std::time::Duration::from_millis(20), sessions.open(&sid)).await else {
            break;
        };
        open.push(session);
    }
    let (_client, addr) = connect(&fake);
    for _ in 0..3 {
        let impatient = timeout(std::time::Duration::from_millis(5), listener.accept()).await;
        assert!(impatient.is_err(), "yielded before its acknowledgement has left");
    }
    // The announcement that was not waited for, and its end.
    let expected = 1 + open.len() + 2 + 1;
    let (accepted, lines) = tokio::join!(accept(&mut listener), fake.lines(expected));
    assert_eq!(accepted.1, Peer::Tcp(addr));
    assert_eq!(lines.len(), expected);
    assert_eq!(lines.last().map(String::as_str), Some(ACK));
    assert_eq!(sessions.count(), open.len());
}

#[tokio::test]
async fn sessions_are_announced_once_and_in_order() {
    let (mut fake, listener) = Fake::with_listener();
    let sessions = listener.sessions();
    let session = sessions.open("a\"b").await;
    sessions.clone().open("a\"b").await.keep();
    assert!(sessions.owns(session.id()) && !sessions.owns("never opened"));
    drop(session);
    sessions.close("a\"b");
    sessions.close("a\"b");
    sessions.close("never opened");
    assert_eq!(
        fake.waiting(),
        [r#"{"sid":"a\"b","type":"sidetrack:opened"}"#, r#"{"sid":"a\"b","type":"sidetrack:closed"}"#]
    );
}

#[tokio::test]
async fn the_end_of_the_channel_ends_accept_after_what_came_before() {
    let (fake, mut listener) = Fake::with_listener();
    let drain = listener.drain();
    let (_client, addr) = connect(&fake);
    drop(fake);
    // Its acknowledgement cannot leave any more, so it may be another worker's by now.
    assert!(timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().is_none(), "{addr}");
    timeout(PATIENCE, drain).await.unwrap();
    timeout(PATIENCE, listener.idle()).await.unwrap();
    listener.sessions().open("nobody listens").await.keep();
}

#[tokio::test]
async fn a_disconnect_ends_accept_and_leaves_streams_and_sessions_alone() {
    let (mut fake, mut listener) = Fake::with_listener();
    let (_client, _) = connect(&fake);
    fake.send(&encode::disconnect(1), None);
    let (stream, _) = accept(&mut listener).await;
    assert!(timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().is_none());
    let sessions = listener.sessions();
    drop(listener);
    sessions.open("late").await.keep();
    assert_eq!(fake.waiting(), [READY, ACK, r#"{"sid":"late","type":"sidetrack:opened"}"#]);
    drop(stream);
    assert_eq!(fake.lines(1).await, [closed(1)]);
}

#[tokio::test]
async fn a_drain_waits_until_every_connection_has_begun_to_be_read() {
    let (fake, mut listener) = Fake::with_listener();
    let mut drain = std::pin::pin!(listener.drain());
    let (mut first, _) = connect(&fake);
    connect(&fake);
    fake.send(&encode::disconnect(1), None);
    let (mut read, _) = accept(&mut listener).await;
    let (dropped, _) = accept(&mut listener).await;
    assert!(listener.accept().await.unwrap().is_none());
    drop(dropped);
    assert!(timeout(std::time::Duration::from_millis(20), &mut drain).await.is_err());
    first.write_all(b"request").unwrap();
    read.read_u8().await.unwrap();
    timeout(PATIENCE, drain).await.unwrap();
}

#[tokio::test]
async fn a_listener_that_leaves_takes_what_was_on_its_way() {
    let (mut fake, listener) = Fake::with_listener();
    let (leave, left) = tokio::sync::oneshot::channel::<()>();
    let mut listener = listener.leave_when(async { left.await.unwrap_or_default() });
    let waiting = timeout(std::time::Duration::from_millis(5), listener.accept()).await;
    assert!(waiting.is_err());
    leave.send(()).unwrap();
    let (_client, addr) = connect(&fake);
    assert_eq!(accept(&mut listener).await.1, Peer::Tcp(addr));
    assert_eq!(fake.waiting(), [READY, LEAVING, ACK]);
    fake.send(&encode::acknowledged(0, 5), None);
    assert!(timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().is_none());
    drop(listener);
    // Not said again; what comes next is about the stream dropped above.
    assert_eq!(fake.lines(1).await, [closed(1)]);
}

#[tokio::test]
async fn a_dropped_listener_says_so_and_gives_back_what_comes_late() {
    let (mut fake, mut listener) = Fake::with_listener();
    listener.ready();
    let (_early, _) = connect(&fake);
    drop(listener);
    assert_eq!(fake.lines(3).await, [READY, LEAVING, NACK]);
    let (_late, _) = connect(&fake);
    assert_eq!(fake.lines(1).await, [NACK]);
}

#[tokio::test]
async fn an_endless_line_is_an_error_and_an_end() {
    let (fake, mut listener) = Fake::with_listener();
    let drain = listener.drain();
    let flood = async {
        let filler = [b'x'; 4096];
        loop {
            match wire::send(fake.channel(), &filler, None) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => break,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let error = tokio::select! {
        accepted = listener.accept() => accepted.unwrap_err(),
        () = flood => panic!("the listener went away"),
    };
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(listener.accept().await.unwrap().is_none());
    timeout(PATIENCE, drain).await.unwrap();
}
