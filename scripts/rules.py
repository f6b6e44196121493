"""Where each rule of docs/protocol.md is kept: finds who refers to it, and writes the table at the document's end.

    python -m scripts.rules [--check]

Code that enforces a rule says so in a docstring or comment ("rule 2.13", "rules 6.2, 6.5-6.10"), and so does a test
that shows it: in its docstring, in a comment within it, or in one right above it.  A rule that no test shows has its
reason in docs/rules.yaml.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parent.parent
DOCUMENT = PROJECT / "docs" / "protocol.md"
REASONS = PROJECT / "docs" / "rules.yaml"

TITLE = "## Where each rule is kept"

Rule = tuple[int, int]

# A row of a table or an item of a list.
_RULE = re.compile(r"^(?:\|\s*|- )(\d+)\.(\d+)(?:\s*\||\.? )", re.MULTILINE)
# Citations may be broken over lines, in comments too.
_GAP = r"(?:\s|#)+"
_NUMBER = r"\d+\.\d+"
_LINK = rf"(?:\s?-\s?|{_GAP}to{_GAP}|,{_GAP}and{_GAP}|,{_GAP}|{_GAP}and{_GAP}|{_GAP}or{_GAP})"
_CITATION = re.compile(rf"\b[Rr]ules?{_GAP}({_NUMBER}(?:{_LINK}{_NUMBER})*)(?![\d.]*\d)")
_PART = re.compile(rf"({_NUMBER})(?:(?:\s?-\s?|{_GAP}to{_GAP})({_NUMBER}))?")


@dataclass
class Kept:
    """Where one rule is enforced (modules) and shown (test functions by file); or why it is not shown."""

    modules: list[str] = field(default_factory=list)
    tests: dict[str, list[str]] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True)
class Citation:
    """A mention of rules: in ``file`` at ``line``, within the test function ``test`` if it is in one."""

    file: str
    line: int
    rules: tuple[Rule, ...]
    test: str | None = None


class Wrong(Exception):
    """Something that does not add up; one line for each."""


def rules(text: str) -> list[Rule]:
    """The numbers of all rules of the document, in its order; raises Wrong for one that stands twice."""
    found = [(int(section), int(number)) for section, number in _RULE.findall(text.partition(TITLE)[0])]
    twice = {rule for rule in found if found.count(rule) > 1}
    if twice:
        raise Wrong("rules that stand twice: " + ", ".join(map(name, sorted(twice))))
    return found


def name(rule: Rule) -> str:
    """A rule as it is written."""
    return f"{rule[0]}.{rule[1]}"


def cited(text: str) -> Iterator[tuple[int, tuple[Rule, ...]]]:
    """Each citation in a text: the line within it, from 0, and the rules, ranges spelled out."""
    for match in _CITATION.finditer(text):
        yield text.count("\n", 0, match.start()), tuple(_spelled(match[1]))


def _spelled(numbers: str) -> Iterator[Rule]:
    for first, last in _PART.findall(numbers):
        section, low = map(int, first.split("."))
        until, high = map(int, last.split(".")) if last else (section, low)
        if until != section or high < low:
            raise Wrong(f"{first} to {last} is no range")
        yield from ((section, each) for each in range(low, high + 1))


def citations(file: Path) -> Iterator[Citation]:
    """All citations of a Python file: in comments and docstrings, not in other strings."""
    source = file.read_text(encoding="utf-8")
    shown = file.relative_to(PROJECT).as_posix()
    tree = ast.parse(source)
    functions = sorted(_tests(tree, source.splitlines()))
    for start, text in _prose(source, tree):
        for offset, found in cited(text):
            line = start + offset
            test = next((test for first, last, test in functions if first <= line <= last), None)
            yield Citation(shown, line, found, test)


def _tests(tree: ast.Module, lines: list[str]) -> Iterator[tuple[int, int, str]]:
    """Each test function: its first line (of decorators, and of comments right above) and last, and its name."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test_"):
            continue
        first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        while first > 1 and lines[first - 2].lstrip().startswith("#"):
            first -= 1
        yield first, node.end_lineno or node.lineno, node.name


