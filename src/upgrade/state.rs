//! What goes from one program to the next: plain data, written as JSON into a file in memory.
//!
//! Descriptors are told by number. Moments are told as the time that has passed since, or that is left.
//! A field that a later version adds has a default; a change that an older or newer program would
//! misread is another [`FORMAT`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::config::{Config, Given, Overrides};
use crate::listener::{ListenAddress, Wanted};
use crate::policy::{Counts, Ending, VersionFigures};
use crate::pool::place;
use crate::types::{Opening, ServerId, WorkerId, WorkerInfo};
use crate::worker::{Origin, Rolling, Standing, Why};

/// The shape of everything here.
pub const FORMAT: u32 = 1;

/// Bytes, in base64.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text).map(Self).map_err(de::Error::custom)
    }
}

/// A whole run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Run {
    /// Settings that cannot change from one program to the next: what was opened by them goes along.
    pub fixed: BTreeMap<String, String>,
    /// Settings that were changed by hand, by their places.
    pub by_hand: BTreeMap<String, String>,
    /// Where the sockets with a meaning of their own are that were opened for the first program, by setting.
    pub passed: BTreeMap<String, PathBuf>,
    pub started: SystemTime,
    /// Of the machine's clock when the program before stopped: see
    /// [`monotonic`](crate::sys::exec::monotonic).
    pub stopped: Duration,
    pub counters: BTreeMap<String, u64>,
    /// Answers of our own, by cause and status.
    pub refusals: Vec<(String, u16, u64)>,
    pub admin: Admin,
    /// Where the shim lies, in this version and in those before.
    pub shim: Vec<PathBuf>,
    pub servers: Servers,
    /// Between accept and a worker's line.
    pub connections: Vec<Connection>,
    pub pools: Vec<Pool>,
    /// The last rolling restart.
    #[serde(default)]
    pub rolling: Option<Rolling>,
}

/// Where orders are given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Admin {
    pub socket: Option<Door>,
    pub tcp: Option<RawFd>,
}

impl Run {
    /// What was changed by hand.
    #[must_use]
    pub fn by_hand(&self) -> Overrides {
        let given = |(path, text): (&String, &String)| (path.clone(), Given::Text(text.clone()));
        self.by_hand.iter().map(given).collect()
    }

    /// Settings as they were changed by hand.
    pub fn put_by_hand(&self, config: &mut Config) {
        let names: Vec<Arc<str>> = config.each().map(|(name, _)| name).collect();
        for (path, text) in &self.by_hand {
            let found = names.iter().find_map(|pool| {
                let keys = ["workers", "log"].into_iter();
                keys.map(|key| (pool, key)).find(|(pool, key)| place(pool, key) == *path)
            });
            if let Some((pool, key)) = found {
                config.put(pool, key, &Given::Text(text.clone()));
            }
        }
    }
}

/// A Unix socket that somebody listens on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Door {
    pub path: PathBuf,
    /// Whether the file goes with it.
    pub ours: bool,
    pub socket: RawFd,
}

/// The workers of one command, and what decides among them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pool {
    pub name: String,
    pub join: Option<Door>,
    pub sessions: Sessions,
    pub chain: Chain,
    pub shadow: Shadow,
    pub fleet: Fleet,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Servers {
    pub unclaimed: Vec<Unclaimed>,
    /// By pool.
    pub mains: Vec<(String, ServerId)>,
    pub apart: Vec<String>,
    pub servers: Vec<Server>,
}

/// A configured address that no server has claimed yet.
#[derive(Debug, Serialize, Deserialize)]
pub struct Unclaimed {
    pub listen: Listen,
    pub bound: Bound,
}

/// An address as the settings name it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Listen {
    pub address: ListenAddress,
    pub serves: Option<u16>,
    pub pool: Option<String>,
    pub opening: Option<Opening>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Server {
    pub id: ServerId,
    pub pool: Option<String>,
    pub serves: Option<u16>,
    pub wanted: Vec<(String, Wanted)>,
    pub shared: Vec<String>,
    pub listeners: Vec<Listener>,
    #[serde(default)]
    pub data: serde_json::Value,
}

