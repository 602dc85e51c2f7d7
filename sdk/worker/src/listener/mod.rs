//! Taking connections from the channel, acknowledging each before it can be read.

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use crate::channel::{Channel, Said};
use crate::join::Join;
use crate::sessions::Sessions;
use crate::settings::Settings;
use crate::socket::{Adopted, Peer, Socket};
use crate::stream::{Counted, Open, Stream};
use crate::wire::{self, Decoder, Luggage, ToWorker, encode};

pub use error::ChannelError;

mod error;
mod inbox;
mod inherited;

/// Yields the connections sidetrack hands to this worker, as a `TcpListener` yields its own.
///
/// Dropping it tells sidetrack that this worker leaves: connections that are already on their way
/// are given back unread and go to another worker, and the streams that are open stay so.
pub struct Listener {
    channel: Arc<Channel>,
    sessions: Sessions,
    inbox: Decoder,
    /// Acknowledged, but the acknowledgement may not have left yet.
    arrived: Option<Arrival>,
    ready: bool,
    leave: Option<Task<()>>,
    leaving: bool,
    /// How it came to sidetrack and will come back; none when sidetrack has started it.
    join: Option<Join>,
    rejoining: Option<Task<(UnixStream, Settings)>>,
    /// Sidetrack stops: the channel ends once all that was said has left.
    last_said: Option<Said>,
}

type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

#[derive(Debug)]
struct Arrival {
    stream: Stream,
    peer: Peer,
    acknowledgement: Said,
}

/// What a listener waits for.
enum Event {
    Message(ToWorker),
    /// Sidetrack is gone, or speaks something else.
    Lost(Option<io::Error>),
    Back(UnixStream, Settings),
}

