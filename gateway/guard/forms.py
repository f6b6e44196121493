"""What a server asks of a person: forms that ask for secrets, and URLs that lead to unexpected hosts.

A form must not ask for passwords, one-time codes or keys: whatever is typed into it goes to the server (2025-11-25
client/elicitation, "Security Considerations").  Which words ask for one is a judgement of language, in the languages
listed here; it finds what is written plainly, not what hides.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from .members import DEFAULT_MEMBERS, normalise

__all__ = ["asked_secret", "elicitations"]

# Read of each text; a longer one is looked at from both ends.
_MAX_CHARS = 4000
_MAX_FIELDS = 500

_CREDENTIAL_WORDS = (
    r"(?:pass ?(?:words?|wd|phrases?|codes?)|pwd|otp|totp|mfa codes?|2fa codes?|two factor codes?"
    r"|(?:one|1) ?time (?:pass\w*|codes?|pins?|tokens?)"
    r"|(?:verification|security|authentication|authenticator|auth|sms|backup|recovery) codes?"
    r"|(?:api|access|secret|private|signing|encryption|ssh|account|master) ?(?:access )?keys?"
    r"|(?:access|auth|authentication|bearer|refresh|session|api|id|security|secret) ?tokens?"
    r"|client secrets?|credentials?|cvv2?|cvc|card number|pin (?:codes?|numbers?)|session cookies?"
    r"|(?:seed|recovery|mnemonic) (?:phrases?|words?)"
    r"|passwort|kennwort|zugangsdaten|contrase\u00f1a|clave secreta|mot de passe|senha|parola d.ordine"
    r"|\u043f\u0430\u0440\u043e\u043b\u044c|\u5bc6\u7801|\u5bc6\u78bc|\u30d1\u30b9\u30ef\u30fc\u30c9|\ube44\ubc00\ubc88\ud638)"
)
# In the name or the title of a field.
_FIELD = re.compile(rf"(?<!\w)(?:{_CREDENTIAL_WORDS}|pin|secrets?|token|private key)(?!\w)")
# In prose: asked for, or at its end, as in "Your API key:".
_ASK = r"(?:enter|type|provide|paste|confirm|give|supply|send|share|input|submit|tell|fill in|need|require|your)"
_PROSE = re.compile(
    rf"(?<!\w){_ASK}(?!\w)[^.!?\n]{{0,60}}(?<!\w){_CREDENTIAL_WORDS}(?!\w)|(?<!\w){_CREDENTIAL_WORDS}\s*[:?]?\s*\Z"
)
_NOT = re.compile(r"(?:\b(?:not|never|no|without)|n['\u2019]t)\b[^.!?\n]*\Z")
_NOT_CHARS = 40
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_BETWEEN = re.compile(r"[\s_.\-/]+")
_BETWEEN_PROSE = re.compile(r"[^\S\n]+|[_-]+")

# Texts in these formats are no secrets, whatever they are called.
_PLAIN_FORMATS = frozenset(("date", "date-time", "email", "uri"))


def elicitations(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where a message of a server asks something of a person, as a JSON pointer, and the parameters of the question.

    As a request of its own, inside a result or a task (rules 7.12, 11.4), or in an error that asks for URLs (rule
    7.23).  What is malformed is left to the hook ``policy``, which refuses it.
    """
    if document.get("method") == "elicitation/create":
        yield "/params", _object(document.get("params"))
    for body in ("result", "params"):
        for request in _object(_object(document.get(body)).get("inputRequests")).values():
            if _object(request).get("method") == "elicitation/create":
                yield f"/{body}/inputRequests", _object(_object(request).get("params"))
    listed = _object(_object(document.get("error")).get("data")).get("elicitations")
    for params in listed if type(listed) is list else ():
        yield "/error/data/elicitations", {**_object(params), "mode": "url"}


def asked_secret(params: Mapping[str, Any]) -> bool:
    """Whether a form asks for a secret: by name, title or description of a field that takes text, or in its message."""
    if params.get("mode", "form") != "form":
        return False
    fields = _object(_object(params.get("requestedSchema")).get("properties"))
    if len(fields) > _MAX_FIELDS:
        return True
    takes_text = False
    for name, field in fields.items():
        schema = _object(field)
        if not _takes_text(schema):
            continue
        takes_text = True
        if normalise(_folded(name)) in DEFAULT_MEMBERS or any(
            _FIELD.search(_words(text)) for text in (name, schema.get("title")) if type(text) is str
        ):
            return True
        if _asks(schema.get("description")):
            return True
    return takes_text and _asks(params.get("message"))


def _takes_text(schema: Mapping[str, Any]) -> bool:
    if schema.get("type") in ("boolean", "array") or "enum" in schema or "const" in schema or "oneOf" in schema:
        return False
    return schema.get("format") not in _PLAIN_FORMATS


def _asks(text: Any) -> bool:
    if type(text) is not str:
        return False
    if len(text) > _MAX_CHARS:
        text = text[: _MAX_CHARS // 2] + ". " + text[-_MAX_CHARS // 2 :]
    words = _words(text, _BETWEEN_PROSE)
    return any(
        _NOT.search(words, max(0, match.start() - _NOT_CHARS), match.start()) is None
        for match in _PROSE.finditer(words)
    )


def _words(text: str, between: re.Pattern[str] = _BETWEEN) -> str:
    """The text in lower case and single spaces, without what does not show: ``awsSecretKey`` is ``aws secret key``."""
    return between.sub(" ", _folded(_CAMEL.sub(" ", text[: _MAX_CHARS + 2])))


def _folded(text: str) -> str:
    # Normalising takes the square of the time where marks follow one another, and the length is the server's.
    folded = unicodedata.normalize("NFKC", text[: _MAX_CHARS + 2])
    return "".join(char for char in folded if char.isascii() or unicodedata.category(char) != "Cf").casefold()


def _object(value: Any) -> dict[str, Any]:
    return value if type(value) is dict else {}
