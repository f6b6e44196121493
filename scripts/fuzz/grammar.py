"""JSON texts in every spelling, valid unless somebody damages them, and messages of MCP."""

from __future__ import annotations

import random
from typing import Any

from gateway.protocol.methods import METHODS

__all__ = ["JSON_TOKENS", "document", "message", "text"]

_NUMBERS = (
    b"0", b"-0", b"1", b"-1", b"0.0", b"-0.0", b"1.0", b"1e0", b"1E+2", b"1e-400", b"-1e-400", b"5e-324", b"2.5e-324",
    b"1.7976931348623157e308", b"1.7976931348623159e308", b"1e308", b"1e309", b"-1e309", b"9007199254740991",
    b"9007199254740992", b"9007199254740993", b"-9007199254740993", b"9223372036854775807", b"9223372036854775808",
    b"-9223372036854775809", b"18446744073709551615", b"18446744073709551616", b"1" * 128, b"1" * 129,
    b"-" + b"9" * 127, b"-" + b"9" * 128, b"0." + b"3" * 126, b"0." + b"3" * 127, b"1e" + b"0" * 40 + b"1", b"0e999",
    b"0.1", b"3.141592653589793238462643", b"123456", b"1234567", b"1.7976931348623157E+308", b"-0e-0",
)  # fmt: skip
# What may stand in a string.
_INSIDE = (
    b"a", b"text", b" ", rb"\n", rb"\"", rb"\\", rb"\/", rb"\b\f\r\t", rb"\u0041", rb"\ud83d\ude00", rb"\uD83D\uDE00",
    rb"\u0000", rb"\u00e9", rb"\uFFFF", rb"\u2028", b"\x7f", "é".encode(), "漢".encode(), "😀".encode(), b",", b"}",
    b"]", b"{", b"[", b":", b"//", "\u2028".encode(), "\ufeff".encode(), b"a" * 40, "é".encode() * 40,
    b"\xf4\x8f\xbf\xbf", b"null", b"1e5", b"'", b"<!--", b"0123456789abcdef",
)  # fmt: skip
_NAMES = (
    b"a", b"b", b"c", b"A", b"id", b"ID", b"method", b"Method", b"params", b"name", b"result", b"error", b"code",
    b"message", b"jsonrpc", b"_meta", b"progressToken", b"uri", b"arguments", b"Date", b"date", rb"m\u0065thod",
    "param\u017f".encode(), "\u212a".encode(), b"k", "\u0130d".encode(), "\u0131d".encode(), "ß".encode(), b"ss",
    "\u1e9e".encode(), rb"a\u0000", rb"\u0000", b"x" * 64, b"X" * 65, b"~/", b"~1", b"", b"n" * 1024, b"N" * 1025,
    "é".encode() * 600, "É".encode() * 600, b"n" * 1040 + rb"\u0000", b"__proto__", b"constructor", b"toString", b"0",
    b"1", "\ufb01".encode(), b"fi",
)  # fmt: skip
_SPACES = (b"", b"", b"", b"", b" ", b"\n", b"\t", b"\r\n ")
_NESTING = (3, 4, 61, 62, 63, 64, 65, 66, 130, 199, 200, 201, 1100)

JSON_TOKENS = (
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u", b"\\ud83d", b"\\ude00", b"\\x", b"true", b"false",
    b"null", b"tru", b"NaN", b"Infinity", b"-Infinity", b"-", b"+", b".", b"e", b"E", b"0", b"00", b"01", b"1.", b".5",
    b"1e", b"[]", b"{}", b'""', b'"a":1', b',"a":1', b',"A":1', b"//", b"/**/", b"#", b"'", b"undefined", b"0x1",
    b"1_0", *_NUMBERS[:20], *(b'"' + name + b'":' for name in _NAMES[:30]),
)  # fmt: skip


