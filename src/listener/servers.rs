//! Which listening socket feeds which server of the workers.
//!
//! A *server* is what one `listen()` call of the program asks for, the same in every worker. The
//! first worker to ask decides where sidetrack listens; the others get the same answer.
//!
//! One of them is the *main* server: the one that configured addresses without a port of their own
//! feed. It is that of the first `listen()`, and that of workers which never call it, such as those in
//! other languages than Node: so all of them share its connections, whichever is ready first.
//!
//! Where there are several pools, each has a main server and all of them are the same one, fed by the
//! addresses that no pool has for itself; whatever else a pool's workers listen for is that pool's alone.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{oneshot, watch};

use super::{BindError, Bound, Listen, ListenAddress, bind};
use crate::types::{Opening, ServerId};

/// What a program's `listen()` asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Wanted {
    pub address: ListenAddress,
    /// Tells several servers with the same address apart.
    pub index: u64,
}

/// Whether a worker that takes connections as messages may call `listen()` as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listens {
    Never,
    /// What it listens for is something else, such as metrics.
    Perhaps,
}

/// All servers and their listeners.
#[derive(Debug)]
pub struct Servers {
    pub(super) inner: Mutex<Inner>,
    /// What connections begin with where an address does not say.
    pub(super) opening: Opening,
    pub(super) defer: Duration,
    /// Told whenever an address comes or goes.
    changed: watch::Sender<()>,
}

#[derive(Debug)]
pub(super) struct Inner {
    /// `--listen` addresses that no server has claimed yet.
    pub(super) unclaimed: Vec<(Listen, Bound)>,
    /// Of each pool, the one that has claimed those without a port of their own.
    pub(super) mains: HashMap<Arc<str>, ServerId>,
    /// Pools that have addresses of their own, and no part in the others.
    pub(super) apart: HashSet<Arc<str>>,
    pub(super) servers: Vec<Server>,
}

#[derive(Debug)]
pub(super) struct Server {
    pub(super) id: ServerId,
    /// The only pool that has it; none when several may.
    pub(super) pool: Option<Arc<str>>,
    /// The port that those ask for who mean it; none when they name it by nothing.
    pub(super) serves: Option<u16>,
    /// What has been asked for by whom.
    pub(super) wanted: HashMap<Arc<str>, Wanted>,
    /// Pools whose workers, so far, never say what they want: the first who does means the same.
    pub(super) shared: HashSet<Arc<str>>,
    /// Bound and not yet served.
    pub(super) idle: Vec<Idle>,
    /// Where it listens.
    pub(super) listeners: Vec<Listener>,
    /// What its workers' servers have in common, in Node's terms.
    pub(super) data: Value,
}

/// What a `listen()` is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    pub server: ServerId,
    /// Where it listens.
    pub address: ListenAddress,
    /// What the first worker with this server has brought for all of them.
    pub data: Value,
}

/// A listener that nobody serves yet.
#[derive(Debug)]
pub struct Idle {
    pub bound: Arc<Bound>,
    /// Ends when the listener is not wanted any more.
    pub unwanted: oneshot::Receiver<()>,
}

impl Idle {
    pub(super) fn is_wanted(&mut self) -> bool {
        self.unwanted.try_recv() == Err(oneshot::error::TryRecvError::Empty)
    }
}

/// Where a server listens. Dropped, the listener closes.
#[derive(Debug)]
pub(super) struct Listener {
    /// As configured; none where the program itself decided.
    pub(super) listen: Option<Listen>,
    pub(super) address: ListenAddress,
    /// For as long as it is there.
    pub(super) bound: Weak<Bound>,
    _wanted: oneshot::Sender<()>,
}

impl Servers {
    /// Binds every address of the configuration, but for those where somebody has opened a socket for
    /// us. What was opened beyond them is listened on as well.
    ///
    /// # Errors
    /// Every address that cannot be bound.
    pub fn new(
        listens: &[Listen],
        mut opened: Vec<Bound>,
        default: Opening,
        defer: Duration,
    ) -> Result<Self, Vec<BindError>> {
        let (mut unclaimed, mut errors) = (Vec::new(), Vec::new());
        for listen in listens {
            let there = opened.iter().position(|bound| bound.is_at(&listen.address));
            let opening = listen.opening.unwrap_or(default);
            let bound = match there {
                Some(place) => Ok(opened.swap_remove(place).beginning_with(opening)),
                None => bind(&listen.address, opening, defer),
            };
            match bound {
                Ok(bound) => unclaimed.push((listen.clone(), bound)),
                Err(error) => errors.push(error),
            }
        }
        let more = opened.into_iter();
        unclaimed.extend(more.map(|bound| {
            let listen = Listen { address: bound.address.clone(), serves: None, pool: None, opening: None };
            (listen, bound.beginning_with(default))
        }));
        if !errors.is_empty() {
            return Err(errors);
        }
        let apart = listens.iter().filter_map(|listen| listen.pool.clone()).collect();
        let inner = Inner { unclaimed, mains: HashMap::new(), apart, servers: Vec::new() };
        Ok(Self::of(inner, default, defer))
    }

