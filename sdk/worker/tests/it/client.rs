//! A client that cuts its requests anywhere, and reads responses with a parser of its own.

use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::server::checksum;

pub struct Client {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

/// A request and the answer to expect.
#[derive(Clone)]
pub struct Ask {
    pub bytes: Vec<u8>,
    pub answer: String,
    pub owner: String,
}

pub struct Answer {
    pub status: u16,
    pub worker: String,
    pub body: String,
}

impl Client {
    pub fn new(stream: TcpStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self { reader: BufReader::new(reader), writer }
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).await.unwrap();
    }

    /// Writes in pieces, now and then with a pause.
    pub async fn write_in_pieces(&mut self, mut bytes: &[u8], random: &mut Rng) {
        let longest = [1, 3, 40, 2000, 100_000][random.usize(..5)];
        // A byte at a time is for heads; a megabyte would take all day.
        let longest = longest.max(bytes.len() / 300);
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(random.usize(1..=longest.min(bytes.len())));
            self.write(piece).await;
            bytes = rest;
            match random.u8(..20) {
                0 => tokio::time::sleep(Duration::from_millis(1)).await,
                1..=9 => tokio::task::yield_now().await,
                _ => {}
            }
        }
    }

    /// Says that nothing more will be written.
    pub async fn end(&mut self) {
        self.writer.shutdown().await.unwrap();
    }

    pub async fn answer(&mut self) -> Answer {
        let (mut status, mut worker, mut length, mut chunked) = (0, String::new(), 0, false);
        loop {
            let mut line = String::new();
            assert_ne!(self.reader.read_line(&mut line).await.unwrap(), 0, "the connection was closed");
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some(code) = line.strip_prefix("HTTP/1.1 ") {
                status = code[..3].parse().unwrap();
            } else if let Some((name, value)) = line.split_once(": ") {
                match name {
                    "x-worker" => worker = value.to_owned(),
                    "content-length" => length = value.parse().unwrap(),
                    "transfer-encoding" => chunked = true,
                    _ => {}
                }
            }
        }
        let body = if chunked { self.chunks().await } else { self.exactly(length).await };
        Answer { status, worker, body: String::from_utf8(body).unwrap() }
    }

    pub async fn expect(&mut self, ask: &Ask) {
        let answer = self.answer().await;
        let found = (answer.status, answer.worker.as_str(), answer.body.as_str());
        assert_eq!(found, (200, ask.owner.as_str(), ask.answer.as_str()));
    }

    pub async fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.reader.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    /// True when the other end has closed the connection in order.
    pub async fn is_closed(&mut self) -> bool {
        self.reader.read(&mut [0]).await.unwrap() == 0
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).await.unwrap();
            let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
            body.extend(self.exactly(size).await);
            assert_eq!(self.exactly(2).await, b"\r\n");
            if size == 0 {
                return body;
            }
        }
    }
}

/// A request for a path and a session, of a random shape.
pub fn ask(path: &str, sid: &str, owner: &str, random: &mut Rng, longest: usize) -> Ask {
    let target = format!("{path}?n={}&sid={sid}", random.u16(..));
    let mut body = vec![0; if longest == 0 { 0 } else { random.usize(..longest) }];
    random.fill(&mut body);
    // Heads of other sessions within a body are no heads.
    if body.len() > 100 && random.bool() {
        let decoy = b"\r\n\r\nGET /?sid=nobody HTTP/1.1\r\n\r\n";
        let place = random.usize(..body.len() - decoy.len());
        body[place..place + decoy.len()].copy_from_slice(decoy);
    }
    let answer = format!("{target} {} {}", body.len(), checksum(&body));
    let mut bytes = Vec::new();
    if longest == 0 && random.bool() {
        bytes.extend(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").bytes());
    } else if random.bool() {
        let length = body.len();
        bytes.extend(format!("POST {target} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n").bytes());
        bytes.extend(&body);
    } else {
        bytes.extend(format!("PUT {target} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").bytes());
        let mut rest = body.as_slice();
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(random.usize(1..=rest.len()));
            let extension = if random.bool() { ";name=\"value\"" } else { "" };
            bytes.extend(format!("{:x}{extension}\r\n", chunk.len()).bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
            rest = after;
        }
        bytes.extend(if random.bool() { b"0\r\n\r\n".as_slice() } else { b"0\r\nTrailer: x\r\n\r\n" });
    }
    Ask { bytes, answer, owner: owner.to_owned() }
}
