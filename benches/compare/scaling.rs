//! More workers, and where it ends.

use crate::Effort;
use crate::scenarios::connections_through;
use crate::support::peers::Peer;
use crate::table::{Column, Table};

/// The machine the model is for.
const CORES: f64 = 64.0;

pub fn scaling(effort: Effort) -> Table {
    let peers = [1, 2, 4, 8].map(|workers| Peer::sidetrack(&format!("{workers} workers"), workers, &[]));
    let mut table = connections_through("New connections by number of workers, 64 clients", &peers, effort);
    table.notes.push(model(&table));
    table
}

/// Where a larger machine saturates, by what one connection costs here.
///
/// One thread of sidetrack routes, and each worker has a core. So the rate is what the routing thread can
/// do, or what the workers can, whichever is less. A worker costs what it costs alone: here several share
/// a core, and pay for it. The routing thread costs what it does with the most of them.
fn model(table: &Table) -> String {
    let place = |what: &str| {
        let named = |column: &Column| column.name.starts_with(what);
        table.columns.iter().position(named).expect("it is measured")
    };
    let figures = |what: &str| {
        let place = place(what);
        table.rows.iter().filter_map(move |(_, figures)| figures[place])
    };
    let proxy = figures("proxy").fold(0.0, f64::max);
    let worker = figures("workers").next().unwrap_or(f64::NAN);
    let (routing, working) = (1e6 / proxy, (CORES - 1.0) * 1e6 / worker);
    let (least, what) =
        if routing < working { (routing, "the routing thread") } else { (working, "the workers") };
    format!(
        "A connection costs sidetrack {proxy:.1} µs and a worker with a core of its own {worker:.1} µs of CPU. On \
         {CORES:.0} cores with a worker on each but one, {what} would be the limit, at {least:.0} connections/s (the \
         routing thread {routing:.0}, the workers {working:.0}); up to {:.0} workers the workers are. It assumes that a \
         connection costs there what it costs here, that workers do nothing but accept connections and answer \
         each with two bytes, and that the kernel's accept and loopback are not the limit before.",
        worker / proxy
    )
}
