"""What is wrong with a definition whoever approved it (faults), and what somebody should look at (flags).

Faults are exact, and a definition with one is withheld: clients must not fetch schemas (revision 2026-07-28, base
protocol, "Schema"), and one that takes them minutes to read is an attack.  Flags are guesses about prose, and block
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import re2  # type: ignore[import-untyped]

from .definition import Family, digest

__all__ = ["BOMB", "FAULTS", "FLAGS", "PATTERNS", "TOO_LARGE", "Examined", "examine"]

# Rule ids of findings.
EXTERNAL_REF = "schema-external-ref"
BOMB = "schema-bomb"
NOT_OBJECT = "schema-not-object"
NOT_CANONICAL = "not-canonical"
TOO_LARGE = "too-large"
FAULTS = (EXTERNAL_REF, BOMB, NOT_OBJECT, NOT_CANONICAL, TOO_LARGE)

# The deepest schemas of real servers are generated from nested types and reach about twenty; the largest have some
# thousand values.
MAX_DEPTH = 32
MAX_NODES = 10_000

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")

_HIDE = r"(?:tell|mention|inform|show|reveal|disclose|notify|alert|report)"
# In RE2 syntax, to be searched without regard to case.
PATTERNS = {
    "instruction-block": (
        r"<\s*/?\s*(?:important|critical|system|secret|hidden|instructions?|override|admin|priority)\s*>"
        r"|(?m:^\s*(?:system|assistant|developer)\s*:)"
        r"|<!--(?s:.*?)\b(?:must|always|never|ignore|before|first|send|call|read|do not|don't)\b"
        r"|\bfrom now on\b|\bnew instructions?\s*:"
    ),
    "override": (
        r"\b(?:ignore|disregard|forget|override|bypass)\b[^.\n]{0,30}"
        r"\b(?:previous|prior|above|earlier|system|safety|all|any|your)\b[^.\n]{0,30}"
        r"\b(?:instructions?|rules?|prompts?|guidelines|messages|policies)\b"
    ),
    "concealment": (
        rf"\b(?:do not|don't|never|must not|without)\s+(?:ever\s+)?{_HIDE}(?:ing)?\b[^.\n]{{0,30}}"
        r"\b(?:users?|anyone|anybody|them|it|this|him|her|human)\b"
        r"|\bkeep\s+(?:it|this|that|them)\s+(?:out of|secret|hidden|from|to yourself)\b"
        r"|\b(?:silently|secretly|covertly)\s+(?:send|copy|forward|read|add|include|append|call|upload)"
    ),
    "drain": (
        r"\b(?:paste|include|append|attach|copy|put|send|pass|repeat|forward)\b[^.\n]{0,40}"
        r"\b(?:conversation|chat history|message history|system prompt|last message|previous messages|context window)\b"
    ),
    "sensitive-file": (
        r"(?:~|\$HOME|/root|/home/[a-z0-9_-]+)/\.(?:ssh|aws|gnupg|kube|docker|config|netrc|npmrc)\b"
        r"|\bid_(?:rsa|ed25519|ecdsa)\b|(?:^|[\s'\"`/])\.env\b|/etc/(?:passwd|shadow)\b|\.cursor/mcp\.json\b"
    ),
    "steering": (
        r"\b(?:when(?:ever)?|before|after|if|instead of)\b[^.\n]{0,60}\btools?\b[^.\n]{0,60}"
        r"\b(?:always|must|also|first|never)\b"
        r"|\balways\s+(?:add\s+)?b?cc\b"
    ),
    "encoded-text": r"[A-Za-z0-9+/]{100,}={0,2}",
    "long-gap": r"(?:\r?\n[ \t]*){20}|[ \t\x{a0}\x{2000}-\x{200a}\x{3000}]{100}",
    # A group with an unbounded repetition in it that is repeated itself: a backtracking engine may take for ever.
    "slow-pattern": r"\((?:[^()\\]|\\.)+(?:[*+]|\{\d+,\})(?:[^()\\]|\\.)*\)(?:[*+]|\{\d+,\})",
}
FLAGS = tuple(PATTERNS)

_OPTIONS = re2.Options()
_OPTIONS.never_capture = True
_OPTIONS.log_errors = False
_PROSE = {rule: re2.compile("(?i)" + pattern, _OPTIONS) for rule, pattern in PATTERNS.items() if rule != "slow-pattern"}
_SLOW = re2.compile(PATTERNS["slow-pattern"], _OPTIONS)


@dataclass(frozen=True, slots=True)
class Examined:
    """What there is to say of a definition.  ``digest`` is None where it has none, the others hold rule ids."""

    digest: str | None
    faults: tuple[str, ...]
    flags: tuple[str, ...]


def examine(family: Family, pinned: Any) -> Examined:
    """Goes through the members of a definition that are pinned, or the text of instructions; linear in their size."""
    found = _faults(family, pinned)
    if BOMB in found:
        # What is too large to be read is not gone through any further.
        return Examined(None, found, ())
    known = digest(pinned)
    return Examined(known, found if known is not None else (*found, NOT_CANONICAL), _flags(pinned))


def _faults(family: Family, pinned: Any) -> tuple[str, ...]:
    found = set()
    for member in family.schemas:
        schema = pinned.get(member)
        if member != "inputSchema" and schema is None:
            continue
        # Of what a tool returns, later revisions allow more than objects.
        if type(schema) is not dict or (member == "inputSchema" and schema.get("type", "object") != "object"):
            found.add(NOT_OBJECT)
    found |= _walk(pinned)
    return tuple(rule for rule in FAULTS if rule in found)


def _walk(pinned: Any) -> set[str]:
    found = set()
    count = 0
    level: list[Any] = list(pinned.values()) if type(pinned) is dict else []
    for depth in range(1, MAX_DEPTH + 2):
        deeper: list[Any] = []
        for value in level:
            if type(value) is dict:
                for reference in _REFERENCES:
                    target = value.get(reference)
                    # Also in examples and defaults: what resolves references does not always know where it is.
                    if type(target) is str and not target.startswith("#"):
                        found.add(EXTERNAL_REF)
                children: Any = value.values()
            elif type(value) is list:
                children = value
            else:
                continue
            if depth > MAX_DEPTH:
                return found | {BOMB}
            count += len(children)
            if count > MAX_NODES:
                return found | {BOMB}
            deeper.extend(children)
        level = deeper
        if not level:
            break
    return found


def _flags(definition: Any) -> tuple[str, ...]:
    """The rules whose patterns occur in any text of a definition, names of members included."""
    texts: list[str] = []
    patterns: list[str] = []
    stack = [definition]
    while stack:
        value = stack.pop()
        if type(value) is str:
            texts.append(value)
        elif type(value) is list:
            stack.extend(value)
        elif type(value) is dict:
            texts.extend(value)
            stack.extend(value.values())
            if type(value.get("pattern")) is str:
                patterns.append(value["pattern"])
    # One search for all texts; what separates them is no white space and no part of a word.
    text = _encode("\n\0\n".join(texts))
    found = {rule for rule, prose in _PROSE.items() if prose.search(text)}
    if any(_SLOW.search(_encode(pattern)) for pattern in patterns):
        found.add("slow-pattern")
    return tuple(rule for rule in FLAGS if rule in found)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
