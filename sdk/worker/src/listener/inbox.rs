//! The next message from sidetrack.

use std::io;
use std::sync::Arc;

use crate::channel::Channel;
use crate::wire::{Decoder, ToWorker, encode};

/// What a worker has read may come along with a connection, and is as long as a request.
const LONGEST_LINE: usize = 16 << 20;

/// One read brings at most one connection, whose line mostly has about a hundred bytes.
const READ_SIZE: usize = 4096;

pub(super) fn decoder() -> Decoder {
    Decoder::new(LONGEST_LINE)
}

/// The next message; none when sidetrack is gone. Cancel safe: what was read is in `inbox`.
pub(super) async fn next(inbox: &mut Decoder, channel: &Channel) -> io::Result<Option<ToWorker>> {
    let mut buffer = [0; READ_SIZE];
    loop {
        match inbox.next_line() {
            // What is none of ours is no concern: a program may be sent what it likes.
            Ok(Some(line)) => return Ok(Some(ToWorker::parse(line).unwrap_or(ToWorker::Other))),
            Ok(None) => {
                inbox.close_strays();
            }
            Err(oversized) => return Err(io::Error::new(io::ErrorKind::InvalidData, oversized)),
        }
        let received = channel.receive(&mut buffer).await?;
        if received.bytes == 0 {
            return Ok(None);
        }
        inbox.push(&buffer[..received.bytes], received.descriptors);
        if received.lost {
            inbox.push_lost();
        }
    }
}

/// Gives back what comes after the listener has gone, so that no client waits for a worker that
/// will never read it.
pub(super) async fn refuse(mut inbox: Decoder, channel: Arc<Channel>) {
    while let Ok(Some(message)) = next(&mut inbox, &channel).await {
        match message {
            ToWorker::Connection(_) | ToWorker::Probe | ToWorker::Damaged => {
                drop(inbox.take_descriptor());
                channel.say(encode::HANDLE_NACK);
            }
            ToWorker::HandleNack => report_lost(),
            ToWorker::HandleAck | ToWorker::Disconnect | ToWorker::Acknowledged | ToWorker::Other => {}
        }
    }
    channel.hang_up();
}

/// A connection handed back did not arrive; nobody has it any more.
pub(super) fn report_lost() {
    tracing::debug!("a client was lost on its way back to sidetrack");
}
