//! my-policy: who gets a connection whose session is new.

use sidetrack_policy::{Decision, Policy, Worker, export, host};

/// Calls never overlap and one instance answers them all, so fields are exact state.
#[derive(Debug, Default)]
struct MyPolicy {
    workers: Vec<Worker>,
}

impl Policy for MyPolicy {
    /// The options: JSON text, `{}` without any. An error keeps the policy from being loaded.
    fn configure(&mut self, json: &str) -> Result<(), String> {
        if json == "{}" { Ok(()) } else { Err(format!("expected no options, found {json}")) }
    }

    /// All workers that may be chosen from now on.
    fn set_workers(&mut self, workers: &[Worker]) {
        self.workers = workers.to_vec();
    }

    /// Edit here. `loads` says how busy each of the workers is: its open sessions and connections.
    fn balance(&mut self, loads: &[u32]) -> Decision {
        let least = self
            .workers
            .iter()
            .zip(loads)
            // It is being emptied: nothing new for it.
            .filter(|(worker, _)| !worker.draining)
            .min_by_key(|(_, load)| **load);
        // No opinion: the next policy of the chain is asked.
        let Some((worker, load)) = least else { return Decision::Defer };
        host::explain(&format!("{} has the lowest load, {load}", worker.name));
        Decision::Worker(worker.id)
        // To turn a client away: Decision::Refuse(Refusal { status: 503, retry_after: Some(5), text })
    }
}

// Behind the type, the optional interfaces whose methods it has: sessions, state, schema, events.
export!(MyPolicy);

// Natively, where a test's own host answers.
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use sidetrack_policy::native::{Script, scripted};

    use super::*;

    fn worker(id: u32) -> Worker {
        Worker { id, name: format!("w{id}"), weight: 1, ..Worker::default() }
    }

    #[test]
    fn the_lowest_load_wins() {
        let mut policy = MyPolicy::default();
        policy.set_workers(&[worker(1), worker(2), worker(3)]);
        let (decision, said) = scripted(Script::default(), || policy.balance(&[5, 2, 9]));
        assert_eq!(decision, Decision::Worker(2));
        assert_eq!(said.explained.as_deref(), Some("w2 has the lowest load, 2"));
    }

    #[test]
    fn nothing_new_for_a_draining_worker() {
        let mut policy = MyPolicy::default();
        let draining = Worker { draining: true, ..worker(1) };
        policy.set_workers(&[draining.clone(), worker(2)]);
        assert_eq!(policy.balance(&[0, 7]), Decision::Worker(2));
        policy.set_workers(&[draining]);
        assert_eq!(policy.balance(&[0]), Decision::Defer);
    }

    #[test]
    fn options_are_refused() {
        assert!(MyPolicy::default().configure(r#"{"wat": 1}"#).is_err());
    }
}