    pub(super) fn of(inner: Inner, opening: Opening, defer: Duration) -> Self {
        Self { inner: Mutex::new(inner), opening, defer, changed: watch::Sender::default() }
    }

    /// The server that the `listen()` of a pool's worker means, and the address it listens on. Binds that address
    /// unless the configuration says where to listen instead.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn claim(&self, pool: &Arc<str>, wanted: &Wanted, data: &Value) -> Result<Claimed, BindError> {
        let mut inner = self.lock();
        let known = inner.servers.iter().find(|server| server.wanted.get(pool) == Some(wanted));
        let id = match known.map(|server| server.id) {
            Some(id) => id,
            None => {
                let id = inner.claim(pool, wanted, self.opening, self.defer)?;
                self.tell();
                id
            }
        };
        let server = inner.servers.iter_mut().find(|server| server.id == id);
        let (address, data) = server.map(|server| (server.address(), server.share(data))).unwrap_or_default();
        Ok(Claimed { server: id, address: address.unwrap_or_else(|| wanted.address.clone()), data })
    }

    /// The server of a pool's workers that take connections as messages.
    ///
    /// # Errors
    /// `EDESTADDRREQ` when the configuration names no address: such a worker names none either.
    pub fn claim_for_messages(&self, pool: &Arc<str>, listens: Listens) -> Result<ServerId, Errno> {
        let mut inner = self.lock();
        if let Some(main) = inner.mains.get(pool) {
            // Others have listened, or will.
            return Ok(*main);
        }
        let server = inner.configured(pool, None).ok_or(Errno::EDESTADDRREQ)?;
        if listens == Listens::Never {
            server.shared.insert(Arc::clone(pool));
        }
        let id = server.id;
        inner.mains.insert(Arc::clone(pool), id);
        Ok(id)
    }

    /// No worker of a pool has a server any more, as their program has closed it. Where the program itself had said
    /// where to listen, nobody listens any more; configured listeners are the next server's.
    pub fn release(&self, pool: &Arc<str>, id: ServerId) {
        let mut inner = self.lock();
        let Inner { mains, servers, .. } = &mut *inner;
        let Some(server) = servers.iter_mut().find(|server| server.id == id) else { return };
        let own = |listener: &Listener| listener.listen.is_none();
        let file = |listener: &Listener| matches!(listener.address, ListenAddress::Unix(_));
        if server.listeners.iter().any(|listener| own(listener) && file(listener)) {
            // It would be removed too late, when somebody listens there again: so that one gets this socket.
            return;
        }
        mains.retain(|of, main| of != pool || *main != id);
        server.wanted.remove(pool);
        if server.wanted.is_empty() && server.shared.is_empty() {
            server.data = Value::Null;
            for closed in server.listeners.extract_if(.., |listener| own(listener)) {
                closed.bound.upgrade().iter().for_each(|bound| bound.stop());
            }
            server.idle.retain_mut(Idle::is_wanted);
        }
        self.tell();
    }

    /// The only pool that has a server, if there is only one.
    #[must_use]
    pub fn pool(&self, id: ServerId) -> Option<Arc<str>> {
        self.lock().servers.iter().find(|server| server.id == id).and_then(|server| server.pool.clone())
    }

    /// Whether a server is no pool's main one.
    #[must_use]
    pub fn is_side(&self, id: ServerId) -> bool {
        !self.lock().mains.values().any(|main| *main == id)
    }

    /// Takes the listeners of a server that are bound and not yet served.
    #[must_use]
    pub fn take_idle(&self, id: ServerId) -> Vec<Idle> {
        let mut inner = self.lock();
        let server = inner.servers.iter_mut().find(|server| server.id == id);
        server.map(|server| std::mem::take(&mut server.idle)).unwrap_or_default()
    }

    /// Every address in force.
    #[must_use]
    pub fn addresses(&self) -> Vec<ListenAddress> {
        let inner = self.lock();
        let waiting = inner.unclaimed.iter().map(|(_, bound)| &bound.address);
        let listeners = inner.servers.iter().flat_map(|server| &server.listeners);
        listeners.map(|listener| &listener.address).chain(waiting).cloned().collect()
    }

    /// To wait with until an address comes or goes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) fn tell(&self) {
        self.changed.send_replace(());
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics under the lock; were it so, the lists would still be whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// A server that nobody of the pool has asked for yet: fed by the configured listeners that name its
    /// port, else the main one, else by a listener of its own.
    fn claim(
        &mut self,
        pool: &Arc<str>,
        wanted: &Wanted,
        opening: Opening,
        defer: Duration,
    ) -> Result<ServerId, BindError> {
        let port = match wanted.address {
            ListenAddress::Tcp { port, .. } => Some(port),
            ListenAddress::Unix(_) => None,
        };
        let named = port.and_then(|port| self.configured(pool, Some(port)).map(|server| server.id));
        let shared = match named {
            None => {
                self.servers.iter_mut().find_map(|server| server.shared.remove(pool).then_some(server.id))
            }
            Some(_) => None,
        };
        let main = (named.or(shared).is_none() && !self.mains.contains_key(pool))
            .then(|| self.configured(pool, None).map(|server| server.id));
        let id = match named.or(shared).or_else(|| main.flatten()) {
            Some(id) => id,
            None => {
                let bound = vec![(None, bind(&wanted.address, opening, defer)?)];
                self.add(Some(Arc::clone(pool)), None, bound).id
            }
        };
        if main.is_some() {
            self.mains.insert(Arc::clone(pool), id);
        }
        if let Some(server) = self.servers.iter_mut().find(|server| server.id == id) {
            server.wanted.insert(Arc::clone(pool), wanted.clone());
        }
        Ok(id)
    }

    /// The server that configured addresses feed which name a port, or none, and that is open to a pool.
    fn configured(&mut self, pool: &Arc<str>, serves: Option<u16>) -> Option<&mut Server> {
        let apart = self.apart.contains(pool).then(|| Arc::clone(pool));
        let open = |server: &Server| {
            let ours = server.serves == serves && server.pool == apart && !server.wanted.contains_key(pool);
            ours && !server.is_gone()
        };
        if let Some(place) = self.servers.iter().position(open) {
            return self.servers.get_mut(place);
        }
        let bound = self.take(|listen| listen.serves == serves && listen.pool == apart);
        (!bound.is_empty()).then(|| self.add(apart, serves, bound))
    }

    fn take(&mut self, wanted: impl Fn(&Listen) -> bool) -> Vec<(Option<Listen>, Bound)> {
        let (taken, left) =
            std::mem::take(&mut self.unclaimed).into_iter().partition(|(listen, _)| wanted(listen));
        self.unclaimed = left;
        Vec::into_iter(taken).map(|(listen, bound): (Listen, Bound)| (Some(listen), bound)).collect()
    }

    fn add(
        &mut self,
        pool: Option<Arc<str>>,
        serves: Option<u16>,
        bound: Vec<(Option<Listen>, Bound)>,
    ) -> &mut Server {
        let id = ServerId(u32::try_from(self.servers.len()).unwrap_or(u32::MAX));
        let (wanted, shared) = (HashMap::new(), HashSet::new());
        let (idle, listeners, data) = (Vec::new(), Vec::new(), Value::Null);
        let mut server = Server { id, pool, serves, wanted, shared, idle, listeners, data };
        bound.into_iter().for_each(|(listen, bound)| server.feed(listen, bound));
        let place = self.servers.len();
        self.servers.push(server);
        &mut self.servers[place]
    }
}