def _prose(source: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Docstrings, and comments in blocks of adjoining lines, each with its first line."""
    for node in ast.walk(tree):
        # A string that stands alone is a docstring, or as good as one.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value
    start, last, block = 0, -1, ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if token.start[0] != last + 1:
            yield start, block
            start, block = token.start[0], ""
        last = token.start[0]
        block += token.string + "\n"
    yield start, block


def reasons(text: str) -> dict[Rule, str]:
    """Why rules are not shown, from a document such as ``"8.2-8.8": not yet``; raises Wrong for one that is no rule."""
    found: dict[Rule, str] = {}
    for numbers, reason in (yaml.safe_load(text) or {}).items():
        if not isinstance(numbers, str) or not isinstance(reason, str) or not re.fullmatch(r"[\d.,\s-]+", numbers):
            raise Wrong(f'{numbers!r}: write rules in quotation marks, such as "8.2-8.8, 8.10", and a reason')
        for rule in _spelled(numbers):
            if rule in found:
                raise Wrong(f"rule {name(rule)} has two reasons")
            found[rule] = " ".join(reason.split())
    return found


def files(*folders: str) -> Iterable[Path]:
    """The Python files below folders of the project, in order."""
    return (path for folder in folders for path in sorted((PROJECT / folder).rglob("*.py")))


def kept() -> dict[Rule, Kept]:
    """Everything that is known of each rule; raises Wrong for a citation or reason that names none."""
    known = {rule: Kept() for rule in rules(DOCUMENT.read_text(encoding="utf-8"))}
    unknown = []
    for path in files("gateway", "tests"):
        for citation in citations(path):
            for rule in citation.rules:
                if rule not in known:
                    unknown.append(f"{citation.file}:{citation.line}: there is no rule {name(rule)}")
                elif citation.test is not None:
                    tests = known[rule].tests.setdefault(citation.file, [])
                    tests.extend({citation.test}.difference(tests))
                elif citation.file.startswith("gateway/") and not citation.file.startswith("gateway/harness/"):
                    known[rule].modules.extend({citation.file}.difference(known[rule].modules))
    for rule, reason in reasons(REASONS.read_text(encoding="utf-8")).items():
        if rule in known:
            known[rule].reason = reason
        else:
            unknown.append(f"{REASONS.name}: there is no rule {name(rule)}")
    if unknown:
        raise Wrong("\n".join(unknown))
    return known


def contradictions(known: dict[Rule, Kept]) -> list[str]:
    """What the proof lacks: rules with neither test nor reason, and reasons that a test has overtaken."""
    return [
        f"rule {name(rule)} has " + ("neither a test nor a reason" if each.reason is None else "a test and a reason")
        for rule, each in known.items()
        if bool(each.tests) == (each.reason is not None)
    ]


def table(known: dict[Rule, Kept]) -> str:
    """The section of the document, made anew."""
    shown = sum(bool(each.tests) for each in known.values())
    lines = [
        TITLE,
        "",
        "Made by `python -m scripts.rules` from what code and tests say of themselves, and from `docs/rules.yaml`.",
        f"{len(known)} rules: {shown} are shown by tests, {len(known) - shown} have a reason why not.",
        "",
        "| # | Kept in `gateway/` | Shown in `tests/`, or why not |",
        "|---|---|---|",
    ]
    for rule, each in known.items():
        modules = ", ".join(module.removeprefix("gateway/") for module in each.modules)
        tests = "; ".join(f"{file.removeprefix('tests/')}: {', '.join(names)}" for file, names in each.tests.items())
        lines.append(f"| {name(rule)} | {modules} | {tests or (each.reason or '').replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def written(document: str) -> str:
    """The document with its table as it should be; raises Wrong for what does not add up."""
    known = kept()
    problems = contradictions(known)
    if problems:
        raise Wrong("\n".join(problems))
    return document.partition(TITLE)[0].rstrip("\n") + "\n\n" + table(known)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.rules", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail where the table is not up to date")
    check = parser.parse_args(arguments).check
    document = DOCUMENT.read_text(encoding="utf-8")
    try:
        new = written(document)
    except Wrong as problem:
        print(problem, file=sys.stderr)
        return 1
    if check and new != document:
        print("docs/protocol.md is not up to date: run python -m scripts.rules", file=sys.stderr)
        return 1
    if not check:
        DOCUMENT.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
