//! Zone-aware: a client is served in its own zone, as long as that zone keeps up.
//!
//! Workers say where they are with a label, `--label w0:zone=eu`; the request says where the client is
//! with a header that the proxy in front sets. Among the workers of that zone the least loaded one is
//! taken, unless it has `spill` times the load of the least loaded worker anywhere: then that one. A
//! request from nowhere, or from a zone without workers, goes to the least loaded of all.

use serde::Deserialize;
use sidetrack_policy::{Decision, Policy, Worker, export, host, request};

/// The options, such as `{"header": "X-Region", "label": "region", "spill": 1.5}`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    header: String,
    label: String,
    /// How many times busier a zone may be than the rest before its clients go elsewhere.
    spill: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { header: "X-Zone".to_owned(), label: "zone".to_owned(), spill: 2.0 }
    }
}

/// See the crate's documentation.
#[derive(Debug, Default)]
struct ZoneAware {
    options: Options,
    workers: Vec<Worker>,
}

impl ZoneAware {
    /// The least loaded of the workers that count, of equals the first, and its load.
    fn least(&self, loads: &[u32], counts: impl Fn(&Worker) -> bool) -> Option<(&Worker, u32)> {
        let open = self.workers.iter().zip(loads.iter().copied());
        open.filter(|(worker, _)| !worker.draining && counts(worker)).min_by_key(|&(_, load)| load)
    }

    fn near(&self, loads: &[u32], zone: &str) -> Option<(&Worker, u32)> {
        self.least(loads, |worker| worker.label(&self.options.label) == Some(zone))
    }
}

impl Policy for ZoneAware {
    fn configure(&mut self, json: &str) -> Result<(), String> {
        self.options = serde_json::from_str(json).map_err(|error| error.to_string())?;
        if self.options.spill >= 1.0 {
            Ok(())
        } else {
            Err(format!("`spill` must be at least 1, found {}", self.options.spill))
        }
    }

    fn set_workers(&mut self, workers: &[Worker]) {
        self.workers = workers.to_vec();
    }

    fn balance(&mut self, loads: &[u32]) -> Decision {
        let Some((anyone, lowest)) = self.least(loads, |_| true) else { return Decision::Defer };
        let Some(zone) = request::header(&self.options.header) else {
            host::explain("the client's zone is unknown");
            return Decision::Worker(anyone.id);
        };
        let Some((neighbour, load)) = self.near(loads, &zone) else {
            host::explain(&format!("nobody is in zone {zone}"));
            return Decision::Worker(anyone.id);
        };
        // A few more than nobody at all is not busy.
        if f64::from(load) > f64::from(lowest.max(1)) * self.options.spill {
            host::explain(&format!("zone {zone} is too busy: {load} against {lowest} of {}", anyone.name));
            return Decision::Worker(anyone.id);
        }
        host::explain(&format!("{} is in zone {zone}", neighbour.name));
        Decision::Worker(neighbour.id)
    }
}

export!(ZoneAware);

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use sidetrack_policy::native::{Script, scripted};

    use super::*;

    fn policy(options: &str) -> ZoneAware {
        let worker = |id, zone: &str| Worker {
            id,
            name: format!("w{id}"),
            weight: 1,
            labels: vec![("zone".to_owned(), zone.to_owned())],
            ..Worker::default()
        };
        let mut policy = ZoneAware::default();
        policy.configure(options).unwrap();
        policy.set_workers(&[worker(1, "eu"), worker(2, "eu"), worker(3, "us")]);
        policy
    }

    fn decide(policy: &mut ZoneAware, zone: Option<&str>, loads: &[u32]) -> Decision {
        let headers = zone.map(|zone| ("x-zone".to_owned(), zone.to_owned())).into_iter().collect();
        scripted(Script { headers, ..Script::default() }, || policy.balance(loads)).0
    }

    #[test]
    fn a_client_stays_in_its_zone_while_that_keeps_up() {
        let mut policy = policy("{}");
        assert_eq!(decide(&mut policy, Some("eu"), &[9, 8, 4]), Decision::Worker(2));
        assert_eq!(decide(&mut policy, Some("us"), &[0, 0, 2]), Decision::Worker(3), "2 is not busy");
        assert_eq!(decide(&mut policy, Some("eu"), &[9, 9, 4]), Decision::Worker(3), "too busy");
        assert_eq!(decide(&mut policy, Some("mars"), &[5, 4, 6]), Decision::Worker(2));
        assert_eq!(decide(&mut policy, None, &[5, 4, 3]), Decision::Worker(3));
    }

    #[test]
    fn options_are_checked() {
        let refusal = |options| ZoneAware::default().configure(options).unwrap_err();
        assert_eq!(refusal(r#"{"spill": 0.5}"#), "`spill` must be at least 1, found 0.5");
        assert!(refusal(r#"{"zone": 1}"#).starts_with("unknown field `zone`"));
        assert_eq!(decide(&mut policy(r#"{"spill": 10}"#), Some("eu"), &[9, 9, 1]), Decision::Worker(1));
    }
}
