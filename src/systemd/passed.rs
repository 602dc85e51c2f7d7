//! Sockets that systemd has opened for this service.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockRef, Type};

use crate::config::{Given, Problems, Setting};
use crate::sys;

/// The setting that says where each of the sockets with a meaning is, by the socket's name.
const NAMED: [(&str, &str); 2] = [("join", "join-socket"), ("admin", "admin")];

/// What was passed and is not used yet.
#[derive(Debug, Default)]
pub struct Passed {
    /// For clients.
    listeners: Vec<OwnedFd>,
    /// Those with a meaning of their own: the setting, and where they are.
    named: Vec<(String, PathBuf, UnixListener)>,
    /// Where those are or were, by setting.
    places: BTreeMap<String, PathBuf>,
}

impl Passed {
    /// Takes what was passed to this process; to be called once, before there is a second thread.
    ///
    /// # Errors
    /// Everything that was passed and is no socket to listen on.
    pub fn take() -> Result<Self, Problems> {
        let passed = sys::systemd::passed()
            .map_err(|error| Problems::one("LISTEN_FDS", format!("what was passed is not there: {error}")))?;
        let (mut sockets, mut problems) = (Self::default(), Problems::default());
        for (descriptor, name) in passed {
            let origin = format!("the socket \"{name}\" (descriptor {})", descriptor.as_raw_fd());
            if let Err(problem) = sockets.sort_in(descriptor, &name) {
                problems.add(origin, problem);
            }
        }
        problems.into_result(sockets)
    }

    /// What was passed to the program before in this process, which has taken it all over.
    #[must_use]
    pub fn resume(places: &BTreeMap<String, PathBuf>) -> Self {
        Self { places: places.clone(), ..Self::default() }
    }

    /// Where the sockets with a meaning of their own are, by setting.
    #[must_use]
    pub const fn places(&self) -> &BTreeMap<String, PathBuf> {
        &self.places
    }

    fn sort_in(&mut self, descriptor: OwnedFd, name: &str) -> Result<(), String> {
        let domain = domain(&descriptor)?;
        let Some((_, setting)) = NAMED.iter().find(|(known, _)| *known == name) else {
            self.listeners.push(descriptor);
            return Ok(());
        };
        if domain != Domain::UNIX {
            return Err(format!(
                "for {setting} it has to be a Unix socket: ListenStream=/run/sidetrack/{name}.sock"
            ));
        }
        let listener = UnixListener::from(descriptor);
        let text = |error: std::io::Error| error.to_string();
        listener.set_nonblocking(true).map_err(text)?;
        let address = listener.local_addr().map_err(text)?;
        let path = address.as_pathname().ok_or("it has no path")?.to_owned();
        self.places.insert((*setting).to_owned(), path.clone());
        self.named.push(((*setting).to_owned(), path, listener));
        Ok(())
    }

    /// Settings that follow from what was passed; whatever else is said wins over them.
    #[must_use]
    pub fn settings(&self) -> Vec<Setting> {
        let setting = |(key, path): (&String, &PathBuf)| Setting {
            key: key.clone(),
            given: Given::Text(path.display().to_string()),
            origin: "the socket that systemd has passed".to_owned(),
        };
        self.places.iter().map(setting).collect()
    }

    /// The sockets for clients.
    #[must_use]
    pub fn listeners(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.listeners)
    }

    /// The socket for a setting, when it is where the setting says.
    pub fn named(&mut self, setting: &str, path: &Path) -> Option<UnixListener> {
        let place = self.named.iter().position(|(known, at, _)| known == setting && at == path)?;
        Some(self.named.swap_remove(place).2)
    }

    /// Every socket with a meaning must have been used by now.
    ///
    /// # Errors
    /// Those that are elsewhere than the settings say.
    pub fn used_up(&self) -> Result<(), Problems> {
        let mut problems = Problems::default();
        for (setting, path, _) in &self.named {
            problems.add(
                setting,
                format!("systemd has passed a socket at {}, and the setting says something else; leave one of them out", path.display()),
            );
        }
        problems.into_result(())
    }
}

/// Of a socket that takes connections.
fn domain(descriptor: &OwnedFd) -> Result<Domain, String> {
    const WAY_OUT: &str = "sidetrack takes sockets of ListenStream= with Accept=no";
    let socket = SockRef::from(descriptor);
    let kind = socket.r#type().map_err(|_| format!("it is no socket; {WAY_OUT}"))?;
    if kind != Type::STREAM {
        let kind = if kind == Type::DGRAM { "a datagram socket" } else { "no stream socket" };
        return Err(format!("it is {kind}; {WAY_OUT}"));
    }
    if !socket.is_listener().unwrap_or(false) {
        return Err(format!("it is a connection and does not listen; {WAY_OUT}"));
    }
    let domain = socket.domain().map_err(|error| error.to_string())?;
    let known = [Domain::IPV4, Domain::IPV6, Domain::UNIX].contains(&domain);
    if known { Ok(domain) } else { Err(format!("it is neither TCP nor a Unix socket; {WAY_OUT}")) }
}