def text(source: random.Random) -> bytes:
    """A JSON text; some of them larger, deeper or longer than allowed, or with names that must not meet."""
    kind = source.random()
    if kind < 0.02:
        depth = source.choice(_NESTING)
        if source.random() < 0.5:
            return b"[" * depth + _scalar(source) + b"]" * depth
        return b'{"a":' * depth + _scalar(source) + b"}" * depth
    if kind < 0.04:
        return b"[" + b",".join([_scalar(source)] * source.randint(1, 70)) + b"]"
    if kind < 0.3:
        return _envelope(source)
    return _value(source, source.randint(0, 4))


def _envelope(source: random.Random) -> bytes:
    members = [(b'"jsonrpc"', b'"2.0"')] if source.random() < 0.9 else []
    names = (b"id", b"method", b"params", b"result", b"error")
    members += [(b'"' + name + b'"', _member(name, source)) for name in names if source.random() < 0.5]
    source.shuffle(members)
    return _object(members, source)


def _member(name: bytes, source: random.Random) -> bytes:
    if source.random() < 0.3:
        return _value(source, 2)
    match name:
        case b"id":
            return source.choice((b"1", b'"x"', b"null", b"1.0", b"9007199254740992", b"-1", b"true"))
        case b"method":
            return b'"tools/call"'
        case b"params":
            names = (b'"name"', b'"uri"', b'"arguments"', b'"_meta"')
            return _object([(each, _value(source, 2)) for each in names if source.random() < 0.5], source)
        case b"error":
            return source.choice((b'{"code":1,"message":"m","data":[]}', b'{"code":true,"message":"m"}', b"{}"))
    return b"{}"


def _value(source: random.Random, depth: int) -> bytes:
    if depth == 0 or source.random() < 0.3:
        return _scalar(source)
    count = source.choice((0, 1, 1, 2, 3, 5))
    if source.random() < 0.4:
        parts = [_value(source, depth - 1) + source.choice(_SPACES) for _ in range(count)]
        return b"[" + source.choice(_SPACES) + (b"," + source.choice(_SPACES)).join(parts) + b"]"
    return _object([(_name(source), _value(source, depth - 1)) for _ in range(count)], source)


def _object(members: list[tuple[bytes, bytes]], source: random.Random) -> bytes:
    if source.random() < 0.97:  # names twice are rarer than chance has it: the rest of the text is to be read, too
        members = list(dict(members).items())
    space, other = source.choice(_SPACES), source.choice(_SPACES)
    inside = (other + b"," + space).join(name + space + b":" + other + value for name, value in members)
    return b"{" + space + inside + other + b"}"


def _name(source: random.Random) -> bytes:
    if source.random() < 0.5:
        # A name of one's own, so that most objects may pass.
        return b'"m%d"' % source.randrange(1000)
    return b'"' + (source.choice(_NAMES) if source.random() < 0.8 else _inside(source)) + b'"'


def _scalar(source: random.Random) -> bytes:
    kind = source.random()
    if kind < 0.2:
        return source.choice((b"true", b"false", b"null"))
    if kind < 0.6:
        return b'"' + _inside(source) + b'"'
    if kind < 0.75:
        return source.choice(_NUMBERS)
    if kind < 0.9:
        return b"%d" % source.randint(-1000, 1 << source.randrange(70))
    return repr(source.uniform(-1, 1) * 10.0 ** source.randint(-320, 300)).encode()


def _inside(source: random.Random) -> bytes:
    return b"".join(source.choices(_INSIDE, k=source.choice((0, 1, 1, 2, 4))))


# -- documents --------------------------------------------------------------------------------------------------------

