//! The odd requests. `{id}` becomes a number of their own; a request to `…/smuggled` stands where only a mistaken parser
//! would see one. Names that begin with `refused` are what the worker must not take at all.

pub const CORPUS: &[(&str, &str)] = &[
    // What everybody must take alike.
    ("plain", "GET /seen/{id}/a HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        "pipelined",
        "GET /seen/{id}/a HTTP/1.1\r\nHost: a\r\n\r\nPOST /seen/{id}/b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /seen/{id}/c HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "request in a body with a length",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 49\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\nX: 123\r\n\r\n",
    ),
    (
        "request in a chunk",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n31\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\nX: 123\r\n\r\n\r\n0\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "body of a GET",
        "GET /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "many chunks",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0A\r\n0123456789\r\n0\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "coding in capitals",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: ChUnKeD\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "chunk extension",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;name=value\r\nabc\r\n0\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "chunk extension, quoted",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;n=\"x;y\"\r\nabc\r\n0\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "trailers",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "leading zeros of a chunk size",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00003\r\nabc\r\n000\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "leading zeros of a length",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 0003\r\n\r\nabcGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "an empty line first",
        "\r\nGET /seen/{id}/a HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "close, then more",
        "GET /seen/{id}/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "close in a list, then more",
        "GET /seen/{id}/a HTTP/1.1\r\nHost: a\r\nConnection: te, close\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "1.0 closes, then more",
        "GET /seen/{id}/a HTTP/1.0\r\nHost: a\r\n\r\nGET /seen/0/smuggled HTTP/1.0\r\nHost: a\r\n\r\n",
    ),
    (
        "1.0 with a length",
        "POST /seen/{id}/a HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcdef",
    ),
    (
        "expectation",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabcGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "a length that Connection names",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Content-Length\r\nContent-Length: 3\r\n\r\nabcGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "a coding that Connection names",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "a length with an underscore",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent_Length: 30\r\nContent-Length: 3\r\n\r\nabcGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "a coding with an underscore",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "absolute target",
        "GET http://b/seen/{id}/a HTTP/1.1\r\nHost: a\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "upgrade offered",
        "GET /seen/{id}/a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "an unfinished body",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "an unfinished chunk",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "a tab before chunked",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked\t\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "empty elements beside chunked",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked ,\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "white space behind a length",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 3 \t\r\n\r\nabcGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "body of a DELETE",
        "DELETE /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "body of an OPTIONS",
        "OPTIONS /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "a length of nothing",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "expectation without a body",
        "GET /seen/{id}/a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "expectation of a body that is a request",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 49\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\nX: 123\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "a websocket that is none, then more",
        "GET /seen/{id}/a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "an upgrade with a body that is a request",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nContent-Length: 49\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\nX: 123\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "keep-alive and close",
        "GET /seen/{id}/a HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "chunk extension with an open quotation",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;n=\"x\r\nabc\r\n0\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "a chunk extension that looks like a size",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;2f=4\r\nabc\r\n0;ff\r\n\r\nGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "a method that says to be another",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nX-HTTP-Method-Override: PUT\r\nContent-Length: 3\r\n\r\nabcGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    // Length and coding together.
    (
        "refused: CL.TE",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: TE.CL",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n2d\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n0\r\n\r\n",
    ),
    (
        "refused: TE.TE, the second is nonsense",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: TE.TE, the first is nonsense",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: chunked twice",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: identity after chunked",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: xchunked",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: vertical tab before chunked",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: quoted chunked",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: space before the colon of the coding",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: the coding is folded",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: the coding behind a folded field",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nX: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: the coding behind a bare CR",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nX: y\rTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: the coding behind a bare LF",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: a NUL in the name of the coding",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer\0-Encoding: chunked\r\n\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: the coding in 1.0",
        "POST /seen/{id}/a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    // Lengths.
    (
        "refused: two lengths",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 50\r\n\r\nabcGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: the same length twice",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabcGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: a list of lengths",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabcGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: a length with a sign",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabcGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: a negative length",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: a hexadecimal length",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabcGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: an empty length",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: a length beyond 64 bits",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551619\r\n\r\nabcGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: space before the colon of the length",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length : 45\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    // Chunks.
    (
        "refused: chunk size beyond 64 bits",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: chunk size with 0x",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: chunk lines end in LF",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: bare LF in a chunk extension",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\nabc\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: bare CR in a chunk extension",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\rabc\r\nabc\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: chunk data is longer than its size",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcde\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: chunk data does not end in CRLF",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: a length among the trailers",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 45\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: nothing after the last chunk's size but LF",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    // Lines.
    (
        "refused: lines end in LF",
        "GET /seen/{id}/a HTTP/1.1\nHost: a\n\nGET /seen/{id}/b HTTP/1.1\nHost: a\n\n",
    ),
    (
        "refused: the head ends in LF",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\nabcGET /seen/{id}/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    ("refused: two hosts", "GET /seen/{id}/a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("refused: no host", "GET /seen/{id}/a HTTP/1.1\r\n\r\n"),
    (
        "refused: white space before the first field",
        "GET /seen/{id}/a HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n",
    ),
    ("refused: a space in the target", "GET /seen/{id}/a HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("refused: 0.9", "GET /seen/{id}/a\r\n\r\n"),
    (
        "refused: the preface of HTTP/2",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET /seen/{id}/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    // More of the same.
    (
        "refused: a list of lengths with nothing in it",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 3,\r\n\r\nabcGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: vertical tab behind a length",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\x0b\r\n\r\nabcGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: a length in other digits",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nContent-Length: 3.0\r\n\r\nabcGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: chunked and a parameter",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: chunked with a NUL behind it",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\0\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: chunked before a coding in another field",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: a name with a letter beyond ASCII",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer\u{AD}-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: a field without a name",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\n: chunked\r\nContent-Length: 3\r\n\r\nabcGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: a field without a colon",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: chunk size with a sign",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: a negative chunk size",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: chunk size with an underscore",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0_3\r\nabc\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: white space before a chunk size",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: a chunk without a size",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: an extension without a size",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n;3\r\nabc\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: chunk size ends in CR CR LF",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\r\nabc\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: chunk data ends in LF",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: chunk data ends in LF CR",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\n\r0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: a trailer without a colon",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nGET /seen/0/smuggled HTTP/1.1\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: a folded trailer",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n z\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: a coding among the trailers",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "refused: trailers with bare CR",
        "POST /seen/{id}/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\rZ: a\r\n\r\nGET /seen/0/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    ("refused: a version of two digits", "GET /seen/{id}/a HTTP/1.10\r\nHost: a\r\n\r\n"),
    ("refused: a version in small letters", "GET /seen/{id}/a http/1.1\r\nHost: a\r\n\r\n"),
    ("refused: white space behind the version", "GET /seen/{id}/a HTTP/1.1 \r\nHost: a\r\n\r\n"),
    ("refused: a tab in the request line", "GET\t/seen/{id}/a HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("refused: a bare CR in the request line", "GET /seen/{id}/a\rb HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("refused: CR CR LF behind the request line", "GET /seen/{id}/a HTTP/1.1\r\r\nHost: a\r\n\r\n"),
    ("refused: two empty lines first", "\r\n\r\nGET /seen/{id}/a HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("refused: a fragment in the target", "GET /seen/{id}/a#/../b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("refused: a host and a path", "GET /seen/{id}/a HTTP/1.1\r\nHost: a/seen/0/smuggled\r\n\r\n"),
    (
        "refused: an absolute target without a host",
        "GET http:///seen/{id}/a HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    ("refused: an absolute target and no Host", "GET http://b/seen/{id}/a HTTP/1.1\r\n\r\n"),
];
