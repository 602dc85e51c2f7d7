//! The request the running call is about.
//!
//! Each function looks the answer up when called, so a policy pays only for what it asks: about
//! 50 ns for a number or a bool, 200 ns for a string. Outside [`Policy::balance`](crate::Policy::balance)
//! and [`Policy::find`](crate::Policy::find) there is no request, and asking ends the instance.

#[cfg(target_arch = "wasm32")]
use crate::guest::request as backend;
#[cfg(not(target_arch = "wasm32"))]
use crate::native as backend;

/// The method as sent, such as `GET`.
#[must_use]
pub fn method() -> String {
    backend::method()
}

/// The path without the query, as sent: neither decoded nor normalised.
#[must_use]
pub fn path() -> String {
    backend::path()
}

/// The first query parameter of that name, decoded.
#[must_use]
pub fn query(name: &str) -> Option<String> {
    backend::query(name)
}

/// The first header of that name, whose case does not matter.
#[must_use]
pub fn header(name: &str) -> Option<String> {
    backend::header(name)
}

/// The client's IP address as text. None when it came over a Unix socket.
#[must_use]
pub fn peer() -> Option<String> {
    backend::peer()
}

/// The session id found in the request, decoded.
#[must_use]
pub fn session() -> Option<String> {
    backend::session()
}

/// [`hash_session`] of the session id, or 0 when there is none.
#[must_use]
pub fn session_hash() -> u64 {
    backend::session_hash()
}

/// True when the client asks to leave HTTP on this connection, as WebSocket does.
#[must_use]
pub fn is_upgrade() -> bool {
    backend::is_upgrade()
}

/// How often this connection was given to a worker before and came back: 0 at first.
#[must_use]
pub fn attempt() -> u32 {
    backend::attempt()
}

/// The hash behind [`session_hash`]: FNV-1a finished with the SplitMix64 mixer, never 0.
///
/// Part of the contract: the same on every machine and in every version.
#[must_use]
pub fn hash_session(sid: &str) -> u64 {
    let fnv = sid.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(fnv).max(1)
}

/// The finishing step of SplitMix64: every bit of the input reaches every bit of the output.
pub(crate) const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::hash_session;

    #[test]
    fn the_hash_is_part_of_the_contract() {
        let known = [
            ("", 0xf52a_15e9_a9b5_e89b),
            ("a", 0x02c0_bdbf_4814_20f8),
            ("lv_VI97HAXpY6yYWAAAC", 0x0ea3_c419_ccf2_c045),
        ];
        for (sid, hash) in known {
            assert_eq!(hash_session(sid), hash, "{sid:?} hashed to {:#x}", hash_session(sid));
        }
    }
}
