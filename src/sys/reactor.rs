//! Watching descriptors that somebody else owns.

use std::io;
use std::os::fd::BorrowedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the runtime watch a descriptor for as long as the result lives.
///
/// # Errors
/// When the descriptor cannot be watched, or the machine has no room for one more.
pub fn watch(descriptor: BorrowedFd<'_>, interest: Interest) -> io::Result<AsyncFd<BorrowedFd<'_>>> {
    // SAFETY: a borrowed descriptor stays open and keeps its number while the borrow lasts, and the
    // result cannot outlive the borrow; it is dropped, and so no longer watched, before the owner
    // can close it.
    #[allow(unsafe_code, reason = "tokio leaves this promise to the caller; the borrow keeps it")]
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, interest) };
    Ok(watched?)
}
