"""Resource URIs: one reading that both sides of the gateway agree on, and patterns over it.

A URI has many spellings, and a policy that compares text allows ``file:///allowed/%2e%2e/etc/passwd``.  So a URI is
first brought to a normal form; where two readers could disagree about what it means (a second layer of encoding, dot
segments, an encoded slash, userinfo), it is refused.  The normal form is what the policy judges and what is forwarded.

The order is: split once into the parts of RFC 3986, decode each part, look for anything that moves the path or the host
in the decoded text *and* in its NFKC form, then write the parts again.  Normalised are only the things that RFC 3986
6.2.2 and 6.2.3 call equivalent - the case of scheme and host, the default port, escapes of unreserved characters -
because a server may look resources up by their exact text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from .glob import GlobError, alternation, to_re2

__all__ = ["MAX_URI_CHARS", "Uri", "UriPatterns", "UriRefused", "normalise", "normalise_template"]

# Like ``limits.max_target_size``: no honest resource needs more, and every check below is linear in it.
MAX_URI_CHARS = 8192

# Layers of percent-encoding that are looked into; text that is still encoded below that is refused.
_MAX_LAYERS = 4

# Schemes whose authority and path WHATWG URL parsers read in their own way ("special"), with their default ports.
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21, "file": None}

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,62}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\]", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}", re.ASCII)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})", re.ASCII)
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# RFC 6570: an expression, and what its operators put in front of the value.
_EXPRESSION = re.compile(r"\{([+#./;?&]?)([A-Za-z0-9_.%,:*]{1,128})\}", re.ASCII)
# Stands for the value of a template variable: no pattern of an operator spells it, so only wildcards match it.
_VARIABLE = "gateway-template-variable"

_MEMORY = 4096


class UriRefused(ValueError):
    """A URI that two readers could take for two different resources.  The text says why, without the URI."""


@dataclass(frozen=True, slots=True)
class Uri:
    """A URI in normal form.

    ``text``     what to forward
    ``subjects`` the spellings that patterns must match, all of them: ``scheme://authority/path`` decoded, and the same
                 in NFKC where that differs
    ``exact``    no query: only then a pattern without wildcards matches
    """

    text: str
    subjects: tuple[str, ...]
    exact: bool


def normalise(text: str) -> Uri:
    """The normal form of a URI.  Raises UriRefused."""
    if len(text) > MAX_URI_CHARS:
        raise UriRefused(f"the URI is longer than {MAX_URI_CHARS} characters")
    if _CONTROL.search(text) or "\\" in text or text != text.strip():
        raise UriRefused("the URI holds control characters, a backslash, or a space at its edge")
    if "{" in text or "}" in text:
        raise UriRefused("the URI holds braces: a template must be expanded first")
    if _BAD_ESCAPE.search(text):
        raise UriRefused("the URI holds a percent sign that is not followed by two hexadecimal digits")
    scheme, colon, rest = text.partition(":")
    if not colon or not _SCHEME.fullmatch(scheme):
        raise UriRefused("the URI does not begin with a scheme and a colon")
    scheme = scheme.lower()
    rest, hash_, fragment = rest.partition("#")
    rest, mark, query = rest.partition("?")
    for loose in (query, fragment):
        _decode_layers(loose)
    if rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        path = slash + path
        authority, shown_authority = _authority(scheme, authority)
        prefix, shown_prefix = f"{scheme}://{authority}", f"{scheme}://{shown_authority}"
        if scheme in _DEFAULT_PORTS and not path:
            path = "/"
    elif scheme in _DEFAULT_PORTS:
        raise UriRefused(f"a {scheme} URI needs two slashes after the colon")
    else:
        prefix = shown_prefix = scheme + ":"
        path = rest
    if path.startswith("//"):
        raise UriRefused("the path begins with two slashes, which some readers take for a host")
    shown_path = _path(path)
    subject = shown_prefix + shown_path
    folded = unicodedata.normalize("NFKC", subject)
    normal = prefix + _decode_unreserved(path) + mark + query + hash_ + fragment
    return Uri(normal, (subject,) if folded == subject else (subject, folded), not mark)


def normalise_template(text: str) -> Uri:
    """The normal form of a URI template (RFC 6570), its variables replaced by a text that only wildcards match.

    So a template passes when every simple expansion of it would.  ``text`` of the answer is the template as given.
    """
    if len(text) > MAX_URI_CHARS:
        raise UriRefused(f"the URI template is longer than {MAX_URI_CHARS} characters")

    def expand(match: re.Match[str]) -> str:
        operator = match.group(1)
        if operator in ("?", "&", "#"):
            return ""
        return (operator if operator in ("/", ".", ";") else "") + _VARIABLE

    uri = normalise(_EXPRESSION.sub(expand, text))
    return Uri(text, uri.subjects, uri.exact)


def _decode(text: str) -> str:
    try:
        return unquote_to_bytes(text.encode()).decode()
    except UnicodeError as error:
        # Overlong forms such as %c0%ae are dots to lax decoders.
        raise UriRefused("the URI holds escapes that are not UTF-8") from error


def _decode_layers(text: str) -> None:
    """Refuses a query or fragment with control characters at any layer.  Dots and slashes move nothing there."""
    for _ in range(_MAX_LAYERS):
        if "%" not in text:
            return
        decoded = _decode(text)
        if _CONTROL.search(decoded):
            raise UriRefused("the URI holds an encoded control character")
        if decoded == text:
            return
        text = decoded
    if _ESCAPE.search(text):
        raise UriRefused("the URI is percent-encoded many times over")


def _decode_once(text: str) -> str:
    decoded = _decode(text) if "%" in text else text
    if _ESCAPE.search(decoded):
        raise UriRefused("the URI is percent-encoded twice")
    if _CONTROL.search(decoded) or "\\" in decoded:
        raise UriRefused("the URI holds an encoded control character or backslash")
    return decoded


def _authority(scheme: str, authority: str) -> tuple[str, str]:
    """The authority to forward, and the one to judge."""
    if scheme == "file":
        if authority:
            raise UriRefused("a file URI must not name a host")
        return "", ""
    decoded = _decode_once(authority)
    if any(character in "@/?#" for character in unicodedata.normalize("NFKC", decoded)):
        raise UriRefused("the URI holds user information or an encoded delimiter before its path")
    if scheme not in _DEFAULT_PORTS:
        # A custom scheme's authority is a word of the server's own, such as the city in weather://Oslo: case matters,
        # and a server that joins it to a path must not climb by it.
        _check_dots(decoded)
        return _decode_unreserved(authority), decoded
    host, colon, port = (
        authority.rpartition(":") if authority.rfind(":") > authority.rfind("]") else (authority, "", "")
    )
    if not _HOST.fullmatch(host):
        raise UriRefused("the host of the URI is not a plain host name")
    host = host.lower()
    if colon and (not _PORT.fullmatch(port) or int(port) > 65535):
        raise UriRefused("the port of the URI is not a number from 1 to 65535")
    if colon and int(port) != _DEFAULT_PORTS[scheme]:
        host = f"{host}:{port}"
    return host, host


def _path(path: str) -> str:
    """The decoded path, once nothing in it can move.  Raises UriRefused."""
    segments = []
    for segment in path.split("/"):
        decoded = _decode_once(segment)
        if "/" in decoded:
            raise UriRefused("the URI holds an encoded slash")
        if "." in decoded or not decoded.isascii():
            _check_dots(decoded)
        segments.append(decoded)
    return "/".join(segments)


def _check_dots(segment: str) -> None:
    # NFKC turns full-width and one-dot-leader dots into dots and U+2025 into two; format characters vanish on display
    # and in some file systems; Windows ignores spaces at the edge; servlet containers cut a segment at ";".
    folded = unicodedata.normalize("NFKC", segment)
    if folded != segment:
        if "/" in folded.replace("\u2044", "/") or "\\" in folded:
            raise UriRefused("the URI holds a character that becomes a slash or backslash when normalised")
        if _ESCAPE.search(folded):
            raise UriRefused("the URI holds an escape in disguise")
    visible = "".join(c for c in folded if unicodedata.category(c) != "Cf") if not folded.isascii() else folded
    if visible.partition(";")[0].strip() in (".", ".."):
        raise UriRefused("the URI holds a dot segment")


def _decode_unreserved(text: str) -> str:
    """Escapes of letters, digits and ``-._~`` decoded (RFC 3986, 6.2.2.2), all others left as they are."""
    if "%" not in text:
        return text

    def decode(match: re.Match[str]) -> str:
        octet = int(match.group()[1:], 16)
        return chr(octet) if octet in _UNRESERVED else match.group()

    return _ESCAPE.sub(decode, text)


class UriPatterns:
    """Patterns over URIs in normal form.

    ``*`` and ``?`` stay within one segment, ``**`` crosses segments and must be a segment of its own; a pattern that
    ends in ``/`` means everything below; ``*`` or ``**`` alone means every URI that can be normalised.  A pattern is
    matched against scheme, authority and path; query and fragment are free where it has a wildcard or ends in ``/``.
    """

    __slots__ = ("_literals", "_memory", "_program", "_templates", "patterns")

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)
        literals: set[str] = set()
        wild = []
        for pattern in self.patterns:
            if pattern in ("*", "**"):
                wild.append(".*")
            elif "*" in pattern or "?" in pattern or pattern.endswith("/"):
                wild.append(_compile(pattern))
            else:
                literals.update(_literal(pattern))
        self._literals = frozenset(literals)
        self._templates = frozenset(pattern for pattern in self.patterns if "{" in pattern)
        self._program = alternation(wild) if wild else None
        self._memory: dict[tuple[str, bool], str | None] = {}

    def judge(self, text: object, *, template: bool = False) -> str | None:
        """The normal form of an allowed URI, or None.  With ``template``, the URI may hold ``{variables}``."""
        if type(text) is not str:
            return None
        key = (text, template)
        if key in self._memory:
            return self._memory[key]
        answer = self._judge(text, template)
        # Long URIs are not remembered: 4096 of them would hold 32 MB.
        if len(text) <= 512:
            if len(self._memory) >= _MEMORY:
                self._memory.clear()
            self._memory[key] = answer
        return answer

    def _judge(self, text: str, template: bool) -> str | None:
        if template and text in self._templates:
            return text
        try:
            uri = normalise_template(text) if template else normalise(text)
        except UriRefused:
            return None
        allowed = all(
            (uri.exact and subject in self._literals)
            or (self._program is not None and self._program.search(subject) is not None)
            for subject in uri.subjects
        )
        return uri.text if allowed else None

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def __repr__(self) -> str:
        return f"UriPatterns({list(self.patterns)!r})"


def _literal(pattern: str) -> tuple[str, ...]:
    if "{" in pattern:
        return ()
    try:
        return normalise(pattern).subjects
    except UriRefused as error:
        raise GlobError(f"{pattern!r} can never match: {error}") from error


def _compile(pattern: str) -> str:
    scheme, separator, rest = pattern.partition("://")
    if not separator:
        scheme, separator, rest = pattern.partition(":")
    if not separator or not _SCHEME.fullmatch(scheme):
        raise GlobError(f"{pattern!r} must begin with a scheme such as file:// or weather://")
    for segment in rest.split("/"):
        if "**" in segment and segment != "**":
            raise GlobError(f"{pattern!r}: ** must stand for whole segments, as in {scheme}://**")
        if segment in (".", ".."):
            raise GlobError(f"{pattern!r} can never match: dot segments are refused")
    if separator == "://":
        authority, slash, path = rest.partition("/")
        if scheme.lower() in _DEFAULT_PORTS:
            authority = authority.lower()
            default = f":{_DEFAULT_PORTS[scheme.lower()]}"
            if authority.endswith(default):
                authority = authority.removesuffix(default)
        rest = authority + slash + path
    body = scheme.lower() + separator + _decode_unreserved(rest)
    compiled = to_re2(body, run="[^/]*", one="[^/]", deep=".*")
    return compiled + ".*" if body.endswith("/") else compiled
