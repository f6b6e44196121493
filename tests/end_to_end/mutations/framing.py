"""Where a body ends: Transfer-Encoding, Content-Length, chunks."""

from __future__ import annotations

from collections.abc import Callable

from .table import CHUNKED, LAST, Outcome, Table, chunk

__all__ = ["chunks", "codings", "lengths"]

# Lines that say chunked, or nearly so, to one parser or another.
CODINGS = {
    "plain": CHUNKED,
    "capital": b"Transfer-Encoding: Chunked",
    "upper": b"TRANSFER-ENCODING: CHUNKED",
    "tab": b"Transfer-Encoding:\tchunked",
    "tab-after": b"Transfer-Encoding: chunked\t",
    "x": b"Transfer-Encoding: xchunked",
    "vertical-tab": b"Transfer-Encoding: \x0bchunked",
    "form-feed": b"Transfer-Encoding: \x0cchunked",
    "no-break-space": b"Transfer-Encoding: \xa0chunked",
    "quoted": b'Transfer-Encoding: "chunked"',
    "identity": b"Transfer-Encoding: identity",
    "chunked-identity": b"Transfer-Encoding: chunked, identity",
    "identity-chunked": b"Transfer-Encoding: identity, chunked",
    "twice-in-a-list": b"Transfer-Encoding: chunked, chunked",
    "gzip-chunked": b"Transfer-Encoding: gzip, chunked",
    "chunked-gzip": b"Transfer-Encoding: chunked, gzip",
    "parameter": b"Transfer-Encoding: chunked;q=1",
    "prefix": b"Transfer-Encoding: chunk",
    "empty": b"Transfer-Encoding:",
    "comma-before": b"Transfer-Encoding: ,chunked",
    "comma-after": b"Transfer-Encoding: chunked,",
    "space-before-colon": b"Transfer-Encoding : chunked",
    "tab-before-colon": b"Transfer-Encoding\t: chunked",
    "folded-name": b"X-A: b\r\n Transfer-Encoding: chunked",
    "folded-value": b"Transfer-Encoding:\r\n chunked",
    "lf-in-field": b"X-A: b\nTransfer-Encoding: chunked",
    "cr-in-field": b"X-A: b\rTransfer-Encoding: chunked",
    "lf-in-value": b"Transfer-Encoding: \nchunked",
    "underscore": b"Transfer_Encoding: chunked",
    "two-fields": CHUNKED + b"\r\n" + CHUNKED,
    "chunked-then-identity": CHUNKED + b"\r\nTransfer-Encoding: identity",
    "identity-then-chunked": b"Transfer-Encoding: identity\r\n" + CHUNKED,
    "nul-in-name": b"Transfer-Encoding\x00: chunked",
    "nul-in-value": b"Transfer-Encoding: chun\x00ked",
    "nul-after": b"Transfer-Encoding: chunked\x00",
    "8-bit": b"Transfer-Encoding: \xffchunked",
    "long-s": "Transfer-Encoding: chunk\u0435d".encode(),
    "named-by-connection": b"Connection: Transfer-Encoding\r\n" + CHUNKED,
    "length-named-by-connection": b"Connection: Content-Length\r\n" + CHUNKED,
    "te": b"TE: chunked",
    "content-encoding": b"Content-Encoding: chunked",
}
# An unknown field is just that, and the length says it all.
NO_CODING = {"underscore", "te"}
# Chunked is the last coding, which ends the body where its chunks end (RFC 9112 6.3), and the others are not understood.
LAST_IS_CHUNKED = {"identity-chunked", "gzip-chunked", "comma-before"}
# Nothing but chunked, in a form that parsers may differ on, or in none of those.
JUST_CHUNKED = {"plain", "capital", "upper", "tab", "named-by-connection", "length-named-by-connection"}


