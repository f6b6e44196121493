"""Configuration files: a Config that can be explained, or ConfigErrors that name a place."""

from __future__ import annotations

import copy
import functools
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from gateway.config import Config, ConfigErrors, explain, load
from gateway.guard.loading import HookConfigError, build

from .damage import damaged
from .target import Target

__all__ = ["Configurations"]

_FOLDER = Path(__file__).resolve().parents[2] / "config"
_ENVIRON = {"HOME": "/", "WEATHER_TOKEN": "t0ken", "EMPTY": ""}
_TOKENS = (
    b":", b": ", b"- ", b"\n", b"\n  ", b"\t", b"[", b"]", b"{", b"}", b"'", b'"', b"&a", b"*a", b"<<: *a",
    b"!!python/name:os", b"!!binary", b"---\n", b"...", b"? ", b"|", b">", b"#", b"%YAML 1.1\n", b"null", b"~", b"yes",
    b"on", b"1e3", b"0x10", b"1_0", b"12:30:45", b"2001-01-01", b".inf", b".nan", b"${", b"${HOME}", b"${NONE}",
    b"${NONE:-x}", b"$${", b"file:", b"file:/", b"upstreams:", b"clients:", b"policies:", b"hooks:", b"limits:",
    b"listen:", b"port:", b"64KiB", b"5s", b"-1",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 65536, 10**30, 1.5, float("inf"), float("nan"), "", " ", "x", "*", "**", "[",
    "get_[a-", "é", "\0", "5s", "0s", "1e9h", "-5s", "64KiB", "99999999999TiB", "1.5MiB", "http://x/mcp",
    "http://u:p@x/", "ftp://x", "http://", "http://[::1", "http://x:99999/", "2025-11-25", "2999-01-01",
    "2026-01-01T00:00:00Z", "a" * 64, "0" * 63, "file:none", "${HOME}", "${X:-${Y}}", "policy", "sanitize",
    "injection", "arguments", "pins", "nobody:Nothing", "json:JSONDecoder", [], [[]], {}, {"a": {}}, ["*"], [None],
    {"kind": "policy"}, {"kind": "sanitize", "options": {"members": ["pin"]}},
    {"kind": "arguments", "options": {"rules": [{"tools": ["*"], "conditions": ["size(arguments) > 1"]}]}},
    {"kind": "sanitize", "options": {"rules_files": ["none.yaml"]}}, {"sha256": "a" * 64, "expires": "never"},
)  # fmt: skip


@functools.cache
def _seeds() -> tuple[bytes, ...]:
    return tuple(file.read_bytes() for file in [_FOLDER / "gateway.yaml", *sorted(_FOLDER.rglob("*.yaml"))])


@functools.cache
def _keys() -> tuple[str, ...]:
    """Every key of the model, which is what a key of a file may be mistaken for."""
    schema = Config.model_json_schema()
    found = set(schema["properties"])
    for section in schema["$defs"].values():
        found.update(section.get("properties", ()))
    return tuple(sorted(found))


class Configurations(Target):
    """``load``, with the checks that the command line adds."""

    name = "config"
    invariant = (
        "a configuration file gives a Config that can be explained, or ConfigErrors with the file's name, and no other"
    )

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name) / "gateway.yaml"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def make(self, source: random.Random) -> bytes:
        seed = source.choice(_seeds())
        if source.random() < 0.35:
            return damaged(seed, source, _TOKENS)
        document = yaml.safe_load(seed)
        for _ in range(source.choice((1, 1, 2, 3, 6))):
            document = _changed(document, source)
        data = yaml.safe_dump(document, allow_unicode=True, sort_keys=False).encode("utf-8", "surrogatepass")
        return damaged(data, source, _TOKENS) if source.random() < 0.1 else data

    def check(self, data: bytes) -> None:
        self._file.write_bytes(data)
        try:
            config = load(self._file, _ENVIRON, checks=(_hook_mistakes,))
        except ConfigErrors as errors:
            self.counts["errors"] += 1
            assert errors.problems, "errors without one"
            assert all(problem.file == str(self._file) and problem.message for problem in errors.problems)
            return
        self.counts["accepted"] += 1
        assert isinstance(config, Config)
        assert all(isinstance(line, str) for line in (*explain(config), *config.warnings))


def _hook_mistakes(config: Config) -> Iterator[tuple[str, str]]:
    for upstream in config.upstreams:
        try:
            build(config.hooks, upstream)
        except HookConfigError as error:
            yield error.key, error.message


def _value(source: random.Random) -> Any:
    # A copy: it may be changed in its place before the document is written.
    return copy.deepcopy(source.choice(_VALUES))


def _changed(document: Any, source: random.Random) -> Any:
    """The document with one place in it left out, replaced, renamed or filled in."""
    places: list[tuple[Any, Any]] = []
    level = [document]
    while level:
        node = level.pop()
        inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in inside:
            places.append((node, key))
            level.append(value)
    if not places:
        return _value(source)
    node, key = source.choice(places)
    match source.randrange(5):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[source.choice((*_keys(), *_VALUES[:14], key.upper() if isinstance(key, str) else 1))] = node.pop(key)
        case 2 if isinstance(node, dict):
            node[source.choice(_keys())] = _value(source)
        case 3:
            other, place = source.choice(places)
            if place in other if isinstance(other, dict) else place < len(other):
                node[key] = yaml.safe_load(yaml.safe_dump(other[place]))
        case _:
            node[key] = _value(source)
    return document