impl Server {
    /// The address its workers are told.
    fn address(&self) -> Option<ListenAddress> {
        self.listeners.first().map(|listener| listener.address.clone())
    }

    /// Whether its program has closed it, and nothing is left of it.
    pub(super) fn is_gone(&self) -> bool {
        self.wanted.is_empty() && self.shared.is_empty() && self.listeners.is_empty()
    }

    /// What its workers have in common: what the first of them has brought.
    fn share(&mut self, data: &Value) -> Value {
        if self.data.is_null() {
            self.data = data.clone();
        }
        self.data.clone()
    }

    /// One more listener.
    pub(super) fn feed(&mut self, listen: Option<Listen>, bound: Bound) {
        let (address, bound) = (bound.address.clone(), Arc::new(bound));
        let unwanted = self.list(listen, address, Arc::downgrade(&bound));
        self.idle.push(Idle { bound, unwanted });
    }

    /// One more that is known to be there; returns what ends when it is not wanted any more.
    pub(super) fn list(
        &mut self,
        listen: Option<Listen>,
        address: ListenAddress,
        bound: Weak<Bound>,
    ) -> oneshot::Receiver<()> {
        let (wanted, unwanted) = oneshot::channel();
        self.listeners.push(Listener { listen, address, bound, _wanted: wanted });
        unwanted
    }
}