def codings(table: Table) -> None:
    """Each coding with a Content-Length that says something else, in three layouts."""
    for name, line in CODINGS.items():
        body = chunk(table.carrier) + LAST + table.hidden
        table.framed(f"cl-te {name}", [b"Content-Length: %d" % len(body), line], body)
        body = chunk(table.hidden) + LAST
        length = body.index(b"\n") + 1
        table.framed(f"te-cl {name}", [line, b"Content-Length: %d" % length], body)
        body = table.carrier
        outcome: Outcome = "passes" if name in NO_CODING else "refused"
        table.framed(f"cl {name}", [b"Content-Length: %d" % len(body), line], body + table.hidden, outcome)
        # With no length at all, only a parser that takes it for chunked finds an end.
        outcome = "passes" if name in JUST_CHUNKED else "declined" if name in LAST_IS_CHUNKED else "refused"
        through = name in ("plain", "capital", "upper")
        table.framed(f"te {name}", [line], chunk(table.carrier) + LAST + table.hidden, outcome, through=through)


def lengths(table: Table) -> None:
    """Content-Length in every wrong form, with the right number in it."""
    forms = {
        "plus": b"+%d",
        "minus": b"-%d",
        "minus-zero": b"-0",
        "hexadecimal": b"0x%x",
        "underscore": b"1_%d",
        "decimal-point": b"%d.0",
        "exponent": b"%de0",
        "list-equal": b"%d, %d",
        "list-different": b"%d, 0",
        "list-first-zero": b"0, %d",
        "comma-after": b"%d,",
        "space-within": b"%d %d",
        "vertical-tab": b"\x0b%d",
        "nul": b"%d\x00",
        "letters": b"%dabc",
        "quoted": b'"%d"',
        "arabic": "\u0663".encode(),
        "empty": b"",
        "2^64": b"%d" % 2**64,
        "2^63": b"%d" % 2**63,
        "folded": b"\r\n %d",
        "bare-lf": b"0\nContent-Length: %d",
        "bare-cr": b"0\rContent-Length: %d",
    }
    for name, form in forms.items():
        body = table.carrier
        count = form.count(b"%d") + form.count(b"%x")
        value = form % ((len(body),) * count) if count else form
        table.framed(f"length {name}", [b"Content-Length: " + value], body + table.hidden)
    body = table.carrier
    table.framed("length 2^64 more", [b"Content-Length: %d" % (2**64 + len(body))], body + table.hidden)
    for name, line in {
        "space-before-colon": b"Content-Length : %d",
        "underscore": b"Content_Length: %d",
        "no-colon": b"Content-Length %d",
        "nul-in-name": b"Content-Length\x00: %d",
    }.items():
        body = table.carrier
        table.framed(f"length-name {name}", [line % len(body)], body + table.hidden)
    for name, first, second in (("short-first", 0, 1), ("long-first", 1, 0), ("equal", 1, 1), ("cased", 1, 1)):
        body = table.carrier
        numbers = [len(body) * first, len(body) * second]
        names = [b"Content-Length", b"content-length" if name == "cased" else b"Content-Length"]
        lines = [b"%b: %d" % pair for pair in zip(names, numbers, strict=True)]
        table.framed(f"two-lengths {name}", lines, body + table.hidden)
    body = table.carrier
    table.framed("length zero, and a body", [b"Content-Length: 0"], body + table.hidden)
    body = table.carrier
    table.framed("no length, and a body", [], body + table.hidden)
    body = table.carrier
    table.framed("length short by one", [b"Content-Length: %d" % (len(body) - 1)], body + table.hidden)
    body = table.carrier
    table.framed("length long by one", [b"Content-Length: %d" % (len(body) + 1)], body + table.hidden)
    body = table.carrier
    table.framed("length zeros before", [b"Content-Length: 000%d" % len(body)], body + table.hidden, "passes")
    body = table.carrier
    table.framed("length spaces around", [b"Content-Length:  \t%d \t" % len(body)], body + table.hidden, "passes")


