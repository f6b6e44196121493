"""Detection rules: what a rules file may say, and reading it."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast, get_args

import re2  # type: ignore[import-untyped]
import yaml

from .checks import CHECKS
from .normalise import NORMALISERS, Normaliser

__all__ = [
    "Action", "Allowance", "Rule", "RulesError", "Target", "after_escapes", "check_action", "check_known",
    "check_members", "check_name", "check_pattern", "compile_pattern", "default_rules", "is_anchored",
    "is_of_octets", "optional_rules", "read_rules", "select",
]  # fmt: skip

Action = Literal["redact", "block", "flag"]
Target = Literal["secret", "match", "line"]

# Bounds on what one pattern may cost: RE2 counts instructions; the largest rule that comes with the gateway has 7,800.
_MAX_PROGRAM = 20_000
_MAX_PATTERN_CHARS = 2_000


class RulesError(ValueError):
    """A rules file or an option about rules that cannot be used.  The text says where, why, and what was expected."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """Matches of a rule that are honest.

    ``patterns``  RE2 syntax, searched in the ``target``: the secret, the whole match, or the lines that it is on
    ``words``     in lower case; a secret that has one of them in it, in any case, is honest
    ``both``      whether a pattern and a word are needed, where there are both
    """

    patterns: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    target: Target = "secret"
    both: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of text that must not pass unseen.

    ``id``       what placeholders, findings and metrics call it
    ``pattern``  RE2 syntax; with capturing groups, the first that takes part is what is redacted
    ``keywords`` texts without which the pattern cannot match, in any case; empty: the pattern is its own prefilter
    ``prefilter`` RE2 syntax, searched in the first pass instead of the keywords: rarer than they are, and found
                 wherever the pattern is
    ``action``   what to do with a match; None: the default of whoever uses the rule
    ``skip_placeholders`` whether a match that is plainly a stand-in (``ghp_xxxx``) is let through
    ``normalise`` disguises under which the rule looks too
    ``check``    a name of ``checks.CHECKS``: what its digits have to fulfil
    ``entropy``  bits per character that a secret must exceed; 0: any will do
    ``group``    the capturing group that is the secret; None: see ``pattern``
    ``allowed``  which matches are honest
    ``whole_if_empty`` whether the whole match is the secret where no group took part; otherwise there is none
    """

    id: str
    pattern: str
    keywords: tuple[str, ...] = ()
    action: Action | None = None
    skip_placeholders: bool = False
    prefilter: str | None = None
    normalise: frozenset[Normaliser] = frozenset()
    check: str | None = None
    entropy: float = 0.0
    group: int | None = None
    allowed: tuple[Allowance, ...] = ()
    whole_if_empty: bool = False


# What a pattern is made of, as far as it takes to tell an anchor from a class or an escape that looks like one.
_PART = re.compile(r"\\Q.*?(?:\\E|\Z)|\\.|\[\^?\]?(?:\\.|\[:\^?[a-z]+:\]|[^\]\\])*\]|.", re.DOTALL)
_BOUNDARY = r"(?:\b|%[0-9A-Fa-f]{2}|\\[bfnrt]|\\u[0-9A-Fa-f]{4}|\x1b\[[0-9;]{0,16}m)"
_ANCHORS = frozenset(("^", "$", r"\A", r"\z"))

_MEMBERS = ("id", "pattern", "keywords", "prefilter", "action", "check", "entropy", "normalise", "description")
_TOP_MEMBERS = ("rules", "skip_placeholders", "normalise")
_ID_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


@lru_cache(maxsize=1)
def default_rules() -> tuple[Rule, ...]:
    """The rules that come with the gateway and are always used."""
    return _own("secrets.yaml")


@lru_cache(maxsize=1)
def optional_rules() -> tuple[Rule, ...]:
    """The rules that come with the gateway and have to be asked for: cards, accounts, addresses, numbers of people."""
    return _own("personal.yaml")


def _own(name: str) -> tuple[Rule, ...]:
    file = resources.files(__package__).joinpath("rules", name)
    return _parse(file.read_text("utf-8"), f"rules/{name}")


def read_rules(path: Path) -> tuple[Rule, ...]:
    """The rules of an operator's file: ours in YAML, or those of gitleaks in TOML.  Raises RulesError."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeError) as error:
        raise RulesError(f"cannot read the rules file {str(path)!r}: {type(error).__name__}") from error
    if path.suffix == ".toml":
        # It needs what is here.
        from .gitleaks import parse_gitleaks

        return parse_gitleaks(text, str(path))
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
    check_members(document, _TOP_MEMBERS, source)
    skip = document.get("skip_placeholders", False)
    if not isinstance(skip, bool):
        raise RulesError(f"{source}: skip_placeholders must be true or false")
    normalise = _normalisers(document.get("normalise", []), f"{source}: normalise")
    return tuple(
        _rule(entry, f"{source}: rule {index}", skip, normalise) for index, entry in enumerate(document["rules"], 1)
    )


def _normalisers(value: Any, where: str) -> frozenset[Normaliser]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise RulesError(f"{where}: expected a list of {', '.join(sorted(NORMALISERS))}")
    for name in value:
        if name not in NORMALISERS:
            raise RulesError(f"{where}: unknown {name!r}{_hint(name, NORMALISERS)}; known are {sorted(NORMALISERS)}")
    return frozenset(value)


def check_name(name: Any, where: str) -> str:
    """The value as a rule's id.  Raises RulesError."""
    if not isinstance(name, str) or not 1 <= len(name) <= 64 or not _ID_CHARS.issuperset(name):
        raise RulesError(f"{where}: id must be 1 to 64 of a-z, 0-9 and -, because it becomes a metric label")
    return name


