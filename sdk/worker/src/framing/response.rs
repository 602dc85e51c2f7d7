//! The answers on their way out: which requests are still to be answered in full.

use std::collections::VecDeque;
use std::mem::MaybeUninit;

use httparse::{Header, Status};

use super::chunked::Chunked;
use super::{Body, Kind, MOST_HEADERS, Malformed, content_length, ends_chunked, has, lists};

/// A longer response head is not followed.
const LONGEST_HEAD: usize = 64 * 1024;

/// Follows the responses on one connection.
#[derive(Debug, Default)]
pub(crate) struct Responses {
    /// Requests the server has been given and not answered in full, oldest first.
    unanswered: VecDeque<Kind>,
    part: Part,
    /// The beginning of a head that was written in pieces.
    head: Vec<u8>,
}

#[derive(Debug, Default)]
enum Part {
    #[default]
    Head,
    Length(u64),
    Chunks(Chunked),
}

/// What the bytes written mean for the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goes {
    /// More requests may follow.
    On,
    /// No further request can follow: another protocol begins, or the connection will be closed,
    /// or the server speaks something else.
    Elsewhere,
}

impl Responses {
    /// Notes that a request has been given to the server.
    pub(crate) fn expect(&mut self, kind: Kind) {
        self.unanswered.push_back(kind);
    }

    /// How many requests wait for the end of their response.
    pub(crate) fn outstanding(&self) -> usize {
        self.unanswered.len()
    }

    /// Follows what has been written.
    pub(crate) fn follow(&mut self, mut bytes: &[u8]) -> Goes {
        while !bytes.is_empty() {
            match self.follow_part(bytes) {
                Ok((used, Goes::On)) => bytes = &bytes[used..],
                Ok((_, Goes::Elsewhere)) | Err(Malformed) => return Goes::Elsewhere,
            }
        }
        Goes::On
    }

    fn follow_part(&mut self, bytes: &[u8]) -> Result<(usize, Goes), Malformed> {
        let (used, ended) = match &mut self.part {
            Part::Head => return self.follow_head(bytes),
            Part::Length(left) => {
                let used = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= used as u64;
                (used, *left == 0)
            }
            Part::Chunks(chunks) => (chunks.follow(bytes)?, chunks.has_ended()),
        };
        if ended {
            self.finish();
        }
        Ok((used, Goes::On))
    }

    fn follow_head(&mut self, bytes: &[u8]) -> Result<(usize, Goes), Malformed> {
        let kind = *self.unanswered.front().ok_or(Malformed)?;
        let before = self.head.len();
        let parsed = if before == 0 {
            parse(bytes, kind)?
        } else {
            self.head.extend_from_slice(bytes);
            parse(&self.head, kind)?
        };
        let Some(head) = parsed else {
            if before == 0 {
                self.head.extend_from_slice(bytes);
            }
            return if self.head.len() > LONGEST_HEAD { Err(Malformed) } else { Ok((bytes.len(), Goes::On)) };
        };
        self.head = Vec::new();
        match head.meaning {
            Meaning::Interim => {}
            Meaning::Last => return Ok((bytes.len(), Goes::Elsewhere)),
            Meaning::Final(Body::Length(0)) => self.finish(),
            Meaning::Final(Body::Length(length)) => self.part = Part::Length(length),
            Meaning::Final(Body::Chunked) => self.part = Part::Chunks(Chunked::new()),
            Meaning::Final(Body::Open) => return Ok((bytes.len(), Goes::Elsewhere)),
        }
        Ok((head.length - before, Goes::On))
    }

    fn finish(&mut self) {
        self.part = Part::Head;
        self.unanswered.pop_front();
    }
}

struct Head {
    length: usize,
    meaning: Meaning,
}

enum Meaning {
    /// Another head follows for the same request.
    Interim,
    Final(Body),
    /// Nothing of HTTP follows.
    Last,
}

