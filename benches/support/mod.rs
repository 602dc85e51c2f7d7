//! What the benchmarks share: the servers they compare, and what the kernel knows of them.

#![allow(dead_code, reason = "no benchmark needs all of it")]

pub mod arguments;
pub mod awake;
pub mod channel;
pub mod cores;
pub mod peers;
pub mod process;

pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
