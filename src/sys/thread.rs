//! Threads that give way.

use nix::libc;
use nix::unistd::gettid;

/// How much the others come first: a share of the processor about a tenth of theirs while they want it.
const NICE: i32 = 10;

/// `PRIO_PROCESS`, whose type differs from one C library to the next. Linux takes a thread for a process
/// here.
const ONE_THREAD: u8 = 0;

/// Has this thread give way to all others. That it cannot be had is no matter.
pub fn give_way() {
    let thread = libc::id_t::try_from(gettid().as_raw()).unwrap_or(0);
    // SAFETY: it reads its three numbers and nothing else.
    #[allow(unsafe_code, reason = "no safe wrapper has it")]
    let _ = unsafe { libc::setpriority(ONE_THREAD.into(), thread, NICE) };
}
