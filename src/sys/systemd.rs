//! What systemd passes to a service when it starts it.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use nix::fcntl::{FcntlArg, fcntl};

/// Told to this process alone: workers are none of systemd's services.
pub const PRIVATE: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Takes the descriptors that were passed, with their names, and forgets that they were: a program that
/// follows this one in its process would take others for them.
///
/// To be called once, before there is a second thread.
///
/// # Errors
/// When what was passed is not there.
pub fn passed() -> io::Result<Vec<(OwnedFd, String)>> {
    // SAFETY: nobody else reads or changes the environment, since this is the only thread.
    #[allow(unsafe_code, reason = "the environment is shared by all threads")]
    let listed = unsafe { sd_notify::listen_fds_with_names_and_unset_env() }?;
    listed
        .map(|(number, name)| {
            // SAFETY: it is only looked at. A number that nobody has opened is an error here, and no
            // descriptor that somebody else may get.
            #[allow(unsafe_code, reason = "descriptors are passed as numbers")]
            let there = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
            fcntl(there, FcntlArg::F_GETFD)?;
            // SAFETY: it is open, and these numbers were passed to this process, which takes them here once.
            #[allow(unsafe_code, reason = "descriptors are passed as numbers")]
            Ok((unsafe { OwnedFd::from_raw_fd(number) }, name))
        })
        .collect()
}
