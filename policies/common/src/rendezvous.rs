//! Which worker a hash belongs to: rendezvous hashing, also known as highest random weight.
//!
//! Every worker draws a number that depends on the key and on the worker's name, and the best draw
//! wins. A worker that comes takes its share evenly from all others, one that goes leaves its share
//! evenly to them, and no other key moves. Names are those of slots: a restarted worker keeps its keys.
//!
//! With weights, worker `i` draws `-ln(u) / weight`, `u` uniform in (0, 1], and the lowest wins: these
//! are exponential variables, of which one is the least with a chance in proportion to its weight.
//! When a weight changes, keys move only to or from that worker. With equal weights the comparison is
//! that of the bare hashes, which is the same order.

use sidetrack_policy::request::hash_session;
use sidetrack_policy::{Worker, WorkerId};

use crate::Eligible;

/// The workers that may get something new, ready to be asked whom a hash belongs to.
#[derive(Debug, Default)]
pub struct Rendezvous {
    nodes: Vec<Node>,
    /// Whether weights differ.
    weighted: bool,
}

#[derive(Debug)]
struct Node {
    id: WorkerId,
    /// Of the worker's name.
    hash: u64,
    /// 1 / weight: a product is cheaper than a quotient.
    handicap: f64,
}

impl Rendezvous {
    #[must_use]
    pub fn new(workers: &[Worker]) -> Self {
        let nodes = Eligible::of(workers).map(|worker| Node {
            id: worker.id,
            hash: hash_session(&workers[worker.place].name),
            handicap: 1.0 / f64::from(worker.weight),
        });
        let nodes: Vec<_> = nodes.collect();
        let weighted = nodes.windows(2).any(|pair| pair[0].handicap != pair[1].handicap);
        Self { nodes, weighted }
    }

    /// The worker that `key`, whose bits must all be good, belongs to. None without workers.
    #[must_use]
    pub fn pick(&self, key: u64) -> Option<WorkerId> {
        let draw = |node: &Node| mix(key ^ node.hash);
        let (first, others) = self.nodes.split_first()?;
        let mut best = first.id;
        if self.weighted {
            let score = |node| minus_ln(draw(node)) * node.handicap;
            let mut least = score(first);
            for node in others {
                let score = score(node);
                if score < least {
                    (best, least) = (node.id, score);
                }
            }
        } else {
            let mut most = draw(first);
            for node in others {
                let draw = draw(node);
                if draw > most {
                    (best, most) = (node.id, draw);
                }
            }
        }
        Some(best)
    }
}

