"""tenants: every tenant has a share of the workers of its own.

The options say who the tenants are and how many of every hundred connections each slot gets of them:

    {"header": "X-Tenant", "tenants": {"acme": {"w0": 70, "w1": 30}, "*": {"w2": 1, "w3": 1}}}

`*` stands for everybody else; without it they are left to the next policy. Shares are kept exactly, by
smooth weighted round-robin: each slot has a counter, a decision adds to each its share, and the highest
pays the sum. The counters survive a fault and a new version of this policy.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import host, request
from wit_world.imports.types import Decision, Decision_Defer, Decision_Worker, Worker

FORM = 1
EVERYBODY_ELSE = "*"

header = "X-Tenant"
shares: dict[str, dict[str, float]] = {}
# By tenant and slot.
counters: dict[str, dict[str, float]] = {}
open_workers: dict[str, Worker] = {}


class Policy(exports.Policy):
    def configure(self, text: str) -> None:
        global header, shares
        options = read(text)
        if not isinstance(options, dict):
            raise Err(f"expected an object, found {text}")
        header = options.pop("header", header)
        shares = options.pop("tenants", None)
        if options:
            raise Err(f"unknown option {json.dumps(next(iter(options)))}: expected \"header\" and \"tenants\"")
        if not isinstance(shares, dict) or not shares:
            raise Err('expected "tenants", such as {"acme": {"w0": 70, "w1": 30}}')
        for tenant, slots in shares.items():
            good = isinstance(slots, dict) and slots and all(is_share(share) for share in slots.values())
            if not good:
                raise Err(f"tenant {json.dumps(tenant)}: expected slots with a share above 0, found {json.dumps(slots)}")

    def set_workers(self, workers: list[Worker]) -> None:
        open_workers.clear()
        open_workers.update((worker.name, worker) for worker in workers if not worker.draining)

    def balance(self, loads: list[int]) -> Decision:
        named = request.header(header)
        tenant = named if named in shares else EVERYBODY_ELSE
        slots = shares.get(tenant, {})
        here = [slot for slot in slots if slot in open_workers]
        if not here:
            return Decision_Defer()  # a tenant of nobody's, or all its workers are gone
        counter = counters.setdefault(tenant, {})
        for slot in here:
            counter[slot] = counter.get(slot, 0) + slots[slot]
        best = max(here, key=counter.__getitem__)
        counter[best] -= sum(slots[slot] for slot in here)
        host.explain(f"{best} has {slots[best]:g} parts of tenant {tenant}")
        return Decision_Worker(open_workers[best].id)


class State(exports.State):
    def save(self) -> bytes:
        return json.dumps({"form": FORM, "counters": counters}).encode()

    def restore(self, state: bytes) -> None:
        saved = read(state)
        form = saved.get("form") if isinstance(saved, dict) else None
        if form != FORM:
            raise Err(f"expected a state of form {FORM}, found {form}")
        counters.clear()
        # Those of slots that have a share; one without begins at 0.
        for tenant, slots in saved["counters"].items():
            if tenant in shares:
                counters[tenant] = {slot: count for slot, count in slots.items() if slot in shares[tenant]}


def read(text: str | bytes) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Err(f"not JSON: {error}")


def is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
