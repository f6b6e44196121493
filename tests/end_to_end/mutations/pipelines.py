"""Several requests on one connection, and what looks like one within a body."""

from __future__ import annotations

import json

from .table import CHUNKED, HOST, LAST, Table, chunk, fields, mark, message, post

__all__ = ["pipelines"]


def pipelines(table: Table) -> None:
    """Several requests on one connection, and what looks like one within a body."""
    table.plain("pipelined", [], "passes", through=True)
    table.framed(
        "pipelined after chunks", [CHUNKED], chunk(table.carrier) + LAST + table.hidden, "passes", through=True
    )
    body = json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "echo", "arguments": {"mark": mark(len(table.cases), "carrier"), "text": "\r\n\r\n"}},
        }
    ).encode()
    inside = body[:-1] + b" " * 10 + b"}"
    table.framed("spaces inside", [b"Content-Length: %d" % len(inside)], inside, "passes", alone=True, through=True)
    text = {"mark": mark(len(table.cases), "carrier"), "text": table.hidden.decode()}
    params = {"name": "echo", "arguments": text}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    table.framed("a request as text", [b"Content-Length: %d" % len(body)], body, "passes", alone=True, through=True)
    body = table.hidden
    table.framed("a request as the body", [b"Content-Length: %d" % len(body)], body, alone=True)
    body = chunk(table.hidden) + LAST
    table.framed("a request as the chunk", [CHUNKED], body, alone=True)
    body = table.carrier + table.hidden
    table.framed("a request after the json", [b"Content-Length: %d" % len(body)], body, alone=True)
    body = b"".join(chunk(each) for each in (table.carrier, b"\r\n0\r\n\r\n", table.hidden)) + LAST
    table.framed("a request after an end in the body", [CHUNKED], body, alone=True)
    for method in ("GET", "HEAD", "DELETE", "OPTIONS"):
        body = table.hidden
        lines = [*fields(table.token.own), b"Content-Length: %d" % len(body)]
        data = message(lines, body, f"{method} /mcp HTTP/1.1".encode())
        table.add(f"a request as the body of {method}", data, alone=True)
        body = chunk(table.hidden) + LAST
        data = message([*fields(table.token.own), CHUNKED], body, f"{method} /mcp HTTP/1.1".encode())
        table.add(f"a request as the chunk of {method}", data, alone=True)
    body = table.hidden
    lines = [b"Host: " + HOST, b"Content-Length: %d" % len(body)]
    table.add("a request as the body of a stranger", message(lines, body), alone=True)
    body = table.hidden
    lines = [*fields(table.token.own), b"Expect: 100-continue", b"Content-Length: %d" % len(body)]
    table.add("a request as a body that was not invited", message(lines, body), alone=True)
    start = b"POST /elsewhere HTTP/1.1"
    body = table.hidden
    lines = [*fields(table.token.own), b"Content-Length: %d" % len(body)]
    table.add("a request as the body of a path that is not served", message(lines, body, start), alone=True)
    # HTTP/2 with prior knowledge: preface and empty SETTINGS.
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    table.add("http/2 preface", preface + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + table.hidden)
    table.add("http/2 preface alone", preface + table.hidden)
    for name, start, extra in (
        ("1.1", b"POST /mcp HTTP/1.1", [b"Connection: close"]),
        ("1.0", b"POST /mcp HTTP/1.0", []),
    ):
        body = table.carrier
        lines = [*fields(table.token.own), *extra, b"Content-Length: %d" % len(body)]
        table.add(f"the last request of http/{name}", message(lines, body, start), "passes", through=True)
    table.add("half a head", post(table.token.own, table.carrier)[:60])
    table.add("half a body", post(table.token.own, table.carrier)[:-10])
    table.add("half a chunk", message([*fields(table.token.own), CHUNKED], chunk(table.carrier)[:-10]))
    lines = [*fields(table.token.own), CHUNKED]
    body = chunk(table.carrier) + LAST + table.hidden
    table.add("http/1.0 with chunks", message(lines, body, b"POST /mcp HTTP/1.0"))
    body = chunk(table.carrier) + LAST + table.hidden
    both = [*lines, b"Content-Length: %d" % len(body), b"Connection: keep-alive"]
    table.add("http/1.0 with chunks and length", message(both, body, b"POST /mcp HTTP/1.0"))
    table.add("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + table.hidden)
    table.add("proxy protocol", b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + post(table.token.own, table.carrier))