fn parse(bytes: &[u8], kind: Kind) -> Result<Option<Head>, Malformed> {
    let mut storage: [MaybeUninit<Header<'_>>; MOST_HEADERS] =
        [const { MaybeUninit::uninit() }; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut response, bytes, &mut storage)
        .map_err(|_| Malformed)?;
    let Status::Complete(length) = status else { return Ok(None) };
    let (Some(code), Some(minor)) = (response.code, response.version) else { return Err(Malformed) };
    let meaning = meaning(code, minor, kind, response.headers)?;
    Ok(Some(Head { length, meaning }))
}

fn meaning(code: u16, minor: u8, kind: Kind, headers: &[Header<'_>]) -> Result<Meaning, Malformed> {
    let closes = match minor {
        0 => !lists(headers, "connection", "keep-alive"),
        _ => lists(headers, "connection", "close"),
    };
    Ok(match code {
        101 => Meaning::Last,
        100..=199 => Meaning::Interim,
        200..=299 if kind == Kind::Connect => Meaning::Last,
        _ if closes => Meaning::Last,
        204 | 304 => Meaning::Final(Body::Length(0)),
        _ if kind == Kind::Head => Meaning::Final(Body::Length(0)),
        _ if has(headers, "transfer-encoding") => {
            Meaning::Final(if ends_chunked(headers) { Body::Chunked } else { Body::Open })
        }
        _ => Meaning::Final(content_length(headers)?.map_or(Body::Open, Body::Length)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(kinds: &[Kind], pieces: &[&[u8]]) -> (Goes, usize) {
        let mut responses = Responses::default();
        kinds.iter().for_each(|&kind| responses.expect(kind));
        let mut goes = Goes::On;
        for piece in pieces {
            goes = responses.follow(piece);
        }
        (goes, responses.outstanding())
    }

    const SEVERAL: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
        HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n\
        HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nT: 1\r\n\r\n\
        HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\n\r\nHTTP/1.1 204 \r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n";
    const ASKED: [Kind; 6] = [Kind::Plain, Kind::Head, Kind::Plain, Kind::Plain, Kind::Plain, Kind::Plain];

    #[test]
    fn responses_are_counted_wherever_they_are_cut() {
        assert_eq!(follow(&ASKED, &[SEVERAL]), (Goes::On, 0));
        for cut in 0..=SEVERAL.len() {
            let (front, back) = SEVERAL.split_at(cut);
            assert_eq!(follow(&ASKED, &[front, back]), (Goes::On, 0), "cut at {cut}");
            if cut < SEVERAL.len() {
                assert!(follow(&ASKED, &[front]).1 > 0, "{cut} bytes are not all");
            }
        }
        let single: Vec<&[u8]> = SEVERAL.chunks(1).collect();
        assert_eq!(follow(&ASKED, &single), (Goes::On, 0));
    }

    #[test]
    fn some_responses_are_the_last() {
        for last in [
            "101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x01\x02",
            "200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            "200 OK\r\n\r\nuntil the end",
            "200 OK\r\nTransfer-Encoding: gzip\r\n\r\nuntil the end",
            "200 OK\r\nContent-Length: x\r\n\r\n",
        ] {
            let bytes = format!("HTTP/1.1 {last}");
            assert_eq!(follow(&[Kind::Plain], &[bytes.as_bytes()]).0, Goes::Elsewhere, "{last}");
        }
        let old = b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(follow(&[Kind::Plain], &[old]).0, Goes::Elsewhere);
        let kept = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(follow(&[Kind::Plain], &[kept]), (Goes::On, 0));
        let tunnel = b"HTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(follow(&[Kind::Connect], &[tunnel]).0, Goes::Elsewhere);
        let refused = b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(follow(&[Kind::Connect], &[refused]), (Goes::On, 0));
    }

    #[test]
    fn an_answer_to_nobody_and_another_protocol_are_not_followed() {
        let answer = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(follow(&[], &[answer]).0, Goes::Elsewhere);
        assert_eq!(follow(&[Kind::Plain], &[b"\0\0\0 not HTTP"]).0, Goes::Elsewhere);
        let endless = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 70_000]].concat();
        assert_eq!(follow(&[Kind::Plain], &[&endless]).0, Goes::Elsewhere);
    }
}
