//! What a policy keeps in the host: small values by key, which outlive its instances and versions.

use std::collections::HashMap;

/// Longest key, in bytes.
const KEY: usize = 256;
/// Longest value, in bytes.
const VALUE: usize = 16 << 10;
/// All keys and values together, in bytes.
const TOTAL: usize = 1 << 20;
const KEYS: usize = 10_000;

/// The store of one link.
#[derive(Debug, Default)]
pub(super) struct Store {
    values: HashMap<String, Vec<u8>>,
    bytes: usize,
}

impl Store {
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key).map(Vec::as_slice)
    }

    /// False, and nothing changes, when it would be too large.
    pub(super) fn set(&mut self, key: String, value: Vec<u8>) -> bool {
        if key.len() > KEY || value.len() > VALUE {
            return false;
        }
        let (known, freed) = match self.values.get(&key) {
            Some(old) => (true, key.len() + old.len()),
            None => (false, 0),
        };
        let bytes = self.bytes - freed + key.len() + value.len();
        if bytes > TOTAL || (!known && self.values.len() >= KEYS) {
            return false;
        }
        self.bytes = bytes;
        self.values.insert(key, value);
        true
    }

    pub(super) fn delete(&mut self, key: &str) {
        if let Some(old) = self.values.remove(key) {
            self.bytes -= key.len() + old.len();
        }
    }

    /// Adds to a number, 8 bytes little-endian; anything else counts as 0. None when the store is full.
    pub(super) fn add(&mut self, key: String, number: i64) -> Option<i64> {
        let old = self.get(&key).and_then(|value| value.try_into().ok()).map_or(0, i64::from_le_bytes);
        let sum = old.wrapping_add(number);
        self.set(key, sum.to_le_bytes().to_vec()).then_some(sum)
    }

    /// Everything there is.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.values.iter().map(|(key, value)| (key.as_str(), value.as_slice()))
    }

    /// Keys, and bytes of keys and values.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.values.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_and_go() {
        let mut store = Store::default();
        assert!(store.set("a".into(), b"12".to_vec()) && store.set("a".into(), b"3".to_vec()));
        assert_eq!((store.get("a"), store.size()), (Some(&b"3"[..]), (1, 2)));
        assert_eq!(
            (store.add("n".into(), i64::MAX), store.add("n".into(), 1)),
            (Some(i64::MAX), Some(i64::MIN))
        );
        assert_eq!(store.add("a".into(), 5), Some(5), "what is no number counts as 0");
        for key in ["a", "n", "never"] {
            store.delete(key);
        }
        assert_eq!((store.get("a"), store.size()), (None, (0, 0)));
    }

    #[test]
    fn it_is_bounded_in_every_direction() {
        let mut store = Store::default();
        assert!(!store.set("k".repeat(KEY + 1), vec![]) && !store.set("k".into(), vec![0; VALUE + 1]));
        let fitting = (0..).take_while(|n| store.set(format!("{n:08}"), vec![0; VALUE])).count();
        assert_eq!(fitting, TOTAL / (VALUE + 8));
        assert!(
            store.set("00000000".into(), vec![1; VALUE]),
            "a value may always change for one of its size"
        );
        let mut store = Store::default();
        assert_eq!((0..).take_while(|n| store.set(n.to_string(), vec![])).count(), KEYS);
        assert!(store.set("0".into(), vec![1]), "a key that is there stays usable");
        assert_eq!(store.add("new".into(), 1), None);
    }
}
