"""Start lines, header lines, and fields that others act on."""

from __future__ import annotations

from collections.abc import Callable

from .table import HOST, Outcome, Table

__all__ = ["heads", "names"]


def heads(table: Table) -> None:
    """Start lines and header lines."""

    def start(name: str, line: bytes, outcome: Outcome = "refused", **options: bool) -> None:
        table.edited(f"start {name}", lambda head: line + head[head.index(b"\r\n") :], outcome, **options)

    for name, line in {
        "0.9": b"POST /mcp",
        "0.9 said": b"POST /mcp HTTP/0.9",
        "1.2": b"POST /mcp HTTP/1.2",
        "1.10": b"POST /mcp HTTP/1.10",
        "01.1": b"POST /mcp HTTP/01.1",
        "2.0": b"POST /mcp HTTP/2.0",
        "3.0": b"POST /mcp HTTP/3.0",
        "lower-case version": b"POST /mcp http/1.1",
        "comma version": b"POST /mcp HTTP/1,1",
        "word after": b"POST /mcp HTTP/1.1 x",
        "tab": b"POST\t/mcp\tHTTP/1.1",
        "space before": b" POST /mcp HTTP/1.1",
        "lower-case method": b"post /mcp HTTP/1.1",
        "nul in method": b"PO\x00ST /mcp HTTP/1.1",
        "method with colon": b"POST: /mcp HTTP/1.1",
        "no method": b"/mcp HTTP/1.1",
        "nul in target": b"POST /mcp\x00 HTTP/1.1",
        "8-bit target": b"POST /mcp\xe9 HTTP/1.1",
        "space in target": b"POST /mcp x HTTP/1.1",
        "cr in target": b"POST /mcp\rX: HTTP/1.1",
        "control in target": b"POST /mcp\x01 HTTP/1.1",
        "backslash": b"POST \\mcp HTTP/1.1",
        "asterisk": b"POST * HTTP/1.1",
        "no slash": b"POST mcp HTTP/1.1",
        "absolute elsewhere": b"POST http://evil.example/mcp HTTP/1.1",
        "absolute userinfo": b"POST http://mcp.example.com@evil.example/mcp HTTP/1.1",
        "absolute upstream": b"POST http://127.0.0.1/mcp HTTP/1.1",
        "authority": b"POST mcp.example.com:80 HTTP/1.1",
        "connect": b"CONNECT mcp.example.com:80 HTTP/1.1",
        "connect path": b"CONNECT /mcp HTTP/1.1",
    }.items():
        start(name, line)
    for name, line in {
        "encoded crlf": b"POST /mcp%0d%0aX:%20y HTTP/1.1",
        "encoded nul": b"POST /mcp%00 HTTP/1.1",
        "encoded letter": b"POST /%6dcp HTTP/1.1",
        "two slashes": b"POST //mcp HTTP/1.1",
        "dot segments": b"POST /x/../mcp HTTP/1.1",
        "encoded dots": b"POST /mcp/%2e%2e/metrics HTTP/1.1",
        "slash after": b"POST /mcp/ HTTP/1.1",
        "semicolon": b"POST /mcp;x HTTP/1.1",
        "admin": b"POST /metrics HTTP/1.1",
        "trace": b"TRACE /mcp HTTP/1.1",
        "put": b"PUT /mcp HTTP/1.1",
        "patch": b"PATCH /mcp HTTP/1.1",
        "head": b"HEAD /mcp HTTP/1.1",
        "get": b"GET /mcp HTTP/1.1",
        "delete": b"DELETE /mcp HTTP/1.1",
        "fragment": b"POST /mcp#x HTTP/1.1",
    }.items():
        start(name, line, "declined")
    start("two spaces", b"POST  /mcp HTTP/1.1", "passes")
    start("absolute", b"POST http://mcp.example.com/mcp HTTP/1.1", "passes")
    start("query", b"POST /mcp?x=1 HTTP/1.1", "passes", through=True)
    # Not kept open, so what follows at once is a mistake.
    start("1.0", b"POST /mcp HTTP/1.0", last=True)
    start("lines before", b"\r\n\r\nPOST /mcp HTTP/1.1", "passes")
    start("lf before", b"\nPOST /mcp HTTP/1.1", "passes")

    def edit(name: str, change: Callable[[bytes], bytes], outcome: Outcome = "refused") -> None:
        table.edited(f"head {name}", change, outcome)

    edit("lf only", lambda head: head.replace(b"\r\n", b"\n"))
    edit("cr only", lambda head: head.replace(b"\r\n", b"\r"))
    edit("last lf", lambda head: head[:-2] + b"\n")
    edit("lf at end of a line", lambda head: head.replace(b"json\r\n", b"json\n", 1))
    edit("blank before fields", lambda head: head.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\n\r\n", 1))
    edit("folded first", lambda head: head.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\n ", 1))
    for name, line in {
        "cr in value": b"X-A: b\rc",
        "cr cr": b"X-A: b\r\r\nX-B: c",
        "nul in value": b"X-A: b\x00c",
        "nul in name": b"X\x00A: b",
        "control in name": b"X\x01A: b",
        "8-bit in name": b"X-\xe9: b",
        "folded": b"X-A: b\r\n c",
        "folded tab": b"X-A: b\r\n\tc",
        "space before colon": b"X-A : b",
        "space in name": b"X A: b",
        "no colon": b"X-A",
        "no name": b": b",
        "name in brackets": b"X(A): b",
        "name with slash": b"X/A: b",
    }.items():
        edit(name, lambda head, line=line: head[:-2] + line + b"\r\n\r\n")
    for name, line in {
        "8-bit in value": b"X-A: \xe9\xff",
        "empty value": b"X-A:",
        "underscore": b"X_A: b",
    }.items():
        edit(name, lambda head, line=line: head[:-2] + line + b"\r\n\r\n", "passes")


def names(table: Table) -> None:
    """Host, credentials, and fields that others act on."""

    def host(name: str, lines: bytes, outcome: Outcome = "refused", **options: bool) -> None:
        table.edited(f"host {name}", lambda head: head.replace(b"Host: " + HOST, lines), outcome, **options)

    for name, lines in {
        "twice": b"Host: mcp.example.com\r\nHost: mcp.example.com",
        "second elsewhere": b"Host: mcp.example.com\r\nHost: evil.example",
        "first elsewhere": b"Host: evil.example\r\nHost: mcp.example.com",
        "none": b"X-Host: mcp.example.com",
        "empty": b"Host:",
        "elsewhere": b"Host: evil.example",
        "loopback": b"Host: 127.0.0.1",
        "userinfo": b"Host: mcp.example.com@evil.example",
        "userinfo here": b"Host: evil.example@mcp.example.com",
        "space within": b"Host: mcp.example.com evil.example",
        "list": b"Host: mcp.example.com, evil.example",
        "path": b"Host: mcp.example.com/x",
        "dot after": b"Host: mcp.example.com.",
        "port that is none": b"Host: mcp.example.com:x",
        "suffix": b"Host: mcp.example.com.evil.example",
        "nul": b"Host: mcp.example.com\x00evil",
        "space before colon": b"Host : mcp.example.com",
        "folded": b"Host:\r\n mcp.example.com",
    }.items():
        host(name, lines)
    host("upper-case", b"Host: MCP.EXAMPLE.COM", "passes", through=True)
    host("forwarded", b"Host: mcp.example.com\r\nX-Forwarded-Host: evil.example", "passes", through=True)

    own, other = table.token.own, table.token.other

    def authorization(name: str, lines: bytes, outcome: Outcome = "refused") -> None:
        table.edited(f"token {name}", lambda head: head.replace(b"Authorization: Bearer " + own, lines), outcome)

    authorization("two callers", b"Authorization: Bearer %b\r\nAuthorization: Bearer %b" % (own, other), "declined")
    authorization(
        "two callers, other first", b"Authorization: Bearer %b\r\nAuthorization: Bearer %b" % (other, own), "declined"
    )
    authorization("twice", b"Authorization: Bearer %b\r\nAuthorization: Bearer %b" % (own, own), "declined")
    authorization("list", b"Authorization: Bearer %b, Bearer %b" % (own, other), "declined")
    authorization("space before colon", b"Authorization : Bearer " + own)
    authorization("proxy", b"Proxy-Authorization: Bearer " + own, "declined")
    authorization("nul", b"Authorization: Bearer " + own + b"\x00")
    authorization("8-bit", b"Authorization: Bearer " + own + b"\xe9", "declined")
    authorization("dropped by connection", b"Connection: Authorization\r\nAuthorization: Bearer " + own, "passes")

    for name, line in {
        "two content types": b"Content-Type: text/plain",
        "content-encoding": b"Content-Encoding: gzip",
        "many": b"\r\n".join(b"X-%d: y" % n for n in range(150)),
        "long": b"X-A: " + b"a" * 20_000,
    }.items():
        table.plain(f"field {name}", [line])
    for name, line in {
        "two sessions": b"Mcp-Session-Id: a\r\nMcp-Session-Id: b",
        "two revisions": b"MCP-Protocol-Version: 2025-11-25\r\nMCP-Protocol-Version: 2026-07-28",
        "two names": b"Mcp-Name: echo\r\nMcp-Name: denied_tool",
        "two origins": b"Origin: https://mcp.example.com\r\nOrigin: https://evil.example",
        "session of nobody": b"Mcp-Session-Id: a",
        "upgrade h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        "upgrade websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAA",
        "upgrade alone": b"Upgrade: h2c",
    }.items():
        table.plain(f"field {name}", [line], "declined")
    table.plain("field connection close", [b"Connection: close"], last=True)
    for name, line in {
        "expect other": b"Expect: 200-ok",
        "underscore session": b"Mcp_Session_Id: a",
        "underscore length": b"Content_Length: 0",
        "connection names session": b"Connection: Mcp-Session-Id",
        "connection names length": b"Connection: Content-Length",
        "connection names host": b"Connection: Host",
        "connection keep-alive and more": b"Connection: keep-alive, X-A\r\nX-A: b",
        "proxy-connection": b"Proxy-Connection: keep-alive",
        "te trailers": b"TE: trailers",
        "trailer": b"Trailer: Content-Length",
        "method override": b"X-HTTP-Method-Override: DELETE",
        "original url": b"X-Original-URL: /metrics\r\nX-Rewrite-URL: /metrics",
        "forwarded": b"Forwarded: for=127.0.0.1;host=evil.example\r\nX-Forwarded-For: 127.0.0.1",
        "range": b"Range: bytes=0-1",
        "max-forwards": b"Max-Forwards: 0",
        "expect": b"Expect: 100-continue",
    }.items():
        table.plain(f"field {name}", [line], "passes")
