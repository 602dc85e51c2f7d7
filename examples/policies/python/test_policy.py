import json
import unittest
from collections import Counter
from unittest.mock import patch

from componentize_py_types import Err
from wit_world.imports import host, request
from wit_world.imports.types import Decision_Defer, Decision_Worker, Worker

import policy
from policy import Policy, State

OPTIONS = json.dumps({"tenants": {"acme": {"w0": 70, "w1": 30}, "*": {"w2": 1, "w3": 1}}})


def worker(number: int, draining: bool = False) -> Worker:
    return Worker(number + 10, f"w{number}", weight=1, draining=draining, labels=[])


class Tenants(unittest.TestCase):
    def setUp(self) -> None:
        policy.counters.clear()
        for function in (patch.object(host, "explain"), patch.object(request, "header")):
            self.header = function.start()
            self.addCleanup(function.stop)
        self.policy = Policy()
        self.policy.configure(OPTIONS)
        self.policy.set_workers([worker(number) for number in range(4)])

    def decide(self, tenant: str | None, count: int) -> Counter[int]:
        self.header.return_value = tenant
        decisions = [self.policy.balance([0, 0, 0, 0]) for _ in range(count)]
        return Counter(one.value for one in decisions if isinstance(one, Decision_Worker))

    def test_shares_are_exact(self) -> None:
        self.assertEqual(self.decide("acme", 100), {10: 70, 11: 30})
        self.assertEqual(self.decide("somebody", 10), {12: 5, 13: 5})
        self.assertEqual(self.decide(None, 10), {12: 5, 13: 5})

    def test_who_is_left_takes_all(self) -> None:
        self.policy.set_workers([worker(0, draining=True), worker(1)])
        self.assertEqual(self.decide("acme", 10), {11: 10})
        self.assertEqual(self.policy.balance([0, 0]), Decision_Worker(11))
        self.header.return_value = "somebody"
        self.assertEqual(self.policy.balance([0, 0]), Decision_Defer())

    def test_counters_survive(self) -> None:
        self.decide("acme", 7)
        saved = State().save()
        go_on = self.decide("acme", 33)
        State().restore(saved)
        self.assertEqual(self.decide("acme", 33), go_on)
        self.policy.configure('{"tenants": {"acme": {"w1": 1}}}')
        State().restore(saved)
        self.assertEqual(list(policy.counters["acme"]), ["w1"])

    def test_what_is_no_state_is_refused(self) -> None:
        for state in (b"", b"\xff", b"[", b"[]", b'{"form": 2}'):
            with self.assertRaises(Err, msg=state):
                State().restore(state)

    def test_options_are_checked(self) -> None:
        for options in ("", "[]", "{}", '{"tenants": {}}', '{"tenants": {"a": {"w0": 0}}}', '{"tenants": {"a": {}}, "x": 1}'):
            with self.assertRaises(Err, msg=options):
                Policy().configure(options)


if __name__ == "__main__":
    unittest.main()
