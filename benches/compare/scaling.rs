//! More workers, and where it ends.

use crate::Effort;
use crate::scenarios::connections_through;
use crate::support::peers::Peer;
use crate::table::Table;

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
/// One thread of sidetrack routes, and a connection costs it a constant time, whatever the number of
/// workers (the table shows how constant). Each worker has a core. So the rate is what the routing
/// thread can do, or what the workers can, whichever is less.
fn model(table: &Table) -> String {
    let column = |what: &str| table.columns.iter().position(|column| column.name.starts_with(what));
    let mean = |what: &str| {
        let place = column(what).expect("it is measured");
        let figures: Vec<f64> = table.rows.iter().filter_map(|(_, figures)| figures[place]).collect();
        figures.iter().sum::<f64>() / figures.len() as f64
    };
    let (proxy, worker) = (mean("proxy"), mean("workers"));
    let (routing, working) = (1e6 / proxy, (CORES - 1.0) * 1e6 / worker);
    let (least, what) =
        if routing < working { (routing, "the routing thread") } else { (working, "the workers") };
    format!(
        "A connection costs sidetrack {proxy:.1} µs and a worker {worker:.1} µs of CPU. On {CORES:.0} cores with a \
         worker on each but one, {what} would be the limit, at {least:.0} connections/s (the routing thread \
         {routing:.0}, the workers {working:.0}); up to {:.0} workers the workers are. It assumes that a \
         connection costs there what it costs here, and that the kernel's accept and loopback do not \
         become the limit before.",
        worker / proxy
    )
}
