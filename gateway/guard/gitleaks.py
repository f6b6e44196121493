"""Rules files of gitleaks (TOML), as far as they speak of text.

Taken: ``id``, ``regex``, ``keywords``, ``entropy``, ``secretGroup`` and ``allowlist``/``allowlists`` with ``regexes``,
``regexTarget``, ``stopwords`` and ``condition``, of rules and of the file.  What speaks of files and commits says
nothing about a message: rules with nothing but a ``path`` are left out, and paths and commits allow nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any, cast, get_args

from .ruleset import Allowance, Rule, RulesError, Target, check_members, check_name, check_pattern, compile_pattern

__all__ = ["parse_gitleaks"]

_TOP_MEMBERS = ("title", "description", "minVersion", "rules", "allowlist", "allowlists", "extend")
_MEMBERS = (
    "id", "description", "regex", "path", "keywords", "entropy", "secretGroup", "allowlist", "allowlists", "tags",
    "skipReport", "required",
)  # fmt: skip
_ALLOWANCE_MEMBERS = (
    "description", "id", "regexes", "regexTarget", "stopwords", "paths", "commits", "condition", "targetRules",
)  # fmt: skip


def parse_gitleaks(text: str, source: str) -> tuple[Rule, ...]:
    """The rules of a file.  Raises RulesError, which names the file, the rule and what is wrong."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RulesError(f"{source}: not TOML: {error}") from error
    check_members(document, _TOP_MEMBERS, source)
    if "extend" in document:
        raise RulesError(f"{source}: extend: other files are not read; list each file in rules_files")
    entries = document.get("rules")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise RulesError(f"{source}: expected rules, each in a table [[rules]]")
    everywhere = _allowances(document, source)
    rules = (_rule(entry, f"{source}: rule {index}", everywhere) for index, entry in enumerate(entries, 1))
    return tuple(rule for rule in rules if rule is not None)


def _rule(entry: dict[str, Any], where: str, everywhere: list[tuple[Allowance, tuple[str, ...]]]) -> Rule | None:
    check_members(entry, _MEMBERS, where)
    name = check_name(entry.get("id"), where)
    where = f"{where} ({name})"
    if "required" in entry:
        raise RulesError(f"{where}: required: rules that need other rules nearby are not supported")
    if ("regex" not in entry and "path" in entry) or entry.get("skipReport") is True:
        return None
    keywords = _texts(entry, "keywords", where)
    if any(len(word) < 2 for word in keywords):
        raise RulesError(f"{where}: keywords must have two or more characters")
    pattern = check_pattern(entry.get("regex"), f"{where}: regex", not keywords)
    entropy = entry.get("entropy", 0)
    if type(entropy) not in (int, float) or not 0 <= entropy <= 8:
        raise RulesError(f"{where}: entropy must be a number from 0 to 8")
    group = entry.get("secretGroup", 0)
    groups = compile_pattern(pattern, where).groups
    if type(group) is not int or not 0 <= group <= groups:
        raise RulesError(f"{where}: secretGroup must be one of the {groups} groups of the regex")
    own = [allowance for allowance, _ in _allowances(entry, where)]
    own += [allowance for allowance, ids in everywhere if not ids or name in ids]
    return Rule(
        name, pattern, keywords, entropy=float(entropy), group=group or None, allowed=tuple(own), whole_if_empty=True
    )


def _allowances(table: Mapping[str, Any], where: str) -> list[tuple[Allowance, tuple[str, ...]]]:
    """What a rule or the file allows, and the rules that it is for; none: all."""
    several = table.get("allowlists", [])
    entries = [*several, table["allowlist"]] if isinstance(several, list) and "allowlist" in table else several
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise RulesError(f"{where}: allowlist must be a table, and allowlists tables")
    found = []
    for number, entry in enumerate(entries, 1):
        at = f"{where}: allowlist {number}"
        check_members(entry, _ALLOWANCE_MEMBERS, at)
        patterns = _texts(entry, "regexes", at)
        for pattern in patterns:
            check_pattern(pattern, f"{at}: regexes", matches_empty=True)
        target = entry.get("regexTarget") or "secret"
        if target not in get_args(Target):
            raise RulesError(f"{at}: regexTarget: expected secret, match or line, not {target!r}")
        condition = entry.get("condition", "OR")
        if not isinstance(condition, str) or condition.upper() not in ("OR", "||", "AND", "&&"):
            raise RulesError(f"{at}: condition: expected OR or AND, not {condition!r}")
        both = condition.upper() in ("AND", "&&")
        if both and ("paths" in entry or "commits" in entry):
            # It needs a file or a commit, and there is none.
            continue
        words = tuple(word.lower() for word in _texts(entry, "stopwords", at) if word)
        if patterns or words:
            allowance = Allowance(patterns, words, cast("Target", target), both)
            found.append((allowance, _texts(entry, "targetRules", at)))
    return found


def _texts(table: Mapping[str, Any], member: str, where: str) -> tuple[str, ...]:
    value = table.get(member, [])
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise RulesError(f"{where}: {member} must be a list of texts")
    return tuple(value)
