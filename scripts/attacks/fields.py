"""The fields of a case that say something of their own: status, code, texts, lines, bounds."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator

from gateway.harness.script import Received

from .case import Case
from .seen import Seen
from .wire import Answered, documents, has_error, strings

__all__ = ["always", "stated"]


def stated(case: Case, outcome: str, seen: Seen, *, first: bool) -> Iterator[str]:
    """What is said of the answer.  Status, code and contents belong to the first choice: another outcome has others."""
    if first and seen.responses:
        response = seen.responses[0]
        allowed = case.fields.get("status_any") or (
            [case.fields["status"]] if case.fields.get("status") is not None else []
        )
        if allowed and response.status not in allowed:
            yield f"status {response.status} instead of {' or '.join(map(str, allowed))}"
        code = _code(response)
        wanted = case.fields.get("jsonrpc_code")
        if wanted is not None and code is not None and code != wanted:
            yield f"code {code} instead of {wanted}"
    elif first and (case.fields.get("status") is not None or case.fields.get("status_any")):
        yield "no answer, so no status"
    if first or outcome in ("allow", "redact"):
        for text in case.words("must_contain"):
            if not _received(seen, text):
                yield f"the client did not receive {text!r}"


def always(case: Case, seen: Seen) -> Iterator[str]:
    """What holds whatever the outcome."""
    for text in case.words("must_not_contain"):
        if _received(seen, text):
            yield f"the client received {text!r}"
    for text in case.words("upstream_must_not_contain"):
        if any(_arrived(received, text) for received in seen.arrived):
            yield f"the upstream received {text!r}"
    for text in case.words("audit_must_not_contain"):
        if text in seen.audit or text in seen.log or any(text in each for each in strings(seen.records())):
            yield f"audit or log contain {text!r}"
    for text in case.words("audit_must_not_have_line"):
        if _has_line(seen, text):
            yield f"audit or log have the line {text!r}"
    for text in case.words("metrics_must_not_contain"):
        if text in seen.metrics:
            yield f"the metrics contain {text!r}"
    if (most := case.fields.get("max_ms")) is not None and seen.ms > most:
        yield f"took {seen.ms:.0f} ms of {most}"
    if (growth := case.fields.get("max_memory_growth_mb")) is not None:
        if seen.growth is None:
            yield "memory was not measured"
        elif seen.growth > growth * 1024**2:
            yield f"memory grew by {seen.growth / 1024**2:.1f} MB of {growth}"


def _received(seen: Seen, text: str) -> bool:
    if _within(seen.raw, text):
        return True
    if any(_in_head(each.head.decode("latin-1"), text) for each in seen.responses):
        return True
    for each in seen.responses:
        if _within(each.body, text):
            return True
        try:
            found = documents(each.headers, each.body)
        except ValueError:
            continue
        if any(text in string for string in strings(found)):
            return True
    return False


def _arrived(received: Received, text: str) -> bool:
    head = received.raw_head.decode("latin-1")
    if _within(received.raw_head, text) or _in_head(head, text) or _within(received.body, text):
        return True
    for encoded in re.findall(r"(?i)=\?base64\?([A-Za-z0-9+/=]*)\?=", head):
        try:
            if _within(base64.b64decode(encoded), text):
                return True
        except binascii.Error:
            continue
    return any(text in string for string in strings(received.message))


def _in_head(head: str, text: str) -> bool:
    """Whether a header field is there; the case of its name means nothing."""
    return ":" in text and text.lower() in head.lower()


def _has_line(seen: Seen, text: str) -> bool:
    """Whether a line reads so, whatever ends lines; or, for an object, whether a record says all that it says."""
    for line in (seen.audit + "\n" + seen.log).splitlines():
        if line.strip() == text.strip():
            return True
    try:
        forged = json.loads(text)
    except ValueError:
        return False
    if not isinstance(forged, dict) or not forged:
        return False
    return any(
        all(key in record and record[key] == value for key, value in forged.items()) for record in seen.records()
    )


def _within(data: bytes, text: str) -> bool:
    return text.encode("utf-8", "surrogatepass") in data


def _code(response: Answered) -> int | None:
    try:
        found = documents(response.headers, response.body)
    except ValueError:
        return None
    return next((document["error"].get("code") for document in found if has_error(document)), None)
