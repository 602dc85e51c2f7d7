//! Settings that may change while the run goes on.

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// Settings that are read for every connection and replaced whole by a reload.
///
/// Reading takes no lock and waits for nobody: a reader sees the old settings or the new ones, never
/// a mixture. Clones are the same settings.
#[derive(Debug)]
pub struct Live<T>(Arc<ArcSwap<T>>);

impl<T> Live<T> {
    #[must_use]
    pub fn new(settings: T) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(settings)))
    }

    /// What holds now. To be let go before anything is waited for: whoever waits goes on with what it
    /// has taken out.
    #[must_use]
    pub fn now(&self) -> impl Deref<Target = T> + use<T> {
        // A guard derefs to the pointer, which derefs to the settings.
        Now(self.0.load())
    }

    /// What holds now, for those who wait in between.
    #[must_use]
    pub fn whole(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Other settings, from now on.
    pub fn set(&self, settings: T) {
        self.0.store(Arc::new(settings));
    }
}

struct Now<T>(arc_swap::Guard<Arc<T>>);

impl<T> Deref for Now<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_see_a_change_and_whoever_reads_keeps_what_it_has() {
        let live = Live::new(1);
        let (clone, before) = (live.clone(), live.now());
        clone.set(2);
        assert_eq!((*before, *live.now()), (1, 2));
    }
}
