//! What a worker before this one has read from the connection: it comes before the socket's bytes.

use tokio::io::ReadBuf;

#[derive(Debug, Default)]
pub(crate) struct Replay {
    bytes: Vec<u8>,
    /// How much of it has been read again.
    at: usize,
}

impl Replay {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, at: 0 }
    }

    /// What has not been read again.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Moves up to `limit` bytes into `buffer`, and returns how many.
    pub(crate) fn read(&mut self, buffer: &mut ReadBuf<'_>, limit: u64) -> usize {
        let rest = self.rest();
        let room = buffer.remaining().min(rest.len());
        let length = usize::try_from(limit).map_or(room, |limit| limit.min(room));
        buffer.put_slice(&rest[..length]);
        self.at += length;
        if self.is_empty() {
            *self = Self::default();
        }
        length
    }
}
