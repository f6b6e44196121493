"""What the server lists: tools, prompts, resources and instructions, their size, names, schemas and characters.

Lists are read, nothing that they name is: no tool is called, no resource read, no prompt fetched.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from ..config.units import format_size
from ..guard.controls import clean
from ..protocol.methods import METHODS
from ..protocol.params import ToolHeaders
from ..wire.names import fold
from ..wire.strict import dumps
from .report import Level
from .visit import Dialect, Visit

__all__ = ["Ask", "definitions", "examine_lists"]

# A method and its params -> the JSON-RPC response, and its size in bytes.
Ask = Callable[[str, dict[str, Any] | None], Awaitable[tuple[Any, int]]]

# By capability: what a client reads when it begins.
_LISTS = {
    "tools": ("tools/list",),
    "prompts": ("prompts/list",),
    "resources": ("resources/list", "resources/templates/list"),
}
_MOST_PAGES = 20
_MANY_TOOLS = 100
_TOO_LARGE = "Raise `limits.max_message_size`, or have the server page its lists."
# From here on a list takes a noticeable part of what a model can read.
_LARGE = 256 * 1024
# Revision 2025-11-25, server/tools, "Tool Names".
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")


async def definitions(visit: Visit) -> None:
    """The lists, asked for in the way that the server is spoken to best."""
    dialect = visit.dialects[0]

    async def call(method: str, params: dict[str, Any] | None) -> tuple[Any, int]:
        reply = await visit.ask(dialect, method, params)
        if reply.trouble is not None:
            level = Level.PROBLEM
            advice = None
            if "max_message_size" in reply.trouble:
                visit.report.limits["max_message_size"] = format_size(4 * visit.client.limits.max_message_size)
                advice = _TOO_LARGE
            visit.say("list", level, f"{dialect.revision}: {method}: {reply.trouble}", advice)
            return None, 0
        if reply.answer is None:
            visit.say("list", Level.PROBLEM, f"{dialect.revision}: {method} is not answered: {visit.describe(reply)}")
        size = len(reply.body) or max((len(each.data or b"") for each in reply.frames), default=0)
        return reply.answer, size

    opening = next((each.result for each in visit.replies if each.result and "capabilities" in each.result), {})
    await examine_lists(visit, call, opening or {}, dialect)


async def examine_lists(visit: Visit, call: Ask, opening: Mapping[str, Any], dialect: Dialect | None = None) -> None:
    """Ask for every list that the capabilities announce, and look at what is in it.  ``opening`` is the result that
    the conversation began with."""
    _characters(visit, "its instructions", opening.get("instructions"))
    for capability, methods in _LISTS.items():
        if capability not in visit.capabilities:
            continue
        for method in methods:
            entries = await _read(visit, call, method, dialect)
            if entries is None:
                continue
            if method == "tools/list":
                _tools(visit, entries)
            listing = METHODS[method].listing
            for entry in entries:
                if listing is not None and isinstance(entry, dict):
                    name = visit.shown(entry.get(listing.name, "without a name"), 60)
                    _characters(visit, f"{method.partition('/')[0].removesuffix('s')} {name}", entry)
    if not any(each.check == "characters" for each in visit.report.findings):
        visit.say("characters", Level.OK, "no hidden characters in any definition")


async def _read(visit: Visit, call: Ask, method: str, dialect: Dialect | None) -> list[Any] | None:
    """All pages of a list; None where it is not answered."""
    listing = METHODS[method].listing
    assert listing is not None
    entries: list[Any] = []
    total, pages, cursor, largest = 0, 0, None, 0
    while pages < _MOST_PAGES:
        answer, size = await call(method, None if cursor is None else {"cursor": cursor})
        result = answer.get("result") if isinstance(answer, dict) else None
        if not isinstance(result, dict):
            error = answer.get("error") if isinstance(answer, dict) else None
            if isinstance(error, dict):
                text = f"{method} is announced and gives an error: {visit.shown(error.get('message', ''), 120)}"
                visit.say("list", Level.WARNING if error.get("code") == -32601 else Level.PROBLEM, text)
            return entries or None
        if pages == 0 and dialect is not None and dialect.stateless:
            lacking = [each for each in ("resultType", "ttlMs", "cacheScope") if each not in result]
            if lacking:
                visit.say("cache-hints", Level.NOTE, f"{method} lacks {', '.join(lacking)} (rules 7.1, 7.16)")
        page = result.get(listing.member)
        if not isinstance(page, list):
            visit.say("list", Level.PROBLEM, f"{method}: the result holds no list {listing.member!r}")
            return entries or None
        entries += page
        pages, total, largest = pages + 1, total + size, max(largest, size)
        cursor = result.get("nextCursor")
        if not isinstance(cursor, str):
            break
    else:
        visit.say("list", Level.NOTE, f"{method} has more than {_MOST_PAGES} pages; the rest was not read")
    on_pages = "" if pages == 1 else f" on {pages} pages"
    visit.say("list", Level.OK, f"{method}: {_entries(len(entries))}{on_pages}, {_size(total)}")
    _weigh(visit, method, largest, total, len(entries))
    return entries


def _weigh(visit: Visit, method: str, largest: int, total: int, count: int) -> None:
    most = visit.client.limits.max_message_size
    if largest > most // 2:
        visit.report.limits["max_message_size"] = format_size(2 * most)
        text = f"{method}: a page of {_size(largest)} comes near limits.max_message_size ({_size(most)})"
        visit.say("list-size", Level.WARNING, text, _TOO_LARGE)
    elif total > _LARGE or (method == "tools/list" and count > _MANY_TOOLS):
        visit.say(
            "list-size",
            Level.NOTE,
            f"{method}: {_entries(count)} of {_size(total)} fill a good part of what a model can read",
            "Let policies allow the tools that are needed: the gateway takes the others out of the list.",
        )


def _tools(visit: Visit, tools: list[Any]) -> None:
    names = [each.get("name") if isinstance(each, dict) else None for each in tools]
    proper = [each for each in names if isinstance(each, str)]
    if len(proper) < len(names):
        visit.say("tool-names", Level.PROBLEM, f"{len(names) - len(proper)} tools have no name")
    odd = [each for each in proper if _NAME.fullmatch(each) is None]
    too_long = [each for each in proper if len(each) > 128]
    twice = [name for name, count in Counter(proper).items() if count > 1]
    alike = [name for name, count in Counter(map(fold, set(proper))).items() if count > 1]
    if odd:
        text = f"names outside A-Z a-z 0-9 _ - . (1 to 128 of them): {_some(visit, odd)}"
        advice = "Write such names into policies exactly; clients may refuse them."
        visit.say("tool-names", Level.PROBLEM if too_long else Level.WARNING, text, advice)
    if twice:
        visit.say("tool-names", Level.WARNING, f"the same name more than once: {_some(visit, twice)}")
    if alike:
        visit.say("tool-names", Level.WARNING, f"names that differ in case alone: {_some(visit, alike)}")
    if proper and not (odd or twice or alike) and len(proper) == len(names):
        visit.say("tool-names", Level.OK, f"{len(proper)} tool names within the rules")
    if not names:
        visit.say("tool-names", Level.NOTE, "lists no tools")
    wrong = [name for name, tool in zip(names, tools, strict=True) if name is not None and not _has_schema(tool)]
    if wrong:
        text = f"no inputSchema of type object: {_some(visit, wrong)}"
        visit.say("tool-schemas", Level.WARNING, text, "Clients that validate leave out such tools, or all.")
    elif proper:
        visit.say("tool-schemas", Level.OK, "every tool has an inputSchema of type object")
    invalid = ToolHeaders().learn({"tools": [each for each in tools if isinstance(each, dict)]})
    mirrored = sum(b'"x-mcp-header"' in dumps(each) for each in tools)
    if invalid:
        visit.say(
            "header-parameters",
            Level.WARNING,
            f"x-mcp-header breaks rule 6.17 in {_some(visit, invalid)}",
            "Clients must leave out tools with such an x-mcp-header: have it corrected.",
        )
    elif mirrored:
        visit.say("header-parameters", Level.OK, f"x-mcp-header is in order in {mirrored} tools")


def _has_schema(tool: dict[str, Any]) -> bool:
    schema = tool.get("inputSchema")
    return isinstance(schema, dict) and schema.get("type") == "object"


def _characters(visit: Visit, where: str, value: Any) -> None:
    """What nobody sees in a definition and a model reads."""
    kinds = sorted({kind for text in _texts(value) for kind in clean(text)[1]})
    if kinds:
        visit.say(
            "characters",
            Level.WARNING,
            f"{where}: {', '.join(kinds)}",
            "Keep the hook `sanitize`: it takes hidden characters out. Ask whose they are before allowing these tools.",
        )


def _texts(value: Any) -> Iterator[str]:
    """Every text of a document, member names included.  Depth is bounded by the parser."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield name
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _some(visit: Visit, names: list[Any]) -> str:
    shown = [visit.shown(each, 60) or "(empty)" for each in names[:5]]
    return ", ".join(shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _size(count: int) -> str:
    for unit, name in ((1024**2, "MiB"), (1024, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"
