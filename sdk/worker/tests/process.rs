//! What needs a process of its own: the inherited channel, and the limit on descriptors.
//!
//! Each test starts this binary again, as sidetrack starts a worker, to run one ignored test in it.

#![allow(clippy::panic, clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sidetrack_worker::wire::{self, encode};
use sidetrack_worker::{ChannelError, Listener};
use tokio::io::AsyncReadExt;

/// Runs a test of this file in a process with a channel, and returns what it said.
fn worker(test: &str) -> String {
    let (here, there) = UnixStream::pair().unwrap();
    fcntl(&there, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(wire::CHANNEL_FD, there.as_raw_fd().to_string())
        .output()
        .unwrap();
    drop(there);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let mut said = String::new();
    (&here).read_to_string(&mut said).unwrap();
    said
}

#[test]
fn the_channel_is_inherited_once() {
    assert_eq!(worker("inherits"), String::from_utf8_lossy(encode::READY));
}

#[tokio::test]
#[ignore = "runs inside the_channel_is_inherited_once"]
async fn inherits() {
    let number: i32 = std::env::var(wire::CHANNEL_FD).unwrap().parse().unwrap();
    let mut listener = Listener::from_env().unwrap();
    listener.ready();
    assert!(matches!(Listener::from_env(), Err(ChannelError::Taken)));
    // A program started by this one must not get the channel.
    let left = Command::new("readlink").arg(format!("/proc/self/fd/{number}")).output().unwrap();
    assert!(left.stdout.is_empty(), "{left:?}");
    // The end of the process would not wait for the farewell: the listener has to live until then.
    std::mem::forget(listener);
}

#[test]
fn a_program_without_a_channel_says_how_to_get_one() {
    let text = ChannelError::NotStarted.to_string();
    assert!(text.contains("sidetrack run --"), "{text}");
}

#[test]
fn at_the_limit_a_connection_is_refused_and_the_next_is_not_mistaken_for_it() {
    worker("is_full");
}

#[tokio::test]
#[ignore = "runs inside at_the_limit_a_connection_is_refused_and_the_next_is_not_mistaken_for_it"]
async fn is_full() {
    let (channel, there) = UnixStream::pair().unwrap();
    let mut listener = Listener::new(there).unwrap();
    let (_reader, lost) = std::io::pipe().unwrap();
    let (mut client, accepted) = UnixStream::pair().unwrap();
    client.write_all(b"!").unwrap();

    // In two parts, so that the line of the lost descriptor ends in the read that brings the next.
    let (front, back) = encode::CONNECTION.split_at(10);
    wire::send(&channel, front, Some(lost.as_fd())).unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), listener.accept()).await.is_err());
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();

    wire::send(&channel, back, None).unwrap();
    wire::send(&channel, encode::CONNECTION, Some(accepted.as_fd())).unwrap();
    let (mut stream, _) = listener.accept().await.unwrap().unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'!');

    drop((stream, listener));
    channel.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut said = Vec::new();
    (&channel).read_to_end(&mut said).unwrap_err();
    let said = String::from_utf8(said).unwrap();
    let answers: Vec<&str> = said.lines().filter(|line| line.contains("NODE_HANDLE")).collect();
    assert_eq!(answers, [r#"{"cmd":"NODE_HANDLE_NACK"}"#, r#"{"cmd":"NODE_HANDLE_ACK"}"#]);
}
