"""What the instrument itself must get right: python3 -m unittest measure.tests"""

import contextlib
import io
import os
import pathlib
import re
import socket
import tempfile
import threading
import types
import unittest
from unittest import mock

from . import beside, check, cpu, instructions, load, names, peers, postgres, table, wsgi

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

    def test_latencies_of_batches_are_not_shown(self):
        figures = load.read(REPORT, depth=16)
        self.assertEqual((figures["requests"], figures["p50_ms"], figures["p99_ms"]), (220011, None, None))
        runs = [{**run("monoceros", 0, 2.0), "p50_ms": None, "p99_ms": None}]
        self.assertIn("| json, 64 | 2.00 · 0.00k |", table.render(result(runs)))

    def test_cpu_of_a_process_that_began_meanwhile_counts(self):
        self.assertEqual(cpu.spent({(1, 1): 2.0, (9, 9): 5.0}, {(1, 1): 3.0, (2, 2): 0.5}), 1.5)

    def test_server_that_asks_less_is_found_out(self):
        cheat = peer("cheat")
        honest = {"world": [20 * check.REQUESTS, 20 * check.REQUESTS, 0, 0], "fortune": [0, 0, 0, 0]}
        self.assertEqual(check.statements(cheat, "queries", honest), 20)
        one_statement = {"world": [check.REQUESTS, 20 * check.REQUESTS, 0, 0], "fortune": [0, 0, 0, 0]}
        with self.assertRaises(SystemExit):
            check.statements(cheat, "queries", one_statement)
        no_update = {"world": [20 * check.REQUESTS, 20 * check.REQUESTS, 0, 0], "fortune": [0, 0, 0, 0]}
        with self.assertRaises(SystemExit):
            check.statements(cheat, "updates", no_update)

    def test_wrong_answers_are_found_out(self):
        headers = {"server": "x", "date": "y", "content-type": "application/json"}
        self.assertIsNone(check.problem("db", 200, headers, b'{"id":1,"randomNumber":2}'))
        self.assertTrue(check.problem("db", 200, headers, b'{"id":1,"randomnumber":2}'))
        self.assertTrue(check.problem("db", 503, headers, b""))
        self.assertTrue(check.problem("queries", 200, headers, b'[{"id":1,"randomNumber":2}]'))

    def test_shared_sync_is_found_out_and_allowed_where_it_is_known(self):
        self.assertEqual(check.syncs(peer("monoceros"), "queries", 20 * check.REQUESTS), 20)
        for name in ("monoceros", "floor", "axum"):
            with self.assertRaises(SystemExit):
                check.syncs(peer(name), "queries", check.REQUESTS)
        self.assertEqual(check.syncs(peer("python"), "queries", check.REQUESTS), 1)
        self.assertEqual(check.syncs(peer("nginx"), "plaintext", 0), 0)

    def test_syncs_are_told_by_the_transactions_of_the_log(self):
        each = "of= in=3/{} LOG:  execute w: SELECT id, randomnumber FROM world WHERE id=$1\nof= in=3/{} DETAIL:  parameters: $1 = '7'\n"
        asked = "of=psql in=4/9 LOG:  statement: SELECT pg_stat_statements_reset()\n"
        self.assertEqual(postgres.syncs(asked + each.format(1, 1) + each.format(2, 2)), 2)
        self.assertEqual(postgres.syncs(asked + each.format(1, 1) * 20), 1)
        other_words = "of=a server in=5/1 LOG:  statement: BEGIN\nof=a server in=5/1 LOG:  execute <unnamed>: select 1\n"
        self.assertEqual(postgres.syncs(other_words), 1)

    def test_connections_are_found_in_the_kernels_table(self):
        with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as opened:
            port = listener.getsockname()[1]
            for _ in range(3):
                opened.enter_context(socket.create_connection(("127.0.0.1", port)))
                opened.enter_context(listener.accept()[0])
            self.assertEqual(beside.connections([os.getpid()], port), [3])
            self.assertEqual(beside.connections([1 << 30], port), [])

    def test_server_that_keeps_a_connection_against_its_clients_word_is_found_out(self):
        with socket.create_server(("127.0.0.1", 0)) as listener, mock.patch.object(peers, "CLOSE_MAX_S", 0.05):
            server = peers.Peer("one that keeps", None)
            server.port = listener.getsockname()[1]
            # The kernel takes the connection and nobody closes it.
            self.assertFalse(server.closes("/"))
            listener.accept()[0].close()
            threading.Timer(0.01, lambda: listener.accept()[0].close()).start()
            with mock.patch.object(peers, "CLOSE_MAX_S", 5):
                self.assertTrue(server.closes("/"))

    def test_access_log_is_counted_and_emptied(self):
        with tempfile.TemporaryDirectory() as folder:
            server = peers.Peer("monoceros+log", pathlib.Path(folder))
            self.assertIsNone(server.logged())
            server.access_log = pathlib.Path(folder) / "access"
            server.access_log.write_text("one\ntwo\n")
            self.assertEqual((server.logged(), server.logged()), (2, 0))

    def test_names_stand_for_themselves_or_their_group(self):
        self.assertEqual(names.chosen("b,both,c", ["a", "b", "c"], {"both": ["a", "b"]}), ["b", "a", "c"])
        with self.assertRaises(SystemExit):
            names.chosen("a,x", ["a"])

    def test_every_wsgi_server_is_told_where_to_listen(self):
        for name, command in wsgi.COMMANDS.items():
            words = command.format(bind="127.0.0.1:5", port=5, app="m:a").split()
            self.assertTrue(any(word.endswith("5") for word in words) and "m:a" in words, name)
            self.assertEqual(name in wsgi.PACKAGES, name != "monoceros")


