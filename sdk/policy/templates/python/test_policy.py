"""Runs natively: `make test` puts bindings in place whose functions are patched here."""

import unittest
from unittest.mock import patch

from componentize_py_types import Err
from wit_world.imports import host
from wit_world.imports.types import Decision_Defer, Decision_Worker, Worker

from policy import Policy


def worker(id: int, draining: bool = False) -> Worker:
    return Worker(id, f"w{id}", weight=1, draining=draining, labels=[])


class Balance(unittest.TestCase):
    def setUp(self) -> None:
        explain = patch.object(host, "explain")
        self.explain = explain.start()
        self.addCleanup(explain.stop)
        self.policy = Policy()

    def test_the_lowest_load_wins(self) -> None:
        self.policy.set_workers([worker(1), worker(2), worker(3)])
        self.assertEqual(self.policy.balance([5, 2, 9]), Decision_Worker(2))
        self.explain.assert_called_once_with("w2 has the lowest load, 2")

    def test_nothing_new_for_a_draining_worker(self) -> None:
        self.policy.set_workers([worker(1, draining=True), worker(2)])
        self.assertEqual(self.policy.balance([0, 7]), Decision_Worker(2))
        self.policy.set_workers([worker(1, draining=True)])
        self.assertEqual(self.policy.balance([0]), Decision_Defer())

    def test_options_are_refused(self) -> None:
        self.policy.configure("{}")
        with self.assertRaises(Err) as said:
            self.policy.configure('{"wat": 1}')
        self.assertEqual(said.exception.value, 'expected no options, found {"wat": 1}')


if __name__ == "__main__":
    unittest.main()