def check_pattern(pattern: Any, where: str, needs_keywords: bool = False, matches_empty: bool = False) -> str:
    """The value as a pattern; ``needs_keywords``: it has none.  Raises RulesError."""
    if not isinstance(pattern, str) or not 1 <= len(pattern) <= _MAX_PATTERN_CHARS:
        raise RulesError(f"{where} must be a text of 1 to {_MAX_PATTERN_CHARS} characters")
    compile_pattern(pattern, where, matches_empty)
    if needs_keywords and is_anchored(pattern):
        # It would have to be tried on every string of every message.
        raise RulesError(f"{where} with ^, $, \\A or \\z needs keywords")
    return pattern


def _rule(entry: Any, where: str, skip_placeholders: bool, normalise: frozenset[Normaliser]) -> Rule:
    if not isinstance(entry, dict):
        raise RulesError(f"{where}: expected a mapping with id and pattern")
    check_members(entry, _MEMBERS, where)
    name = check_name(entry.get("id"), where)
    where = f"{where} ({name})"
    keywords = entry.get("keywords", [])
    if not isinstance(keywords, list) or not all(isinstance(word, str) and len(word) >= 2 for word in keywords):
        raise RulesError(f"{where}: keywords must be a list of texts of two or more characters")
    pattern = check_pattern(entry.get("pattern"), f"{where}: pattern", not keywords)
    prefilter = entry.get("prefilter")
    if prefilter is not None:
        check_pattern(prefilter, f"{where}: prefilter", True)
    action = entry.get("action")
    if action is not None:
        check_action(action, f"{where}: action")
    check = entry.get("check")
    if check is not None and check not in CHECKS:
        raise RulesError(f"{where}: check: expected one of {', '.join(CHECKS)}, not {check!r}")
    entropy = entry.get("entropy", 0)
    if type(entropy) not in (int, float) or not 0 <= entropy <= 8:
        raise RulesError(f"{where}: entropy must be a number from 0 to 8")
    if "normalise" in entry:
        normalise = _normalisers(entry["normalise"], f"{where}: normalise")
    return Rule(name, pattern, tuple(keywords), action, skip_placeholders, prefilter, normalise, check, float(entropy))


def is_anchored(pattern: str) -> bool:
    """Whether the pattern speaks of the edges of the text."""
    return any(part in _ANCHORS for part in _PART.findall(pattern))


def after_escapes(pattern: str) -> str:
    """The pattern, if it begins at a word's boundary, so that it also begins after an escape: ``\\nAKIA``, ``%20AKIA``.

    The letters of an escape are none of the word's.  What is redacted stays the same.
    """
    start = next((start for start in (r"\b", r"(?i)\b") if pattern.startswith(start)), "")
    depth = 0
    for part in _PART.findall(pattern):
        depth += (part == "(") - (part == ")")
        if part == "|" and not depth:
            # Only the first alternative begins so.
            return pattern
    if not start:
        return pattern
    rest = pattern.removeprefix(start)
    has_groups = re2.compile(rest.encode()).groups > 0
    return start.replace(r"\b", _BOUNDARY) + (rest if has_groups else f"({rest})")


def is_of_octets(pattern: str) -> bool:
    """Whether the pattern means the same for octets as for characters: where any character may be, any number may."""
    parts = [*_PART.findall(pattern), ""]
    for part, following in itertools.pairwise(parts):
        if part[:2] in ("\\p", "\\P", "\\C", "\\x", "\\Q") or (
            part.startswith("[") and re.search(r"\\[pPWDSx]|\[:\^", part)
        ):
            return False
        if (part == "." or part[:2] in ("[^", "\\W", "\\D", "\\S")) and following not in ("*", "+"):
            return False
    return True


def compile_pattern(pattern: str, where: str, matches_empty: bool = False) -> Any:
    """The pattern as an RE2 program over bytes; ``matches_empty``: it may match nothing.  Raises RulesError."""
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
    if not matches_empty and program.search(b"") is not None:
        raise RulesError(f"{where}: the pattern matches the empty text")
    return program


def check_members(entry: Mapping[Any, Any], known: tuple[str, ...], where: str) -> None:
    """Raises RulesError for a member that is not known, with the nearest one that is."""
    for name in entry:
        if name not in known:
            raise RulesError(f"{where}: unknown key {name!r}{_hint(str(name), known)}; known are {', '.join(known)}")


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
