//! The contract in `wit/` as generated code. Nothing outside [`instance`](super::instance),
//! [`version`](super::version) and [`host`](super::host) sees these types.

/// What every policy exports, and all it may import.
pub mod routing {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "routing",
        // Asking too often, or for a request when there is none, ends the instance.
        imports: { default: trappable },
    });
}

/// The optional interfaces, each looked for by itself.
pub(super) mod sessions {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "routing-sessions",
        with: { "sidetrack:policy/types": super::types },
    });
}

pub(super) mod state {
    wasmtime::component::bindgen!({ path: "wit", world: "routing-state" });
}

pub(super) mod schema {
    wasmtime::component::bindgen!({ path: "wit", world: "routing-schema" });
}

pub(super) mod events {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "routing-events",
        with: { "sidetrack:policy/types": super::types },
    });
}

/// What the script engine tells beyond the contract.
pub(super) mod script {
    wasmtime::component::bindgen!({ path: "policies/script/wit", world: "engine" });
}

// Public only within this private module: `with` above re-exports it from generated code.
pub use routing::sidetrack::policy::types;
pub(super) use routing::sidetrack::policy::{host, request, store};
