//! IP hash: every client address belongs to one worker, by rendezvous hashing.
//!
//! The address is cut to a prefix first: options `{"prefix4": 32, "prefix6": 64}`, in bits, which are
//! the defaults. 64 is what a household gets in IPv6, within which addresses change by themselves. An
//! IPv4 address written as IPv6 counts as IPv4.
//!
//! The worker is found by its slot's name, so it keeps its clients when it is restarted; a worker more
//! moves its share of the clients to it and no others; weights count. Details are at
//! [`policy_common::Rendezvous`], and who may be chosen at
//! [`policy_common::Eligible`]. A connection without an address, from a Unix socket, is
//! somebody else's to decide. Nothing is remembered between calls.

use std::net::IpAddr;

use policy_common::{Options, Rendezvous, Value, mix};
use sidetrack_policy::{Decision, Policy, Worker, export, request};

/// See the crate's documentation.
#[derive(Debug)]
pub struct IpHash {
    rendezvous: Rendezvous,
    /// The bits that count.
    mask4: u32,
    mask6: u128,
}

impl Default for IpHash {
    fn default() -> Self {
        Self { rendezvous: Rendezvous::default(), mask4: u32::MAX, mask6: u128::MAX << 64 }
    }
}

impl IpHash {
    /// A hash of the part of the address that counts.
    fn key(&self, address: IpAddr) -> u64 {
        match address.to_canonical() {
            IpAddr::V4(address) => mix(u64::from(address.to_bits() & self.mask4)),
            IpAddr::V6(address) => {
                let bits = address.to_bits() & self.mask6;
                let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
                mix(mix(half(bits >> 64)) ^ half(bits))
            }
        }
    }
}

impl Policy for IpHash {
    fn configure(&mut self, json: &str) -> Result<(), String> {
        let options = Options::parse(json, &["prefix4", "prefix6"])?;
        let prefix = |key, most: u32| {
            options.optional(key, &format!("a whole number of bits from 0 to {most}"), |value: &Value| {
                value.as_u64().and_then(|bits| u32::try_from(bits).ok()).filter(|&bits| bits <= most)
            })
        };
        // A shift by all bits, for prefix 0, would be undefined.
        if let Some(bits) = prefix("prefix4", u32::BITS)? {
            self.mask4 = u32::MAX.checked_shl(u32::BITS - bits).unwrap_or(0);
        }
        if let Some(bits) = prefix("prefix6", u128::BITS)? {
            self.mask6 = u128::MAX.checked_shl(u128::BITS - bits).unwrap_or(0);
        }
        Ok(())
    }

    fn set_workers(&mut self, workers: &[Worker]) {
        self.rendezvous = Rendezvous::new(workers);
    }

    fn balance(&mut self, _loads: &[u32]) -> Decision {
        request::peer()
            .and_then(|peer| peer.parse().ok())
            .and_then(|address| self.rendezvous.pick(self.key(address)))
            .map_or(Decision::Defer, Decision::Worker)
    }
}

export!(IpHash);

#[cfg(test)]
mod tests {
    use super::*;
    use sidetrack_policy::WorkerId;
    use sidetrack_policy::native::{Script, scripted};

    fn policy(options: &str, workers: u32) -> IpHash {
        let mut policy = IpHash::default();
        policy.configure(options).unwrap();
        let workers: Vec<_> = (0..workers)
            .map(|id| Worker { id, name: format!("w{id}"), weight: 1, ..Worker::default() })
            .collect();
        policy.set_workers(&workers);
        policy
    }

    fn pick(policy: &mut IpHash, peer: &str) -> WorkerId {
        let script = Script { peer: Some(peer.parse().unwrap()), ..Script::default() };
        match scripted(script, || policy.balance(&[])).0 {
            Decision::Worker(id) => id,
            other => panic!("expected a worker, got {other:?}"),
        }
    }

    #[test]
    fn a_worker_more_moves_its_share_of_the_clients_to_it() {
        let (mut before, mut after) = (policy("{}", 9), policy("{}", 10));
        let mut moved = 0;
        for client in 0..10_000 {
            let peer = format!("10.7.{}.{}", client / 256, client % 256);
            let (before, after) = (pick(&mut before, &peer), pick(&mut after, &peer));
            if before != after {
                assert_eq!(after, 9, "{peer} moved between workers that were there before");
                moved += 1;
            }
        }
        // Five standard deviations of a binomial with n = 10,000 and p = 1/10 are 150.
        assert!((850..=1_150).contains(&moved), "{moved}");
    }

    #[test]
    fn only_the_prefix_counts() {
        for (options, same, other) in [
            ("{}", ["2001:db8::1", "2001:db8::ffff:1"], "2001:db8:0:1::1"),
            (r#"{"prefix6": 48}"#, ["2001:db8::1", "2001:db8:0:ffff::1"], "2001:db8:1::1"),
            (r#"{"prefix6": 128}"#, ["2001:db8::1", "2001:0db8::0001"], "2001:db8::2"),
            (r#"{"prefix4": 24}"#, ["192.0.2.1", "192.0.2.200"], "192.0.3.1"),
            ("{}", ["192.0.2.1", "::ffff:192.0.2.1"], "192.0.2.2"),
        ] {
            let policy = policy(options, 1);
            let key = |peer: &str| policy.key(peer.parse().unwrap());
            assert_eq!(key(same[0]), key(same[1]), "{options}");
            assert_ne!(key(same[0]), key(other), "{options}");
        }
        let policy = policy(r#"{"prefix4": 0, "prefix6": 0}"#, 1);
        assert_eq!(policy.key([1, 2, 3, 4].into()), policy.key([9, 9, 9, 9].into()));
    }

    #[test]
    fn options_are_checked() {
        let complaint = |options| IpHash::default().configure(options).unwrap_err();
        assert_eq!(
            complaint(r#"{"prefix4": 33}"#),
            "prefix4: expected a whole number of bits from 0 to 32, found 33"
        );
        assert_eq!(
            complaint(r#"{"prefix6": "64"}"#),
            r#"prefix6: expected a whole number of bits from 0 to 128, found "64""#
        );
        assert_eq!(
            complaint(r#"{"prefix": 8}"#),
            "prefix: no such option (its value is 8): expected prefix4, prefix6"
        );
    }
}
