//! The component's side: generated bindings, and what [`export!`](crate::export) needs around them.

use std::sync::Once;

use crate::{Decision, Refusal, Worker};

/// The imports and the required interface.
pub mod routing {
    wit_bindgen::generate!({ path: "wit", world: "routing", pub_export_macro: true });
}

/// The optional interfaces share the types of the required one.
pub mod sessions {
    wit_bindgen::generate!({
        path: "wit",
        world: "routing-sessions",
        pub_export_macro: true,
        with: { "sidetrack:policy/types@1.1.0": super::types },
    });
}

pub mod state {
    wit_bindgen::generate!({ path: "wit", world: "routing-state", pub_export_macro: true });
}

pub mod schema {
    wit_bindgen::generate!({ path: "wit", world: "routing-schema", pub_export_macro: true });
}

pub mod events {
    wit_bindgen::generate!({
        path: "wit",
        world: "routing-events",
        pub_export_macro: true,
        with: { "sidetrack:policy/types@1.1.0": super::types },
    });
}

pub use routing::sidetrack::policy::types;

pub(crate) use routing::sidetrack::policy::{request, store};

/// The imports of interface `host`, taking this crate's types.
pub(crate) mod host {
    use super::routing::sidetrack::policy::host;
    use crate::host::Level;

    pub(crate) use host::{explain, now, random_u64, session_owner};

    pub(crate) fn log(level: Level, text: &str) {
        let level = match level {
            Level::Error => host::Level::Error,
            Level::Warn => host::Level::Warn,
            Level::Info => host::Level::Info,
            Level::Debug => host::Level::Debug,
        };
        host::log(level, text);
    }
}

/// Makes a panic say where and why in sidetrack's log before it ends the instance.
pub fn log_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            crate::host::log(crate::host::Level::Error, &panic.to_string());
        }));
    });
}

pub fn workers(workers: Vec<types::Worker>) -> Vec<Worker> {
    workers
        .into_iter()
        .map(|types::Worker { id, name, weight, draining, labels }| Worker {
            id,
            name,
            weight,
            draining,
            labels,
        })
        .collect()
}

pub fn decision(decision: Decision) -> types::Decision {
    match decision {
        Decision::Worker(id) => types::Decision::Worker(id),
        Decision::Defer => types::Decision::Defer,
        Decision::Refuse(Refusal { status, retry_after, text }) => {
            types::Decision::Refuse(types::Refusal { status, retry_after, text })
        }
    }
}
