//! One worker's end of the wire: lines in, messages out, in order.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use sidetrack_worker::wire::{self, Decoder, Oversized};

/// The longest line a worker may send. Adapter messages carry application data.
const LONGEST_LINE: usize = 16 * 1024 * 1024;

/// The most descriptors that may wait for their message. A worker that hands back has one under way.
const MOST_DESCRIPTORS: usize = 64;

/// The most bytes that may wait for a worker that does not read.
const MOST_OUTBOUND: usize = 16 * 1024 * 1024;

/// The state of a channel. The socket itself is lent to each call, so that it can be watched
/// without a lock.
#[derive(Debug)]
pub struct Channel {
    decoder: Decoder,
    /// Bytes that the socket did not take, from `flushed` on.
    outbound: Vec<u8>,
    flushed: usize,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// It is out, or its rest is first in line.
    Done,
    /// The channel is full. Nothing was sent.
    Blocked,
    /// Too many descriptors are in flight, on whatever channel. Nothing was sent.
    Crowded,
}

/// What one read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// There may be more.
    More,
    /// Everything there was.
    Drained,
    /// The worker has closed its end.
    Closed,
}

impl Channel {
    /// A channel on which nothing was said.
    #[must_use]
    pub fn new() -> Self {
        Self { decoder: Decoder::new(LONGEST_LINE), outbound: Vec::new(), flushed: 0 }
    }

    /// What was read and is no whole line yet, and the descriptors that came along.
    pub fn unread(&self) -> (&[u8], impl Iterator<Item = Option<BorrowedFd<'_>>>) {
        self.decoder.rest()
    }

    /// What waits to be written. It begins in the middle of a message, if one was written in part.
    #[must_use]
    pub fn unwritten(&self) -> &[u8] {
        &self.outbound[self.flushed..]
    }

    /// Goes on where another one has stopped, with what it had left unread and unwritten.
    pub fn resume(&mut self, unread: &[u8], descriptors: Vec<Option<OwnedFd>>, unwritten: &[u8]) {
        self.decoder.push(unread, None);
        for descriptor in descriptors {
            match descriptor {
                Some(descriptor) => self.decoder.push(&[], Some(descriptor)),
                None => self.decoder.push_lost(),
            }
        }
        self.outbound.extend_from_slice(unwritten);
    }

    /// True when nothing waits to be written.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.flushed == self.outbound.len()
    }

    /// Sends a message with a descriptor, unless something else waits or the channel is full.
    ///
    /// # Errors
    /// When the worker is gone.
    pub fn hand_over(
        &mut self,
        socket: &UnixStream,
        message: &[u8],
        descriptor: BorrowedFd<'_>,
    ) -> io::Result<Sending> {
        if !self.idle() {
            return Ok(Sending::Blocked);
        }
        match wire::send(socket, message, Some(descriptor)) {
            Ok(sent) => {
                // The descriptor went with the first byte; the rest follows as plain bytes.
                self.outbound.extend_from_slice(&message[sent..]);
                Ok(Sending::Done)
            }
            Err(error) if full(&error) => Ok(Sending::Blocked),
            Err(error) if crowded(&error) => Ok(Sending::Crowded),
            Err(error) => Err(error),
        }
    }

    /// Puts a message without a descriptor in line. False when too much waits already.
    pub fn say(&mut self, message: &[u8]) -> bool {
        let fits = self.outbound.len() - self.flushed + message.len() <= MOST_OUTBOUND;
        if fits {
            self.outbound.extend_from_slice(message);
        }
        fits
    }

    /// Writes what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// When the worker is gone.
    pub fn flush(&mut self, socket: &UnixStream) -> io::Result<()> {
        while !self.idle() {
            match wire::send(socket, &self.outbound[self.flushed..], None) {
                Ok(sent) => self.flushed += sent,
                Err(error) if full(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.outbound.clear();
        self.flushed = 0;
        // One burst of broadcasts must not keep megabytes for good.
        self.outbound.shrink_to(64 * 1024);
        Ok(())
    }

    /// Reads once. Descriptors wait for the message that speaks of them.
    ///
    /// # Errors
    /// When the channel is broken.
    pub fn read(&mut self, socket: &UnixStream, buffer: &mut [u8]) -> io::Result<Reading> {
        match wire::receive(socket, buffer) {
            Ok(received) if received.bytes == 0 => Ok(Reading::Closed),
            Ok(received) => {
                // A short read has emptied the socket, unless it stopped behind a descriptor.
                let more = received.bytes == buffer.len() || !received.descriptors.is_empty();
                self.decoder.push(&buffer[..received.bytes], received.descriptors);
                if received.lost {
                    self.decoder.push_lost();
                }
                Ok(if more { Reading::More } else { Reading::Drained })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Reading::Drained),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Reading::More),
            Err(error) => Err(error),
        }
    }

    /// The descriptor of the message just read; none when it was lost on its way.
    pub fn descriptor(&mut self) -> Option<OwnedFd> {
        self.decoder.take_descriptor()
    }

    /// Closes descriptors that belong to no message, or are more than any message needs, and
    /// returns how many.
    pub fn close_surplus(&mut self) -> usize {
        let mut surplus = self.decoder.close_strays();
        while self.decoder.descriptors() > MOST_DESCRIPTORS {
            drop(self.decoder.take_descriptor());
            surplus += 1;
        }
        surplus
    }

    /// The next whole line.
    ///
    /// # Errors
    /// When a line is too long to be followed.
    pub fn line(&mut self) -> Result<Option<&[u8]>, Oversized> {
        self.decoder.next_line()
    }
}

/// The socket's buffer is full for now.
fn full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// A limit of this user or of the machine, of which no socket tells when it is over.
fn crowded(error: &io::Error) -> bool {
    const LIMITS: [Errno; 3] = [Errno::ETOOMANYREFS, Errno::ENOBUFS, Errno::ENOMEM];
    LIMITS.iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}
