"""A push lexer for JSON: what a large message is about, before it has arrived, without ever holding it.

**What it is for.**  A message up to ``limits.inline_message`` is read whole and goes through ``strict.parse``.  A
larger one goes through a Reader, chunk by chunk.  A Reader says who is called as soon as those bytes are there, so that
a call which is not allowed ends while its body is still on the way; it hands out long strings in windows; and at the
end its verdict on the JSON is that of ``strict.parse`` - for every input, however it was cut.  (Where a text breaks
several rules, the two may name different ones.)

**How it works.**  Two machines, one inside the other.

The outer one is the grammar: a table of states, below, each of which maps the next significant byte to a step.  A step
reads one token and moves to another state.  The states, with what may come:

    VALUE           the outermost value, or the one after a colon
    FIRST_MEMBER    behind {            a name, or }
    MEMBER          behind , of {}      a name
    COLON           behind a name       :
    AFTER_MEMBER    behind a value      , or }
    FIRST_ELEMENT   behind [            a value, or ]
    ELEMENT         behind , of []      a value
    AFTER_ELEMENT   behind a value      , or ]
    END             behind the outermost value: white space only

The inner one reads tokens, and each kind deals with the end of a chunk in its own way:

    strings         what is there is taken; the state STRING goes on with the next chunk.  Nothing is read twice
    escapes         at most 11 bytes that are not complete are put before the next chunk (``_tail``)
    numbers         likewise; at most ``limits.number_chars``
    true false null likewise; at most 4 bytes
    UTF-8           likewise; at most 3 bytes of a character.  Each chunk is checked before it is lexed, and a fault is
                    raised only when everything before it has been read, so that the cutting changes nothing

**What it costs.**  Time is linear in the bytes fed: every pattern is possessive, what is put back is bounded, and so is
what a shortcut looks at in vain.  Memory is bounded too: one chunk, one window, and for each open object its members'
names (a name longer than 64 bytes as a digest of 16), at most ``limits.nodes``, or ``most_names``, of them in all.

**The shortcut.**  One token at a time is slow in Python.  Where values are whole in a chunk, no larger than a window,
and no place of the envelope, ``strict`` reads them, as a document of their own, with what is left of the limits.  Where
they end, a pattern finds; or a guess, for what is JSON with a comma behind it is whole.  The table alone would give the
same results, and does when ``strict`` refuses.

**What it knows of MCP** is one table, ``places.ENVELOPE``: the places whose values it reports.

**What passes through.**  Whoever lets a document out while it arrives asks after each chunk how far it is ``settled``:
up to there members and elements are whole, and their ``container`` is known.  ``open_string`` is the string, if any,
that keeps the rest from being settled.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import isinf
from typing import Any, NamedTuple

import jiter

from .errors import JsonRefused, JsonSyntaxError, LimitExceeded, PeerError
from .names import PROTOCOL_KEYS, WHOLE_NAME, LongName, Twins, same_name, shown
from .places import ENVELOPE, RESULT, EnvelopeField, Event, Known, Mark, Member, Place, Scalar, StringWindow
from .strict import Limits, folded_member, not_finite, nul_member, read, too_deep, too_long, too_many
from .tokens import (
    LITERALS,
    NUMBER,
    match_beginning,
    match_container,
    match_escape_start,
    match_number_run,
    match_run,
    match_string,
    match_string_end,
    match_surrogate_start,
    match_white_space,
)

__all__ = ["Container", "EnvelopeField", "Event", "Mark", "Member", "OpenString", "Reader", "StringWindow", "whole"]

# Of a long string, so much is read at once.
_SLICE = 32 * 1024
# Shorter strings are left to the pattern.
_SHORT = 256
# Values that are whole in so many bytes are read together.
_TOGETHER = 16 * 1024
# How often the end of such values may be guessed wrongly.
_GUESSES = 8


# -- the grammar ------------------------------------------------------------------------------------------------------


class _State:
    """``steps`` maps the next significant byte to the step that reads it; ``expected`` says the same to people."""

    __slots__ = ("expected", "steps")

    def __init__(self, expected: str) -> None:
        self.expected = expected
        self.steps: dict[int, _Step] = {}


_VALUE = _State("a value")
_FIRST_MEMBER = _State("a member's name or }")
_MEMBER = _State("a member's name")
_COLON = _State("a colon")
_AFTER_MEMBER = _State("a comma or }")
_FIRST_ELEMENT = _State("a value or ]")
_ELEMENT = _State("a value")
_AFTER_ELEMENT = _State("a comma or ]")
_END = _State("nothing more")
_STRING = _State("the rest of a string")


class _Frame:
    """An open array or object; the outermost frame is neither and holds the document."""

    __slots__ = ("after", "index", "name", "names", "place")

    def __init__(self, after: _State, place: Place | None) -> None:
        self.after = after  # the state behind a value in it
        self.place = place  # of an object in the envelope
        self.names: dict[bytes, bytes] = {}  # of the members so far: see names.same_name
        self.name = b""  # of the member that is being read
        self.index = 0  # of the element that is being read


class Container(NamedTuple):
    """An array or object that is open: its ``path`` from the root, and the index of the ``element`` that is being read
    or was read last; None for an object.  Of a name beyond 1 KiB only the beginning is there."""

    path: tuple[str | int, ...]
    element: int | None


class OpenString(NamedTuple):
    """A string or name that is being read: ``start`` is the offset of its quote, ``member`` the name or index of the
    value that it is; of a name, an empty text."""

    start: int
    is_name: bool
    member: str | int


class Reader(Known):
    """Reads one JSON document.  Feed it, look at the events and at what is known, and finish it.

    ``max_size``       bytes of the whole document, None for no bound
    ``window``         strings of more than this many bytes are handed out in StringWindow events, at least 16
    ``every_string``   hand out shorter ones too, each in one event: for those who must see all text (half as fast)
    ``no_strings``     hand out none, for those who look at the bytes themselves
    ``wanted``         says of a name, in UTF-8, whether a member of ``result`` that is called so is reported as a
                       Member, and not settled before it is whole
    ``most_names``     how many names may be held at once; None: as many as there may be values

    ``feed`` and ``finish`` raise the errors of ``strict.parse``, and LimitExceeded ``too-large``.  A Reader that has
    raised has no more events and raises the same again.  What it knew is still there to be read, so that the answer to
    a broken request can carry its id.
    """

    def __init__(
        self,
        limits: Limits,
        twins: Twins,
        *,
        max_size: int | None = None,
        window: int = 16 * 1024,
        every_string: bool = False,
        no_strings: bool = False,
        wanted: Callable[[bytes], bool] | None = None,
        most_names: int | None = None,
    ) -> None:
        if window < 16:
            raise ValueError("window must be at least 16 bytes")
        super().__init__()
        self._limits = limits
        self._twins = twins
        self._max_size = max_size
        self._window = window
        self._every_string = every_string
        self._no_strings = no_strings
        self._wanted = wanted
        self._most_names = limits.nodes if most_names is None else most_names
        self._names = 0  # that are held
        self._together = min(window, _TOGETHER)
        self._shortcuts = True
        self._guesses = _GUESSES

        self._failure: PeerError | None = None
        self._events: list[Event] = []

        self._size = 0  # bytes fed
        self._start = 0  # offset of the chunk that is being lexed
        self._tail = b""  # a token or character that the last chunk did not complete
        self._last = False  # no chunk will follow
        self._nodes = 0

        self._state = _VALUE
        self._frame = _Frame(_END, None)
        self._frames: list[_Frame] = []  # around the innermost one
        self._place: Place | None = ENVELOPE if wanted is None else RESULT  # of the value that comes next or is read

        self._quote = 0  # offset of the string that is being read, or was read last
        self._mark = 0  # likewise, of the member that it is part of, or else of itself
        self._kept: tuple[int, str] | None = None  # a wanted member that is not whole: its offset and its name

        self._in_name = False  # the string that is being read is a name
        self._text = bytearray()  # of that string, decoded, as far as it has not been handed out
        self._windows = False  # parts of it have been handed out
        self._long_name: LongName | None = None

    # -- input --------------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` makes known, in the order of the document."""
        if self._failure is not None:
            raise self._failure
        self._events = events = list[Event]()
        try:
            self._feed(data)
        except PeerError as failure:
            self._failure = failure
            raise
        return events

    def finish(self) -> None:
        """The document has ended; raises JsonSyntaxError if it is not complete."""
        if self._failure is not None:
            raise self._failure
        self._last = True
        tail, self._tail = self._tail, b""
        self._start = self._size - len(tail)
        try:
            if not tail.isascii():
                raise _not_utf8(self._size)
            self._lex(tail)
            if self._state is not _END:
                raise _syntax(f"the document ends where {self._state.expected} is expected", self._size)
        except PeerError as failure:
            self._failure = failure
            raise
        self._finished = True

    def _feed(self, data: bytes) -> None:
        fault: PeerError | None = None
        if self._max_size is not None and self._size + len(data) > self._max_size:
            fault = LimitExceeded("too-large", "a message is larger than allowed", limit="limits.max_message_size")
            data = data[: self._max_size - self._size]
        chunk = self._tail + data if self._tail else data
        self._start = self._size - len(self._tail)
        self._size += len(data)
        character = b""
        if not chunk.isascii():
            if self._start == 0 and chunk.startswith(b"\xef\xbb\xbf"):
                raise JsonSyntaxError("bom", "JSON must not begin with a byte order mark")
            try:
                chunk.decode()
            except UnicodeDecodeError as error:
                if error.reason == "unexpected end of data":
                    character = chunk[error.start :]
                else:
                    fault = _not_utf8(self._start + error.start)
                chunk = chunk[: error.start]
        self._tail = b""
        self._lex(chunk)
        if fault is not None:
            raise fault
        self._tail += character

    # -- what has passed ----------------------------------------------------------------------------------------------

    @property
    def settled(self) -> int:
        """The offset up to which every member of an object, and every element that is no container, is whole."""
        if self._kept is not None:
            return self._kept[0]
        state = self._state
        if state is _STRING or state is _COLON or (state is _VALUE and self._frames):
            return self._mark
        return self._size - len(self._tail)

    @property
    def position(self) -> int:
        """The offset up to which everything has been read: only a part of a token or character follows."""
        return self._size - len(self._tail)

    @property
    def keeps(self) -> bool:
        """Whether a wanted member has begun that is not whole."""
        return self._kept is not None

    @property
    def is_complete(self) -> bool:
        """Whether the document may end here."""
        return self._state is _END

    @property
    def container(self) -> Container:
        """What is open at ``settled``, and around the string that is open."""
        frames = [*self._frames[1:], self._frame]
        if self._kept is not None:
            frames = frames[:2]
        path = tuple(frame.index if frame.after is _AFTER_ELEMENT else frame.name.decode() for frame in frames[:-1])
        return Container(path, frames[-1].index if frames[-1].after is _AFTER_ELEMENT else None)

    @property
    def open_string(self) -> OpenString | None:
        """The string that has begun and not ended."""
        if self._state is not _STRING:
            return None
        frame = self._frame
        member: str | int = ""
        if not self._in_name:
            member = frame.index if frame.after is _AFTER_ELEMENT else frame.name.decode()
        return OpenString(self._quote, self._in_name, member)

    # -- the lexer ----------------------------------------------------------------------------------------------------

    def _lex(self, chunk: bytes) -> None:
        at, end = 0, len(chunk)
        while at < end:
            state = self._state
            if state is _STRING:
                at = self._string(chunk, at)
                continue
            if self._shortcuts:
                stop = self._shortcut(chunk, at)
                if stop > at:
                    at = stop
                    continue
            at = match_white_space(chunk, at).end()  # type: ignore[union-attr]
            if at == end:
                return
            step = state.steps.get(chunk[at])
            if step is None:
                raise _syntax(f"{state.expected} is expected", self._start + at)
            at = step(self, chunk, at)

    def _shortcut(self, chunk: bytes, at: int) -> int:
        """Read the values that are whole in the next bytes and no place of the envelope: the position behind them, or
        the same where there are none."""
        limit = at + self._together
        if self._state in _RUNS and self._frame.place is None:
            if self._guesses and self._state is _ELEMENT:
                # Mostly elements begin alike, and the last that does is where those before it end.
                begun = match_beginning(chunk, at, limit)
                cut = chunk.rfind(b"," + begun[0], at, limit) if begun else -1
                if cut > at:
                    if self._read_values(chunk[at : cut + 1]):
                        return cut + 1
                    self._guesses -= 1
            match = match_run(chunk, at, limit)
            if match is not None:
                return self._read_or_give_up(chunk, at, match.end())
        if self._state.steps.get(0x7B) is Reader._open_object and self._place is None:
            match = match_container(chunk, at, limit)
            if match is not None:
                return self._read_or_give_up(chunk, at, match.end())
        return at

    def _read_or_give_up(self, chunk: bytes, at: int, stop: int) -> int:
        if self._read_values(chunk[at:stop]):
            return stop
        self._shortcuts = False
        return at

    def _read_values(self, text: bytes) -> bool:
        """Have ``strict`` read whole values.  False when it refuses them: the table is to find out why, and where."""
        limits = self._limits
        is_run = text.endswith(b",")
        if is_run:
            text = _RUNS[self._state] % text[:-1]
        try:
            # What encloses a run is open already, and counted.
            document, count = read(
                text,
                limits.depth - len(self._frames) + is_run,
                limits.nodes - self._nodes + is_run,
                limits.number_chars,
                self._twins,
            )
        except PeerError:
            return False
        if not is_run:
            self._count(count)
            if self._every_string:
                self._hand_out(document, self._pointer())
            self._state = self._frame.after
            return True
        if not document:  # a comma with nothing before it
            return False
        self._count(count - 1)
        if self._every_string:
            self._hand_out(document, self._pointer(own=False), self._frame.index)
        if type(document) is dict:
            for name in document:
                self._add_name(name.encode())
            self._state = _MEMBER
        else:
            self._frame.index += len(document)
            self._state = _ELEMENT
        return True

    def _hand_out(self, value: Any, pointer: str, first: int = 0) -> None:
        """All strings of a value that was read whole; ``first`` is the index of its first element.  As deep as the
        pattern that found it allows: a few levels."""
        if type(value) is str:
            self._events.append(StringWindow(pointer, value.encode(), True))
        elif type(value) is list:
            for index, inner in enumerate(value, first):
                if type(inner) in _TEXTUAL:
                    self._hand_out(inner, f"{pointer}/{index}")
        else:
            for name, inner in value.items():
                if type(inner) in _TEXTUAL:
                    self._hand_out(inner, f"{pointer}/{_escaped(_kept_name(name.encode()))}")

    # steps: each reads one token of ``chunk`` at ``at`` and says where the next one may begin

    def _open_object(self, _chunk: bytes, at: int) -> int:
        self._enter(_FIRST_MEMBER, _AFTER_MEMBER, Mark.OBJECT)
        return at + 1

    def _open_array(self, _chunk: bytes, at: int) -> int:
        self._enter(_FIRST_ELEMENT, _AFTER_ELEMENT, Mark.ARRAY)
        return at + 1

    def _close(self, _chunk: bytes, at: int) -> int:
        self._end_kept(at)
        self._leave()
        return at + 1

    def _next_member(self, _chunk: bytes, at: int) -> int:
        self._end_kept(at)
        self._state = _MEMBER
        return at + 1

    def _next_element(self, _chunk: bytes, at: int) -> int:
        self._frame.index += 1
        self._state = _ELEMENT
        return at + 1

    def _colon(self, _chunk: bytes, at: int) -> int:
        self._state = _VALUE
        return at + 1

    def _begin_name(self, _chunk: bytes, at: int) -> int:
        self._in_name = True
        self._mark = self._quote = self._start + at
        self._state = _STRING
        return at + 1

    def _begin_string(self, _chunk: bytes, at: int) -> int:
        self._begin()
        self._in_name = False
        self._quote = self._start + at
        if self._frame.after is not _AFTER_MEMBER:
            self._mark = self._quote
        self._state = _STRING
        return at + 1

    def _number(self, chunk: bytes, at: int) -> int:
        end = match_number_run(chunk, at).end()  # type: ignore[union-attr]
        if end - at > self._limits.number_chars:
            raise too_long()
        if end == len(chunk) and not self._last:
            self._tail = chunk[at:]
            return end
        text = chunk[at:end]
        match = NUMBER.fullmatch(text)
        if match is None:
            raise _syntax("a number is malformed", self._start + at)
        value: int | float
        if match.lastindex:
            value = float(text)
            if isinf(value):
                raise not_finite()
        else:
            value = int(text) if self._place else 0
        self._begin()
        self._complete(value)
        return end

    def _literal(self, chunk: bytes, at: int) -> int:
        word, value = LITERALS[chunk[at]]
        piece = chunk[at : at + len(word)]
        if piece != word:
            if at + len(piece) == len(chunk) and word.startswith(piece) and not self._last:
                self._tail = piece
                return len(chunk)
            raise _syntax("true, false or null is misspelt", self._start + at)
        self._begin()
        self._complete(value)
        return at + len(word)

    def _string(self, chunk: bytes, at: int) -> int:
        """As much of a name or string as is read at once, without its opening quote."""
        if len(chunk) - at >= _SHORT:
            stop = self._read_slice(chunk, at)
            if stop > at:
                return stop
        stop = match_string(chunk, at).end()  # type: ignore[union-attr]
        if stop < len(chunk) and chunk[stop] == 0x22:
            if (
                stop - at > self._window or self._text or self._windows or self._in_name
                or self._place is not None or self._every_string
            ):  # fmt: skip
                self._take(chunk[at:stop])
                self._end_string()
            else:
                self._state = self._frame.after
            return stop + 1
        if stop > at:
            self._take(chunk[at:stop])
        if stop < len(chunk):
            if chunk[stop] != 0x5C:
                raise _syntax("a string holds a control character", self._start + stop)
            if not match_escape_start(chunk, stop):
                if match_surrogate_start(chunk, stop):
                    raise JsonRefused("lone-surrogate", "a string holds half of a surrogate pair")
                raise _syntax("an escape is malformed", self._start + stop)
            self._tail = chunk[stop:]
        return len(chunk)

    def _read_slice(self, chunk: bytes, at: int) -> int:
        """The same for a long string, at the speed of ``strict``: up to its end, or the end of a slice.  The position
        as it was where there is no long string, or something is wrong with it."""
        limit = min(len(chunk), at + _SLICE)
        end = chunk.find(b'"', at, limit)
        if 0 <= end < at + _SHORT and match_string_end(chunk, at, at + _SHORT):
            return at
        text: str | None = None
        if end >= 0 and chunk[end - 1] == 0x5C:
            # Mostly an escape in a string that goes on, and its parser says so sooner than a search for the end.
            stop = whole(chunk, at, limit)
            text = _decoded(chunk[at:stop])
            found = match_string_end(chunk, at, limit) if text is None else None
            end = found.end() - 1 if found is not None else -1
        if text is None:
            stop = whole(chunk, at, limit) if end < 0 else end
            text = _decoded(chunk[at:stop])
            if text is None:
                return at
        if self._in_name or self._place is not None or not self._no_strings:
            self._take_text(text.encode())
        if end < 0:
            return stop
        self._end_string()
        return stop + 1

    # -- strings ------------------------------------------------------------------------------------------------------

    def _take(self, raw: bytes) -> None:
        """A piece of a name or string: valid, and whole characters and escapes only."""
        self._take_text(jiter.from_json(b'"%b"' % raw, cache_mode="none").encode() if b"\\" in raw else raw)

    def _take_text(self, piece: bytes) -> None:
        text = self._text
        text += piece
        if self._in_name:
            if len(text) > _LONGEST_NAME:
                self._take_long_name()
            return
        window = self._window
        if self._no_strings:
            if len(text) > window or self._place is None:
                self._windows = self._windows or len(text) > window
                text.clear()
            return
        begin = 0
        while len(text) - begin > window:
            cut = _character(text, begin + window)
            self._events.append(StringWindow(self._pointer(), bytes(text[begin:cut]), False))
            self._windows = True
            begin = cut
        del text[:begin]

    def _take_long_name(self) -> None:
        if b"\0" in self._text:
            raise nul_member()
        if self._long_name is None:
            self._long_name = LongName()
            self._frame.name = _kept_name(bytes(self._text))
        self._long_name.update(bytes(self._text))
        self._text.clear()

    def _end_string(self) -> None:
        text = bytes(self._text)
        self._text.clear()
        if self._in_name:
            if self._long_name is None:
                self._add_name(text)
            else:
                self._long_name.update(text)
                if b"\0" in text:
                    raise nul_member()
                self._remember(*self._long_name.keys(self._twins), self._frame.name)
                self._long_name = None
            self._find_place()
            self._state = _COLON
            return
        if (self._windows or self._every_string) and not self._no_strings:
            self._events.append(StringWindow(self._pointer(), text, True))
        place = self._place
        if place is None or not place.keeps:
            self._complete("")
        elif self._windows:
            self._complete(Mark.OVERLONG)
        else:
            self._complete(text.decode())
        self._windows = False

    # -- names --------------------------------------------------------------------------------------------------------

    def _add_name(self, name: bytes) -> None:
        self._frame.name = name
        if len(name) <= WHOLE_NAME and name.isascii():
            # names.same_name, spelled out for the ordinary name.
            key = name.lower()
            if self._twins is not Twins.ANY and key not in PROTOCOL_KEYS:
                key = name
            exact = name
        else:
            key, exact = same_name(name, self._twins)
        if b"\0" in name:
            raise nul_member()
        self._remember(key, exact, name)

    def _remember(self, key: bytes, exact: bytes, name: bytes) -> None:
        names = self._frame.names
        if key in names:
            if names[key] == exact:
                raise JsonRefused("duplicate-member", f"member {shown(name.decode())} occurs twice in one object")
            raise folded_member(name.decode())
        names[key] = exact
        self._names += 1
        if self._names > self._most_names:
            raise too_many_names()

    def _find_place(self) -> None:
        frame = self._frame
        if frame.place is None:
            return
        if self._wanted is not None and frame.place.path == "result":
            self._place = None
            if self._wanted(frame.name):
                self._kept = (self._mark, frame.name.decode())
            return
        self._place = (frame.place.members or {}).get(frame.name)
        if self._place is None:
            self._strangers.setdefault(frame.place.path, frame.name.decode())

    # -- values and their containers ----------------------------------------------------------------------------------

    def _count(self, values: int) -> None:
        self._nodes += values
        if self._nodes > self._limits.nodes:
            raise too_many()

    def _begin(self) -> None:
        """A value begins."""
        self._count(1)
        place = self._place
        if place is not None and place.begins:
            self._events.append(EnvelopeField(place.path, Mark.BEGUN))
            self._known[place.path] = Mark.BEGUN

    def _complete(self, value: Scalar | Mark) -> None:
        """A scalar has ended, or a container opens: what is known of its place is known now."""
        place = self._place
        if place is not None:
            self._known[place.path] = value
            if place.reported:
                self._events.append(EnvelopeField(place.path, value))
        self._state = self._frame.after

    def _enter(self, first: _State, after: _State, kind: Mark) -> None:
        self._begin()
        place = self._place
        self._complete(kind)
        if place is not None and (kind is Mark.ARRAY or place.members is None):
            place = None
        self._place = None
        self._frames.append(self._frame)
        if len(self._frames) > self._limits.depth:
            raise too_deep()
        self._frame = _Frame(after, place)
        self._state = first

    def _end_kept(self, at: int) -> None:
        """A member of an object ends before ``at``; it may be a wanted one."""
        kept = self._kept
        if kept is not None and self._frame.place is not None:
            self._events.append(Member(kept[1], kept[0], self._start + at))
            self._kept = None

    def _leave(self) -> None:
        self._names -= len(self._frame.names)
        self._frame = self._frames.pop()
        self._state = self._frame.after

    def _pointer(self, *, own: bool = True) -> str:
        """Of the value that is being read, or of the array or object that it is in."""
        parts = [""]
        for frame in (*self._frames[1:], self._frame) if own else self._frames[1:]:
            if frame.after is _AFTER_MEMBER:
                parts.append(_escaped(frame.name))
            elif frame.after is _AFTER_ELEMENT:
                parts.append(str(frame.index))
        return "/".join(parts)


