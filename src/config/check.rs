//! Whether settings that are each valid can be run together, and on this machine.

use std::path::Path;
use std::time::Duration;

use super::{Admin, Config, Problems, pool};
use crate::admin::Token;
use crate::listener::ListenAddress;
use crate::sys::account::AccountError;
use crate::types::Opening;
use crate::worker::node;

impl Config {
    /// Whatever concerns the machine or more than one setting.
    pub(super) fn check(&self, problems: &mut Problems) {
        if self.has_default_pool() {
            problems.append("", self.check_workers("it behind `--`: sidetrack run -- node server.js"));
        }
        problems.append("", self.check_patience());
        pool::check(self, problems);
        let preambles = self.opening == Opening::Preamble
            || self.listens().iter().any(|listen| listen.opening == Some(Opening::Preamble));
        if !self.front.proxy_from.is_empty() && !preambles {
            problems.add("proxy-from", "no listener expects a PROXY header; say which with proxy-protocol");
        }
        self.check_admin(problems);
        let admin = if let Admin::At(path) = &self.admin { Some(path) } else { None };
        for (key, path) in [
            ("ready-file", self.ready_file.as_ref()),
            ("access-log", self.access_log.as_ref()),
            ("admin-token-file", self.admin_token_file.as_ref()),
            ("admin", admin),
        ] {
            path.into_iter().for_each(|path| check_place(key, path, problems));
        }
        self.check_listens(problems);
        #[cfg(feature = "otlp")]
        if let Err(error) = self.traces() {
            problems.add("otlp-endpoint", error);
        }
        #[cfg(not(feature = "otlp"))]
        if self.otlp_endpoint.is_some() {
            problems.add(
                "otlp-endpoint",
                "this build sends no traces; make one that does with: cargo build --release --features otlp",
            );
        }
    }

    /// The same of what a pool has for itself; `how` a command is said.
    pub(super) fn check_workers(&self, how: &str) -> Problems {
        let mut problems = Problems::default();
        if self.workers == 0 && self.join_socket.is_none() {
            problems.add("workers", "with 0 no worker would ever come; say where they join with join-socket");
        }
        match self.command.first() {
            None if self.workers == 0 => {}
            None => problems.add("command", format!("nothing to run; say {how}")),
            Some(program) if !found(program, self.folder.as_deref()) => {
                let text =
                    format!("\"{program}\" is not a program: neither a file that can be run nor on the PATH");
                problems.add("command", text);
            }
            Some(_) => {
                if let Some(name) = node::wrapper(&self.command) {
                    problems.add("command", node::advice(name, &self.command, Path::new(".")));
                }
            }
        }
        match self.account() {
            Err(error @ AccountError::NoGroup(_)) => problems.add("group", error.to_string()),
            Err(error) => problems.add("user", error.to_string()),
            Ok(_) => {}
        }
        if let Some(folder) = self.folder.as_deref().filter(|folder| !folder.is_dir()) {
            problems.add("cwd", no_folder(folder));
        }
        self.join_socket.iter().for_each(|path| check_place("join-socket", path, &mut problems));
        for path in self.watch.iter().flatten().filter(|path| !path.exists()) {
            problems.add("watch", format!("{} does not exist", path.display()));
        }
        if self.join_group.is_some() && self.join_socket.is_none() {
            problems.add("join-group", "there is no socket to join at; say where with join-socket");
        }
        problems
    }

    /// What silent workers are given.
    pub(super) fn patience(&self) -> (Duration, Duration) {
        (self.worker.unresponsive_after, self.worker.replace_after)
    }

    pub(super) fn check_patience(&self) -> Problems {
        let mut problems = Problems::default();
        let (unresponsive, replaced) = self.patience();
        if replaced < unresponsive {
            problems.add("replace-after", "must not be shorter than unresponsive-after");
        }
        problems
    }

    /// That two listeners would be in each other's way, or have nowhere to be.
    fn check_listens(&self, problems: &mut Problems) {
        let listens = self.listens();
        for (place, listen) in listens.iter().enumerate() {
            if listens[..place].iter().any(|other| other.address.overlaps(&listen.address)) {
                problems.add("listen", format!("{} is listened on already; name it once", listen.address));
            }
            if let ListenAddress::Unix(path) = &listen.address {
                check_place("listen", path, problems);
            }
        }
    }

    /// Nobody from elsewhere acts here without a token.
    fn check_admin(&self, problems: &mut Problems) {
        match (self.admin_listen, &self.admin_token_file) {
            (None, Some(_)) => problems.add(
                "admin-token-file",
                "there is nobody to ask for a token; say where to listen with admin-listen",
            ),
            (Some(address), None) if !address.ip().to_canonical().is_loopback() => problems.add(
                "admin-listen",
                format!(
                    "{address} can be reached from other machines: name a file for a token with admin-token-file (it \
                     is made when it is not there), or listen on 127.0.0.1:{}",
                    address.port()
                ),
            ),
            (Some(_), Some(path)) if path.exists() => {
                if let Err(error) = Token::read(path) {
                    problems.add("admin-token-file", error.to_string());
                }
            }
            _ => {}
        }
    }
}

/// Whether a file can be made where it is to be.
fn check_place(key: &str, path: &Path, problems: &mut Problems) {
    let missing = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir());
    if path.as_os_str().is_empty() {
        problems.add(key, "expected a path, found nothing");
    } else if path.is_dir() {
        problems.add(key, format!("{} is a folder; name a file in it", path.display()));
    } else if let Some(folder) = missing {
        problems.add(key, no_folder(folder));
    }
}

fn no_folder(path: &Path) -> String {
    if path.exists() {
        format!("{} is no folder", path.display())
    } else {
        format!("the folder {} does not exist", path.display())
    }
}

/// True when a command can be started, as `execvp(3)` would look for it.
fn found(program: &str, folder: Option<&Path>) -> bool {
    use nix::unistd::{AccessFlags, access};
    let runs = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    if program.contains('/') {
        return runs(&folder.unwrap_or_else(|| Path::new("")).join(program));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| runs(&folder.join(program)))
}
