"""What the instrument itself must get right: python3 -m unittest measure.tests"""

import unittest

from . import check, cpu, load, table

REPORT = """Running 2s test @ http://127.0.0.1:1/plaintext
  2 threads and 64 connections
  Latency Distribution
     50%  812.00us
     75%    1.10ms
     90%    2.00ms
     99%    1.25s
  220011 requests in 2.00s, 30.00MB read
  Socket errors: connect 1, read 2, write 3, timeout 4
  Non-2xx or 3xx responses: 5
Requests/sec: 110005.50
"""


class Instrument(unittest.TestCase):
    def test_every_kind_of_failure_is_counted(self):
        figures = load.read(REPORT)
        self.assertEqual(figures["failed"], 15)
        self.assertEqual((figures["requests"], figures["rps"]), (220011, 110005.5))
        self.assertEqual((figures["p50_ms"], figures["p99_ms"]), (0.812, 1250.0))

    def test_cpu_of_a_process_that_began_meanwhile_counts(self):
        self.assertEqual(cpu.spent({(1, 1): 2.0, (9, 9): 5.0}, {(1, 1): 3.0, (2, 2): 0.5}), 1.5)

    def test_server_that_asks_less_is_found_out(self):
        class Peer:
            name = "cheat"

        honest = {"world": [20 * check.REQUESTS, 20 * check.REQUESTS, 0, 0], "fortune": [0, 0, 0, 0]}
        self.assertEqual(check.statements(Peer, "queries", honest), 20)
        one_statement = {"world": [check.REQUESTS, 20 * check.REQUESTS, 0, 0], "fortune": [0, 0, 0, 0]}
        with self.assertRaises(SystemExit):
            check.statements(Peer, "queries", one_statement)
        no_update = {"world": [20 * check.REQUESTS, 20 * check.REQUESTS, 0, 0], "fortune": [0, 0, 0, 0]}
        with self.assertRaises(SystemExit):
            check.statements(Peer, "updates", no_update)

    def test_wrong_answers_are_found_out(self):
        headers = {"server": "x", "date": "y", "content-type": "application/json"}
        self.assertIsNone(check.problem("db", 200, headers, b'{"id":1,"randomNumber":2}'))
        self.assertTrue(check.problem("db", 200, headers, b'{"id":1,"randomnumber":2}'))
        self.assertTrue(check.problem("db", 503, headers, b""))
        self.assertTrue(check.problem("queries", 200, headers, b'[{"id":1,"randomNumber":2}]'))

    def test_ratios_are_taken_within_a_round(self):
        def run(peer, round_number, cost):
            return {"test": "json", "connections": 64, "round": round_number, "peer": peer, "server_us": cost,
                    "postgres_us": 0.0, "rps": 1 / cost, "p50_ms": 1, "p99_ms": 1, "failed": 0}

        # The machine is twice as slow in the second round; ours always costs a half more.
        runs = [run("floor", 0, 2.0), run("monoceros", 0, 3.0), run("floor", 1, 4.0), run("monoceros", 1, 6.0)]
        self.assertIn("| json, 64 | 1.50 · 1.50 · 0.67 |", table.ratios({"runs": runs}, ["floor"]))