def chunks(table: Table) -> None:
    """Chunk sizes, ends of lines and trailers."""

    def add(name: str, make: Callable[[bytes], bytes], outcome: Outcome = "refused", *, through: bool = False) -> None:
        table.framed(f"chunk {name}", [CHUNKED], make(table.carrier) + table.hidden, outcome, through=through)

    def sized(form: bytes) -> Callable[[bytes], bytes]:
        return lambda body: form % len(body) + b"\r\n" + body + b"\r\n" + LAST

    for name, form in {
        "0x": b"0x%x",
        "plus": b"+%x",
        "minus": b"-%x",
        "underscore": b"0_%x",
        "space-before": b" %x",
        "tab-before": b"\t%x",
        "space-within": b"0 %x",
        "comma": b"%x,",
        "nul": b"%x\x00",
        "cr-twice": b"%x\r",
        "lf-in-extension": b"%x;a\nb",
        "cr-in-extension": b"%x;a\rb",
        "nul-in-extension": b"%x;a\x00b",
        "letter-g": b"%xg",
        "17-digits": b"1%016x",
        "2^32": b"1%08x",
        "decimal-point": b"%x.0",
        "quoted": b'"%x"',
    }.items():
        add(f"size {name}", sized(form))
    add("size empty", lambda body: b"\r\n" + body + b"\r\n" + LAST)
    add("size huge", lambda body: b"f" * 400 + b"\r\n" + body + b"\r\n" + LAST)
    add("size too small", lambda body: b"%x\r\n%b\r\n" % (len(body) - 1, body) + LAST)
    add("size too large", lambda body: b"%x\r\n%b\r\n" % (len(body) + 1, body) + LAST)
    add("line-end lf", lambda body: b"%x\n%b\r\n" % (len(body), body) + LAST)
    add("line-end cr", lambda body: b"%x\r%b\r\n" % (len(body), body) + LAST)
    add("data-end lf", lambda body: b"%x\r\n%b\n" % (len(body), body) + LAST)
    add("data-end cr", lambda body: b"%x\r\n%b\r" % (len(body), body) + LAST)
    add("data-end none", lambda body: b"%x\r\n%b" % (len(body), body) + LAST)
    add("data-end two letters", lambda body: b"%x\r\n%bxx" % (len(body), body) + LAST)
    add("last lf", lambda body: chunk(body) + b"0\n\n")
    add("last crlf lf", lambda body: chunk(body) + b"0\r\n\n")
    add("last minus-zero", lambda body: chunk(body) + b"-0\r\n\r\n")
    add("last 0x0", lambda body: chunk(body) + b"0x0\r\n\r\n")
    add("last without end", lambda body: chunk(body) + b"0\r\n")
    for name, trailer in {
        "length": b"Content-Length: 5",
        "coding": CHUNKED,
        "space-before-colon": b"X-A : b",
        "no-colon": b"POST /mcp HTTP/1.1",
        "bare-lf": b"X-A: b\nX-B: c",
        "nul": b"X-A: \x00",
        "folded": b"X-A: b\r\n c",
    }.items():
        add(f"trailer {name}", lambda body, trailer=trailer: chunk(body) + b"0\r\n" + trailer + b"\r\n\r\n")
    body = table.carrier
    body = chunk(body) + b"0\r\nHost: evil.example\r\n\r\n"
    table.framed("chunk trailer host", [CHUNKED], body + table.hidden, last=True)
    add("trailer authorization", lambda body: chunk(body) + b"0\r\nAuthorization: Bearer nobody\r\n\r\n", "passes")
    add("trailer harmless", lambda body: chunk(body) + b"0\r\nX-Checksum: 1\r\n\r\n", "passes", through=True)
    add("size zeros before", sized(b"0000%x"), "passes")
    add("size upper", sized(b"%X"), "passes", through=True)
    add("extension", sized(b"%x;a=b"), "passes", through=True)
    add("extension quoted", sized(b'%x;a="b;c"'), "passes")
    add("last 000", lambda body: chunk(body) + b"000\r\n\r\n", "passes")
    add("each byte", lambda body: b"".join(chunk(bytes((each,))) for each in body) + LAST, "passes", through=True)