/// The finishing step of SplitMix64: every bit of the input reaches every bit of the output.
#[must_use]
pub const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// `-ln(u)` of the number `u` in (0, 1] that the top 53 bits stand for.
///
/// The library's `ln` may differ between machines in the last digit. This uses nothing but
/// conversions, sums, products and one quotient, whose results IEEE 754 fixes to the bit: the series
/// `ln m = 2 (s + s³/3 + s⁵/5 + …)`, `s = (m - 1) / (m + 1)`, for a mantissa `m` near 1. Six terms give
/// ten digits.
fn minus_ln(bits: u64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    // At least 1 and at most 2^53, so the conversion is exact.
    let whole = (bits >> 11) + 1;
    let exponent = 63 - whole.leading_zeros();
    // Between 1 and 2: the digits of `whole` under the exponent of 1.
    #[allow(clippy::cast_precision_loss, reason = "at most 53 bits")]
    let digits = (whole as f64).to_bits() & MANTISSA;
    let mut mantissa = f64::from_bits(digits | 1.0_f64.to_bits());
    let mut halvings = 53.0 - f64::from(exponent);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        halvings -= 1.0;
    }
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let z = s * s;
    let series =
        1.0 + z * (1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0 + z * (1.0 / 11.0)))));
    halvings * std::f64::consts::LN_2 - 2.0 * s * series
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u32 = 20_000;

    fn workers(weights: &[u32]) -> Vec<Worker> {
        (0..)
            .zip(weights)
            .map(|(id, &weight)| Worker { id, name: format!("w{id}"), weight, ..Worker::default() })
            .collect()
    }

    fn picks(workers: &[Worker]) -> Vec<WorkerId> {
        let rendezvous = Rendezvous::new(workers);
        (0..KEYS).map(|key| rendezvous.pick(mix(u64::from(key))).unwrap()).collect()
    }

    fn shares(picks: &[WorkerId], workers: usize) -> Vec<f64> {
        let mut counts = vec![0_u32; workers];
        picks.iter().for_each(|&id| counts[id as usize] += 1);
        counts.iter().map(|&count| f64::from(count) / f64::from(KEYS)).collect()
    }

    /// Asserts that a share found is within five standard deviations of the one expected.
    fn assert_near(found: f64, expected: f64) {
        let deviation = (expected * (1.0 - expected) / f64::from(KEYS)).sqrt();
        assert!((found - expected).abs() <= 5.0 * deviation, "{found} instead of {expected}");
    }

    #[test]
    fn the_logarithm_is_right_and_the_same_everywhere() {
        for shift in 0..64 {
            for bits in [u64::MAX >> shift, mix(shift) >> (shift % 50)] {
                #[allow(clippy::cast_precision_loss, reason = "at most 53 bits")]
                let exact = -(((bits >> 11) + 1) as f64 / 9_007_199_254_740_992.0).ln();
                let found = minus_ln(bits);
                assert!((found - exact).abs() <= 1e-9 * exact, "{bits:#x}: {found} instead of {exact}");
            }
        }
        assert_eq!(minus_ln(u64::MAX), 0.0);
        let known = [
            (0, 0x4042_5e4f_7b27_37fa),
            (1 << 63, 0x3fe6_2e42_fefa_39ed),
            (u64::MAX / 3, 0x3ff1_93ea_7aad_1f7a),
        ];
        for (bits, expected) in known {
            assert_eq!(minus_ln(bits).to_bits(), expected, "{bits:#x}: {:#x}", minus_ln(bits).to_bits());
        }
    }

    #[test]
    fn every_worker_gets_its_share() {
        let equal = workers(&[1; 7]);
        for share in shares(&picks(&equal), equal.len()) {
            assert_near(share, 1.0 / 7.0);
        }
        let weights = [1, 2, 5, 10, 0, 3];
        let weighted = workers(&weights);
        for (share, weight) in shares(&picks(&weighted), weights.len()).into_iter().zip(weights) {
            assert_near(share, f64::from(weight) / 21.0);
        }
    }

    #[test]
    fn a_new_worker_takes_its_share_and_nothing_else_moves() {
        for (before, weight) in [(vec![1; 9], 1), (vec![4, 1, 2], 3), (vec![1; 3], 2)] {
            let mut after = before.clone();
            after.push(weight);
            let newcomer = WorkerId::try_from(before.len()).unwrap();
            let moves: Vec<_> = picks(&workers(&before))
                .into_iter()
                .zip(picks(&workers(&after)))
                .filter(|(before, after)| before != after)
                .collect();
            assert!(moves.iter().all(|&(_, after)| after == newcomer), "a key moved between old workers");
            let moved = f64::from(u32::try_from(moves.len()).unwrap()) / f64::from(KEYS);
            assert_near(moved, f64::from(weight) / f64::from(after.iter().sum::<u32>()));
        }
    }

    #[test]
    fn a_heavier_worker_only_gains() {
        let (before, after) = (picks(&workers(&[1, 1, 1, 1])), picks(&workers(&[1, 1, 2, 1])));
        assert!(before.iter().zip(&after).all(|(before, after)| before == after || *after == 2));
        assert!(before != after);
    }

    #[test]
    fn names_count_and_ids_and_order_do_not() {
        let before = workers(&[1, 2, 3, 1]);
        let mut after = before.clone();
        after.iter_mut().for_each(|worker| worker.id += 100);
        after.reverse();
        let moved: Vec<_> = picks(&after).into_iter().map(|id| id - 100).collect();
        assert!(picks(&before) == moved);
    }

    #[test]
    fn without_workers_there_is_no_answer() {
        assert_eq!(Rendezvous::new(&[]).pick(1), None);
        assert_eq!(Rendezvous::default().pick(1), None);
    }
}
