"""HTTP/1 over raw sockets: literal bytes out, strictly read replies in.

Every wait is bounded. A reply that breaks the rules of framing is a `WireError` that says what came instead.
"""

import re
import select
import socket
import time

# Longest wait for bytes that must come, in seconds.
WAIT = 8.0
# Longest wait to see that nothing more comes, in seconds.
QUIET = 0.2
HEAD_BYTES_MAX = 256 * 1024

STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-5][0-9][0-9]) ([^\r\n\0]*)\Z")
FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*(.*?)[ \t]*\Z", re.DOTALL)


class WireError(Exception):
    """The reply is no proper HTTP/1, or did not come in time."""


def short(data, most=300):
    text = repr(bytes(data[:most]))
    return text + (f"... ({len(data)} bytes)" if len(data) > most else "")


class Reply:
    """One response. `framing` says how its body ended: `none`, `length`, `chunked` or `close`."""

    def __init__(self, version, status, reason, fields):
        self.version, self.status, self.reason, self.fields = version, status, reason, fields
        self.body, self.framing, self.chunks, self.interim = b"", "none", [], []

    def all(self, name):
        return [value for known, value in self.fields if known.lower() == name.lower()]

    def field(self, name):
        """The value of a field that may stand at most once; None without it."""
        values = self.all(name)
        if len(values) > 1:
            raise WireError(f"{name} stands {len(values)} times: {values}")
        return values[0] if values else None

    def keeps_alive(self):
        said = ",".join(self.all("Connection")).lower()
        if "close" in said or self.framing == "close":
            return False
        return self.version == "1.1" or "keep-alive" in said

    def __repr__(self):
        return f"<{self.status} {self.reason} {self.fields} {self.framing} {short(self.body, 120)}>"


class Connection:
    """A client's connection. What was received and not yet used is in `buffer`."""

    def __init__(self, address, wait=WAIT, receive_buffer=None):
        self.wait, self.buffer, self.is_ended = wait, b"", False
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(wait)
        self.socket.connect(address)
        if family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def port(self):
        return self.socket.getsockname()[1]

    def close(self):
        self.socket.close()

    def reset(self):
        """Goes away without a word: the peer sees a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data):
        """Sends what the server takes; a server that has answered and closed already need not take all."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def end_sending(self):
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _more(self, what):
        """Receives something; False at the end of the stream."""
        if self.is_ended:
            return False
        try:
            data = self.socket.recv(1 << 20)
        except TimeoutError:
            raise WireError(f"no more bytes within {self.wait:g} s, waiting for {what}; so far {short(self.buffer)}") from None
        except ConnectionResetError:
            data = b""
        if not data:
            self.is_ended = True
            return False
        self.buffer += data
        return True

    def _until(self, mark, what):
        while mark not in self.buffer:
            if len(self.buffer) > HEAD_BYTES_MAX and mark != b"":
                raise WireError(f"{what} never ends: {short(self.buffer)}")
            if not self._more(what):
                raise WireError(f"the connection ended within {what}: {short(self.buffer)}")
        found, _, self.buffer = self.buffer.partition(mark)
        return found

    def exactly(self, count, what="the body"):
        pieces, have = [self.buffer], len(self.buffer)
        while have < count:
            self.buffer = b""
            if not self._more(what):
                self.buffer = b"".join(pieces)
                raise WireError(f"the connection ended within {what}: {have} of {count} bytes: {short(self.buffer)}")
            pieces.append(self.buffer)
            have += len(self.buffer)
        data = b"".join(pieces)
        self.buffer = data[count:]
        return data[:count]

    def head(self):
        """Receives a head; interim responses are final here."""
        lines = self._until(b"\r\n\r\n", "the response head").split(b"\r\n")
        matched = STATUS_LINE.match(lines[0])
        if not matched:
            raise WireError(f"bad status line {short(lines[0])}")
        fields = []
        for line in lines[1:]:
            field = FIELD.match(line)
            if not field or b"\n" in line or b"\r" in line or b"\0" in line:
                raise WireError(f"bad header line {short(line)}")
            fields.append((field[1].decode("ascii"), field[2].decode("latin-1")))
        version, status, reason = (part.decode("latin-1") for part in matched.groups())
        return Reply(version, int(status), reason, fields)

    def chunk(self):
        """Receives one chunk of a chunked body; b"" is the last one, with its trailer section."""
        line = self._until(b"\r\n", "a chunk's size")
        if not re.fullmatch(rb"[0-9A-Fa-f]+", line):
            raise WireError(f"bad chunk size {short(line)}")
        size = int(line, 16)
        data = self.exactly(size, "a chunk") if size else b""
        if self.exactly(2, "a chunk's end") != b"\r\n":
            raise WireError("a chunk does not end where its size says")
        return data

    def reply(self, method="GET"):
        """Receives one response to its end."""
        interim = []
        while True:
            reply = self.head()
            if not 100 <= reply.status < 200 or reply.status == 101:
                break
            interim.append(reply)
        reply.interim = interim
        length, coding = reply.field("Content-Length"), reply.field("Transfer-Encoding")
        if length is not None and coding is not None:
            raise WireError("Content-Length beside Transfer-Encoding")
        if method == "HEAD" or reply.status in (204, 304):
            return reply
        if coding is not None:
            if coding.lower() != "chunked":
                raise WireError(f"Transfer-Encoding: {coding}")
            if reply.version == "1.0":
                raise WireError("a chunked response in HTTP/1.0")
            reply.framing = "chunked"
            while piece := self.chunk():
                reply.chunks.append(piece)
            reply.body = b"".join(reply.chunks)
        elif length is not None:
            if not length.isascii() or not length.isdigit():
                raise WireError(f"Content-Length: {length}")
            reply.framing = "length"
            reply.body = self.exactly(int(length))
        else:
            reply.framing = "close"
            reply.body = self.rest()
        return reply

    def rest(self):
        """Everything up to the end of the stream."""
        pieces = []
        while True:
            pieces.append(self.buffer)
            self.buffer = b""
            if not self._more("the end of the connection"):
                return b"".join(pieces)

    def is_quiet(self, for_seconds=QUIET):
        """Whether nothing comes within a moment; the end of the stream is nothing."""
        if self.buffer:
            return False
        if self.is_ended:
            return True
        end = time.monotonic() + for_seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.socket], [], [], left)[0]:
                return not self._more("nothing")
        return True


def request(method="GET", target="/", fields=(), body=None, version="1.1", host="127.0.0.1"):
    """The bytes of a request; a body gets its Content-Length unless `fields` frame it."""
    lines = [f"{method} {target} HTTP/{version}".encode("latin-1")]
    if host is not None:
        lines.append(b"Host: " + host.encode("latin-1"))
    names = set()
    for name, value in fields:
        names.add(name.lower())
        lines.append(f"{name}: {value}".encode("latin-1"))
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def chunked(*pieces):
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
