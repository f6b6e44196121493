"""What the gateway hands out and wants back unchanged: session ids, event ids, server request ids, request states.

A peer cannot read a sealed text, change it, or use one that was made for somebody else or for something else: the
context it is bound to (whose it is, and for what) is part of the authenticated data, and never travels.  Nothing is
stored, so every copy of the gateway that has the same keys understands what another one sealed.

Two forms:

- ``seal``/``open``: AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce.  Hides what it holds.  One key may seal
  2^32 texts; rotate long before.
- ``sign``/``verify``: HMAC-SHA-256, cut to 96 bits, before the text itself.  Hides nothing, costs two microseconds, and
  the same text gets the same signature: for what is made for every event of a stream.

Keys rotate: the first key of the ring seals, all of them open.  Each key is used through keys derived from it (HKDF,
RFC 5869), one for each form.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["KEY_BYTES", "KeyRing", "SealBroken"]

KEY_BYTES = 32

_KEY_ID = 4
_NONCE = 12
_TAG = 12  # of a signature: forging one needs 2^96 tries against a running gateway


class SealBroken(Exception):
    """A sealed or signed text that is not one, was changed, or was made for another context or with an unknown key."""


class KeyRing:
    """Seals with the first of its keys, opens with any.  ``keys`` are of 32 bytes each; none: one of its own making,
    which no other process knows and which ends with this one."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        if any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        self._ciphers: dict[bytes, AESGCM] = {}
        self._signers: dict[bytes, bytes] = {}
        for key in keys or (os.urandom(KEY_BYTES),):
            id = hashlib.sha256(b"mcpgw key id\0" + key).digest()[:_KEY_ID]
            self._ciphers.setdefault(id, AESGCM(_derive(key, b"seal")))
            self._signers.setdefault(id, _derive(key, b"sign"))
        self._id = next(iter(self._ciphers))

    def seal(self, purpose: str, context: Sequence[str], text: bytes) -> str:
        """``text``, hidden and bound to a purpose and a context, in URL-safe base64 without padding."""
        nonce = os.urandom(_NONCE)
        sealed = self._ciphers[self._id].encrypt(nonce, text, _bind(purpose, context))
        return _encode(self._id + nonce + sealed)

    def open(self, purpose: str, context: Sequence[str], sealed: str) -> bytes:
        """The inverse of ``seal``; raises SealBroken."""
        raw = _decode(sealed)
        cipher = self._ciphers.get(raw[:_KEY_ID])
        if cipher is None:
            raise SealBroken("unknown key")
        try:
            return cipher.decrypt(raw[_KEY_ID : _KEY_ID + _NONCE], raw[_KEY_ID + _NONCE :], _bind(purpose, context))
        except (InvalidTag, ValueError) as error:
            raise SealBroken("not sealed for this") from error

    def sign(self, purpose: str, context: Sequence[str], text: str) -> str:
        """``text`` behind a signature that binds it to a purpose and a context."""
        return _encode(self._id + self._signature(self._id, purpose, context, text)) + "." + text

    def verify(self, purpose: str, context: Sequence[str], signed: str) -> str:
        """The inverse of ``sign``; raises SealBroken."""
        head, dot, text = signed.partition(".")
        raw = _decode(head)
        id = raw[:_KEY_ID]
        if not dot or id not in self._signers:
            raise SealBroken("not signed")
        if not hmac.compare_digest(raw[_KEY_ID:], self._signature(id, purpose, context, text)):
            raise SealBroken("not signed for this")
        return text

    def _signature(self, id: bytes, purpose: str, context: Sequence[str], text: str) -> bytes:
        data = _bind(purpose, (*context, text))
        return hmac.digest(self._signers[id], data, "sha256")[:_TAG]

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self._ciphers)}>"


def _derive(key: bytes, use: bytes) -> bytes:
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=b"mcpgw " + use).derive(key)


def _bind(purpose: str, context: Sequence[str]) -> bytes:
    """The parts, each behind its length: no two lists of parts have the same bytes."""
    parts = [each.encode("utf-8", "surrogatepass") for each in (purpose, *context)]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise SealBroken("not base64") from error
    if _encode(raw) != text:
        raise SealBroken("not canonical")  # one text, one spelling: what is compared elsewhere stays comparable
    return raw
