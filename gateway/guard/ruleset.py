"""Detection rules: what a rules file may say, and reading it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast, get_args

import re2  # type: ignore[import-untyped]
import yaml

__all__ = [
    "Action", "Rule", "RulesError", "check_action", "check_known", "compile_pattern", "default_rules", "is_anchored",
    "read_rules", "select",
]  # fmt: skip

Action = Literal["redact", "block", "flag"]

# Bounds on what one pattern may cost: RE2 counts instructions; the largest rule that comes with the gateway has 7,800.
_MAX_PROGRAM = 20_000
_MAX_PATTERN_CHARS = 2_000


class RulesError(ValueError):
    """A rules file or an option about rules that cannot be used.  The text says where, why, and what was expected."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of text that must not pass unseen.

    ``id``       what placeholders, findings and metrics call it
    ``pattern``  RE2 syntax; with a capturing group, the group is what is redacted
    ``keywords`` texts without which the pattern cannot match, in any case; empty: the pattern is its own prefilter
    ``action``   what to do with a match; None: the default of whoever uses the rule
    ``skip_placeholders`` whether a match that is plainly a stand-in (``ghp_xxxx``) is let through
    """

    id: str
    pattern: str
    keywords: tuple[str, ...] = ()
    action: Action | None = None
    skip_placeholders: bool = False


# What a pattern is made of, as far as it takes to tell an anchor from a class or an escape that looks like one.
_PART = re.compile(r"\\Q.*?(?:\\E|\Z)|\\.|\[\^?\]?(?:\\.|\[:\^?[a-z]+:\]|[^\]\\])*\]|.", re.DOTALL)
_ANCHORS = frozenset(("^", "$", r"\A", r"\z"))

_MEMBERS = ("id", "pattern", "keywords", "action", "description")
_TOP_MEMBERS = ("rules", "skip_placeholders")
_ID_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


@lru_cache(maxsize=1)
def default_rules() -> tuple[Rule, ...]:
    """The rules that come with the gateway."""
    file = resources.files(__package__).joinpath("rules", "secrets.yaml")
    return _parse(file.read_text("utf-8"), "rules/secrets.yaml")


def read_rules(path: Path) -> tuple[Rule, ...]:
    """The rules of an operator's file.  Raises RulesError."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeError) as error:
        raise RulesError(f"cannot read the rules file {str(path)!r}: {type(error).__name__}") from error
    return _parse(text, str(path))


def select(rules: Iterable[Rule], disabled: Iterable[str]) -> tuple[Rule, ...]:
    """The rules without the disabled ones.  Raises RulesError when two have the same id."""
    seen: set[str] = set()
    chosen = []
    without = frozenset(disabled)
    for rule in rules:
        if rule.id in seen:
            raise RulesError(f"two rules have the id {rule.id!r}; give one of them another")
        seen.add(rule.id)
        if rule.id not in without:
            chosen.append(rule)
    return tuple(chosen)


def check_known(names: Iterable[str], known: Iterable[str], option: str) -> None:
    """Raises RulesError for a name that is not known, with the nearest one that is."""
    known = tuple(known)
    for name in names:
        if name not in known:
            raise RulesError(f"{option}: there is no rule {name!r}{_hint(name, known)}")


def check_action(value: object, where: str) -> Action:
    """The value as an action.  Raises RulesError."""
    if value not in get_args(Action):
        raise RulesError(f"{where}: expected redact, block or flag, not {value!r}")
    return cast("Action", value)


def _parse(text: str, source: str) -> tuple[Rule, ...]:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise RulesError(f"{source}{line}: not YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(document, dict) or not isinstance(document.get("rules"), list):
        raise RulesError(f"{source}: expected a mapping with a list 'rules'")
    _check_members(document, _TOP_MEMBERS, source)
    skip = document.get("skip_placeholders", False)
    if not isinstance(skip, bool):
        raise RulesError(f"{source}: skip_placeholders must be true or false")
    return tuple(_rule(entry, f"{source}: rule {index}", skip) for index, entry in enumerate(document["rules"], 1))


def _rule(entry: Any, where: str, skip_placeholders: bool) -> Rule:
    if not isinstance(entry, dict):
        raise RulesError(f"{where}: expected a mapping with id and pattern")
    _check_members(entry, _MEMBERS, where)
    name = entry.get("id")
    if not isinstance(name, str) or not 1 <= len(name) <= 64 or not _ID_CHARS.issuperset(name):
        raise RulesError(f"{where}: id must be 1 to 64 of a-z, 0-9 and -, because it becomes a metric label")
    where = f"{where} ({name})"
    pattern = entry.get("pattern")
    if not isinstance(pattern, str) or not 1 <= len(pattern) <= _MAX_PATTERN_CHARS:
        raise RulesError(f"{where}: pattern must be a text of 1 to {_MAX_PATTERN_CHARS} characters")
    keywords = entry.get("keywords", [])
    if not isinstance(keywords, list) or not all(isinstance(word, str) and len(word) >= 2 for word in keywords):
        raise RulesError(f"{where}: keywords must be a list of texts of two or more characters")
    action = entry.get("action")
    if action is not None:
        check_action(action, f"{where}: action")
    compile_pattern(pattern, where)
    if is_anchored(pattern) and not keywords:
        # It would have to be tried on every string of every message.
        raise RulesError(f"{where}: a pattern with ^, $, \\A or \\z needs keywords")
    return Rule(name, pattern, tuple(keywords), action, skip_placeholders)


def is_anchored(pattern: str) -> bool:
    """Whether the pattern speaks of the edges of the text."""
    return any(part in _ANCHORS for part in _PART.findall(pattern))


def compile_pattern(pattern: str, where: str) -> Any:
    """The pattern as an RE2 program over bytes.  Raises RulesError."""
    options = re2.Options()
    # Otherwise the library writes the pattern to stderr.
    options.log_errors = False
    try:
        program = re2.compile(pattern.encode(), options)
    except re2.error as error:
        text = error.args[0] if error.args else error
        text = text.decode(errors="replace") if isinstance(text, bytes) else text
        raise RulesError(
            f"{where}: not RE2 syntax ({text}); look-around and back-references are not supported"
        ) from error
    if program.programsize > _MAX_PROGRAM:
        raise RulesError(f"{where}: the pattern is too large; make its repetitions smaller")
    if program.search(b"") is not None:
        raise RulesError(f"{where}: the pattern matches the empty text")
    return program


def _check_members(entry: Mapping[Any, Any], known: tuple[str, ...], where: str) -> None:
    for name in entry:
        if name not in known:
            raise RulesError(f"{where}: unknown key {name!r}{_hint(str(name), known)}; known are {', '.join(known)}")


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
