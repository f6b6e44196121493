"""What the hook ``arguments`` may be told, checked; and places in arguments, by which its rules name members."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

import re2  # type: ignore[import-untyped]
from pydantic import AfterValidator, Field, ValidationError, model_validator

from ..config import Section
from .conditions import Condition
from .glob import GlobError, Globs

__all__ = ["Egress", "Member", "Mode", "Options", "Rule", "compile_deny", "compile_require", "read_options"]

Mode = Literal["off", "flag", "block"]

_MAX_PATTERN_CHARS = 2_000
# RE2 counts instructions; ``[a-z]{1,1000}`` has about 2,000.
_MAX_PROGRAM = 20_000


class Member:
    """A place in arguments: ``url`` is a direct member, ``/request/urls/*`` a JSON pointer (RFC 6901).

    In a pointer, ``*`` stands for every member or item.
    """

    __slots__ = ("steps", "text")

    def __init__(self, text: str) -> None:
        if not text or text == "/":
            raise ValueError("expected a member's name, or a JSON pointer such as /request/url")
        self.text = text
        self.steps: tuple[str, ...] = (text,)
        if text.startswith("/"):
            self.steps = tuple(step.replace("~1", "/").replace("~0", "~") for step in text[1:].split("/"))

    def find(self, arguments: Any) -> Iterator[Any]:
        """What stands there; nothing where there is no such place.

        A member whose name is the same but for case counts as well, because servers in some languages bind it.
        """
        found = [arguments]
        for step in self.steps:
            below: list[Any] = []
            folded = step.casefold()
            for node in found:
                kind = type(node)
                if kind is dict:
                    below += (
                        node.values()
                        if step == "*" and self.text.startswith("/")
                        else [entry for name, entry in node.items() if name == step or name.casefold() == folded]
                    )
                elif kind is list:
                    if step == "*":
                        below += node
                    elif step.isascii() and step.isdigit() and len(step) < 8 and int(step) < len(node):
                        below.append(node[int(step)])
            found = below
        yield from found

    def leaves(self, arguments: Any, *, names: bool = False) -> Iterator[Any]:
        """What stands there and below, without containers and nulls; ``names``: and the names of members below."""
        return _leaves(self.find(arguments), names)


def _leaves(found: Iterable[Any], names: bool) -> Iterator[Any]:
    stack = list(found)
    while stack:
        node = stack.pop()
        kind = type(node)
        if kind is dict:
            if names:
                yield from node
            stack.extend(node.values())
        elif kind is list:
            stack.extend(node)
        elif node is not None:
            yield node


def _globs(patterns: tuple[str, ...]) -> tuple[str, ...]:
    try:
        Globs(patterns)
    except GlobError as error:
        raise ValueError(str(error)) from error
    return patterns


def _member(text: str) -> str:
    Member(text)
    return text


def _host(text: str) -> str:
    if not text or "*" in text or "?" in text:
        raise ValueError("expected a host, written out")
    return text


def _compile(pattern: str, *, whole: bool) -> Any:
    options = re2.Options()
    options.log_errors = False
    # A pattern that must not match is not evaded by a line feed; one that must match covers lines only if it says so.
    options.dot_nl = not whole
    if not 1 <= len(pattern) <= _MAX_PATTERN_CHARS:
        raise ValueError(f"expected a pattern of 1 to {_MAX_PATTERN_CHARS} characters")
    try:
        # On its own first: with text around it, a stray parenthesis could balance.
        re2.compile(pattern, options)
        program = re2.compile(rf"\A(?:{pattern})\z" if whole else pattern, options)
    except re2.error as error:
        text = error.args[0] if error.args else error
        text = text.decode(errors="replace") if isinstance(text, bytes) else text
        raise ValueError(f"not RE2 syntax ({text}); look-around and back-references are not supported") from error
    if program.programsize > _MAX_PROGRAM:
        raise ValueError("the pattern is too large; make its repetitions smaller")
    return program


def compile_deny(pattern: str) -> Any:
    """The pattern, to be searched for anywhere in a text.  Raises ValueError."""
    return _compile(pattern, whole=False)


def compile_require(pattern: str) -> Any:
    """The pattern, to be matched by a whole text.  Raises ValueError."""
    return _compile(pattern, whole=True)


def _deny(pattern: str) -> str:
    compile_deny(pattern)
    return pattern


def _require(pattern: str) -> str:
    compile_require(pattern)
    return pattern


def _condition(source: str) -> str:
    Condition(source)
    return source


Patterns = Annotated[tuple[str, ...], AfterValidator(_globs)]
Place = Annotated[str, AfterValidator(_member)]


class Egress(Section):
    """``egress`` of a rule."""

    members: tuple[Place, ...] = Field(min_length=1)
    schemes: tuple[Literal["http", "https"], ...] = Field(default=("https", "http"), min_length=1)
    allow: Patterns = Field(default=("*",), min_length=1)
    deny: Patterns = ()
    private: tuple[Annotated[str, AfterValidator(_host)], ...] = ()


class Rule(Section):
    """One of ``rules``."""

    tools: Patterns = Field(min_length=1)
    upstreams: Patterns = Field(default=("*",), min_length=1)
    clients: Patterns = Field(default=("*",), min_length=1)
    egress: Egress | None = None
    deny_patterns: dict[Place, Annotated[str, AfterValidator(_deny)]] = Field(default={})
    require_patterns: dict[Place, Annotated[str, AfterValidator(_require)]] = Field(default={})
    when: Annotated[str, AfterValidator(_condition)] | None = None
    secrets: Mode | None = None
    reason: str | None = Field(default=None, min_length=1, max_length=500)

    @model_validator(mode="after")
    def _checks_something(self) -> Rule:
        if not (self.egress or self.deny_patterns or self.require_patterns or self.when or self.secrets):
            raise ValueError("a rule needs egress, deny_patterns, require_patterns, when or secrets")
        return self


class ServerRequests(Section):
    """``server_requests``."""

    elicitation_hosts: Patterns = ("*",)
    secret_forms: Mode = Field(default="block")


class Options(Section):
    """All options of the hook.  ``schema`` is a method of every pydantic model, hence the other name."""

    input_schema: Mode = Field(default="block", alias="schema")
    output_schema: Mode = "flag"
    secrets: Mode = "block"
    rules_files: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    server_requests: ServerRequests = ServerRequests()


def read_options(options: dict[str, Any]) -> Options:
    """The options, checked.  Raises ValueError with the path of everything that is wrong."""
    try:
        return Options.model_validate(options)
    except ValidationError as error:
        raise ValueError("; ".join(_problem(detail) for detail in error.errors(include_url=False))) from error


_SECTIONS: dict[str, type[Section]] = {"egress": Egress, "rules": Rule, "server_requests": ServerRequests}


def _problem(detail: Any) -> str:
    path = [str(step) for step in detail["loc"]]
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        names = [step for step in path[:-1] if step in _SECTIONS]
        section: type[Section] = _SECTIONS[names[-1]] if names else Options
        known = [field.alias or name for name, field in section.model_fields.items()]
        near = difflib.get_close_matches(path[-1], known, n=1)
        message = "unknown option" + (f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}")
    return f"{'.'.join(path)}: {message}" if path else message
