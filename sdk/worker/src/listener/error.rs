//! Why there is no channel to sidetrack.

use std::io;
use std::os::fd::RawFd;

use crate::join::JoinError;
use crate::settings::SettingError;
use crate::wire;

/// Why there is no channel to sidetrack.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// There is no sign of sidetrack in the environment.
    #[error(
        "neither {} nor {} is set: this program gets its connections from sidetrack, so start it with `sidetrack run -- PROGRAM`, or name the socket of a running sidetrack",
        wire::CHANNEL_FD,
        wire::JOIN
    )]
    NotStarted,
    /// The environment variable holds something else.
    #[error(
        "{}={value} is not a descriptor number: it is set by sidetrack, and nothing between sidetrack and this program may change it",
        wire::CHANNEL_FD
    )]
    NotANumber {
        /// What it holds.
        value: String,
    },
    /// The descriptor is closed, or something else.
    #[error(
        "descriptor {number}, named by {}, is {found}, not the channel to sidetrack: a wrapper between sidetrack and this program may have closed it, so let the wrapper `exec` the program with its descriptors open",
        wire::CHANNEL_FD
    )]
    NotAChannel {
        /// Its number.
        number: RawFd,
        /// What it is.
        found: String,
    },
    /// There is a listener already, or was one.
    #[error("the channel to sidetrack is already in use: one process has one listener")]
    Taken,
    /// A running sidetrack could not be joined.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The surroundings are not understood.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The system refused.
    #[error("the channel to sidetrack cannot be used")]
    Io(#[from] io::Error),
}
