"""HTTP header fields as MCP uses them: names, encodings, and what may travel.

Fields travel by allow-list in both directions.  What reaches an upstream is made here from the judged message, never
copied from the client (rules 1.8, 5.7, 6.12, 8.12), with one exception that the specification demands: ``Mcp-Param-*``
(rule 6.14).
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
from typing import Any, Final

from multidict import MultiMapping

from .errors import BadRequest, HeaderMismatch, NotAcceptable, UnsupportedMediaType
from .revisions import revision

__all__ = [
    "LAST_EVENT_ID", "METHOD", "NAME", "NAME_MEMBERS", "PARAM_PREFIX", "SESSION_ID", "SINGLE_FIELDS", "VERSION",
    "Fields", "McpFields", "check_accept", "check_content_type", "check_mirrored", "check_single", "decode_mirrored",
    "encode_mirrored", "is_clean", "is_param_field", "is_session_id", "media_type", "mirrored_fields", "param_fields",
]  # fmt: skip

VERSION: Final = "MCP-Protocol-Version"
SESSION_ID: Final = "Mcp-Session-Id"
METHOD: Final = "Mcp-Method"
NAME: Final = "Mcp-Name"
PARAM_PREFIX: Final = "mcp-param-"
LAST_EVENT_ID: Final = "Last-Event-ID"

# Fields of which readers of the first and readers of the last copy would disagree (rule 6.18).  aiohttp's parser
# refuses a second Host, Content-Length, Content-Type and Transfer-Encoding itself; a second Authorization is a matter
# of authentication.
SINGLE_FIELDS = (
    "Origin", VERSION, SESSION_ID, METHOD, NAME, LAST_EVENT_ID, "Content-Type", "Content-Encoding", "Expect",
)  # fmt: skip

# Which member of params Mcp-Name mirrors (rules 6.6, 6.7).
NAME_MEMBERS: Final[dict[str, str]] = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}

_SESSION_ID = re.compile(r"[\x21-\x7e]{1,1024}")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# What the SDKs send: accepted without taking it apart.
_USUAL_ACCEPT = ["application/json, text/event-stream"]
_SENTINEL = re.compile(r"=\?base64\?(.*)\?=")

# Values that are read once and remembered, up to this length; peers choose them, so their number is bounded too.
_REMEMBERED = 256
_VALUES = 256


# Header fields as a case-insensitive multi-dict, as aiohttp has them.
Fields = MultiMapping[str]


class McpFields:
    """What the header fields of a request say of MCP, each None where it is absent.  What one head says is true of any
    other with the same bytes.

    ``version``     MCP-Protocol-Version, ``revision`` the one of that name, if it is known here
    ``session``     Mcp-Session-Id
    ``method``, ``name``  Mcp-Method and Mcp-Name
    ``has_params``  whether there is a field that begins as Mcp-Param-* do
    """

    __slots__ = ("_fields", "_has_params", "_is_read", "_method", "_name", "revision", "session", "version")

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self.version = fields.get(VERSION)
        self.revision = revision(self.version)
        self.session = fields.get(SESSION_ID)
        # Only revisions that mirror ask for these.
        self._is_read = False
        self._method: str | None = None
        self._name: str | None = None
        self._has_params = False

    def _read(self) -> None:
        self._is_read = True
        self._method = self._fields.get(METHOD)
        self._name = self._fields.get(NAME)
        self._has_params = PARAM_PREFIX in "\n".join(self._fields).lower()

    @property
    def method(self) -> str | None:
        """Mcp-Method."""
        if not self._is_read:
            self._read()
        return self._method

    @property
    def name(self) -> str | None:
        """Mcp-Name."""
        if not self._is_read:
            self._read()
        return self._name

    @property
    def has_params(self) -> bool:
        """Whether one of the names may be that of an Mcp-Param-* field."""
        if not self._is_read:
            self._read()
        return self._has_params


def is_clean(value: str) -> bool:
    """True for printable ASCII, 0x20 to 0x7E: what may be written into a header field, and what every hop forwards in
    the same way (RFC 9110 5.5)."""
    return value.isascii() and value.isprintable()


def is_session_id(value: str) -> bool:
    """True for what may be a session id: 0x21 to 0x7E only (rule 3.4)."""
    return _SESSION_ID.fullmatch(value) is not None


def check_single(fields: Fields) -> None:
    """Raises HeaderMismatch for a field that may stand once and stands twice (rule 6.18)."""
    for name in SINGLE_FIELDS:
        if len(fields.getall(name, ())) > 1:
            raise HeaderMismatch(f"header {name} must not be repeated", reason="header-repeated")


def media_type(value: str | None) -> tuple[str, dict[str, str]]:
    """Type and parameters of a Content-Type value, lower-cased (RFC 9110 8.3.1); ("", {}) for an absent one."""
    if not value:
        return "", {}
    kind, *rest = value.split(";")
    parameters = {}
    for each in rest:
        name, _, text = each.partition("=")
        parameters[name.strip().lower()] = text.strip().strip('"').lower()
    return kind.strip().lower(), parameters


def check_content_type(fields: Fields) -> None:
    """Raises UnsupportedMediaType unless the body is said to be JSON in UTF-8, not compressed (rules 2.3, 2.22)."""
    if fields.get("Content-Encoding") is not None:
        raise UnsupportedMediaType("a request body must not be compressed: send it without Content-Encoding")
    value = fields.get("Content-Type")
    if value == "application/json":
        return
    kind, parameters = media_type(value)
    if kind != "application/json":
        raise UnsupportedMediaType("Content-Type must be application/json")
    if parameters.get("charset", "utf-8") not in ("utf-8", "utf8"):
        raise UnsupportedMediaType("JSON is UTF-8: leave out charset or say utf-8")


@lru_cache(_VALUES)
def _accepted(value: str) -> frozenset[str]:
    accepted = set()
    for each in value.split(","):
        kind, parameters = media_type(each)
        if not re.fullmatch(r"0(\.0{0,3})?", parameters.get("q", "1")):
            accepted.add(kind)
    return frozenset(accepted)


def check_accept(fields: Fields, *kinds: str) -> None:
    """Raises NotAcceptable unless each of the media types is accepted; wildcards count (rule 2.2)."""
    values = fields.getall("Accept", ())
    if values == _USUAL_ACCEPT:
        return
    accepted: set[str] = set()
    for value in values:
        accepted |= _accepted(value) if len(value) <= _REMEMBERED else _accepted.__wrapped__(value)
    for kind in kinds:
        if not {kind, kind.partition("/")[0] + "/*", "*/*"} & accepted:
            raise NotAcceptable("the Accept header must list " + " and ".join(kinds))


def encode_mirrored(value: str) -> str:
    """A value as it stands in Mcp-Name: as it is where that is safe, else in the base64 sentinel (rule 6.8)."""
    if is_clean(value) and value == value.strip(" ") and not (value[:2] == "=?" and _SENTINEL.fullmatch(value)):
        return value
    return "=?base64?" + base64.b64encode(value.encode()).decode() + "?="


def decode_mirrored(value: str) -> str:
    """The inverse of encode_mirrored; raises HeaderMismatch for base64 that is not canonical (rules 6.8, 6.9)."""
    match = _SENTINEL.fullmatch(value) if value[:2] == "=?" else None
    if match is None:
        return value
    try:
        raw = base64.b64decode(match[1], validate=True)
        text = raw.decode()
    except (binascii.Error, ValueError) as error:
        raise HeaderMismatch("a header in =?base64?...?= form does not decode", reason="header-encoding") from error
    if base64.b64encode(raw).decode() != match[1]:
        raise HeaderMismatch("a header in =?base64?...?= form is not canonical", reason="header-encoding")
    return text


def check_mirrored(fields: McpFields, method: str, params: dict[str, Any]) -> None:
    """Raises HeaderMismatch unless Mcp-Method and Mcp-Name say what the body says (rules 6.5-6.10)."""
    if fields.method != method:
        raise HeaderMismatch(f"header {METHOD} must be present and equal the body's method")
    member = NAME_MEMBERS.get(method)
    if member is None:
        return
    name = params.get(member)
    if not isinstance(name, str):
        raise BadRequest(f"{method} needs a string params.{member}", reason="name-type")
    value = fields.name
    if value is None or decode_mirrored(value) != name:
        raise HeaderMismatch(f"header {NAME} must be present and equal the body's params.{member}")


def mirrored_fields(method: str, params: dict[str, Any]) -> dict[str, str]:
    """Mcp-Method and Mcp-Name as the body demands them (rule 6.19: made anew, since a hook may have edited it)."""
    fields = {METHOD: method}
    name = params.get(NAME_MEMBERS.get(method, ""))
    if isinstance(name, str):
        fields[NAME] = encode_mirrored(name)
    return fields


def is_param_field(name: str) -> bool:
    """True for the name of an Mcp-Param-* field (RFC 9110 5.6.2: a token)."""
    return name[:10].lower() == PARAM_PREFIX and _TOKEN.fullmatch(name) is not None


def param_fields(fields: Fields) -> dict[str, str]:
    """The client's Mcp-Param-* fields, which an intermediary must forward (rule 6.14)."""
    found: dict[str, str] = {}
    for name, value in fields.items():
        if name[:10].lower() != PARAM_PREFIX:
            continue
        if not is_param_field(name) or not is_clean(value):
            raise HeaderMismatch("an Mcp-Param header holds characters that cannot be forwarded", reason="header-value")
        if name.lower() in (each.lower() for each in found):
            raise HeaderMismatch("an Mcp-Param header must not be repeated", reason="header-repeated")
        found[name] = value
    return found