#[cfg(test)]
mod tests {
    use super::super::RelistenError;
    use super::*;

    fn wanted(port: u16) -> Wanted {
        Wanted { address: ListenAddress::Tcp { host: Some("127.0.0.1".into()), port }, index: 0 }
    }

    /// Server and address.
    fn claim(
        servers: &Servers,
        pool: &Arc<str>,
        wanted: &Wanted,
    ) -> Result<(ServerId, ListenAddress), BindError> {
        let claimed = servers.claim(pool, wanted, &Value::Null)?;
        Ok((claimed.server, claimed.address))
    }

    fn web() -> Arc<str> {
        "web".into()
    }

    /// `127.0.0.1:0@api` is the pool api's own.
    fn servers(listens: &[&str]) -> Servers {
        let listen = |text: &&str| {
            let (address, pool) =
                text.split_once('@').map_or((*text, None), |(text, pool)| (text, Some(pool)));
            Listen { pool: pool.map(Into::into), ..address.parse().unwrap() }
        };
        let listens: Vec<Listen> = listens.iter().map(listen).collect();
        Servers::new(&listens, Vec::new(), Opening::Request, Duration::from_secs(1)).unwrap()
    }

    #[test]
    fn without_configuration_the_program_decides() {
        let servers = servers(&[]);
        let (first, address) = claim(&servers, &web(), &wanted(0)).unwrap();
        assert_eq!(
            claim(&servers, &web(), &wanted(0)).unwrap(),
            (first, address),
            "the second worker gets the same"
        );
        assert_eq!(servers.take_idle(first).len(), 1);
        assert!(servers.take_idle(first).is_empty(), "a listener is served once");
        assert_eq!(servers.claim_for_messages(&web(), Listens::Never), Ok(first));
    }

    #[test]
    fn configured_addresses_feed_the_first_server_and_named_ones_their_own() {
        let servers = servers(&["127.0.0.1:0", "[::1]:0", "127.0.0.1:0=9100"]);
        let (metrics, _) = claim(&servers, &web(), &wanted(9100)).unwrap();
        let (main, _) = claim(&servers, &web(), &wanted(3000)).unwrap();
        assert_ne!(main, metrics);
        assert_eq!((servers.take_idle(main).len(), servers.take_idle(metrics).len()), (2, 1));
        assert_eq!(servers.addresses().len(), 3);
        assert_eq!(servers.claim_for_messages(&web(), Listens::Never), Ok(main), "not the first that came");
    }

    #[test]
    fn what_is_released_is_free_and_what_was_configured_is_the_next_ones() {
        let servers = servers(&[]);
        let Claimed { server: first, address, .. } = servers.claim(&web(), &wanted(0), &Value::Null).unwrap();
        let ListenAddress::Tcp { port, .. } = address else { panic!("a port") };
        servers.release(&web(), first);
        assert!(servers.addresses().is_empty());
        let (second, _) = claim(&servers, &web(), &wanted(port)).unwrap();
        assert_ne!(second, first, "it is bound anew");
        // One that is gone stands in no reload's way.
        let listens = ["127.0.0.1:0".parse().unwrap()];
        assert!(servers.prepare(&listens, Duration::from_secs(1)).is_ok());

        let servers = self::servers(&["127.0.0.1:0"]);
        let (main, address) = claim(&servers, &web(), &wanted(3000)).unwrap();
        servers.release(&web(), main);
        assert_eq!(claim(&servers, &web(), &wanted(4000)).unwrap(), (main, address));
    }