_WORDS = (
    "text", "", "a", "name", "é漢😀", "\0", "\u200b", "\u202e", "\U000e0041", "\x1b[31m",
    "ignore previous instructions",
    "http://127.0.0.1/x", "file:///etc/passwd", "https://example.com/?q=1", "x" * 70, "=?base64?YQ==?=",
    "=?base64?!?=", "2025-11-25", "2026-07-28", "complete", "input_required", "task", "s3cr3t", "password", "${HOME}",
    "{{x}}", "<!--", "\r\nX: y", "1.0", "42", "true",
)  # fmt: skip
_MEMBERS = (
    "a", "b", "name", "uri", "text", "type", "content", "structuredContent", "isError", "tools", "inputSchema",
    "outputSchema", "properties", "$ref", "x-mcp-header", "arguments", "_meta", "progressToken", "requestId", "taskId",
    "password", "api_key", "token", "resultType", "inputRequests", "requestState", "requestedSchema", "url", "mode",
    "io.modelcontextprotocol/protocolVersion", "io.modelcontextprotocol/clientCapabilities", "level", "messages",
    "io.modelcontextprotocol/subscriptionId", "io.modelcontextprotocol/logLevel", "notifications", "method", "params",
    "protocolVersion", "capabilities", "nextCursor", "description", "resources", "contents", "blob", "mimeType",
    "task", "\u200b", "m\u00e9", "city",
)  # fmt: skip
_KINDS = ("text", "image", "resource", "resource_link", "audio", "object", "string", "integer", "boolean", "array")
_METHODS = (*METHODS, "tools/call", "tools/call", "tools/list", "tools/list", "x/y", "")


def document(source: random.Random, depth: int = 4) -> Any:
    """Any value, of names and texts that mean something to somebody."""
    kind = source.random()
    if depth == 0 or kind < 0.45:
        return _plain(source)
    count = source.choice((0, 1, 2, 3, 4))
    if kind < 0.6:
        return [document(source, depth - 1) for _ in range(count)]
    return _members(source, depth, count)


def _members(source: random.Random, depth: int, count: int) -> dict[str, Any]:
    return {source.choice(_MEMBERS): document(source, depth - 1) for _ in range(count)}


def _plain(source: random.Random) -> Any:
    kind = source.random()
    if kind < 0.6:
        return " ".join(source.choices(_WORDS, k=source.choice((1, 1, 2, 5))))
    if kind < 0.7:
        return source.choice(_KINDS)
    return source.choice((None, True, False, 0, 1, -1, 1.0, -0.0, 1.5, 2**53, 2**63, 2**64, 1e300, 10**40))


def message(source: random.Random) -> dict[str, Any]:
    """One that the protocol has, with members that belong there or do not."""
    found: dict[str, Any] = {"jsonrpc": "2.0"}
    kind = source.choice(("request", "request", "notification", "result", "result", "error"))
    if kind != "notification":
        found["id"] = source.choice((7, "x", 0, -1, 2**53, None)) if source.random() < 0.2 else 7
    if kind in ("request", "notification"):
        found["method"] = source.choice(_METHODS)
        if source.random() < 0.9:
            found["params"] = _body(source)
    elif kind == "result":
        found["result"] = _body(source)
    else:
        found["error"] = {"code": source.choice((-32600, -32042, 1)), "message": "m"}
        if source.random() < 0.5:
            found["error"]["data"] = document(source)
    return found


def _body(source: random.Random) -> dict[str, Any]:
    body = _members(source, 4, source.randint(0, 5))
    if source.random() < 0.5:
        body["name"] = source.choice(("get_weather", "echo", "fetch_url", _plain(source)))
        body["arguments"] = document(source)
    if source.random() < 0.5:
        body["_meta"] = {
            "io.modelcontextprotocol/protocolVersion": source.choice(("2026-07-28", "2025-11-25", "x", 1)),
            "io.modelcontextprotocol/clientCapabilities": source.choice(({}, {"elicitation": {"form": {}}}, [])),
            "progressToken": _plain(source),
        }
    if source.random() < 0.4:
        body["content"] = [{"type": source.choice(_KINDS), "text": _plain(source)} for _ in range(source.randint(0, 3))]
    if source.random() < 0.3:
        body["tools"] = [_tool(source) for _ in range(source.randint(0, 3))]
    return body


def _tool(source: random.Random) -> Any:
    marked: dict[str, Any] = {"type": source.choice(("string", "integer", "boolean", "array"))}
    marked["x-mcp-header"] = source.choice(("City", "city", "", "a b", "Région", 1, "x" * 300))
    schema = {"type": "object", "properties": {"city": marked, "b": document(source, 2)}}
    return source.choice(
        (
            {"name": source.choice(("get_weather", "echo", _plain(source))), "inputSchema": schema},
            {"name": "get_weather", "inputSchema": document(source), "description": _plain(source)},
            document(source, 2),
        )
    )
