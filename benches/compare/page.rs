//! The results as a page: what they were taken on, and each scenario's picture and table.

use std::fmt::Write as _;

use serde_json::Value;

use crate::Effort;
use crate::table::Table;

pub fn text(command: &str, machine: &Value, effort: Effort, tables: &[(&'static str, Table)]) -> String {
    let mut page = format!(
        "# Results\n\n\
         Made by `{command}`, together with the pictures and [results.json](results.json); how to read them and what \
         follows is in [performance.md](../performance.md).\n\n\
         All peers of a scenario run side by side and serve the same program. Short rounds ({} of {} ms for each) go \
         around among them, and the processes are started anew in between; figures are medians over the rounds, and *to the first* is the median of the ratios within \
         a round. CPU time is what the kernel has charged to the processes, for each connection, request or \
         message. Servers have the cores {} to themselves and clients the cores {}.\n\n| | |\n|---|---|\n",
        effort.rounds,
        effort.round.as_millis(),
        shown(&machine["cores_of_servers"]),
        shown(&machine["cores_of_clients"]),
    );
    let versions = machine["versions"].as_object();
    let facts = ["processor", "memory_mib", "kernel", "load_before"].map(|name| (name, &machine[name]));
    let versions = versions.into_iter().flatten().map(|(name, value)| (name.as_str(), value));
    for (name, value) in facts.into_iter().chain(versions) {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| {} | {} |", name.replace('_', " "), shown(value));
    }
    for (name, table) in tables {
        let title = &table.title;
        let _ = write!(page, "\n## {title}\n\n![{title}]({name}.svg)\n\n{}", table.markdown());
    }
    page
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