_TEXTUAL = frozenset((str, list, dict))
# Longer names are not held: see names.LongName.  A pointer shows their beginning.
_LONGEST_NAME = 1024


def _kept_name(name: bytes) -> bytes:
    return name if len(name) <= _LONGEST_NAME else name[: _character(name, _LONGEST_NAME)] + "\u2026".encode()


def _escaped(name: bytes) -> str:
    """A name as a step of a JSON pointer."""
    return name.decode().replace("~", "~0").replace("/", "~1")


def _character(text: bytes | bytearray, position: int) -> int:
    """The last position up to this one where a character begins."""
    while text[position] & 0xC0 == 0x80:
        position -= 1
    return position


def _decoded(inside: bytes) -> str | None:
    """The text of what may be the inside of a string; None if it is not."""
    try:
        text: str = jiter.from_json(b'"%b"' % inside, cache_mode="none")
    except ValueError:
        return None
    return text


# A high surrogate, whose other half follows.
_match_high = re.compile(rb"\\u[dD][89abAB]").match


def whole(text: bytes, start: int, end: int) -> int:
    """The last position up to ``end``, or one a little before it, that cuts no character and no escape in the inside of
    a string, which begins at ``start`` or before."""
    last = text.rfind(b"\\", start, end)
    if last >= max(start, end - 12):
        end = _run_start(text, start, last)
        if end - 6 >= start and _match_high(text, end - 6) and (end - 6 - _run_start(text, start, end - 6)) % 2 == 0:
            end -= 6
    while start < end < len(text) and text[end] & 0xC0 == 0x80:
        end -= 1
    return end


