//! One version of a policy: compiled, checked against the contract, ready to be instantiated.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use super::bindings::{events, host, request, routing, schema, script, sessions, state, store};
use super::cache::Cache;
use super::contract::{self, ContractError, Kind};
use super::engine::Engine;
use super::host::HostState;
use super::load::{Code, Read};
use super::{Limits, PolicyLink, one_line};

/// SHA-256 of a policy file. Displayed as its first twelve digits, in full with `{:#}`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    pub(super) const fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads what `{:#}` writes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut digest = [0; 32];
        if text.len() != 2 * digest.len() || !text.is_ascii() {
            return None;
        }
        for (place, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
        }
        Some(Self(digest))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = if f.alternate() { &self.0[..] } else { &self.0[..6] };
        shown.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// A compiled policy. Instances are made from it without looking anything up again.
pub(super) struct Version {
    pub(super) name: Arc<str>,
    /// Where it came from, with the user's options.
    pub(super) link: PolicyLink,
    /// What it is configured with.
    pub(super) options: String,
    /// Of its file.
    pub(super) digest: Digest,
    /// What was in the file: another program that goes on with this version may not find it there.
    pub(super) code: Code,
    pub(super) pre: InstancePre<HostState>,
    pub(super) routing: routing::RoutingIndices,
    /// The optional interfaces, where the component exports them.
    pub(super) sessions: Option<sessions::RoutingSessionsIndices>,
    pub(super) state: Option<state::RoutingStateIndices>,
    pub(super) schema: Option<schema::RoutingSchemaIndices>,
    pub(super) events: Option<events::RoutingEventsIndices>,
    /// Of the script engine only: which of the above the script needs.
    pub(super) script: Option<script::EngineIndices>,
    /// What `configure` took when the version was loaded: a new instance after a trap gets little
    /// more, since it is made while a connection waits.
    pub(super) configure_fuel: u64,
}

impl Version {
    /// Compiles a component, or a core module with embedded type information; or takes the script
    /// engine, which is compiled already if any script is.
    pub(super) fn compile(
        engine: &Engine,
        cache: &Cache,
        read: Read,
        limits: &Limits,
    ) -> Result<Self, ContractError> {
        let types = |error: wasmtime::Error| ContractError::Types(one_line(&format!("{error:#}")));
        let Read { link, code, digest } = read;
        let (component, options) = match &code {
            Code::Wasm(bytes) => (component(engine, cache, bytes, digest)?, link.options.clone()),
            Code::Script(text) => {
                let compile = || component(engine, cache, super::script::ENGINE, *super::script::DIGEST);
                (engine.for_scripts(compile)?, super::script::options(text, &link, limits))
            }
        };
        let exports = exports(engine, &component)?;

        let mut linker = Linker::new(engine.inner());
        request::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).map_err(types)?;
        host::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).map_err(types)?;
        store::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).map_err(types)?;
        let pre = linker.instantiate_pre(&component).map_err(types)?;
        let has = |name| exports.iter().any(|export| contract::is_interface(export, name));
        Ok(Self {
            name: link.source.name().into(),
            link,
            options,
            digest,
            routing: routing::RoutingIndices::new(&pre).map_err(types)?,
            sessions: has("sessions")
                .then(|| sessions::RoutingSessionsIndices::new(&pre))
                .transpose()
                .map_err(types)?,
            state: has("state").then(|| state::RoutingStateIndices::new(&pre)).transpose().map_err(types)?,
            schema: has("schema")
                .then(|| schema::RoutingSchemaIndices::new(&pre))
                .transpose()
                .map_err(types)?,
            events: has("events")
                .then(|| events::RoutingEventsIndices::new(&pre))
                .transpose()
                .map_err(types)?,
            script: matches!(code, Code::Script(_))
                .then(|| script::EngineIndices::new(&pre))
                .transpose()
                .map_err(types)?,
            code,
            pre,
            configure_fuel: 0,
        })
    }

    /// Calls none but these of the optional interfaces from now on.
    pub(super) fn narrow(&mut self, interfaces: &[String]) {
        let needed = |name: &str| interfaces.iter().any(|needed| needed == name);
        self.sessions.take_if(|_| !needed("sessions"));
        self.state.take_if(|_| !needed("state"));
        self.schema.take_if(|_| !needed("schema"));
        self.events.take_if(|_| !needed("events"));
    }

    /// The names of the optional interfaces it exports.
    pub(super) fn interfaces(&self) -> impl Iterator<Item = &'static str> {
        [
            self.sessions.as_ref().map(|_| "sessions"),
            self.state.as_ref().map(|_| "state"),
            self.schema.as_ref().map(|_| "schema"),
            self.events.as_ref().map(|_| "events"),
        ]
        .into_iter()
        .flatten()
    }
}

/// From this size on compiling takes so long that it is worth a word; in bytes.
const LARGE: usize = 512 << 10;

/// Checks and compiles, or finds it compiled.
fn component(
    engine: &Engine,
    cache: &Cache,
    bytes: &[u8],
    digest: Digest,
) -> Result<Component, ContractError> {
    if let Some(component) = cache.get(engine.inner(), digest) {
        return Ok(component);
    }
    if bytes.len() > LARGE {
        // Somebody may be waiting for the first connection.
        let megabytes = format!("{:.1}", bytes.len() as f64 / 1e6);
        tracing::info!(%digest, megabytes, "compiling a large policy, which takes a second for each megabyte or so");
    }
    let encoded;
    let checked = match contract::inspect(bytes)? {
        Kind::Component => bytes,
        Kind::Module => {
            encoded = encode(bytes)?;
            contract::inspect(&encoded)?;
            &encoded
        }
    };
    let component = Component::new(engine.inner(), checked)
        .map_err(|error| ContractError::Compile(one_line(&format!("{error:#}"))))?;
    cache.put(engine.inner(), digest, &component);
    Ok(component)
}

/// Wraps a core module into the component its embedded type information describes.
pub(super) fn encode(module: &[u8]) -> Result<Vec<u8>, ContractError> {
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(wit_component::ComponentEncoder::encode)
        .map_err(|error| ContractError::Types(one_line(&format!("{error:#}"))))
}

/// The names of a component's exports, after a look at the functions of the required one.
fn exports(engine: &Engine, component: &Component) -> Result<Vec<String>, ContractError> {
    let ty = component.component_type();
    let mut names = Vec::new();
    for (name, export) in ty.exports(engine.inner()) {
        names.push(name.to_owned());
        if let (true, ComponentItem::ComponentInstance(instance)) =
            (contract::is_interface(name, "policy"), &export.ty)
        {
            let functions = instance
                .exports(engine.inner())
                .filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)))
                .map(|(name, _)| name)
                .collect::<Vec<_>>();
            contract::check_functions(functions.into_iter())?;
        }
    }
    Ok(names)
}
