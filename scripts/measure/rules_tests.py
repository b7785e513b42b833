"""What scripts/verify-techempower must find out: python3 -m unittest measure.rules_tests"""

import importlib.machinery
import importlib.util
import pathlib
import socketserver
import threading
import time
import unittest

PROGRAM = pathlib.Path(__file__).parent.parent / "verify-techempower"
loader = importlib.machinery.SourceFileLoader("verify_techempower", str(PROGRAM))
rules = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
loader.exec_module(rules)

ROWS = "".join(f"<tr><td>{number}</td><td>{rules.html.escape(message)}</td></tr>" for number, message in rules.FORTUNES)
PAGE = (
    "<!DOCTYPE html><html><head><title>Fortunes</title></head><body><table>"
    f"<tr><th>id</th><th>message</th></tr>{ROWS}</table></body></html>"
)


class Fake(socketserver.ThreadingTCPServer):
    """A server that gives every request the same answer, for as long as the block lasts."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, body, content_type="application/json", status=200, headers="Server: x\r\n"):
        super().__init__(("127.0.0.1", 0), Handler)
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        body = body.encode()
        head = f"HTTP/1.1 {status} X\r\n{headers}Date: {date}\r\nContent-Type: {content_type}\r\n"
        self.answer = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return rules.Server(f"http://127.0.0.1:{self.server_address[1]}", "query")

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            if line == b"\r\n":
                self.wfile.write(self.server.answer)


class Rules(unittest.TestCase):
    def passes(self, check, fake):
        with fake as server:
            return list(check(server))

    def fails(self, check, fake, complaint):
        with fake as server, self.assertRaisesRegex(rules.Failed, complaint):
            list(check(server))

    def test_json(self):
        good = '{"message": "Hello, World!"}'
        self.assertEqual(self.passes(rules.verify_json, Fake(good)), [])
        self.assertTrue(self.passes(rules.verify_json, Fake('{"message":"Hello, World!","more":1}')))
        self.fails(rules.verify_json, Fake(good, status=201), "status 201")
        self.fails(rules.verify_json, Fake(good, headers=""), "no server header")
        self.fails(rules.verify_json, Fake(good, content_type="text/json"), "content-type")
        self.fails(rules.verify_json, Fake("Hello, World!"), "not JSON")
        self.fails(rules.verify_json, Fake('{"message":"hello"}'), "body")

    def test_plaintext(self):
        self.assertEqual(self.passes(rules.verify_plaintext, Fake("Hello, World!", "text/plain")), [])
        self.fails(rules.verify_plaintext, Fake("Hello!", "text/plain"), "body")

    def test_rows(self):
        same = '{"id":1,"randomNumber":2}'
        self.fails(rules.verify_db, Fake(same), "always the same row")
        self.fails(rules.verify_db, Fake('{"id":1}'), "keys")
        self.fails(rules.verify_db, Fake('{"id":1,"randomNumber":"2"}'), "no whole number")
        self.assertEqual(len(list(rules.world({"id": 1, "randomnumber": 20000}))), 2)

    def test_counts(self):
        self.fails(rules.verify_queries, Fake('{"id":1,"randomNumber":2}'), "'2': no list")
        self.fails(rules.verify_queries, Fake('[{"id":1,"randomNumber":2}]'), "'2': 1 rows, not 2")
        self.fails(rules.verify_updates, Fake('[{"id":1,"randomNumber":2},{"id":2,"randomNumber":2}]'), "'0': 2 rows, not 1")

    def test_page(self):
        def passes(page):
            self.assertEqual(self.passes(rules.verify_fortunes, Fake(page, "text/html; charset=utf-8")), [])

        def fails(page, content_type="text/html; charset=utf-8", complaint="page"):
            self.fails(rules.verify_fortunes, Fake(page, content_type), complaint)

        passes(PAGE)
        passes(PAGE.replace("&#x27;", "'").replace("&quot;", "&#34;").replace("&gt;", ">").replace("/script", "&#x2F;script"))
        passes(PAGE.replace("<tr>", '\n  <TR class="x">\n').replace("—", "&mdash;").replace("<table>", "<table><tbody>"))
        fails(PAGE, "text/html", "content-type")
        fails(PAGE.replace("&lt;", "<"))
        fails(PAGE.replace("—", "&#8212;"))
        fails(PAGE.replace("<!DOCTYPE html>", ""))
        fails(PAGE.replace("fortune: No", "fortune:\nNo"))
        fails(PAGE.replace("<tr><td>0</td><td>Additional fortune added at request time.</td></tr>", ""))
        fails(PAGE[:-7])

    def test_date_that_stands_still(self):
        self.fails(lambda server: rules.verify_dates(server, ["json"]), Fake("{}"), "same Date")
