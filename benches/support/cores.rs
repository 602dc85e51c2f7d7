//! Servers and clients on cores of their own: what a client spends is then not missing to the server, and a
//! rate says what the server can do.

use std::sync::OnceLock;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Those this process may use, cut in two; nothing to cut on a machine with one.
#[derive(Debug)]
struct Halves {
    servers: Vec<usize>,
    clients: Vec<usize>,
}

fn halves() -> &'static Halves {
    static HALVES: OnceLock<Halves> = OnceLock::new();
    HALVES.get_or_init(|| {
        let allowed = sched_getaffinity(own()).expect("the kernel tells");
        let all: Vec<usize> =
            (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false)).collect();
        let (servers, clients) = all.split_at(all.len().div_ceil(2));
        let clients = if clients.is_empty() { servers } else { clients };
        Halves { servers: servers.to_vec(), clients: clients.to_vec() }
    })
}

/// Where each half runs, for the page.
pub fn describe() -> (String, String) {
    let list = |cores: &[usize]| cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    (list(&halves().servers), list(&halves().clients))
}

/// This thread, and every process it starts, stays on the servers' cores.
pub fn of_servers() {
    stay(&halves().servers);
}

/// This thread stays on the clients' cores.
pub fn of_clients() {
    stay(&halves().clients);
}

fn stay(cores: &[usize]) {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core).expect("it was in such a set");
    }
    sched_setaffinity(own(), &set).expect("its own cores");
}

/// The calling thread.
fn own() -> Pid {
    Pid::from_raw(0)
}
