"""The environ: every key, its type, and how bytes become text."""

import json
import sys

from harness.app import Applications, plain
from harness.registry import GOAL, GUNICORN, PEP, check, equal, one_of, rows, true
from harness.server import until
from harness.wire import request

application = Applications()
PROXIED = {"PROXY_PROTOCOL": "TCP4", "PROXY_ADDR": "198.51.100.8", "PROXY_PORT": "443"}
NATIVE = (str, int, bool)


@application.page
def show(environ, start_response):
    """The environ as JSON: for each key its type and, where it is plain, its value."""
    out = {}
    for key, value in environ.items():
        kind = type(value).__name__
        plain_value = list(value) if isinstance(value, tuple) else value if isinstance(value, NATIVE) else None
        out[key] = [kind, plain_value]
    out["#type"] = ["type", type(environ).__name__]
    return plain(start_response, json.dumps(out))


@application.page
def abilities(environ, start_response):
    stream, errors = environ["wsgi.input"], environ["wsgi.errors"]
    said = {
        "input": [name for name in ("read", "readline", "readlines", "__iter__") if callable(getattr(stream, name, None))],
        "errors": [name for name in ("write", "writelines", "flush") if callable(getattr(errors, name, None))],
        "wrapper": callable(environ.get("wsgi.file_wrapper")),
        "hints": callable(environ.get("wsgi.early_hints")),
        "modules": "wsgiref.validate" in sys.modules,
    }
    return plain(start_response, json.dumps(said))


@application.page
def spoil(environ, start_response):
    """Writes into its environ, as frameworks do; says whether the last request's writing is still there."""
    was = "suite.mark" in environ
    environ["suite.mark"] = 1
    environ["SCRIPT_NAME"] = "/spoilt"
    environ["wsgi.url_scheme"] = "spoilt"
    environ.pop("SERVER_NAME", None)
    return plain(start_response, json.dumps(was))


def seen(client, target="/show", fields=(), **how):
    return client.json(target, fields, **how)


def value(client, key, *arguments, **how):
    environ = seen(client, *arguments, **how)
    true(key in environ, f"{key} is missing; there are {sorted(environ)}")
    return environ[key][1]


@check(PEP)
def environ_is_a_builtin_dict(client):
    equal(seen(client)["#type"][1], "dict", "type of environ")


@check(PEP)
def cgi_variables_are_native_strings_of_latin1(client):
    for key, (kind, text) in seen(client, "/show/%E2%82%AC?q=%C3%A9", [("X-Name", "caf\xe9")]).items():
        if key.isupper():
            equal(kind, "str", f"type of {key}")
            text.encode("latin-1")


@rows(PEP, [(name, name) for name in (
    "REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "wsgi.version",
    "wsgi.url_scheme", "wsgi.input", "wsgi.errors", "wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once",
)])
def required_key_is_there(client, key):
    true(key in seen(client), f"{key} is missing")


@rows(GUNICORN, [(name, name) for name in (
    "QUERY_STRING", "RAW_URI", "REMOTE_ADDR", "REMOTE_PORT", "SERVER_SOFTWARE", "wsgi.input_terminated", "wsgi.file_wrapper",
)])
def usual_key_is_there(client, key):
    true(key in seen(client), f"{key} is missing")


