"""Strings of a JSON document and where they are; a document with some of them changed.

Documents are never changed in place: only the containers on the way to a change are copied.  Everything is iterative,
so that depth is bounded by the parser's limit and not by the interpreter's stack.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Edits", "Place", "Text", "pointer", "strings"]

# Member names and indexes from the document's root to a container.
Place = tuple[str | int, ...]

_MAX_POINTER_CHARS = 256


class Text(NamedTuple):
    """One string: the value of ``member`` in the container at ``path``, or with ``is_name`` that member's name."""

    path: Place
    member: str | int
    text: str
    is_name: bool = False

    def with_text(self, text: str) -> Text:
        """The same place with another text."""
        return self._replace(text=text)


def strings(document: Any) -> list[Text]:
    """Every string of the document, names and values."""
    found: list[Text] = []
    stack: list[tuple[Place, Any]] = [((), document)]
    while stack:
        path, node = stack.pop()
        if type(node) is dict:
            found += [Text(path, name, name, True) for name in node]
            members: Any = node.items()
        else:
            members = enumerate(node)
        for member, value in members:
            kind = type(value)
            if kind is str:
                found.append(Text(path, member, value))
            elif kind is dict or kind is list:
                stack.append(((*path, member), value))
    return found


class Edits:
    """Changes of strings, to be applied at once.  A later change of the same place replaces the earlier one."""

    __slots__ = ("_final", "_names", "_values")

    def __init__(self) -> None:
        self._values: dict[Place, str] = {}
        self._names: dict[Place, str] = {}
        self._final: set[Place] = set()

    def __bool__(self) -> bool:
        return bool(self._values or self._names)

    def set(self, text: Text, *, final: bool = False) -> None:
        """Changes the string at a place to the text given; ``final``: nothing else needs to look at it."""
        place = (*text.path, text.member)
        (self._names if text.is_name else self._values)[place] = text.text
        if final:
            self._final.add(place)

    def get(self, text: Text) -> str | None:
        """The string that takes the place of one, if any does."""
        return (self._names if text.is_name else self._values).get((*text.path, text.member))

    def is_final(self, text: Text) -> bool:
        """Whether the value at the place was changed for good."""
        return not text.is_name and (*text.path, text.member) in self._final

    def renamed(self, path: Place) -> Place:
        """The path as it is after the changes, so that a redacted member name does not show in it."""
        if not self._names:
            return path
        return tuple(self._names.get(path[: index + 1], step) for index, step in enumerate(path))

    def apply(self, document: dict[str, Any]) -> dict[str, Any]:
        """A document with the changes; what is not on the way to one is shared with the original."""
        copies: dict[Place, Any] = {(): dict(document)}

        def container(path: Place) -> Any:
            depth = len(path)
            while path[:depth] not in copies:
                depth -= 1
            node = copies[path[:depth]]
            for index in range(depth, len(path)):
                child = node[path[index]]
                child = dict(child) if type(child) is dict else list(child)
                node[path[index]] = child
                node = copies[path[: index + 1]] = child
            return node

        for place, text in self._values.items():
            container(place[:-1])[place[-1]] = text
        renames: dict[Place, dict[str, str]] = {}
        for place, text in self._names.items():
            container(place[:-1])
            renames.setdefault(place[:-1], {})[place[-1]] = text  # type: ignore[index]
        # The containers are the same objects throughout, so their order does not matter.
        for path, names in renames.items():
            node = copies[path]
            entries = list(node.items())
            node.clear()
            taken = {name for name, _ in entries if name not in names}
            numbers: dict[str, int] = {}
            for name, value in entries:
                new = names.get(name, name)
                if name in names:
                    new = _free(new, taken, numbers)
                    taken.add(new)
                node[new] = value
        result: dict[str, Any] = copies[()]
        return result


def _free(name: str, taken: set[str], numbers: dict[str, int]) -> str:
    """The name, with a number where another member has it already: no member may vanish by being renamed.

    ``numbers`` remembers where to go on, for many members may come to the same name.
    """
    if name not in taken:
        return name
    number = numbers.get(name, 2)
    while f"{name}-{number}" in taken:
        number += 1
    numbers[name] = number + 1
    return f"{name}-{number}"


def pointer(path: Place) -> str:
    """RFC 6901, in ASCII and bounded, for records."""
    text = "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)
    text = ascii(text)[1:-1]
    return text if len(text) <= _MAX_POINTER_CHARS else text[: _MAX_POINTER_CHARS - 3] + "..."