class Instructions(unittest.TestCase):
    def test_documentation_says_what_is_recorded(self):
        recorded = [str(int(line.split()[1])) for line in instructions.BUDGETS.read_text().splitlines()]
        (row,) = re.findall(r"^\| ours \| (.*) \|$", pathlib.Path("docs/performance.md").read_text(), re.M)
        self.assertEqual(row.replace(",", "").split(" | "), recorded, "write what --record wrote to docs/performance.md, too")


class Table(unittest.TestCase):
    def test_ratios_are_taken_within_a_round(self):
        # The machine is twice as slow in the second round; ours always costs a half more.
        runs = [run("floor", 0, 2.0), run("monoceros", 0, 3.0), run("floor", 1, 4.0), run("monoceros", 1, 6.0)]
        self.assertIn("| json, 64 | 1.50 · 1.50 · 0.67 |", table.ratios(result(runs), "monoceros", ["floor"]))

    def test_best_is_the_best_rival_of_each_round_and_never_the_floor_or_ours(self):
        runs = [
            *(run("monoceros", 0, 3.0), run("floor", 0, 1.0), run("monoceros+log", 0, 1.0), run("axum", 0, 6.0), run("may", 0, 4.0)),
            *(run("monoceros", 1, 3.0), run("floor", 1, 1.0), run("monoceros+log", 1, 1.0), run("axum", 1, 4.0), run("may", 1, 6.0)),
        ]
        text = table.render(result(runs))
        self.assertIn("| json, 64 | 3.00 · 3.00 · 0.33 | 0.62 · 0.62 · 1.67 | 0.62 · 0.62 · 1.67 | 0.75 · 0.75 · 1.33 |", text)
        self.assertIn("The best of axum, may", text)

    def test_without_a_database_there_is_no_figure_of_one(self):
        runs = [run("monoceros", 0, 2.0), run("uwsgi", 0, 4.0)]
        for it in runs:
            del it["postgres_us"], it["writers_us"]
        text = table.render(result(runs))
        self.assertIn("| json, 64 | 0.50 · 2.00 | 0.50 · 2.00 |", text)
        self.assertNotIn("PostgreSQL", text)

    def test_best_is_found_for_each_figure_apart(self):
        cheap, quick = run("axum", 0, 4.0), {**run("may", 0, 8.0), "rps": 1.0}
        self.assertEqual(table.compared({0: {"monoceros": run("monoceros", 0, 2.0), "axum": cheap, "may": quick}}, "monoceros", ["axum", "may"]),
                         "0.50 · 0.50 · 0.50")

    def test_variants_are_compared_with_the_base(self):
        runs = [run("monoceros", 0, 2.0), run("monoceros+log", 0, 3.0)]
        text = table.render(result(runs))
        self.assertIn("theirs / monoceros", text)
        self.assertIn("| json, 64 | 1.50 · 1.50 · 0.67 |", text)
        self.assertNotIn("monoceros / theirs", text)

    def test_failed_requests_end_the_program_with_who_had_them(self):
        runs = [run("monoceros", 0, 2.0), {**run("floor", 0, 2.0), "failed": 3}]
        with self.assertRaises(SystemExit) as end, contextlib.redirect_stdout(io.StringIO()):
            table.report(result(runs), "file")
        self.assertIn("floor json: 3", str(end.exception))

    def test_reader_is_told_of_shared_syncs_and_unlogged_requests(self):
        runs = [{**run("monoceros", 0, 2.0), "logged": 50, "requests": 100}, run("python", 0, 2.0)]
        found = result(runs)
        found["checks"]["python"] = {"queries": {"statements": 20, "syncs": 1.0}}
        notes = "\n".join(table.notes(found))
        self.assertIn("python ends several SELECTs with one Sync", notes)
        self.assertIn("monoceros json 50.0%", notes)
        self.assertIn("Failed requests: none", notes)


def peer(name):
    return types.SimpleNamespace(name=name)


def run(peer, round_number, cost):
    return {"test": "json", "connections": 64, "round": round_number, "peer": peer, "server_us": cost, "postgres_us": 0.0,
            "writers_us": 0.0, "rps": 1 / cost, "p50_ms": 1, "p99_ms": 1, "failed": 0, "requests": 100, "logged": None}


def result(runs):
    names = dict.fromkeys(run["peer"] for run in runs)
    return {"flags": {"base": "monoceros"}, "checks": {name: {} for name in names}, "memory": {}, "runs": runs}
