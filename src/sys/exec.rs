//! Becoming another program in the same process: what goes along, and what the new program finds.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::execve;

use super::capabilities;

/// A file that exists in memory only, and in a new program if its descriptor goes along.
///
/// # Errors
/// As `memfd_create(2)`.
pub fn memory_file(name: &str) -> io::Result<File> {
    Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC)?.into())
}

/// Now, on a clock that an exec does not set.
#[must_use]
pub fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// The file that this process was started from, as it was named: through a link that may lead elsewhere
/// by now, if it was.
///
/// # Errors
/// When not even the kernel knows.
pub fn own_file() -> io::Result<PathBuf> {
    let known = std::env::current_exe()?;
    let named = PathBuf::from(std::env::args_os().next().unwrap_or_default());
    let named = if named.components().count() > 1 {
        Some(std::path::absolute(named)?)
    } else {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&folders).map(|folder| folder.join(&named));
        found.into_iter().find(|file| file.is_file())
    };
    let same = |file: &PathBuf| file.canonicalize().is_ok_and(|file| file == known);
    Ok(named.filter(same).unwrap_or(known))
}

/// Becomes the program in a file, with these arguments behind its name, one more variable in its
/// environment, and these descriptors besides those that go along anyway. Returns only when that
/// fails; then everything is as before.
///
/// The descriptors' owners must outlive the call.
///
/// # Errors
/// As `execve(2)`.
pub fn become_program(
    file: &Path,
    arguments: &[OsString],
    variable: (&str, &str),
    descriptors: &[RawFd],
) -> io::Result<Infallible> {
    let text = |text: &OsStr| CString::new(text.as_bytes()).map_err(io::Error::other);
    let program = text(file.as_os_str())?;
    let mut words = vec![program.clone()];
    for argument in arguments {
        words.push(text(argument)?);
    }
    let mut environment = vec![text(OsStr::new(&format!("{}={}", variable.0, variable.1)))?];
    for (name, value) in std::env::vars_os().filter(|(name, _)| name != variable.0) {
        environment.push(text(&[name, value].join(OsStr::new("=")))?);
    }
    // Without them it may still do what needs none; it says itself what fails.
    drop(capabilities::hand_on());
    let done = keep_open(descriptors, true).and_then(|()| Ok(execve(&program, &words, &environment)?));
    // Whatever is started from here on gets nothing of it.
    capabilities::keep_back();
    let again = keep_open(descriptors, false);
    done.and_then(|never| again.map(|()| never))
}

fn keep_open(descriptors: &[RawFd], open: bool) -> io::Result<()> {
    let flags = if open { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
    for number in descriptors {
        fcntl(borrow(*number), FcntlArg::F_SETFD(flags))?;
    }
    Ok(())
}

/// Takes over a descriptor that has come along through an exec. It is closed at the next one.
///
/// # Errors
/// When there is none of that number.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(Errno::EBADF.into());
    }
    fcntl(borrow(number), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, as the call before has shown, and came through an exec, so that nothing in this
    // program owns it; whoever carries descriptors takes each number once.
    #[allow(unsafe_code, reason = "after an exec descriptors are only known by number")]
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The number of a descriptor that is to go along.
pub fn number(descriptor: impl AsFd) -> RawFd {
    descriptor.as_fd().as_raw_fd()
}

fn borrow(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: it is used for one fcntl(2) at once, which says so when the number is not open.
    #[allow(unsafe_code, reason = "the flags of a descriptor that is known by number")]
    unsafe {
        BorrowedFd::borrow_raw(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_executed_changes_nothing() {
        let file = memory_file("test").unwrap();
        let number = number(&file);
        for (path, errno) in [("/nobody/here", Errno::ENOENT), ("/etc/passwd", Errno::EACCES)] {
            let error = become_program(Path::new(path), &[], ("A", "b"), &[number]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno as i32));
            let flags = fcntl(&file, FcntlArg::F_GETFD).unwrap();
            assert_eq!(FdFlag::from_bits_retain(flags), FdFlag::FD_CLOEXEC, "closed at the next exec");
        }
        assert!(inherited(1).is_err() && inherited(1_000_000).is_err());
    }

    #[test]
    fn this_program_knows_its_file() {
        assert_eq!(own_file().unwrap().canonicalize().unwrap(), std::env::current_exe().unwrap());
    }
}