def _run_start(text: bytes, start: int, at: int) -> int:
    """Where the run of backslashes begins that is at a position: an escape begins there."""
    return start + len(text[start:at].rstrip(b"\\"))


def too_many_names() -> LimitExceeded:
    """More members in objects that are open than may be held."""
    return LimitExceeded("names", "open objects have more members than allowed", limit="limits.streamed_members")


def _not_utf8(offset: int) -> JsonSyntaxError:
    return JsonSyntaxError("not-utf8", f"JSON must be UTF-8, but byte {offset} is not")


def _syntax(message: str, offset: int) -> JsonSyntaxError:
    return JsonSyntaxError("syntax", f"not JSON: {message} at byte {offset}")


# What a run of members or elements is put into to be read.
_RUNS = {_FIRST_MEMBER: b"{%b}", _MEMBER: b"{%b}", _FIRST_ELEMENT: b"[%b]", _ELEMENT: b"[%b]"}

# -- the table --------------------------------------------------------------------------------------------------------

_Step = Callable[[Reader, bytes, int], int]

_VALUES: dict[int, _Step] = {
    ord("{"): Reader._open_object,
    ord("["): Reader._open_array,
    ord('"'): Reader._begin_string,
    **dict.fromkeys(b"-0123456789", Reader._number),
    **dict.fromkeys(LITERALS, Reader._literal),
}
_VALUE.steps = _VALUES
_ELEMENT.steps = _VALUES
_FIRST_ELEMENT.steps = {**_VALUES, ord("]"): Reader._close}
_MEMBER.steps = {ord('"'): Reader._begin_name}
_FIRST_MEMBER.steps = {**_MEMBER.steps, ord("}"): Reader._close}
_COLON.steps = {ord(":"): Reader._colon}
_AFTER_MEMBER.steps = {ord(","): Reader._next_member, ord("}"): Reader._close}
_AFTER_ELEMENT.steps = {ord(","): Reader._next_element, ord("]"): Reader._close}
