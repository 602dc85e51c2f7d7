//! Streams against a client and sidetrack's end of the channel.

use super::*;
use crate::fake::{Fake, PATIENCE, tcp_pair};
use crate::wire::{Luggage, encode};
use crate::{Listener, Settings};
use std::cell::Cell;
use std::future::poll_fn;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const FOREIGN: &[u8] = b"GET /?sid=foreign HTTP/1.1\r\n\r\n";

struct Scene {
    fake: Fake,
    listener: Listener,
    client: TcpStream,
    stream: Stream,
}

/// A stream whose worker owns the session `own`, with luggage, as sidetrack sends it.
async fn scene(luggage: Option<(&[u8], bool)>) -> Scene {
    let (mut fake, mut listener) = Fake::with_settings(Settings {
        session_key: Some("query:sid".parse().unwrap()),
        ..Settings::default()
    });
    listener.sessions().open("own").await.keep();
    let (client, accepted, _) = tcp_pair();
    let line = luggage.map_or_else(|| encode::CONNECTION.to_vec(), with_luggage);
    fake.send(&line, Some(accepted.as_fd()));
    drop(accepted);
    let (stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().unwrap();
    assert_eq!(fake.waiting().len(), 3);
    Scene { fake, listener, client, stream }
}

fn with_luggage((data, last_stop): (&[u8], bool)) -> Vec<u8> {
    let mut line = Vec::new();
    encode::connection(&mut line, &Luggage { data: data.into(), last_stop, peer: None });
    line
}

async fn read(stream: &mut Stream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    timeout(PATIENCE, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    bytes
}

async fn is_at_its_end(stream: &mut Stream) -> bool {
    timeout(PATIENCE, stream.read(&mut [0; 100])).await.unwrap().unwrap() == 0
}

#[tokio::test]
async fn a_handed_back_socket_is_unread_and_untouched() {
    let Scene { mut fake, listener, mut client, mut stream } = scene(None).await;
    client.write_all(FOREIGN).unwrap();
    assert!(is_at_its_end(&mut stream).await);
    assert!(stream.is_handed_back() && stream.descriptor().is_none());
    let (lines, descriptor) = fake.with_descriptor().await;
    assert_eq!(lines[0].as_bytes(), encode::hand_back(b"", None).trim_ascii_end());
    assert_eq!(stream.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    let vectored = stream.write_vectored(&[IoSlice::new(b"x")]).await;
    assert_eq!(vectored.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    stream.flush().await.unwrap();
    stream.shutdown().await.unwrap();
    timeout(PATIENCE, listener.idle()).await.unwrap();
    drop(stream);

    // Its new owner reads every byte, and only it can close the connection.
    let mut socket = TcpStream::from(descriptor);
    socket.set_nonblocking(false).unwrap();
    let mut request = FOREIGN.to_vec();
    socket.read_exact(&mut request).unwrap();
    assert_eq!(request, FOREIGN);
    socket.write_all(b"answer").unwrap();
    drop(socket);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
    fake.send(encode::HANDLE_NACK, None);
}

#[tokio::test]
async fn luggage_comes_first_and_follows_the_same_rules() {
    let own = b"POST /?sid=own HTTP/1.1\r\nContent-Length: 10\r\n\r\n0123456789";
    let stream = [own.as_slice(), own, FOREIGN, b"GET /rest"].concat();
    for cut in 0..=stream.len() {
        let (luggage, rest) = stream.split_at(cut);
        let Scene { mut fake, mut client, mut stream, listener: _listener } =
            scene(Some((luggage, false))).await;
        client.write_all(rest).unwrap();
        for _ in 0..2 {
            assert_eq!(read(&mut stream, own.len()).await, own, "cut at {cut}");
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        }
        assert!(is_at_its_end(&mut stream).await);
        let (lines, _) = fake.with_descriptor().await;
        let unread = luggage.get(own.len() * 2..).unwrap_or_default();
        assert_eq!(lines[0].as_bytes(), encode::hand_back(unread, None).trim_ascii_end(), "cut at {cut}");
    }
}

#[tokio::test]
async fn only_the_first_request_is_final() {
    for luggage in [FOREIGN, b"", &FOREIGN[..10]] {
        let Scene { mut fake, mut client, mut stream, listener: _listener } =
            scene(Some((luggage, true))).await;
        client.write_all(&[&FOREIGN[luggage.len()..], FOREIGN].concat()).unwrap();
        assert_eq!(read(&mut stream, FOREIGN.len()).await, FOREIGN);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        assert!(is_at_its_end(&mut stream).await);
        fake.with_descriptor().await;
    }
}

#[tokio::test]
async fn a_vectored_response_in_parts_is_followed() {
    let Scene { mut fake, mut client, mut stream, listener: _listener } = scene(None).await;
    client.write_all(b"GET /?sid=own HTTP/1.1\r\n\r\n").unwrap();
    client.write_all(FOREIGN).unwrap();
    read(&mut stream, 26).await;
    let parts: Vec<IoSlice<'_>> =
        [b"HTTP/1.1 200 OK\r\nContent-".as_slice(), b"", b"Length: 4\r\n\r\nbo"].map(IoSlice::new).to_vec();
    assert_eq!(stream.write_vectored(&parts).await.unwrap(), 40);
    assert!(timeout(Duration::from_millis(20), stream.read_u8()).await.is_err());
    // Whoever waits in a read is woken by the write that completes the response.
    let (mut reader, mut writer) = tokio::io::split(stream);
    let waiting = tokio::spawn(async move { reader.read(&mut [0; 100]).await });
    tokio::task::yield_now().await;
    writer.write_all(b"dy").await.unwrap();
    assert_eq!(timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap(), 0);
    fake.with_descriptor().await;
}

#[tokio::test]
async fn a_head_that_comes_slowly_is_looked_at_once_for_each_piece() {
    let Scene { mut fake, mut client, mut stream, listener: _listener } = scene(None).await;
    let polls = Cell::new(0);
    let mut buffer = [0; 100];
    let mut reading = std::pin::pin!(async {
        let mut part = ReadBuf::new(&mut buffer);
        poll_fn(|cx| {
            polls.set(polls.get() + 1);
            Pin::new(&mut stream).poll_read(cx, &mut part)
        })
        .await
    });
    let (last, pieces) = FOREIGN.split_last().unwrap();
    for byte in pieces {
        client.write_all(&[*byte]).unwrap();
        assert!(timeout(Duration::from_millis(2), &mut reading).await.is_err());
    }
    client.write_all(&[*last]).unwrap();
    timeout(PATIENCE, reading).await.unwrap().unwrap();
    // Each piece may cost its own poll and that of the timeout, and no more.
    assert!(polls.get() <= 3 * FOREIGN.len(), "{} polls", polls.get());
    fake.with_descriptor().await;
}

#[tokio::test]
async fn what_is_no_whole_head_goes_to_the_server() {
    // The client has gone in the middle of a head.
    let Scene { client, mut stream, .. } = scene(Some((b"GET /?sid=for", false))).await;
    (&client).write_all(b"eign HTTP").unwrap();
    drop(client);
    assert_eq!(read(&mut stream, 22).await, b"GET /?sid=foreign HTTP");
    assert!(is_at_its_end(&mut stream).await);
    // It has said nothing at all.
    let Scene { client, mut stream, .. } = scene(None).await;
    drop(client);
    assert!(is_at_its_end(&mut stream).await);
    // A head without end, and another protocol.
    let endless = [b"GET /?sid=foreign HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; LONGEST_LOOK]].concat();
    for bytes in [endless.as_slice(), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0\r\n\r\n"] {
        let Scene { mut client, mut stream, .. } = scene(None).await;
        client.write_all(bytes).unwrap();
        assert_eq!(read(&mut stream, bytes.len()).await, bytes);
        assert!(!stream.is_handed_back());
    }
}

#[tokio::test]
async fn connections_are_left_alone_where_that_is_wanted() {
    for keepalive in [crate::Keepalive::Worker, crate::Keepalive::Close] {
        let session_key = Some("query:sid".parse().unwrap());
        let (fake, mut listener) =
            Fake::with_settings(Settings { session_key, keepalive, ..Settings::default() });
        let (mut client, _) = crate::fake::connect(&fake);
        client.write_all(FOREIGN).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap().unwrap();
        assert_eq!(read(&mut stream, FOREIGN.len()).await, FOREIGN);
    }
}

#[tokio::test]
async fn a_probe_is_answered_whatever_it_asks_for() {
    let Scene { fake, mut listener, .. } = scene(None).await;
    let (mut here, there) = std::os::unix::net::UnixStream::pair().unwrap();
    fake.send(encode::PROBE, Some(there.as_fd()));
    here.write_all(FOREIGN).unwrap();
    let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().unwrap();
    assert_eq!(read(&mut stream, FOREIGN.len()).await, FOREIGN);
}

#[tokio::test]
async fn a_client_on_a_unix_socket_is_handed_back_too() {
    let Scene { mut fake, mut listener, .. } = scene(None).await;
    let (mut here, there) = std::os::unix::net::UnixStream::pair().unwrap();
    fake.hand_over(there.as_fd());
    here.write_all(&FOREIGN[..12]).unwrap();
    let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().unwrap();
    assert!(timeout(Duration::from_millis(10), stream.read_u8()).await.is_err());
    here.write_all(&FOREIGN[12..]).unwrap();
    assert!(is_at_its_end(&mut stream).await);
    fake.with_descriptor().await;
}

#[tokio::test]
async fn a_connection_that_cannot_be_handed_back_is_served() {
    let Scene { fake, mut client, mut stream, listener: _listener } = scene(None).await;
    // The stream finds out only when it tries: nobody reads the channel meanwhile.
    drop(fake);
    client.write_all(FOREIGN).unwrap();
    assert_eq!(read(&mut stream, FOREIGN.len()).await, FOREIGN);
    stream.write_all(b"answer").await.unwrap();
    drop(stream);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
}

#[tokio::test]
async fn a_session_that_its_client_names_stays_where_it_was_sent() {
    let (mut fake, mut listener) =
        Fake::with_settings(Settings { session_key: Some("path:2".parse().unwrap()), ..Settings::default() });
    #[cfg(feature = "tower")]
    let _layer = crate::SessionLayer::new(listener.sessions());
    let (mut client, accepted, _) = tcp_pair();
    fake.send(
        b"{\"cmd\":\"NODE_HANDLE\",\"msg\":{\"sidetrack\":{\"final\":true}}}\n",
        Some(accepted.as_fd()),
    );
    drop(accepted);
    let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().unwrap();
    let request = b"GET /echo/s1/xhr HTTP/1.1\r\n\r\n";
    client.write_all(request).unwrap();
    client.write_all(request).unwrap();
    assert_eq!(read(&mut stream, request.len()).await, request);
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    if cfg!(feature = "tower") {
        assert_eq!(read(&mut stream, request.len()).await, request);
        let said = fake.waiting();
        assert_eq!(said[2..], [r#"{"ends":false,"sid":"s1","type":"sidetrack:opened"}"#]);
    } else {
        assert!(is_at_its_end(&mut stream).await);
    }
}
