//! What the benchmarks share: the servers they compare, and what the kernel knows of them.

#![allow(dead_code, reason = "no benchmark needs all of it")]

pub mod awake;
pub mod channel;
pub mod cores;
pub mod peers;
pub mod process;

/// A number behind a flag.
pub fn option(name: &str, default: usize) -> usize {
    word(name).map_or(default, |text| text.parse().expect("a number"))
}

/// What stands behind a flag.
pub fn word(name: &str) -> Option<String> {
    std::env::args().skip_while(|word| word != name).nth(1)
}

/// Whether a flag is there.
pub fn flag(name: &str) -> bool {
    std::env::args().any(|word| word == name)
}

pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
