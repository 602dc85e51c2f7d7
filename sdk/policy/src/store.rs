//! A small store that belongs to the policy but lives in sidetrack: it survives a trap, a new instance
//! and a replacement.
//!
//! Keys are up to 256 bytes and values up to 16 KiB long, and all of them together 1 MiB and 10,000
//! keys. It ends with sidetrack's process. A call costs about 200 ns.

#[cfg(target_arch = "wasm32")]
use crate::guest::store as backend;
#[cfg(not(target_arch = "wasm32"))]
use crate::native::store as backend;

/// The value of a key.
#[must_use]
pub fn get(key: &str) -> Option<Vec<u8>> {
    backend::get(key)
}

/// Gives a key a value. False, and nothing changes, when the key, the value or the store would be too
/// large.
#[must_use]
pub fn set(key: &str, value: &[u8]) -> bool {
    backend::set(key, value)
}

/// Forgets a key.
pub fn delete(key: &str) {
    backend::delete(key);
}

/// Adds to a number and returns the sum, which wraps around. An absent key counts as 0. Returns 0 when
/// the store is full.
pub fn add(key: &str, number: i64) -> i64 {
    backend::add(key, number)
}