    #[test]
    fn those_that_never_listen_and_the_first_that_does_share_a_server() {
        let servers = servers(&["127.0.0.1:0", "127.0.0.1:0=9100"]);
        let shared = servers.claim_for_messages(&web(), Listens::Never).unwrap();
        let (metrics, _) = claim(&servers, &web(), &wanted(9100)).unwrap();
        let (main, address) = claim(&servers, &web(), &wanted(3000)).unwrap();
        assert_eq!(main, shared);
        assert_ne!(main, metrics);
        assert!(servers.addresses().contains(&address));
        assert_eq!(
            claim(&servers, &web(), &wanted(3000)).unwrap(),
            (main, address),
            "the second worker gets the same"
        );
        assert_ne!(claim(&servers, &web(), &wanted(0)).unwrap().0, main, "another server is another");
    }

    #[test]
    fn other_addresses_are_bound_before_those_that_leave_are_closed() {
        let listens =
            |texts: &[&str]| -> Vec<Listen> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let servers = servers(&["127.0.0.1:0", "127.0.0.1:0=9100"]);
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (main, first) = claim(&servers, &web(), &wanted(port)).unwrap();
        let mut served = servers.take_idle(main);
        let change = |texts: &[&str]| servers.prepare(&listens(texts), servers.defer);

        let more = change(&["127.0.0.1:0", "[::1]:0", "127.0.0.1:0=9100"]).unwrap();
        assert_eq!(servers.addresses().len(), 2, "nothing has changed yet");
        assert_eq!(servers.relisten(more), [main]);
        assert_eq!(servers.take_idle(main).len(), 1, "what was there is not bound again");

        let taken = servers.addresses()[0].to_string();
        let errors = change(&["127.0.0.1:0", &format!("{taken}=7"), "192.0.2.1:1"]).unwrap_err();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert_eq!((servers.addresses().len(), &servers.addresses()[0]), (3, &first));

        // The program decides by itself again; the one it asks for stays unclaimed.
        let none = change(&[]).unwrap();
        assert_eq!(servers.relisten(none), [main]);
        assert!(served.iter_mut().all(|idle| !idle.is_wanted()), "the listeners before are told");
        assert_eq!(servers.addresses(), [wanted(port).address]);
        // … and it is not bound anew when it is configured.
        let same = change(&[&format!("127.0.0.1:{port}")]).unwrap();
        assert!(servers.relisten(same).is_empty());
        assert!(matches!(change(&[&format!("[::]:{port}")]).unwrap_err()[..], [RelistenError::Own(_)]));
    }

    #[test]
    fn one_that_takes_messages_may_listen_for_something_else() {
        let servers = servers(&["127.0.0.1:0"]);
        let main = servers.claim_for_messages(&web(), Listens::Perhaps).unwrap();
        assert_ne!(claim(&servers, &web(), &wanted(0)).unwrap().0, main);
        assert_eq!(servers.claim_for_messages(&web(), Listens::Never), Ok(main));
    }

    #[test]
    fn workers_that_take_messages_need_a_configured_address() {
        assert_eq!(servers(&[]).claim_for_messages(&web(), Listens::Perhaps), Err(Errno::EDESTADDRREQ));
        assert!(servers(&["127.0.0.1:0"]).claim_for_messages(&web(), Listens::Perhaps).is_ok());
    }

    #[test]
    fn pools_share_what_none_has_for_itself() {
        let servers = servers(&["127.0.0.1:0", "127.0.0.1:0=9100", "127.0.0.1:0@api"]);
        let (api, chat): (Arc<str>, Arc<str>) = ("api".into(), "chat".into());
        let (main, address) = claim(&servers, &web(), &wanted(3000)).unwrap();
        assert_eq!(claim(&servers, &chat, &wanted(4000)).unwrap(), (main, address));
        assert_eq!(servers.pool(main), None);
        let (metrics, _) = claim(&servers, &web(), &wanted(9100)).unwrap();
        assert_eq!(claim(&servers, &chat, &wanted(9100)).unwrap().0, metrics);
        assert_ne!(
            claim(&servers, &chat, &wanted(0)).unwrap().0,
            main,
            "what else it listens for is its own"
        );
        let own = servers.claim_for_messages(&api, Listens::Never).unwrap();
        assert_eq!(servers.pool(own), Some(Arc::clone(&api)));
        assert_eq!(claim(&servers, &api, &wanted(3000)).unwrap().0, own);
        assert_ne!(claim(&servers, &api, &wanted(9100)).unwrap().0, metrics, "it has no part in the others");
    }
}