/// Where a server listens.
#[derive(Debug, Serialize, Deserialize)]
pub struct Listener {
    /// None where the program itself decided.
    pub listen: Option<Listen>,
    pub address: ListenAddress,
    /// None for one that was lost.
    pub bound: Option<Bound>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Bound {
    pub address: ListenAddress,
    pub opening: Opening,
    /// Whether a file goes with it.
    pub ours: bool,
    pub socket: RawFd,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Sessions {
    /// How old the table is, in seconds.
    pub age: u32,
    /// … and how old it was when each came.
    pub owners: Vec<(String, WorkerId, u32)>,
    /// … and how long ago each was last heard of.
    pub fleeting: Vec<(String, WorkerId, u32, Duration)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Fleet {
    pub next_id: u32,
    pub version: u64,
    pub roster: Vec<WorkerInfo>,
    pub workers: Vec<Worker>,
    /// Processes whose channel is gone: worker and process id, slot.
    pub parting: Vec<(WorkerId, u32, String)>,
    pub opened: Vec<ServerId>,
    pub draining: Vec<(WorkerId, Option<Duration>)>,
    pub vacant: Vec<String>,
    pub succession: Vec<(String, Option<Duration>)>,
    /// Slots that go with their worker.
    pub closing: Vec<String>,
    /// Adapter names.
    pub adapters: BTreeMap<String, WorkerId>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Worker {
    pub id: WorkerId,
    pub slot: String,
    pub pid: u32,
    pub origin: Origin,
    pub socket: RawFd,
    pub sessions: i64,
    pub sockets: i64,
    pub handed_off: u64,
    pub handed_back: u64,
    pub channel: Channel,
    pub window: Window,
    pub profile: Profile,
    pub sequence: u64,
    /// It was asked to leave.
    pub asked: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Channel {
    /// Read, and no whole line yet.
    pub inbound: Bytes,
    /// … and what came along; none for one that was lost.
    pub descriptors: Vec<Option<RawFd>>,
    pub outbound: Bytes,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Window {
    pub unacknowledged: Vec<Sent>,
    pub accepting: Vec<Sent>,
    pub waiting: Vec<(Parcel, Duration)>,
    pub lone: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Sent {
    pub parcel: Parcel,
    pub number: Option<u64>,
    pub age: Duration,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Parcel {
    Client(Box<Routed>),
    Probe(RawFd),
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Profile {
    pub standing: Standing,
    pub servers: Vec<(ServerId, String)>,
    pub keys: Vec<(String, ServerId)>,
    pub pending: Vec<Pending>,
    pub messages: Option<ServerId>,
    pub listens: bool,
    pub online: bool,
    pub reports: bool,
    pub never_listens: bool,
    pub replays: bool,
    pub ready_for: Option<Duration>,
    pub faults: u32,
    pub unfit: Option<String>,
}

/// A server between the answer to its `listen()` and its word that it listens.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pending {
    pub server: ServerId,
    pub key: String,
    pub seq: u64,
    pub address: Option<String>,
    pub port: i64,
    pub address_type: String,
    pub fd: Option<i64>,
    pub index: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Accepted {
    pub socket: RawFd,
    pub peer: Option<SocketAddr>,
    /// Whom a proxy has announced.
    pub announced: Option<SocketAddr>,
    /// What is still to come first.
    pub opening: Opening,
    pub server: ServerId,
    pub data: Bytes,
    pub last_stop: bool,
    /// Whose share it has.
    pub share: Option<IpAddr>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Routed {
    pub accepted: Accepted,
    pub head: Bytes,
    /// The client, as policies know it.
    pub client: Option<SocketAddr>,
    pub session: Option<String>,
    pub attempt: u32,
}

/// A connection that is nobody's yet, by how far it has come.
#[derive(Debug, Serialize, Deserialize)]
pub enum Connection {
    Accepted(Accepted),
    Routed(Box<Routed>),
    /// It has had its answer, and may still read it.
    Refused(Accepted),
    Undelivered {
        routed: Box<Routed>,
        why: Why,
        from: WorkerId,
    },
    HandedBack {
        socket: RawFd,
        server: ServerId,
        data: Bytes,
        /// Whom a proxy has announced.
        announced: Option<SocketAddr>,
    },
}

/// What decides.
#[derive(Debug, Serialize, Deserialize)]
pub struct Chain {
    pub links: Vec<Link>,
    pub last: Native,
    /// Of the chain's versions so far.
    pub generations: u64,
    /// The content of each link's file that was loaded or refused; none where there was no file.
    pub seen: BTreeMap<String, Option<String>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Link {
    pub name: String,
    /// What the settings say, as somebody would write it, with options.
    pub configured: Policy,
    pub kind: Kind,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Kind {
    Native(Native),
    Component(Box<Component>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub source: String,
    pub options: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Native {
    pub policy: Policy,
    pub state: Bytes,
    pub calls: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Component {
    pub generation: u64,
    pub version: Version,
    pub since: SystemTime,
    pub form: Option<String>,
    pub state: Option<Bytes>,
    pub store: BTreeMap<String, Bytes>,
    pub in_service: bool,
    pub trial: Option<Duration>,
    pub counts: Counts,
    /// What this version has done.
    pub figures: VersionFigures,
    /// Digests.
    pub quarantined: Vec<String>,
    pub past: Vec<Tenure>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Version {
    pub policy: Policy,
    pub digest: String,
    /// What was in the file, which may be another by now; none for one that comes with the program.
    pub code: Option<Bytes>,
}

/// A version before.
#[derive(Debug, Serialize, Deserialize)]
pub struct Tenure {
    pub generation: u64,
    pub version: Version,
    pub returnable: bool,
    pub state: Option<Bytes>,
    pub since: SystemTime,
    pub until: SystemTime,
    pub ending: Ending,
    pub figures: VersionFigures,
}

/// The policy asked beside them; none when there is none.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Shadow {
    pub policy: Option<Policy>,
    /// What the settings say.
    pub configured: Option<Policy>,
}
