//! Requests as bytes, in pieces.

use sha1::{Digest as _, Sha1};

/// The largest body.
const LARGEST: usize = 1_000_000;

/// A request with the way it is cut for sending.
#[derive(Debug)]
pub struct Sent {
    pub bytes: Vec<u8>,
    /// Where the pieces end.
    pub cuts: Vec<usize>,
}

/// A body and what must come of it.
#[derive(Debug)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub sha1: String,
}

/// Mostly small, now and then large, sometimes nothing; never text.
pub fn body(random: &mut fastrand::Rng) -> Body {
    let length = match random.u32(0..100) {
        0..20 => 0,
        20..70 => random.usize(1..2000),
        70..95 => random.usize(2000..80_000),
        _ => random.usize(80_000..=LARGEST),
    };
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    let sha1 = Sha1::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Body { bytes, sha1 }
}

pub fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: torture\r\n\r\n").into_bytes()
}

fn post_head(target: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: torture\r\nContent-Type: text/plain;charset=UTF-8\r\n")
}

/// With a length. python-engineio reads no others.
pub fn post(target: &str, body: &[u8]) -> Vec<u8> {
    let head = post_head(target);
    [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

/// With a length or in chunks of any size.
pub fn upload(random: &mut fastrand::Rng, target: &str, body: &[u8]) -> Vec<u8> {
    if random.bool() {
        return post(target, body);
    }
    let head = post_head(target);
    let mut bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    let mut rest = body;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(random.usize(1..=rest.len()));
        // Extensions are allowed, and nobody sends them.
        let extension = if random.u8(..) == 0 { ";name=\"value\"" } else { "" };
        bytes.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
        rest = after;
    }
    let trailer = if random.u8(..) < 20 { "X-Trailer: t\r\n" } else { "" };
    bytes.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
    bytes
}

/// Cut anywhere, mostly into few pieces.
pub fn cut(random: &mut fastrand::Rng, bytes: Vec<u8>) -> Sent {
    let pieces = if random.u8(..) < 160 { 0 } else { random.usize(1..6) };
    let mut cuts: Vec<usize> = (0..pieces).map(|_| random.usize(0..=bytes.len())).collect();
    cuts.push(bytes.len());
    cuts.sort_unstable();
    Sent { bytes, cuts }
}