impl Listener {
    /// Takes the channel this process has inherited from `sidetrack run` or `sidetrack join`; or,
    /// when there is none and `SIDETRACK_JOIN` names a socket, joins the sidetrack there, in the
    /// slot that `SIDETRACK_SLOT` names, if it does. Joining waits for sidetrack's answer.
    ///
    /// The descriptor is made close-on-exec. The environment variable stays, since removing it is
    /// not safe once there are threads: when this program starts Node.js programs of its own, let
    /// it call `Command::env_remove(sidetrack_worker::wire::CHANNEL_FD)`.
    ///
    /// # Errors
    /// When there is no sidetrack, or the descriptor is not a channel; the message says what to do.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub fn from_env() -> Result<Self, ChannelError> {
        let settings = Settings::from_env()?;
        let join = std::env::var_os(wire::JOIN).map(Join::new);
        match (inherited::from_env()?, join) {
            // Started by `sidetrack join`, which has done the asking and names the place.
            (Some(channel), Some(join)) => Ok(Self::joined(channel, settings, join)?),
            (Some(channel), None) => Ok(Self::with_settings(channel, settings)?),
            (None, Some(mut join)) => {
                if let Some(slot) = settings.slot {
                    join = join.slot(slot);
                }
                let (channel, settings) = join.attempt()?;
                Ok(Self::joined(channel, settings, join)?)
            }
            (None, None) => Err(ChannelError::NotStarted),
        }
    }

    /// Joins the sidetrack that takes workers on this socket; [`Join`] has more to say.
    ///
    /// # Errors
    /// When sidetrack is not there or does not want this worker; the message says what to do.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn join(path: impl Into<PathBuf>) -> Result<Self, ChannelError> {
        Join::new(path).listen().await
    }

    /// A listener on a channel that came another way, such as one end of a socket pair in a test.
    /// It hands no connections back.
    ///
    /// # Errors
    /// When the socket cannot be made non-blocking or watched.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub fn new(channel: UnixStream) -> io::Result<Self> {
        Self::with_settings(channel, Settings::default())
    }

    /// The same in surroundings that are known.
    ///
    /// # Errors
    /// When the socket cannot be made non-blocking or watched.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub fn with_settings(channel: UnixStream, settings: Settings) -> io::Result<Self> {
        let channel = Channel::new(channel)?;
        Ok(Self {
            sessions: Sessions::new(Arc::clone(&channel), settings),
            channel,
            inbox: inbox::decoder(),
            arrived: None,
            ready: false,
            leave: None,
            leaving: false,
            join: None,
            rejoining: None,
            last_said: None,
        })
    }

    pub(crate) fn joined(channel: UnixStream, settings: Settings, join: Join) -> io::Result<Self> {
        let mut listener = Self::with_settings(channel, settings)?;
        listener.join = Some(join);
        Ok(listener)
    }

    /// Tells sidetrack that connections may come. The first [`accept`](Self::accept) does so too.
    pub fn ready(&mut self) {
        if !self.ready {
            self.ready = true;
            self.channel.say(encode::READY);
        }
    }

    /// The next connection; none when there will be no more, because sidetrack asked this worker
    /// to finish or is gone. A worker that has joined outlives sidetrack, whether that ends, asks it
    /// to finish or is killed: accepting goes on with the next one at the same place.
    ///
    /// A connection is yielded only after its acknowledgement has left, so that it is never read
    /// here and given to another worker as well. A descriptor that was lost on the way, or is no
    /// connection, is refused and accepting goes on.
    ///
    /// Cancel safe: a connection that has arrived is kept for the next call.
    ///
    /// # Errors
    /// When the channel is broken: sidetrack speaks something else, or reading fails. There will
    /// be no more connections then.
    pub async fn accept(&mut self) -> io::Result<Option<(Stream, Peer)>> {
        self.ready();
        loop {
            // Stays in `self` while its acknowledgement waits, so that cancelling loses nothing.
            if let Some(arrival) = &self.arrived {
                let acknowledged = self.channel.departure(arrival.acknowledgement).await;
                match self.arrived.take() {
                    Some(arrival) if acknowledged => return Ok(Some((arrival.stream, arrival.peer))),
                    // Not acknowledged, so perhaps somebody else's by now. Dropped unread.
                    _ => continue,
                }
            }
            if self.channel.life.has_ended() {
                return Ok(None);
            }
            match self.next().await {
                Event::Message(message) => self.take(message),
                Event::Back(channel, settings) => self.go_on(channel, settings),
                Event::Lost(error) => self.lose(error)?,
            }
        }
    }

    /// The handle that announces this worker's sessions.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.sessions.clone()
    }

    /// The worker's surroundings as sidetrack describes them.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.sessions.settings().as_ref().clone()
    }

    /// Leaves when `signal` resolves, such as on SIGTERM: tells sidetrack to send no more, takes
    /// what was on its way, and then ends as if sidetrack had asked. So [`drain`](Self::drain) is
    /// the one signal a server needs.
    ///
    /// The signal is looked at in [`accept`](Self::accept).
    #[must_use]
    pub fn leave_when(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.leave = Some(Box::pin(signal));
        self
    }

    /// Resolves when no more connections will come and all that came have begun to be read: the
    /// signal for a graceful shutdown. (A server that is shut down closes connections from which it
    /// has read nothing. Here each of them has a request waiting.)
    ///
    /// Somebody has to be in [`accept`](Self::accept) meanwhile, as `axum::serve` is.
    pub fn drain(&self) -> impl Future<Output = ()> + Send + use<> {
        self.channel.life.until(|state| state.ended && state.unread == 0)
    }

    /// Resolves when no stream is open. To be awaited after the server has stopped: what was
    /// upgraded to a WebSocket outlives it.
    pub fn idle(&self) -> impl Future<Output = ()> + Send + use<> {
        self.channel.life.until(|state| state.open == 0)
    }

    /// What happens next, with an eye on the signal to leave. Cancel safe: what was read is in the
    /// inbox, and coming back goes on with the next call.
    async fn next(&mut self) -> Event {
        let Self { channel, inbox, leave, leaving, rejoining, last_said, .. } = self;
        let mut next = pin!(async {
            if let Some(said) = *last_said {
                channel.departure(said).await;
                *last_said = None;
                return Event::Lost(None);
            }
            if let Some(back) = rejoining {
                let (channel, settings) = back.await;
                return Event::Back(channel, settings);
            }
            match inbox::next(inbox, channel).await {
                Ok(Some(message)) => Event::Message(message),
                Ok(None) => Event::Lost(None),
                Err(error) => Event::Lost(Some(error)),
            }
        });
        std::future::poll_fn(|cx| {
            if let Some(signal) = leave
                && signal.as_mut().poll(cx).is_ready()
            {
                *leave = None;
                *leaving = true;
                // Nobody is there to leave.
                if matches!(channel.say(encode::LEAVING), Said::HungUp) {
                    return Poll::Ready(Event::Lost(None));
                }
            }
            next.as_mut().poll(cx)
        })
        .await
    }

    fn take(&mut self, message: ToWorker) {
        match message {
            ToWorker::Connection(luggage) => self.arrived = self.take_connection(Some(luggage)),
            ToWorker::Probe => self.arrived = self.take_connection(None),
            ToWorker::Damaged => {
                drop(self.inbox.take_descriptor());
                self.channel.say(encode::HANDLE_NACK);
            }
            ToWorker::HandleNack => inbox::report_lost(),
            // Only this sidetrack ends, not a worker that has come by itself. Whatever was on its way
            // here has been taken: it came before.
            ToWorker::Disconnect if self.join.is_some() && !self.leaving => {
                self.last_said = Some(self.channel.stops());
            }
            ToWorker::Disconnect => self.channel.life.end(),
            // All that sidetrack had sent before it knew that we leave has been taken.
            ToWorker::Acknowledged if self.leaving => self.channel.life.end(),
            ToWorker::HandleAck | ToWorker::Acknowledged | ToWorker::Other => {}
        }
    }

    /// A probe, which brings no luggage, is served whatever it asks for.
    fn take_connection(&mut self, luggage: Option<Luggage>) -> Option<Arrival> {
        let Some(Ok(adopted)) = self.inbox.take_descriptor().map(Socket::adopt) else {
            self.channel.say(encode::HANDLE_NACK);
            return None;
        };
        let acknowledgement = self.channel.say(encode::HANDLE_ACK);
        let counted = if luggage.is_some() { Counted::Yes } else { Counted::No };
        let open = Open::new(&self.channel, counted);
        match adopted {
            Adopted::Socket(socket, own) => {
                let announced = luggage.as_ref().and_then(|luggage| luggage.peer);
                let peer = announced.map_or(own, Peer::Tcp);
                let stream = match luggage {
                    Some(luggage) => Stream::new(socket, open, &self.sessions, luggage),
                    None => Stream::unguarded(socket, open),
                };
                Some(Arrival { stream, peer, acknowledgement })
            }
            // Reported as closed by the drop of `open`.
            Adopted::Gone => None,
        }
    }

    /// Sidetrack is gone. One that was joined will be there again.
    fn lose(&mut self, error: Option<io::Error>) -> io::Result<()> {
        self.channel.hang_up();
        match &self.join {
            Some(join) if !self.leaving => {
                if let Some(error) = error {
                    tracing::warn!(%error, "the channel to sidetrack is broken");
                }
                self.rejoining = Some(Box::pin(join.clone().again(self.settings().slot)));
                Ok(())
            }
            _ => {
                self.channel.life.end();
                error.map_or(Ok(()), Err)
            }
        }
    }

    /// Sidetrack is back, and knows nothing of this worker.
    fn go_on(&mut self, channel: UnixStream, settings: Settings) {
        self.rejoining = None;
        self.inbox = inbox::decoder();
        if let Err(error) = self.channel.replace(channel) {
            tracing::warn!(%error, "the new channel to sidetrack cannot be used");
            let slot = settings.slot;
            self.rejoining = self.join.clone().map(|join| Box::pin(join.again(slot)) as Task<_>);
            return;
        }
        self.sessions.move_to(settings);
        if self.ready {
            self.channel.say(encode::READY);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("channel", &self.channel).finish_non_exhaustive()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let had_ended = self.channel.life.has_ended();
        self.channel.life.end();
        if self.channel.has_hung_up() {
            return;
        }
        if !had_ended && !self.leaving {
            self.channel.say(encode::LEAVING);
        }
        let inbox = std::mem::replace(&mut self.inbox, Decoder::new(0));
        self.channel.runtime().spawn(inbox::refuse(inbox, Arc::clone(&self.channel)));
    }
}

#[cfg(test)]
mod tests;
