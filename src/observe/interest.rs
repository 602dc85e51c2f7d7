//! Who wants to be told of one connection.

use std::sync::atomic::{AtomicU32, Ordering};

/// Who gets a share of the connections, drawn by chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampler {
    AccessLog,
    Traces,
}

pub(super) const SAMPLERS: usize = 2;

/// Drawn for each connection before anything is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest {
    /// Those who watch everything.
    pub(super) watched: bool,
    pub(super) sampled: [bool; SAMPLERS],
}

impl Interest {
    #[must_use]
    pub(super) const fn of_watchers() -> Self {
        Self { watched: true, sampled: [false; SAMPLERS] }
    }

    #[must_use]
    pub(super) const fn without_watchers(self) -> Self {
        Self { watched: false, sampled: self.sampled }
    }

    #[must_use]
    pub(super) const fn any(self) -> bool {
        self.watched || self.is_sampled()
    }

    #[must_use]
    pub(super) const fn is_sampled(self) -> bool {
        self.sampled[0] || self.sampled[1]
    }
}

/// A part of all connections, from none to each of them.
#[derive(Debug, Default)]
pub(super) struct Share(AtomicU32);

impl Share {
    /// `share` is from 0 to 1.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to u32::MAX")]
    pub(super) fn set(&self, share: f64) {
        self.0.store((share.clamp(0.0, 1.0) * f64::from(u32::MAX)).round() as u32, Ordering::Relaxed);
    }

    /// Whether the next one belongs to it.
    pub(super) fn draw(&self) -> bool {
        match self.0.load(Ordering::Relaxed) {
            0 => false,
            u32::MAX => true,
            share => fastrand::u32(..) < share,
        }
    }

    pub(super) fn is_any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_about_as_large_as_it_says() {
        let share = Share::default();
        for (part, least, most) in
            [(0.0, 0, 0), (0.25, 2_200, 2_800), (1.0, 10_000, 10_000), (7.0, 10_000, 10_000)]
        {
            share.set(part);
            let drawn = (0..10_000).filter(|_| share.draw()).count();
            assert!((least..=most).contains(&drawn), "{part}: {drawn}");
            assert_eq!(share.is_any(), part > 0.0);
        }
    }
}
