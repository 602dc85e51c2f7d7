//! Lines that wait to leave, and the descriptors that leave with some of them.
//!
//! Knows no socket: the one who writes is given what may go out in one call.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::wire::encode;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// What has not left yet.
    waiting: Vec<u8>,
    /// How many bytes were ever put in.
    written: u64,
    /// Descriptors, each with the place in the stream where its line begins.
    descriptors: VecDeque<(u64, OwnedFd)>,
    /// Streams dropped and not yet reported.
    closed_streams: u64,
}

impl Outbox {
    /// Puts a line in, and returns how many bytes have left once it has.
    pub(crate) fn put(&mut self, line: &[u8]) -> u64 {
        self.waiting.extend_from_slice(line);
        self.written += line.len() as u64;
        self.written
    }

    /// The same for a line that a descriptor goes with. It is closed once it has left.
    pub(crate) fn put_with(&mut self, line: &[u8], descriptor: OwnedFd) -> u64 {
        self.descriptors.push_back((self.written, descriptor));
        self.put(line)
    }

    /// Takes back the descriptor put in last, if it has not left.
    pub(crate) fn take_back(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_back().map(|(_, descriptor)| descriptor)
    }

    pub(crate) fn note_closed_stream(&mut self) {
        self.closed_streams += 1;
    }

    /// Puts in what has been noted: reports come together.
    pub(crate) fn put_reports(&mut self) {
        if self.closed_streams > 0 {
            let line = encode::sockets_closed(std::mem::take(&mut self.closed_streams));
            self.put(&line);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many bytes have left.
    pub(crate) fn departed(&self) -> u64 {
        self.written - self.waiting.len() as u64
    }

    /// What may be written in one call: a descriptor has to go with the first byte of its line.
    pub(crate) fn next(&self) -> (&[u8], Option<BorrowedFd<'_>>) {
        let here = self.departed();
        let mut places = self.descriptors.iter();
        let first = places.clone().next().filter(|(place, _)| *place == here);
        if first.is_some() {
            places.next();
        }
        let end = places.next().and_then(|(place, _)| usize::try_from(place - here).ok());
        let bytes = end.and_then(|end| self.waiting.get(..end)).unwrap_or(&self.waiting);
        (bytes, first.map(|(_, descriptor)| descriptor.as_fd()))
    }

    /// Notes that this many bytes of [`next`](Self::next) have left.
    pub(crate) fn depart(&mut self, bytes: usize) {
        if bytes > 0 && self.next().1.is_some() {
            self.descriptors.pop_front();
        }
        self.waiting.drain(..bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_descriptor_leaves_with_the_first_byte_of_its_line_and_is_closed_then() {
        for step in 1..12 {
            let mut outbox = Outbox::default();
            let (mut first_end, first) = std::io::pipe().unwrap();
            let (_second_end, second) = std::io::pipe().unwrap();
            outbox.put(b"plain\n");
            outbox.put_with(b"first\n", first.into());
            outbox.put_with(b"second\n", second.into());
            outbox.put(b"last\n");
            let (mut left, mut with) = (Vec::new(), Vec::new());
            while !outbox.is_empty() {
                let (bytes, descriptor) = outbox.next();
                let bytes = bytes[..step.min(bytes.len())].to_vec();
                if descriptor.is_some() {
                    with.push(left.len());
                }
                outbox.depart(bytes.len());
                left.extend_from_slice(&bytes);
                assert_eq!(outbox.departed(), left.len() as u64);
            }
            assert_eq!(left, b"plain\nfirst\nsecond\nlast\n");
            assert_eq!(with, [6, 12]);
            assert_eq!(first_end.read(&mut [0]).unwrap(), 0);
            assert!(outbox.take_back().is_none());
        }
    }
}
