//! How many programs run at the same time, however many threads the tests have.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Programs that may run side by side.
const PLACES: usize = 2;

static QUEUE: Queue =
    Queue { state: Mutex::new(State { next: 0, serving: 0, taken: 0 }), moved: Condvar::new() };

struct Queue {
    state: Mutex<State>,
    moved: Condvar,
}

/// First come, first served: a heavy test is not overtaken for ever by light ones.
struct State {
    next: u64,
    serving: u64,
    taken: usize,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub struct Turn(usize);

impl Turn {
    /// Side by side with another test.
    pub fn shared() -> Self {
        Self::take(1)
    }

    /// Nothing else runs meanwhile: for tests that load the machine, or measure time.
    pub fn alone() -> Self {
        Self::take(PLACES)
    }

    fn take(places: usize) -> Self {
        let mut state = lock();
        let ticket = state.next;
        state.next += 1;
        while state.serving != ticket || state.taken + places > PLACES {
            state = QUEUE.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.serving += 1;
        state.taken += places;
        QUEUE.moved.notify_all();
        Self(places)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock().taken -= self.0;
        QUEUE.moved.notify_all();
    }
}

fn lock() -> MutexGuard<'static, State> {
    QUEUE.state.lock().unwrap_or_else(PoisonError::into_inner)
}
