"""What stands in for PostgreSQL where instructions are counted: it answers at once, always alike, and whole.

It speaks just enough of the protocol for the benchmarks' three statements. Everything that one read brought is answered
by one write, so that a client sees the same bytes in the same pieces in every run.
"""

import socket
import struct
import threading

INT4, VARCHAR, INT4_ARRAY = 23, 1043, 1007
READY = b"Z\0\0\0\x05I"


class Stub:
    """Listens on a port of its own until the process ends."""

    def __init__(self, fortunes):
        self.fortunes = b"".join(row(struct.pack("!i", n), text.encode()) for n, text in enumerate(fortunes, 1))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client = self.listener.accept()[0]
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=[client], daemon=True).start()

    def serve(self, client):
        unread, statements, begun = b"", {}, False
        bound = None
        while True:
            try:
                more = client.recv(1 << 20)
            except OSError:
                return
            if not more:
                return
            unread, out, at = unread + more, [], 0
            while True:
                # The first message has no tag.
                head = 1 if begun else 0
                if len(unread) - at < head + 4:
                    break
                end = at + head + struct.unpack_from("!I", unread, at + head)[0]
                if len(unread) < end:
                    break
                tag, body = unread[at : at + head], unread[at + head + 4 : end]
                at = end
                if tag == b"B":
                    bound = statements[body[1 : body.index(b"\0", 1)]]
                    out.append(message(b"2", b""))
                elif tag == b"E":
                    out.append(self.rows(bound))
                elif tag == b"S":
                    out.append(READY)
                elif tag == b"P":
                    name, sql = body.split(b"\0")[:2]
                    statements[name] = sql
                    out.append(message(b"1", b""))
                elif tag == b"D":
                    out.append(described(statements[body[1:-1]]))
                elif tag == b"C":
                    out.append(message(b"3", b""))
                elif tag == b"" and body[:4] == struct.pack("!I", 80877103):
                    out.append(b"N")
                elif tag == b"":
                    begun = True
                    out.append(message(b"R", bytes(4)) + status("server_version", "15.0"))
                    out.append(status("client_encoding", "UTF8") + message(b"K", bytes(8)) + READY)
            unread = unread[at:]
            if out:
                client.sendall(b"".join(out))

    def rows(self, sql):
        if b"fortune" in sql:
            return self.fortunes + message(b"C", b"SELECT 12\0")
        if b"UPDATE" in sql:
            return message(b"C", b"UPDATE 20\0")
        return row(struct.pack("!i", 4711), struct.pack("!i", 815)) + message(b"C", b"SELECT 1\0")


def message(tag, body):
    return tag + struct.pack("!I", len(body) + 4) + body


def status(name, value):
    return message(b"S", f"{name}\0{value}\0".encode())


def row(*values):
    return message(b"D", struct.pack("!H", len(values)) + b"".join(struct.pack("!i", len(it)) + it for it in values))


def described(sql):
    """ParameterDescription and RowDescription, or NoData."""
    if b"UPDATE" in sql:
        return message(b"t", struct.pack("!HII", 2, INT4_ARRAY, INT4_ARRAY)) + message(b"n", b"")
    is_fortune = b"fortune" in sql
    params = b"\0\0" if is_fortune else struct.pack("!HI", 1, INT4)
    columns = [("id", INT4), ("message", VARCHAR) if is_fortune else ("randomnumber", INT4)]
    fields = [name.encode() + b"\0" + struct.pack("!IHIhih", 0, 0, oid, -1, -1, 0) for name, oid in columns]
    return message(b"t", params) + message(b"T", struct.pack("!H", len(columns)) + b"".join(fields))
