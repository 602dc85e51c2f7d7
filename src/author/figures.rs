//! Numbers for people.

/// Bytes in the largest unit that leaves a number above one.
pub(super) fn bytes(count: usize) -> String {
    const UNITS: [(&str, usize); 2] = [("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.into_iter().find(|(_, unit)| count >= *unit) {
        Some((name, unit)) if count.is_multiple_of(unit) => format!("{} {name}", count / unit),
        Some((name, unit)) => format!("{:.1} {name}", count as f64 / unit as f64),
        None => format!("{count} bytes"),
    }
}

/// A share as a percentage.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "0 %".to_owned();
    }
    let share = part as f64 * 100.0 / whole as f64;
    if share > 0.0 && share < 0.1 { "under 0.1 %".to_owned() } else { format!("{share:.1} %") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            [bytes(12), bytes(2048), bytes(1 << 20), bytes(1_500_000)],
            ["12 bytes", "2 KiB", "1 MiB", "1.4 MiB"]
        );
        assert_eq!([percent(1, 4), percent(1, 100_000), percent(0, 0)], ["25.0 %", "under 0.1 %", "0 %"]);
    }
}
