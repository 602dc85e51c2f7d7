//! HTTP by hand: bytes when and how a test wants them.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// No answer takes this long.
const DEADLINE: Duration = Duration::from_secs(30);

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// Read and not yet part of a response.
    rest: Vec<u8>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("connecting to {address}: {error}"))
    }

    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, rest: Vec::new() })
    }

    /// Connected, with this already sent.
    #[track_caller]
    pub fn with(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Self {
        let mut client = Self::connect(address);
        client.send(bytes);
        client
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the connection takes bytes");
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends no more, and goes on reading.
    #[track_caller]
    pub fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).expect("the connection is open");
    }

    /// Everything up to the end of the connection.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = std::mem::take(&mut self.rest);
        self.stream.read_to_end(&mut bytes).map(|_| bytes)
    }

    /// One response; the connection may go on.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.try_response().expect("a response")
    }

    pub fn try_response(&mut self) -> io::Result<Response> {
        loop {
            if let Some((response, used)) = Response::parse(&self.rest) {
                self.rest.drain(..used);
                return Ok(response);
            }
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer)? {
                0 => {
                    let text = format!("closed after {:?}", String::from_utf8_lossy(&self.rest));
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
                }
                length => self.rest.extend_from_slice(&buffer[..length]),
            }
        }
    }

    /// Sends a request and waits for its response.
    #[track_caller]
    pub fn exchange(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request);
        self.response()
    }

    /// Leaves HTTP: a WebSocket session of Engine.IO, opened.
    #[track_caller]
    pub fn websocket(address: SocketAddr) -> Self {
        Self::connect(address).into_websocket()
    }

    /// The same on a connection on which something was sent before.
    #[track_caller]
    pub fn into_websocket(self) -> Self {
        let mut client = self;
        let response = client.exchange(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        );
        assert_eq!(response.status, 101, "{response:?}");
        let open = client.frame();
        assert!(open.starts_with("0{"), "{open}");
        client.send_frame("40");
        let connected = client.frame();
        assert!(connected.starts_with("40{"), "{connected}");
        client
    }

    /// Sends a text frame, masked with zeros.
    #[track_caller]
    pub fn send_frame(&mut self, text: &str) {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 126).expect("a short text");
        self.send([&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat());
    }

    /// The next text frame. Engine.IO's pings are answered on the way.
    #[track_caller]
    pub fn frame(&mut self) -> String {
        loop {
            match self.try_frame().expect("a text frame").as_str() {
                "2" => self.send_frame("3"),
                frame => return frame.to_owned(),
            }
        }
    }

    pub fn try_frame(&mut self) -> io::Result<String> {
        loop {
            let (length, start) = match self.rest[..] {
                [_, 126, high, low, ..] => (usize::from(u16::from_be_bytes([high, low])), 4),
                [_, length @ 0..126, ..] => (usize::from(length), 2),
                _ => (usize::MAX, 0),
            };
            if self.rest.len() >= length.saturating_add(start) {
                let frame: Vec<u8> = self.rest.drain(..start + length).collect();
                if frame[0] != 0x81 {
                    return Err(io::Error::other(format!("no text frame: {frame:?}")));
                }
                return Ok(String::from_utf8_lossy(&frame[start..]).into_owned());
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer)? {
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before a frame")),
                length => self.rest.extend_from_slice(&buffer[..length]),
            }
        }
    }

    /// Calls the server over the WebSocket and waits for what it says.
    #[track_caller]
    pub fn echo(&mut self, text: &str) {
        self.send_frame(&format!("420[\"echo\",\"{text}\"]"));
        assert_eq!(self.frame(), format!("430[\"{text}\"]"));
    }

    /// Whether nothing arrives for a while, end of connection included.
    pub fn quiet_for(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a timeout");
        let quiet = self
            .stream
            .peek(&mut [0])
            .is_err_and(|error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut));
        self.stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        quiet
    }
}

impl Response {
    /// Takes one whole response off the front.
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&bytes[..end]);
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let headers: Vec<_> = lines.filter_map(header).collect();
        let mut response = Self { status, headers, body: Vec::new() };
        if response.header("transfer-encoding") == Some("chunked") {
            let (body, used) = dechunked(&bytes[end..])?;
            response.body = body;
            return Some((response, end + used));
        }
        let length = response.header("content-length").map_or(0, |text| text.parse().expect("a length"));
        response.body = bytes.get(end..end + length)?.to_vec();
        Some((response, end + length))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The process that answered.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["pid"].as_u64().and_then(|pid| pid.try_into().ok()).expect("a pid")
    }
}

/// A whole chunked body, and how long it was in chunks.
fn dechunked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = bytes.get(at..)?.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).ok()?;
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        at += line + 2;
        body.extend_from_slice(bytes.get(at..at + size)?);
        at += size + 2;
        if size == 0 {
            return (at <= bytes.len()).then_some((body, at));
        }
    }
}

/// What the admin interface answers, head and all.
#[track_caller]
pub fn admin(socket: &Path, target: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("the admin socket is there");
    write!(stream, "GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .expect("it takes a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// A GET on a connection of its own, closed afterwards.
#[track_caller]
pub fn get(address: SocketAddr, target: &str) -> Response {
    try_get(address, target).unwrap_or_else(|error| panic!("GET {target}: {error}"))
}

pub fn try_get(address: SocketAddr, target: &str) -> io::Result<Response> {
    let mut client = Client::try_connect(address)?;
    client.try_send(format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"))?;
    client.try_response()
}

/// The worker that answers a new connection.
#[track_caller]
pub fn pid(address: SocketAddr) -> u32 {
    get(address, "/pid").pid()
}

/// Opens a polling session: its id and its owner.
#[track_caller]
pub fn poll_session(address: SocketAddr) -> (String, u32) {
    let response = get(address, "/socket.io/?EIO=4&transport=polling");
    let owner = owner(&response).unwrap_or_else(|| panic!("no session: {response:?}"));
    let open: Value = serde_json::from_slice(&response.body[1..]).expect("a handshake");
    (open["sid"].as_str().expect("a session id").to_owned(), owner)
}

/// Sends a packet into a session, with the query as given: status and the worker that answered.
#[track_caller]
pub fn session_at(address: SocketAddr, query: &str) -> (u16, Option<u32>) {
    let request = format!(
        "POST /socket.io/?EIO=4&transport=polling&{query} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
         Content-Type: text/plain;charset=UTF-8\r\nContent-Length: 2\r\n\r\n40"
    );
    let response = Client::connect(address).exchange(request);
    (response.status, owner(&response))
}

fn owner(response: &Response) -> Option<u32> {
    response.header("x-worker-pid")?.parse().ok()
}
