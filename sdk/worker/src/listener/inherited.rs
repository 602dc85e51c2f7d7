//! The channel a process gets from the sidetrack that has started it.

use std::env;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt,
};

use super::ChannelError;
use crate::wire;

/// A descriptor is adopted once per process, whoever asks.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The channel the environment names; none when it names none.
pub(super) fn from_env() -> Result<Option<UnixStream>, ChannelError> {
    let Some(value) = env::var_os(wire::CHANNEL_FD) else { return Ok(None) };
    let value = value.to_string_lossy();
    // 0, 1 and 2 are what every process has; none of them can be the channel.
    let number = value
        .parse()
        .ok()
        .filter(|&number: &RawFd| number > 2)
        .ok_or_else(|| ChannelError::NotANumber { value: value.to_string() })?;
    inherited(number).map(Some)
}

/// Adopts the channel's descriptor after a look at what it is.
fn inherited(number: RawFd) -> Result<UnixStream, ChannelError> {
    let wrong = |found: String| ChannelError::NotAChannel { number, found };
    let found = std::fs::read_link(format!("/proc/self/fd/{number}"))
        .map_err(|error| wrong(format!("not open ({error})")))?;
    if !found.to_string_lossy().starts_with("socket:") {
        return Err(wrong(found.display().to_string()));
    }
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(ChannelError::Taken);
    }
    // SAFETY: the descriptor is open, as we have just seen; sidetrack has put it there for whoever
    // reads the variable that names it, and `TAKEN` lets one caller do so in the life of a process.
    #[allow(unsafe_code, reason = "an inherited descriptor is known by its number alone")]
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };

    let name: SockaddrStorage = getsockname(descriptor.as_raw_fd()).map_err(io::Error::from)?;
    let kind = getsockopt(&descriptor, sockopt::SockType).map_err(io::Error::from)?;
    if name.family() != Some(AddressFamily::Unix) || kind != SockType::Stream {
        return Err(wrong("a socket of another kind".into()));
    }
    fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(io::Error::from)?;
    Ok(descriptor.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_that_is_no_channel_is_named() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let message = |number: RawFd| inherited(number).unwrap_err().to_string();
        assert!(message(file.as_raw_fd()).contains("is /dev/null, not the channel"));
        assert!(message(1_000_000).contains("not open"));
        drop(tcp);
    }
}
