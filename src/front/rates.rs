//! How fast each client opens connections: a token bucket for each, in memory that does not grow.
//!
//! Crates for it (`governor` and the like) keep a bucket for every key they have seen until somebody sweeps
//! them, so that whoever has many addresses decides how much memory they take. Here the buckets are a table
//! of fixed size. A client's place in it is drawn by a keyed hash; where all places are taken, the client
//! that has used least of its allowance gives way, and begins anew should it come again.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Rows of the table. A power of two.
const ROWS: usize = 1 << 14;

/// Places in a row.
const PLACES: usize = 4;

/// So many connections in so long, as a burst or spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub connections: u32,
    pub period: Duration,
}

/// The buckets. 1 MiB.
#[derive(Debug)]
pub struct Rates {
    rate: Rate,
    began: Instant,
    hasher: RandomState,
    table: Mutex<Box<[[Bucket; PLACES]]>>,
}

/// One client's, or nobody's yet.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// 0 for nobody.
    client: u64,
    /// When it is full again, in microseconds since the beginning: as far ahead as it is empty.
    full_at: u64,
}

impl Rates {
    #[must_use]
    pub fn new(rate: Rate, now: Instant) -> Self {
        let table = vec![[Bucket::default(); PLACES]; ROWS].into_boxed_slice();
        Self { rate, began: now, hasher: RandomState::new(), table: Mutex::new(table) }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// How long until there is one.
    pub fn take(&self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        let now = micros(now.saturating_duration_since(self.began));
        let period = micros(self.rate.period);
        let token = period / u64::from(self.rate.connections.max(1));
        let client = self.hasher.hash_one(client).max(1);
        // Nothing panics under the lock; were it so, the table would still be whole.
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let row = &mut table[usize::try_from(client).unwrap_or(0) % ROWS];
        let place = row.iter().position(|bucket| bucket.client == client);
        let bucket = match place.and_then(|place| row.get_mut(place)) {
            Some(bucket) => bucket,
            None => {
                let Some(least) = row.iter_mut().min_by_key(|bucket| bucket.full_at) else { return Ok(()) };
                *least = Bucket { client, full_at: now };
                least
            }
        };
        let full_at = bucket.full_at.max(now) + token;
        if full_at > now + period {
            return Err(Duration::from_micros(full_at - now - period));
        }
        bucket.full_at = full_at;
        Ok(())
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 4)
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || {
            format!(
                "expected connections in a second, minute or hour, such as 20/s, 600/m or 5000/h, found \"{text}\""
            )
        };
        let (number, unit) = text.split_once('/').ok_or_else(error)?;
        let connections = number.trim().parse().ok().filter(|number| (1..=1_000_000).contains(number));
        let seconds = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(error()),
        };
        Ok(Self { connections: connections.ok_or_else(error)?, period: Duration::from_secs(seconds) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.period.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    fn rates(text: &str) -> (Rates, Instant) {
        let now = Instant::now();
        (Rates::new(text.parse().unwrap(), now), now)
    }

    #[test]
    fn a_burst_is_let_through_and_then_the_rate() {
        let (rates, start) = rates("20/s");
        assert!((0..20).all(|_| rates.take(A, start).is_ok()));
        assert_eq!(rates.take(A, start), Err(Duration::from_millis(50)));
        assert_eq!(rates.take(B, start), Ok(()), "everybody has a bucket");
        let later = start + Duration::from_millis(125);
        assert_eq!(rates.take(A, later), Ok(()), "what was refused costs nothing");
        assert_eq!(rates.take(A, later), Ok(()));
        assert_eq!(rates.take(A, later), Err(Duration::from_millis(25)));
        let much_later = start + Duration::from_secs(3600);
        assert_eq!((0..40).filter(|_| rates.take(A, much_later).is_ok()).count(), 20);
    }

    #[test]
    fn a_million_addresses_take_no_more_memory_and_throw_nobody_out_who_has_used_it_up() {
        let (rates, start) = rates("3/h");
        assert!((0..3).all(|_| rates.take(A, start).is_ok()));
        let mut others = (0..1_000_000).map(|number| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number)));
        // Strangers come once each; only one that has done as much as A takes its place.
        assert!(others.all(|ip| rates.take(ip, start).is_ok()), "a first connection always passes");
        assert!(rates.take(A, start).is_err());
        let size = size_of_val(&**rates.table.lock().unwrap());
        assert_eq!(size, 1 << 20);
    }

    #[test]
    fn rates_are_read_and_written() {
        for text in ["20/s", "600/m", "1/h"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for text in ["", "20", "0/s", "-1/s", "20/d", "x/s", "1.5/s", "2000000/s"] {
            assert!(text.parse::<Rate>().unwrap_err().contains("20/s"), "{text}");
        }
    }
}