@rows(PEP, [(name, name) for name in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")])
def request_method_is(client, method):
    reply = client.call(method, "/show", body=b"" if method in ("POST", "PUT", "PATCH") else None)
    equal(json.loads(reply.body)["REQUEST_METHOD"], ["str", method], "REQUEST_METHOD")


@rows(PEP, [
    ("plain", "/show/a", "/show/a"),
    ("trailing_slash", "/show/", "/show/"),
    ("percent_decoded", "/show/a%20b%41", "/show/a bA"),
    ("encoded_slash_decoded", "/show/a%2Fb", "/show/a/b"),
    ("utf8_as_latin1", "/show/%C3%A9%E2%82%AC", "/show/\xc3\xa9\xe2\x82\xac"),
    ("bytes_above_127", "/show/%ff%80", "/show/\xff\x80"),
    ("plus_is_no_space", "/show/a+b", "/show/a+b"),
    ("bad_escape_stays", "/show/%zz%4", "/show/%zz%4"),
    ("double_slash_stays", "/show//a//b", "/show//a//b"),
    ("dots_stay", "/show/../x/./y", "/show/../x/./y"),
    ("parameters_stay", "/show/a;v=1,b=@:$&'()*!~", "/show/a;v=1,b=@:$&'()*!~"),
    ("encoded_percent_once", "/show/%2541", "/show/%41"),
    ("encoded_question_mark", "/show/a%3Fb?c", "/show/a?b"),
])
def path_info(client, target, want):
    equal(value(client, "PATH_INFO", target), want, "PATH_INFO")


@rows(PEP, [
    ("missing_is_empty", "/show", ""),
    ("empty", "/show?", ""),
    ("not_decoded", "/show?a=%20+b&c=%C3%A9", "a=%20+b&c=%C3%A9"),
    ("second_question_mark", "/show?a?b", "a?b"),
    ("slashes", "/show?x=/y//z", "x=/y//z"),
    ("long", "/show?" + "q" * 3000, "q" * 3000),
])
def query_string(client, target, want):
    got = seen(client, target).get("QUERY_STRING", ["str", ""])[1]
    equal(got, want, "QUERY_STRING")


@rows(GUNICORN, [
    ("plain", "/show/a"), ("escapes_and_query", "/show/%41?b=%20"), ("empty_query", "/show?"), ("double_slash", "/show//a"),
])
def raw_uri_is_as_sent(client, target):
    equal(value(client, "RAW_URI", target), target, "RAW_URI")


@check(GUNICORN)
def absolute_target_gives_its_path(client):
    environ = seen(client, "http://127.0.0.1/show/a?b=c")
    equal(environ["PATH_INFO"][1], "/show/a", "PATH_INFO")
    equal(environ["QUERY_STRING"][1], "b=c", "QUERY_STRING")


@check(PEP)
def script_name_is_empty_by_default(client):
    equal(value(client, "SCRIPT_NAME"), "", "SCRIPT_NAME")


@check(GUNICORN)
def script_name_of_the_environment_is_cut_off_the_path(client):
    with client.start("checks.environ:application", env={"SCRIPT_NAME": "/mounted"}) as server:
        environ = seen(client.at(server), "/mounted/show/x")
        equal(environ["SCRIPT_NAME"][1], "/mounted", "SCRIPT_NAME")
        equal(environ["PATH_INFO"][1], "/show/x", "PATH_INFO")
        equal(client.at(server).get("/elsewhere").status, 500, "status of a path outside of SCRIPT_NAME")


@rows(PEP, [
    ("plain", "X-Some", "one", "one"),
    ("value_with_colon", "X-Some", "a: b:c", "a: b:c"),
    ("inner_spaces_stay", "X-Some", "a  b", "a  b"),
    ("outer_whitespace_goes", "X-Some", " \t a \t ", "a"),
    ("empty", "X-Some", "", ""),
    ("bytes_as_latin1", "X-Some", "caf\xe9 \xff", "caf\xe9 \xff"),
    ("utf8_bytes_as_latin1", "X-Some", "\xe2\x82\xac", "\xe2\x82\xac"),
    ("quotes", "X-Some", "\"a, b\"", "\"a, b\""),
    ("lower_case_name", "x-some", "v", "v"),
    ("mixed_case_name", "x-SoMe", "v", "v"),
    ("long_value", "X-Some", "v" * 8000, "v" * 8000),
])
def header_value(client, name, sent, want):
    equal(value(client, "HTTP_X_SOME", "/show", [(name, sent)]), want, "HTTP_X_SOME")


@check(PEP)
def repeated_headers_are_joined_in_order(client):
    got = value(client, "HTTP_X_SOME", "/show", [("X-Some", "one"), ("X-Other", "-"), ("x-some", "two"), ("X-SOME", "three")])
    equal([part.strip() for part in got.split(",")], ["one", "two", "three"], "HTTP_X_SOME")


@check(GUNICORN)
def repeated_headers_are_joined_with_a_bare_comma(client):
    equal(value(client, "HTTP_X_SOME", "/show", [("X-Some", "one"), ("X-Some", "two")]), "one,two", "HTTP_X_SOME")


@check(PEP)
def many_headers_arrive(client):
    environ = seen(client, "/show", [(f"X-Number-{n}", str(n)) for n in range(90)])
    for n in range(90):
        equal(environ.get(f"HTTP_X_NUMBER_{n}"), ["str", str(n)], f"HTTP_X_NUMBER_{n}")


@check(PEP)
def content_type_and_length_have_no_http_prefix(client):
    environ = json.loads(client.post("/show", b"12345", [("Content-Type", "text/x; charset=a")]).body)
    equal(environ.get("CONTENT_TYPE"), ["str", "text/x; charset=a"], "CONTENT_TYPE")
    equal(environ.get("CONTENT_LENGTH"), ["str", "5"], "CONTENT_LENGTH")
    for key in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
        true(key not in environ, f"{key} is there")


@check(PEP)
def without_a_body_content_keys_are_missing_or_empty(client):
    environ = seen(client)
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        equal(environ.get(key, ["str", ""]), ["str", ""], key)


@check(GUNICORN)
def chunked_request_has_no_content_length(client):
    reply = client.post("/show", b"3\r\nabc\r\n0\r\n\r\n", [("Transfer-Encoding", "chunked")])
    equal(json.loads(reply.body).get("CONTENT_LENGTH", ["str", ""]), ["str", ""], "CONTENT_LENGTH")


@check(PEP)
def host_header_arrives(client):
    equal(value(client, "HTTP_HOST", host="example.test:8123"), "example.test:8123", "HTTP_HOST")


@check(GUNICORN)
def header_with_underscore_is_dropped(client):
    true("HTTP_X_SOME" not in seen(client, "/show", [("X_Some", "forged")]), "X_Some became HTTP_X_SOME")


@check(GUNICORN)
def header_with_underscore_does_not_join_the_real_one(client):
    got = value(client, "HTTP_X_SOME", "/show", [("X_Some", "forged"), ("X-Some", "real"), ("x_some", "forged")])
    equal(got, "real", "HTTP_X_SOME")


@check(PEP)
def server_name_and_port_are_not_empty(client):
    environ = seen(client)
    true(environ["SERVER_NAME"][1], "SERVER_NAME is empty")
    equal(environ["SERVER_PORT"], ["str", str(client.server.address[1])], "SERVER_PORT")


@rows(PEP, [("1.1", "1.1"), ("1.0", "1.0")])
def server_protocol_is(client, version):
    equal(value(client, "SERVER_PROTOCOL", version=version), f"HTTP/{version}", "SERVER_PROTOCOL")


@check(GUNICORN)
def remote_addr_and_port_are_the_clients(client):
    with client.connect() as connection:
        connection.send(request("GET", "/show"))
        environ = json.loads(connection.reply().body)
        equal(environ["REMOTE_ADDR"], ["str", "127.0.0.1"], "REMOTE_ADDR")
        equal(environ["REMOTE_PORT"], ["str", str(connection.port)], "REMOTE_PORT")


@check(PEP)
def wsgi_version_is_the_tuple_1_0(client):
    equal(seen(client)["wsgi.version"], ["tuple", [1, 0]], "wsgi.version")


@check(PEP)
def url_scheme_is_http(client):
    equal(value(client, "wsgi.url_scheme"), "http", "wsgi.url_scheme")


@rows(PEP, [(name, name) for name in ("wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once")])
def flag_is_a_bool(client, key):
    equal(seen(client)[key][0], "bool", f"type of {key}")


@check(PEP)
def run_once_is_false(client):
    equal(value(client, "wsgi.run_once"), False, "wsgi.run_once")


@check(GUNICORN)
def multiprocess_is_true_with_two_workers(client):
    equal(value(client, "wsgi.multiprocess"), True, "wsgi.multiprocess")


@check(GUNICORN)
def input_terminated_is_true(client):
    equal(seen(client)["wsgi.input_terminated"], ["bool", True], "wsgi.input_terminated")


@check(PEP)
def input_has_its_methods(client):
    equal(client.json("/abilities")["input"], ["read", "readline", "readlines", "__iter__"], "methods of wsgi.input")


@check(PEP)
def errors_has_its_methods(client):
    equal(client.json("/abilities")["errors"], ["write", "writelines", "flush"], "methods of wsgi.errors")


@check(GUNICORN)
def file_wrapper_and_early_hints_are_callable(client):
    said = client.json("/abilities")
    equal([said["wrapper"], said["hints"]], [True, True], "wsgi.file_wrapper, wsgi.early_hints")


@check(PEP)
def what_one_request_writes_the_next_does_not_see(client):
    for _ in range(6):
        equal(client.json("/spoil"), False, "a mark of another request in the environ")
        environ = seen(client)
        equal(environ["SCRIPT_NAME"][1], "", "SCRIPT_NAME")
        equal(environ["wsgi.url_scheme"][1], "http", "wsgi.url_scheme")
        true("SERVER_NAME" in environ and "suite.mark" not in environ, f"spoilt: {sorted(environ)}")


@check(PEP)
def what_one_request_writes_the_next_of_its_connection_does_not_see(client):
    with client.connect() as connection:
        for _ in range(4):
            connection.send(request("GET", "/spoil"))
            reply = connection.reply()
            equal(json.loads(reply.body), False, "a mark of another request in the environ")
            client.kept_alive(connection, reply)


@check(PEP)
def headers_of_one_request_are_not_in_the_next(client):
    with client.connect() as connection:
        connection.send(request("GET", "/show?a=1", [("X-First", "1"), ("Content-Type", "a/b"), ("Cookie", "a=b")]))
        client.kept_alive(connection, connection.reply())
        connection.send(request("GET", "/show"))
        environ = json.loads(connection.reply().body)
        for key in ("HTTP_X_FIRST", "HTTP_COOKIE"):
            true(key not in environ, f"{key} of the request before")
        equal(environ.get("CONTENT_TYPE", ["str", ""])[1], "", "CONTENT_TYPE")
        equal(environ.get("QUERY_STRING", ["str", ""])[1], "", "QUERY_STRING")


@check(GUNICORN)
def scheme_is_believed_of_a_trusted_proxy(client):
    equal(value(client, "wsgi.url_scheme", "/show", [("X-Forwarded-Proto", "https")]), "https", "wsgi.url_scheme")


@check(GUNICORN)
def forwarded_for_does_not_change_remote_addr(client):
    equal(value(client, "REMOTE_ADDR", "/show", [("X-Forwarded-For", "192.0.2.1")]), "127.0.0.1", "REMOTE_ADDR")


@check(GUNICORN)
def contradicting_schemes_are_refused(client):
    fields = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Ssl", "off")]
    equal(client.get("/show", fields).status, 400, "status")


@check(GUNICORN)
def scheme_is_not_believed_of_others(client):
    with client.start("checks.environ:application", options=["--forwarded-allow-ips", "192.0.2.1"]) as server:
        got = value(client.at(server), "wsgi.url_scheme", "/show", [("X-Forwarded-Proto", "https")])
        equal(got, "http", "wsgi.url_scheme")


@check(GUNICORN)
def script_name_is_believed_of_a_trusted_proxy(client):
    environ = seen(client, "/front/show", [("SCRIPT_NAME", "/front")])
    equal(environ["SCRIPT_NAME"][1], "/front", "SCRIPT_NAME")
    equal(environ["PATH_INFO"][1], "/show", "PATH_INFO")


@check(GUNICORN)
def unix_socket_serves(client):
    with client.start("checks.environ:application", unix=True) as server:
        environ = seen(client.at(server))
        equal(environ.get("REMOTE_ADDR", ["str", ""]), ["str", ""], "REMOTE_ADDR")
        true(environ["SERVER_NAME"][0] == environ["SERVER_PORT"][0] == "str", "SERVER_NAME and SERVER_PORT are str")


@check(GOAL)
def cookies_are_joined_as_cookies(client):
    got = value(client, "HTTP_COOKIE", "/show", [("Cookie", "a=1"), ("Cookie", "b=2")])
    one_of(got, {"a=1; b=2", "a=1;b=2"}, "HTTP_COOKIE")


@check(GUNICORN)
def proxy_header_is_in_the_environ(client):
    with client.start("checks.environ:application", options=["--proxy-protocol", "v1"], waits=False) as server:
        line = b"PROXY TCP4 192.0.2.7 198.51.100.8 56324 443\r\n"
        reply = None

        def has_answered():
            nonlocal reply
            try:
                reply = client.at(server).raw(line + request("GET", "/show"))
            except OSError:
                return False
            return True

        true(until(has_answered, 10), "no answer")
        environ = json.loads(reply.body)
        said = {key: environ.get(key, [None, None])[1] for key in (*PROXIED, "REMOTE_ADDR", "REMOTE_PORT")}
        equal(said, {**PROXIED, "REMOTE_ADDR": "192.0.2.7", "REMOTE_PORT": "56324"}, "the environ")
