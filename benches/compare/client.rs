//! Clients as thin as they can be: HTTP on one connection, and Socket.IO over a WebSocket. They never sleep.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};
use tungstenite::{Message, WebSocket};

use crate::support::awake::{Awake, PATIENCE};

/// A connection of one of many clients, each of which has an address of its own.
pub fn connect(server: SocketAddr, client: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Without this the kernel would take a port now, for whatever server it may be used.
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    let host = u8::try_from(client % 200).unwrap_or(0) + 1;
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)).into())?;
    socket.connect(&server.into())?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// One HTTP connection; opened again when it has ended.
#[derive(Debug)]
pub struct Http {
    server: SocketAddr,
    client: usize,
    stream: Option<BufReader<Awake>>,
    answer: Vec<u8>,
    head: usize,
}

impl Http {
    pub const fn new(server: SocketAddr, client: usize) -> Self {
        Self { server, client, stream: None, answer: Vec::new(), head: 0 }
    }

    /// Sends, reads the answer, and returns its body. Anything but 200 is an error.
    pub fn exchange(&mut self, request: &[u8]) -> io::Result<&[u8]> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::new(Awake::new(connect(self.server, self.client)?)?),
        };
        stream.get_mut().write_all(request)?;
        if self.read(&mut stream)? {
            self.stream = Some(stream);
        }
        if self.answer.starts_with(b"HTTP/1.1 200") {
            Ok(&self.answer[self.head..])
        } else {
            Err(io::Error::other(String::from_utf8_lossy(&self.answer).into_owned()))
        }
    }

    /// A header of the last answer.
    pub fn header(&self, name: &str) -> Option<String> {
        let head = String::from_utf8_lossy(&self.answer[..self.head]).into_owned();
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    }

    /// False when the connection ends with the answer.
    fn read(&mut self, stream: &mut BufReader<Awake>) -> io::Result<bool> {
        self.answer.clear();
        let (mut length, mut stays) = (0, true);
        loop {
            let start = self.answer.len();
            if stream.read_until(b'\n', &mut self.answer)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = String::from_utf8_lossy(&self.answer[start..]).to_ascii_lowercase();
            match line.trim_end().split_once(": ") {
                Some(("content-length", text)) => length = text.parse().map_err(io::Error::other)?,
                Some(("connection", "close")) => stays = false,
                None if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        self.head = self.answer.len();
        self.answer.resize(self.head + length, 0);
        stream.read_exact(&mut self.answer[self.head..])?;
        Ok(stays)
    }
}

/// A session opened by polling: its id, and the pid of its worker.
pub fn open_session(http: &mut Http) -> io::Result<(String, u32)> {
    let body = http.exchange(&get("/socket.io/?EIO=4&transport=polling"))?;
    let body = String::from_utf8_lossy(body).into_owned();
    let sid = body.split("\"sid\":\"").nth(1).and_then(|rest| rest.split('"').next());
    let pid = http.header("x-worker-pid").and_then(|pid| pid.parse().ok());
    match (sid, pid) {
        (Some(sid), Some(pid)) => Ok((sid.to_owned(), pid)),
        _ => Err(io::Error::other(format!("no session in {body}"))),
    }
}

pub fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n").into_bytes()
}

pub fn post(target: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {target} HTTP/1.1\r\nHost: bench\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A WebSocket of Engine.IO.
#[derive(Debug)]
pub struct EngineIo(WebSocket<Awake>);

impl EngineIo {
    /// Opened for a session, or for a new one.
    pub fn open(server: SocketAddr, client: usize, sid: Option<&str>) -> io::Result<Self> {
        let sid = sid.map(|sid| format!("&sid={sid}")).unwrap_or_default();
        let uri = format!("ws://{server}/socket.io/?EIO=4&transport=websocket{sid}");
        let stream = Awake::new(connect(server, client)?)?;
        let (socket, _) =
            tungstenite::client(uri, stream).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self(socket))
    }

    pub fn send(&mut self, text: &str) -> io::Result<()> {
        self.0.send(Message::text(text)).map_err(io::Error::other)
    }

    /// The next message that is no ping, which is answered.
    pub fn next(&mut self) -> io::Result<String> {
        loop {
            let message = self.0.read().map_err(io::Error::other)?;
            match message.to_text() {
                Ok("2") => self.send("3")?,
                Ok(text) => return Ok(text.to_owned()),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    /// The next message, which begins like this.
    pub fn expect(&mut self, beginning: &str) -> io::Result<()> {
        let text = self.next()?;
        if text.starts_with(beginning) {
            return Ok(());
        }
        Err(io::Error::other(format!("{text} instead of {beginning}")))
    }
}

/// A WebSocket that nobody uses.
pub fn idle_socket(server: SocketAddr, client: usize) -> io::Result<TcpStream> {
    let mut stream = connect(server, client)?;
    stream.write_all(b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2lkZXRyYWNrIGJlbmNoLg==\r\n\r\n")?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    if &answer == b"HTTP/1.1 101" { Ok(stream) } else { Err(io::Error::other("no WebSocket")) }
}
