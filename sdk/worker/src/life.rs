//! How far this worker has come, and who waits for it.

use tokio::sync::watch;

/// What the guards below and the listener keep up to date.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct State {
    /// No more connections will come.
    pub(crate) ended: bool,
    /// Connections handed over and neither dropped nor handed back.
    pub(crate) open: usize,
    /// Connections of which nothing has been read yet. Each has a request waiting in it.
    pub(crate) unread: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Life(watch::Sender<State>);

impl Life {
    pub(crate) fn end(&self) {
        self.change(|state| state.ended = true);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.0.borrow().ended
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        self.0.send_modify(change);
    }

    /// Resolves once this is true. Does not keep the channel open: its end is an end too.
    pub(crate) fn until(&self, reached: fn(&State) -> bool) -> impl Future<Output = ()> + Send + use<> {
        let mut state = self.0.subscribe();
        async move {
            state.wait_for(reached).await.ok();
        }
    }
}
