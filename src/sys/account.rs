//! Running a program as another user.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use nix::libc;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist, setgid, setgroups, setuid};

/// A user and its groups, looked up before there is a child: what reads the user database may not run
/// between fork and exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// None to stay who we are, in another group.
    user: Option<Person>,
    group: Gid,
    /// All of them.
    groups: Vec<Gid>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Person {
    id: Uid,
    name: String,
    home: PathBuf,
}

/// Why nothing can run as somebody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    #[error("there is no user \"{0}\" on this machine")]
    NoUser(String),
    #[error("there is no group \"{0}\" on this machine")]
    NoGroup(String),
    #[error("the user database cannot be read: {0}")]
    Unreadable(String),
    #[error(
        "only root, or who has CAP_SETUID and CAP_SETGID, can start workers as somebody else; start sidetrack so, or leave it out"
    )]
    NotAllowed,
}

impl Account {
    /// The account that a user and a group make, by name or by number. Without a group it has the user's.
    ///
    /// # Errors
    /// When one of them does not exist, or this process may not become anybody else.
    pub fn find(user: Option<&str>, group: Option<&str>) -> Result<Option<Self>, AccountError> {
        if user.is_none() && group.is_none() {
            return Ok(None);
        }
        let user = user.map(find_user).transpose()?;
        let group = group.map(find_group).transpose()?;
        let group = group.or_else(|| user.as_ref().map(|user| user.gid)).unwrap_or_else(Gid::current);
        let groups = match &user {
            Some(user) => CString::new(user.name.as_str())
                .ok()
                .and_then(|name| getgrouplist(&name, group).ok())
                .unwrap_or_else(|| vec![group]),
            None => vec![group],
        };
        let user = user.map(|user| Person { id: user.uid, name: user.name, home: user.dir });
        if !may_change() {
            return Err(AccountError::NotAllowed);
        }
        Ok(Some(Self { user, group, groups }))
    }

    /// Has a program run as this account. What it may do beyond that of an ordinary user ends with it.
    #[allow(
        unsafe_code,
        reason = "the standard library has no other way to do this in the child, in this order"
    )]
    pub fn put_on(&self, program: &mut Command) {
        if let Some(Person { name, home, .. }) = &self.user {
            program.env("USER", name).env("LOGNAME", name).env("HOME", home);
        }
        let (user, group, groups) = (self.user.as_ref().map(|user| user.id), self.group, self.groups.clone());
        let become_it = move || -> io::Result<()> {
            // In this order: whoever has become another user may not change groups any more.
            setgroups(&groups)?;
            setgid(group)?;
            if let Some(user) = user {
                setuid(user)?;
            }
            drop_ambient();
            Ok(())
        };
        // SAFETY: it makes system calls and nothing else; the list was allocated before.
        unsafe { program.pre_exec(become_it) };
    }
}

/// Capabilities that would be inherited in spite of the change of user.
fn drop_ambient() {
    // SAFETY: it takes numbers and touches no memory. Where the kernel has no such capabilities it fails, and
    // there are none to drop.
    #[allow(unsafe_code, reason = "no safe wrapper has it")]
    let _ = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
}

fn find_user(name: &str) -> Result<User, AccountError> {
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    let found = found.map_err(|error| AccountError::Unreadable(error.to_string()))?;
    found.ok_or_else(|| AccountError::NoUser(name.to_owned()))
}

fn find_group(name: &str) -> Result<Gid, AccountError> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    let found = Group::from_name(name).map_err(|error| AccountError::Unreadable(error.to_string()))?;
    found.map(|group| group.gid).ok_or_else(|| AccountError::NoGroup(name.to_owned()))
}

/// By `capabilities(7)`: numbers 6 and 7.
fn may_change() -> bool {
    const WANTED: u64 = 1 << 6 | 1 << 7;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    effective.map_or_else(|| Uid::effective().is_root(), |bits| bits & WANTED == WANTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_does_not_exist_is_named() {
        assert_eq!(Account::find(None, None), Ok(None));
        let error = Account::find(Some("no-such-user"), None).unwrap_err();
        assert_eq!(error.to_string(), "there is no user \"no-such-user\" on this machine");
        let error = Account::find(Some("root"), Some("no-such-group")).unwrap_err();
        assert_eq!(error, AccountError::NoGroup("no-such-group".into()));
    }

    #[test]
    fn a_user_is_found_by_name_and_by_number_with_its_groups() {
        let root = Account::find(Some("root"), None);
        assert_eq!(root, Account::find(Some("0"), None));
        match root {
            Ok(account) => assert!(account.is_some_and(|account| account.groups.contains(&account.group))),
            Err(error) => assert_eq!(error, AccountError::NotAllowed),
        }
    }
}
