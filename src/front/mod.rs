//! The first look at a connection, for runs with something in front of them or with something to fear: who
//! the client truly is, whether it may come in, and what sidetrack answers by itself.
//!
//! Nothing in here is asked for by default, and what is not asked for costs a comparison.

mod forwarded;
mod health;
mod preamble;
mod rates;
mod threshold;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

pub use forwarded::ClientHeader;
pub use health::health_answer;
pub use preamble::{Preamble, PreambleError};
pub use rates::{Rate, Rates};
pub use threshold::Unwelcome;

use crate::peek;
use crate::types::{Accepted, Head, Opening, Refusal, Shares};

/// What a run wants of this stage.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Who may send a PROXY header; anybody, when it is empty.
    pub proxy_from: Vec<IpNet>,
    /// Whose word on their clients' addresses is taken.
    pub trusted_proxies: Vec<IpNet>,
    /// Where they say so.
    pub client_header: ClientHeader,
    /// The path of health checks.
    pub health: Option<String>,
    /// How many pending connections a client may have; 0 for as many as there are.
    pub max_per_client: u32,
    /// How fast a client may open connections.
    pub client_rate: Option<Rate>,
}

/// The stage.
#[derive(Debug)]
pub struct Front {
    settings: Settings,
    /// A preamble and the head behind it share bounds.
    peek: peek::Settings,
    shares: Option<Arc<Shares>>,
    rates: Option<Arc<Rates>>,
}

impl Front {
    #[must_use]
    pub fn new(settings: Settings, peek: peek::Settings) -> Self {
        let shares = (settings.max_per_client > 0).then(|| Arc::new(Shares::new(settings.max_per_client)));
        let rates = settings.client_rate.map(|rate| Arc::new(Rates::new(rate, Instant::now())));
        Self { settings, peek, shares, rates }
    }

    /// The same stage with other settings: what it counts goes on where its bound is the same.
    #[must_use]
    pub fn with(&self, settings: Settings, peek: peek::Settings) -> Self {
        let mut front = Self::new(settings, peek);
        if front.settings.max_per_client == self.settings.max_per_client {
            front.shares.clone_from(&self.shares);
        }
        if front.settings.client_rate == self.settings.client_rate {
            front.rates.clone_from(&self.rates);
        }
        front
    }

    /// What a head may take.
    #[must_use]
    pub const fn bounds(&self) -> peek::Settings {
        self.peek
    }

    /// Who has how many of the pending connections, where that is limited.
    #[must_use]
    pub fn shares(&self) -> Option<Arc<Shares>> {
        self.shares.clone()
    }

    /// Takes what a proxy announces off a connection's front. Returns how long the head behind it may take.
    /// Cancel safe: all of it is taken or nothing.
    ///
    /// # Errors
    /// Why the connection is to be closed without a word.
    pub async fn meet(&self, accepted: &mut Accepted) -> Result<peek::Settings, Unwelcome> {
        let began = Instant::now();
        if let Some(client) = threshold::cross(accepted, &self.settings.proxy_from, &self.peek).await? {
            accepted.peer = Some(client);
            accepted.luggage.peer = Some(client);
        }
        accepted.opening = Opening::Request;
        let timeout = self.peek.timeout.saturating_sub(began.elapsed());
        Ok(peek::Settings { timeout, ..self.peek })
    }

    /// Takes the client's share of the pending connections.
    ///
    /// # Errors
    /// When it has all it may have: the connection is to be closed without a word.
    pub fn let_in(&self, accepted: &mut Accepted) -> Result<(), Unwelcome> {
        let (Some(shares), Some(peer)) = (&self.shares, accepted.peer) else { return Ok(()) };
        if !self.trusts(peer.ip()) {
            accepted.share = Some(shares.take(one_client(peer.ip())).ok_or(Unwelcome::Crowd)?);
        }
        Ok(())
    }

    /// Whose request this is, for the policy: the peer, or whom a trusted proxy names.
    #[must_use]
    pub fn client(&self, peer: Option<SocketAddr>, head: &Head) -> Option<SocketAddr> {
        let nearest = peer?;
        if !self.trusts(nearest.ip()) {
            return peer;
        }
        let client = self.settings.client_header.client(nearest.ip(), head, |ip| self.trusts(ip));
        Some(if client == nearest.ip() { nearest } else { SocketAddr::new(client, 0) })
    }

    /// Counts a new connection of a client.
    ///
    /// # Errors
    /// What it is told when there were too many.
    pub fn count(&self, client: Option<SocketAddr>) -> Result<(), Refusal> {
        let (Some(rates), Some(client)) = (&self.rates, client) else { return Ok(()) };
        if self.trusts(client.ip()) {
            // It names no client, and stands for many.
            return Ok(());
        }
        rates.take(one_client(client.ip()), Instant::now()).map_err(|wait| Refusal {
            status: 429,
            retry_after: Some(u32::try_from(wait.as_secs() + 1).unwrap_or(u32::MAX)),
            reason: "too many connections from this address".to_owned(),
        })
    }

    /// Whether this is a health check, which sidetrack answers by itself.
    #[must_use]
    pub fn is_health_check(&self, head: &Head) -> bool {
        self.settings.health.as_deref().is_some_and(|path| path == head.path())
            && matches!(head.method(), "GET" | "HEAD")
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        contain(&self.settings.trusted_proxies, ip)
    }
}

/// Whether an address is in one of these networks.
fn contain(networks: &[IpNet], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&ip))
}

/// What counts as one client: an IPv4 address, or the network of 64 bits that an IPv6 client has to
/// itself and may choose its addresses from.
fn one_client(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_client_is_its_network() {
        let one = |text: &str| one_client(text.parse().unwrap()).to_string();
        assert_eq!(one("192.0.2.7"), "192.0.2.7");
        assert_eq!(one("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(one("2001:db8:1:2:aaaa::7"), one("2001:db8:1:2::1"));
        assert_ne!(one("2001:db8:1:2::1"), one("2001:db8:1:3::1"));
    }
}
