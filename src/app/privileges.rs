//! What sidetrack may do beyond what an ordinary user may, and gives up.

use nix::unistd::Uid;

use crate::config::Config;
use crate::listener::ListenAddress;
use crate::sys::capabilities::{Capability, Kept, keep_only, no_new_privileges};

/// Ports below this need a capability (`net.ipv4.ip_unprivileged_port_start` may say otherwise).
const FIRST_FREE_PORT: u16 = 1024;

/// What is kept where it was granted, and why.
fn needed(config: &Config) -> Vec<Capability> {
    let root = Uid::effective().is_root();
    let pools = |wanted: fn(&Config) -> bool| config.each().any(|(_, pool)| wanted(pool));
    let starts = pools(|pool| pool.workers > 0);
    let others = pools(|pool| pool.user.is_some() || pool.group.is_some());
    [
        // Ports below 1024, also of a worker's listen() that comes later.
        (Capability::CAP_NET_BIND_SERVICE, true),
        // Workers that become another user by themselves are ended all the same.
        (Capability::CAP_KILL, starts),
        // Workers that are started as another user.
        (Capability::CAP_SETUID, others),
        (Capability::CAP_SETGID, others),
        // The join socket's group.
        (Capability::CAP_CHOWN, pools(|pool| pool.join_group.is_some())),
        // Policies, logs and folders that belong to others, as in containers.
        (Capability::CAP_DAC_OVERRIDE, root),
    ]
    .into_iter()
    .filter_map(|(capability, wanted)| wanted.then_some(capability))
    .collect()
}

/// Gives up what is not needed. To be called before there is a second thread.
pub fn reduce(config: &Config) {
    match keep_only(&needed(config)) {
        Ok(Kept { dropped: 0, .. }) => {}
        Ok(Kept { kept, dropped }) => {
            tracing::debug!(dropped, kept = kept.join(", "), "capabilities that are not needed are given up");
        }
        Err(error) => tracing::warn!(error, "capabilities cannot be given up"),
    }
    // Workers may have to: sudo, a sandbox with set-user-id. Where none are started nobody has.
    if config.each().all(|(_, pool)| pool.workers == 0)
        && let Err(error) = no_new_privileges()
    {
        tracing::warn!(%error, "new privileges cannot be ruled out");
    }
    if Uid::effective().is_root() && !needs_root(config) {
        tracing::warn!(
            "running as root, which nothing here needs, and workers are root too; use a user of its own, with \
             CAP_NET_BIND_SERVICE for ports below 1024 (docs/operations.md)"
        );
    }
}

/// Low ports and workers of another user are what people become root for.
fn needs_root(config: &Config) -> bool {
    let low = |address: &ListenAddress| matches!(address, ListenAddress::Tcp { port, .. } if (1..FIRST_FREE_PORT).contains(port));
    let others = |(_, pool): (_, &Config)| pool.user.is_some() || pool.group.is_some();
    config.listens().iter().any(|listen| low(&listen.address)) || config.each().any(others)
}
