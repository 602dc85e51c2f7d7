//! The macro that makes a component of a policy type.

/// Makes the crate, a `cdylib` compiled for `wasm32-unknown-unknown`, a policy that sidetrack loads.
///
/// The first argument is the type that implements [`Policy`](crate::Policy); after it come the
/// optional interfaces whose methods it overrides, any of `sessions`, `state`, `schema` and `events`:
///
/// ```
/// # use sidetrack_policy::{Decision, Policy, Worker};
/// # #[derive(Default)]
/// # struct RoundRobin;
/// # impl Policy for RoundRobin {
/// #     fn set_workers(&mut self, _: &[Worker]) {}
/// #     fn balance(&mut self, _: &[u32]) -> Decision { Decision::Defer }
/// # }
/// sidetrack_policy::export!(RoundRobin, state);
/// # fn main() {}
/// ```
///
/// Natively it expands to nothing. Use it once per crate.
#[macro_export]
macro_rules! export {
    ($policy:ty $(, $interface:ident)* $(,)?) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::__private as sidetrack;
            use $crate::Policy as _;

            ::std::thread_local! {
                static POLICY: ::std::cell::RefCell<$policy> = {
                    sidetrack::log_panics();
                    ::std::cell::RefCell::default()
                };
            }

            struct Component;

            impl sidetrack::routing::exports::sidetrack::policy::policy::Guest for Component {
                fn configure(json: ::std::string::String) -> ::std::result::Result<(), ::std::string::String> {
                    POLICY.with_borrow_mut(|policy| policy.configure(&json))
                }

                fn set_workers(workers: ::std::vec::Vec<sidetrack::types::Worker>) {
                    POLICY.with_borrow_mut(|policy| policy.set_workers(&sidetrack::workers(workers)));
                }

                fn balance(loads: ::std::vec::Vec<u32>) -> sidetrack::types::Decision {
                    sidetrack::decision(POLICY.with_borrow_mut(|policy| policy.balance(&loads)))
                }
            }

            sidetrack::routing::export!(Component with_types_in sidetrack::routing);
            $( $crate::__export_interface!($interface, Component, POLICY); )*
        };
    };
}

/// One optional interface of [`export!`].
#[doc(hidden)]
#[macro_export]
macro_rules! __export_interface {
    (sessions, $component:ident, $policy:ident) => {
        impl sidetrack::sessions::exports::sidetrack::policy::sessions::Guest for $component {
            fn find(sid: ::std::string::String, loads: ::std::vec::Vec<u32>) -> sidetrack::types::Decision {
                sidetrack::decision($policy.with_borrow_mut(|policy| policy.find(&sid, &loads)))
            }
        }

        sidetrack::sessions::export!($component with_types_in sidetrack::sessions);
    };
    (state, $component:ident, $policy:ident) => {
        impl sidetrack::state::exports::sidetrack::policy::state::Guest for $component {
            fn save() -> ::std::vec::Vec<u8> {
                $policy.with_borrow_mut(|policy| policy.save())
            }

            fn restore(
                state: ::std::vec::Vec<u8>,
            ) -> ::std::result::Result<(), ::std::string::String> {
                $policy.with_borrow_mut(|policy| policy.restore(&state))
            }
        }

        sidetrack::state::export!($component with_types_in sidetrack::state);
    };
    (schema, $component:ident, $policy:ident) => {
        impl sidetrack::schema::exports::sidetrack::policy::schema::Guest for $component {
            fn current() -> ::std::string::String {
                $policy.with_borrow(|policy| policy.schema().to_owned())
            }

            fn reads(form: ::std::string::String) -> bool {
                $policy.with_borrow(|policy| policy.reads(&form))
            }
        }

        sidetrack::schema::export!($component with_types_in sidetrack::schema);
    };
    (events, $component:ident, $policy:ident) => {
        impl sidetrack::events::exports::sidetrack::policy::events::Guest for $component {
            fn session_opened(sid: ::std::string::String, worker: u32) {
                $policy.with_borrow_mut(|policy| policy.session_opened(&sid, worker));
            }

            fn session_closed(sid: ::std::string::String, worker: u32) {
                $policy.with_borrow_mut(|policy| policy.session_closed(&sid, worker));
            }

            fn worker_failed(worker: u32) {
                $policy.with_borrow_mut(|policy| policy.worker_failed(worker));
            }
        }

        sidetrack::events::export!($component with_types_in sidetrack::events);
    };
}
