//! Sending and receiving descriptors beside bytes.

use std::cell::RefCell;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use sendfd::SendWithFd;

/// The most descriptors one read can bring: Linux never joins two messages that carry descriptors
/// into one read, and takes no more than this (`SCM_MAX_FD`) in one message.
const MOST_DESCRIPTORS: usize = 253;

thread_local! {
    /// Where the kernel puts descriptors; no read waits while it is borrowed.
    static CONTROL: RefCell<Vec<u8>> = RefCell::new(nix::cmsg_space!([RawFd; MOST_DESCRIPTORS]));
}

/// What one read brought.
#[derive(Debug, Default)]
pub struct Received {
    /// Bytes at the front of the buffer; 0 means the peer closed the channel.
    pub bytes: usize,
    /// Close-on-exec, in order.
    pub descriptors: Vec<OwnedFd>,
    /// A descriptor was on its way and is gone: this process has as many as it may. The bytes are
    /// good; [`Decoder::push_lost`](super::Decoder::push_lost) keeps the messages in step.
    pub lost: bool,
}

/// Writes a message, with at most one descriptor attached to its first byte.
///
/// Returns how many bytes went out. Once that is not 0 the descriptor is on its way and must not
/// be attached again; the rest of the message follows without it.
///
/// # Errors
/// As `sendmsg(2)`: `WouldBlock` when the channel is full, `ETOOMANYREFS` when too many
/// descriptors are in flight, `BrokenPipe` when the peer is gone.
pub fn send(channel: &UnixStream, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    match descriptor {
        Some(descriptor) => channel.send_with_fd(bytes, &[descriptor.as_raw_fd()]),
        None => io::Write::write(&mut &*channel, bytes),
    }
}

/// Reads once without waiting.
///
/// # Errors
/// As `recvmsg(2)`; `WouldBlock` when nothing is there.
pub fn receive(channel: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    CONTROL.with_borrow_mut(|control| receive_with(control, channel.as_fd(), buffer))
}

fn receive_with(control: &mut [u8], channel: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(
        channel.as_raw_fd(),
        &mut parts,
        Some(control),
        MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT,
    )?;
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Ok(Received { bytes: message.bytes, descriptors: Vec::new(), lost: true });
    }
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the kernel has just made these descriptors for this process, and this is
            // the only place that sees their numbers. nix has no owned form for them.
            #[allow(unsafe_code, reason = "the kernel hands descriptors over as numbers")]
            descriptors.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    Ok(Received { bytes: message.bytes, descriptors, lost: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_descriptor_travels_with_its_bytes_and_is_closed_on_exec() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        assert_eq!(send(&here, b"take this", Some(writer.as_fd())).unwrap(), 9);
        drop(writer);

        let mut buffer = [0; 64];
        let received = receive(&there, &mut buffer).unwrap();
        assert_eq!(&buffer[..received.bytes], b"take this");
        let [descriptor] = <[OwnedFd; 1]>::try_from(received.descriptors).unwrap();
        let flags = nix::fcntl::fcntl(&descriptor, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_ne!(flags & nix::fcntl::FdFlag::FD_CLOEXEC.bits(), 0);

        // The received one was the last writer: dropping it ends the pipe.
        drop(descriptor);
        assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn an_empty_channel_would_block_and_a_closed_one_is_empty() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut buffer = [0; 8];
        assert_eq!(receive(&here, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(there);
        assert_eq!(receive(&here, &mut buffer).unwrap().bytes, 0);
    }
}
