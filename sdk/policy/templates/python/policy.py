"""my-policy: who gets a connection whose session is new."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import host
from wit_world.imports.types import Decision, Decision_Defer, Decision_Worker, Worker

# Calls never overlap and one instance answers them all, so this is exact state.
workers: list[Worker] = []


class Policy(exports.Policy):
    def configure(self, text: str) -> None:
        """Takes the options: JSON text, "{}" without any. An Err keeps the policy from being loaded."""
        if text != "{}":  # json.loads reads them
            raise Err(f"expected no options, found {text}")

    def set_workers(self, new: list[Worker]) -> None:
        """Takes all workers that may be chosen from now on."""
        global workers
        workers = new

    def balance(self, loads: list[int]) -> Decision:
        """Edit here. loads[i] says how busy workers[i] is: its open sessions and connections."""
        # A draining worker is being emptied: nothing new for it.
        open = [at for at, worker in enumerate(workers) if not worker.draining]
        if not open:
            return Decision_Defer()  # no opinion: the next policy of the chain is asked
        best = min(open, key=lambda at: loads[at])
        host.explain(f"{workers[best].name} has the lowest load, {loads[best]}")
        return Decision_Worker(workers[best].id)
        # To turn a client away: Decision_Refuse(Refusal(status=503, retry_after=5, text="try later"))
