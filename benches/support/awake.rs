//! Clients that never sleep.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread::yield_now;
use std::time::{Duration, Instant};

/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A connection whose client looks for an answer again and again, in turn with the others of its core. One
/// that slept would have to be woken by whoever answers it, and to wake a core that idles costs a process on
/// a virtual machine as much as the answer itself; behind a network that is nobody's expense.
#[derive(Debug)]
pub struct Awake(TcpStream);

impl Awake {
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self(stream))
    }
}

/// Waits for a moment in the same way.
pub fn until(moment: Instant) {
    while Instant::now() < moment {
        yield_now();
    }
}

fn retry<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && start.elapsed() < PATIENCE => {
                yield_now()
            }
            done => return done,
        }
    }
}

impl Read for Awake {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| self.0.read(buffer))
    }
}

impl Write for Awake {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        retry(|| self.0.write(data))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
