//! Bytes to lines, and the descriptors that came along.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Cuts a byte stream into lines without their newline.
///
/// Knows no socket: bytes and descriptors are pushed in as they arrive. Descriptors wait in order
/// until a message that speaks of one takes it.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Where the first unread line starts.
    start: usize,
    /// How far the unread part is known to hold no newline.
    scanned: usize,
    limit: usize,
    /// None for one that was lost on the way: its message must not take the next one's.
    descriptors: VecDeque<Option<OwnedFd>>,
}

/// A line longer than the limit. The stream cannot be followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line of more than {limit} bytes")]
pub struct Oversized {
    /// In bytes, without the newline.
    pub limit: usize,
}

impl Decoder {
    /// A decoder that refuses lines longer than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, scanned: 0, limit, descriptors: VecDeque::new() }
    }

    /// Takes what one read brought.
    pub fn push(&mut self, bytes: &[u8], descriptors: impl IntoIterator<Item = OwnedFd>) {
        // Move the unread rest to the front before the buffer grows, so that it stays as small
        // as the longest line in flight.
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
        self.descriptors.extend(descriptors.into_iter().map(Some));
    }

    /// Notes that the descriptor of a message just pushed did not arrive.
    pub fn push_lost(&mut self) {
        self.descriptors.push_back(None);
    }

    /// The next whole line, if there is one.
    ///
    /// # Errors
    /// [`Oversized`] when the line under way is over the limit.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, Oversized> {
        let newline = self.buffer[self.scanned..].iter().position(|&byte| byte == b'\n');
        let end = newline.map_or(self.buffer.len(), |offset| self.scanned + offset);
        if end - self.start > self.limit {
            return Err(Oversized { limit: self.limit });
        }
        if newline.is_none() {
            self.scanned = end;
            return Ok(None);
        }
        let line = &self.buffer[self.start..end];
        self.start = end + 1;
        self.scanned = self.start;
        Ok(Some(line))
    }

    /// The oldest descriptor nobody has taken yet; none when it was lost.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front().flatten()
    }

    /// Closes descriptors that no message spoke of and returns how many. Does nothing while a line
    /// is under way, which might still do so.
    pub fn close_strays(&mut self) -> usize {
        if self.start < self.buffer.len() {
            return 0;
        }
        self.descriptors.drain(..).flatten().count()
    }

    /// How many descriptors wait.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        self.descriptors.len()
    }

    /// What was pushed and not yet read: bytes, and descriptors in order, none for one that was lost.
    /// Pushed into another decoder, it goes on as this one would.
    pub fn rest(&self) -> (&[u8], impl Iterator<Item = Option<BorrowedFd<'_>>>) {
        let descriptors = self.descriptors.iter().map(|descriptor| descriptor.as_ref().map(|it| it.as_fd()));
        (&self.buffer[self.start..], descriptors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_however_they_are_cut() {
        let stream = b"{\"a\":1}\n\n{\"b\":2}\n{\"c\"";
        for size in 1..=stream.len() {
            let mut decoder = Decoder::new(64);
            let mut lines: Vec<Vec<u8>> = Vec::new();
            for piece in stream.chunks(size) {
                decoder.push(piece, None);
                while let Some(line) = decoder.next_line().unwrap() {
                    lines.push(line.to_vec());
                }
            }
            assert_eq!(lines, [&b"{\"a\":1}"[..], b"", b"{\"b\":2}"], "pieces of {size}");
        }
    }

    #[test]
    fn another_decoder_goes_on_with_the_rest() {
        let mut before = Decoder::new(64);
        let descriptor = || std::io::pipe().unwrap().0.into();
        before.push(b"whole\nha", [descriptor()]);
        before.push_lost();
        assert_eq!(before.next_line(), Ok(Some(&b"whole"[..])));
        let mut after = Decoder::new(64);
        let (rest, descriptors) = before.rest();
        after.push(rest, None);
        assert_eq!(descriptors.map(|it| it.is_some()).collect::<Vec<_>>(), [true, false]);
        assert_eq!(after.next_line(), Ok(None));
        after.push(b"lf\n", None);
        assert_eq!(after.next_line(), Ok(Some(&b"half"[..])));
    }

    #[test]
    fn a_line_over_the_limit_is_refused_early() {
        let mut decoder = Decoder::new(8);
        decoder.push(b"12345678\n123456789", None);
        assert_eq!(decoder.next_line(), Ok(Some(&b"12345678"[..])));
        assert_eq!(decoder.next_line(), Err(Oversized { limit: 8 }));
    }
}
