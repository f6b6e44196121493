"""What a Reader reports of a message that has not arrived yet, and the places in the envelope that it looks at."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

from .envelope import Envelope, classify

__all__ = ["ENVELOPE", "RESULT", "EnvelopeField", "Event", "Known", "Mark", "Member", "Place", "Scalar", "StringWindow"]


class Mark(enum.Enum):
    """What stands for a value that is not there to be shown."""

    UNKNOWN = "unknown"  # has not been seen, and may still come: members come in any order
    ABSENT = "absent"  # the document has ended without it
    OBJECT = "object"
    ARRAY = "array"
    OVERLONG = "overlong"  # a string of more than ``window`` bytes; its text came in windows
    BEGUN = "begun"  # its value begins now


Scalar = str | int | float | bool | None


class EnvelopeField(NamedTuple):
    """A member that says what the message is.  Reported once, when its value is complete.

    ``path``   ``jsonrpc``, ``id``, ``method``, ``params.name``, ``params.uri``, ``params._meta.progressToken``; and
               ``result`` and ``error``, which are reported when their value begins
    ``value``  a scalar, or Mark.OBJECT, ARRAY, OVERLONG, or (``result`` and ``error``) BEGUN
    """

    path: str
    value: Scalar | Mark


class StringWindow(NamedTuple):
    """A part of a string value, decoded: UTF-8 without escapes.

    ``pointer``  which string, as a JSON pointer (RFC 6901); a name of more than 1 KiB is cut there
    ``text``     whole characters; all parts but the last are as long as ``window`` allows, wherever chunks ended
    ``final``    whether the string ends with it
    """

    pointer: str
    text: bytes
    final: bool


class Member(NamedTuple):
    """A member of ``result`` that was asked for, from the ``start`` of its name to the ``end`` of its value and of the
    white space behind it, in bytes of the document."""

    name: str
    start: int
    end: int


Event = EnvelopeField | StringWindow | Member


class Place:
    """Where a value stands.

    ``path``      such as ``params.name``
    ``members``   the places in it, by name, where it is an object and they matter
    ``reported``  there is an EnvelopeField when the value is complete
    ``begins``    there is one as soon as it begins
    ``keeps``     a string that stands there is wanted; of others it is enough to know that it is one
    """

    __slots__ = ("begins", "keeps", "members", "path", "reported")

    def __init__(
        self,
        path: str,
        members: dict[bytes, Place] | None = None,
        *,
        reported: bool = False,
        begins: bool = False,
        keeps: bool = False,
    ) -> None:
        self.path = path
        self.members = members
        self.reported = reported
        self.begins = begins
        self.keeps = keeps


ENVELOPE = Place(
    "",
    {
        b"jsonrpc": Place("jsonrpc", reported=True, keeps=True),
        b"id": Place("id", reported=True, keeps=True),
        b"method": Place("method", reported=True, keeps=True),
        b"params": Place(
            "params",
            {
                b"name": Place("params.name", reported=True, keeps=True),
                b"uri": Place("params.uri", reported=True, keeps=True),
                b"_meta": Place(
                    "params._meta",
                    {b"progressToken": Place("params._meta.progressToken", reported=True, keeps=True)},
                ),
            },
        ),
        b"result": Place("result", begins=True),
        # Not reported, but classify looks at them.
        b"error": Place(
            "error",
            {b"code": Place("error.code"), b"message": Place("error.message"), b"data": Place("error.data")},
            begins=True,
        ),
    },
)

# The same for whoever asks for members of ``result``, so that they are read one by one.
RESULT = Place("", {**(ENVELOPE.members or {}), b"result": Place("result", {}, begins=True)})


class Known:
    """What is known of the envelope at any moment.  Nothing is known to be absent until the document has ended."""

    def __init__(self) -> None:
        self._known: dict[str, Scalar | Mark] = {}  # by path
        self._strangers: dict[str, str] = {}  # by path of the object: a member that the envelope does not have
        self._finished = False

    @property
    def jsonrpc(self) -> Scalar | Mark:
        """``jsonrpc``, or Mark.UNKNOWN until it is seen, Mark.ABSENT when the document has ended without it."""
        return self._get("jsonrpc")

    @property
    def id(self) -> Scalar | Mark:
        """``id``, likewise; not checked to be a request id."""
        return self._get("id")

    @property
    def method(self) -> Scalar | Mark:
        """``method``, likewise."""
        return self._get("method")

    @property
    def name(self) -> Scalar | Mark:
        """``params.name``, likewise: the tool or prompt that is called."""
        return self._get("params.name")

    @property
    def uri(self) -> Scalar | Mark:
        """``params.uri``, likewise: the resource that is asked for."""
        return self._get("params.uri")

    @property
    def progress_token(self) -> Scalar | Mark:
        """``params._meta.progressToken``, likewise."""
        return self._get("params._meta.progressToken")

    @property
    def has_result(self) -> bool:
        """Whether ``result`` has begun."""
        return "result" in self._known

    @property
    def has_error(self) -> bool:
        """Whether ``error`` has begun."""
        return "error" in self._known

    @property
    def shape(self) -> Mark:
        """OBJECT or ARRAY (a batch) as soon as the first byte has come; ABSENT when the document is a scalar."""
        shape = self._known.get("", Mark.UNKNOWN)
        return shape if isinstance(shape, Mark) else Mark.ABSENT

    def _get(self, path: str) -> Scalar | Mark:
        return self._known.get(path, Mark.ABSENT if self._finished else Mark.UNKNOWN)

    def envelope(self) -> Envelope:
        """What ``classify`` says of the document, once it is finished; raises EnvelopeError as that does.  An id or
        method of more than ``window`` bytes is refused here."""
        if not self._finished:
            raise RuntimeError("the document is not finished")
        return classify(self._outline(ENVELOPE))

    def _outline(self, place: Place) -> Any:
        """The value at a place as far as classify looks: containers below the envelope are empty, text is left out."""
        value = self._known[place.path]
        if value is Mark.ARRAY:
            return []
        if value is not Mark.OBJECT:
            return value
        document = {}
        for name, member in (place.members or {}).items():
            if member.path in self._known:
                document[name.decode()] = self._outline(member)
        if place.path in self._strangers:
            document[self._strangers[place.path]] = None
        return document
