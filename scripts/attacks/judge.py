"""What came of a case, held against what was expected of it.  No IO: everything that was seen is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .case import Case
from .fields import always, stated
from .sameness import is_request, same, same_request, shape
from .seen import Listing, Seen, excerpt
from .wire import Answered, documents, has_error, is_answer, strict

__all__ = ["faults"]


def faults(case: Case, seen: Seen) -> list[str]:
    """Why a case is a miss; nothing when what came of it was expected."""
    if seen.problem is not None:
        return [seen.problem]
    found = seen.amiss + list(always(case, seen))
    # Each acceptable outcome stands for itself; the first one's reasons are told when none was met.
    first: list[str] = []
    for number, outcome in enumerate(case.outcomes):
        wrong = [*_outcome(case, outcome, seen), *(stated(case, outcome, seen, first=number == 0))]
        if not wrong:
            return found
        first = first or wrong
    return first + found


# -- outcomes ----------------------------------------------------------------------------------------------------------


def _outcome(case: Case, outcome: str, seen: Seen) -> Iterable[str]:
    if outcome == "flag":
        return [] if _flagged(case, seen) else ["no finding is recorded"]
    kind = "tools" if case.transport == "tool_def" else "request" if case.asks else "answer"
    return OUTCOMES[kind, outcome](case, seen)


def _request_rejected(case: Case, seen: Seen) -> Iterator[str]:
    if seen.arrived:
        yield f"reached the upstream: {excerpt(seen.arrived[0].body or seen.arrived[0].raw_head)}"
    if not seen.responses and (case.transport == "jsonrpc" or not seen.closed):
        yield "neither answered nor closed"
    for response in seen.responses:
        if response.status < 400 and not _answered_with_error(response):
            yield f"answered {response.status} without an error"


def _request_allowed(case: Case, seen: Seen) -> Iterator[str]:
    yield from _answered_well(case, seen)
    yield from _blocked(seen)
    if is_request(seen.asked):
        if len(seen.arrived) != 1:
            yield f"the upstream received {len(seen.arrived)} requests instead of one"
        elif not same_request(seen.asked, seen.arrived[0]):
            yield f"the upstream received another request: {excerpt(seen.arrived[0].body)}"


def _request_redacted(case: Case, seen: Seen) -> Iterator[str]:
    yield from _answered_well(case, seen)
    if len(seen.arrived) != 1:
        yield f"the upstream received {len(seen.arrived)} requests instead of one"
    elif is_request(seen.asked) and seen.arrived[0].rpc_method != seen.asked.get("method"):
        yield "the upstream received another method"


def _request_neutralized(case: Case, seen: Seen) -> Iterator[str]:
    """Whatever passed, passed unambiguously, and one answer came for each request."""
    if len(seen.arrived) > len(seen.responses):
        yield f"{len(seen.responses)} answers, but {len(seen.arrived)} requests reached the upstream"
    if not seen.responses and not seen.closed:
        yield "neither answered nor closed"
    for received in seen.arrived:
        names = [name.lower() for name, _ in received.headers]
        if "transfer-encoding" in names and "content-length" in names:
            yield "the upstream received two framings"
        if not received.complete:
            yield "the upstream received half a request"
        try:
            if received.body:
                strict(received.body)
        except ValueError:
            yield "the upstream received ambiguous JSON"


def _answered_well(case: Case, seen: Seen) -> Iterator[str]:
    if len(seen.responses) != 1:
        yield f"{len(seen.responses)} answers instead of one"
        return
    response = seen.responses[0]
    if not 200 <= response.status < 300:
        yield f"answered {response.status}"
    if not response.whole and case.fields.get("era") != "legacy":
        yield "the answer is cut off"
    if not is_request(seen.asked):
        return
    try:
        answers = [document for document in seen.documents() if is_answer(document)]
    except ValueError as error:
        yield f"the client received what is no JSON: {error}"
        return
    if "id" not in seen.asked:
        if answers:
            yield "a notification was answered"
        return
    if len(answers) != 1 or not same(answers[0].get("id"), seen.asked["id"]):
        yield f"the client received {len(answers)} answers, or one to another request"
    elif has_error(answers[0]):
        yield f"answered with an error: {excerpt(json.dumps(answers[0]['error']).encode())}"
    elif not seen.asked["method"].endswith("/list") and not any(same(answers[0]["result"], one) for one in seen.given):
        yield f"the client received another result: {excerpt(json.dumps(answers[0]).encode())}"


def _final(case: Case, seen: Seen) -> tuple[list[str], dict[str, Any] | None, list[Any]]:
    """What is wrong about the answer itself, the answer, and all documents."""
    try:
        received = seen.documents()
    except ValueError as error:
        return [f"the client received what is no JSON: {error}"], None, []
    answers = [document for document in received if is_answer(document)]
    if len(answers) != 1:
        return [f"the pending call got {len(answers)} answers"], None, received
    if not same(answers[0].get("id"), seen.asked["id"]):
        return [f"the answer has the id {answers[0].get('id')!r}"], None, received
    return [], answers[0], received


def _answer_rejected(case: Case, seen: Seen) -> Iterator[str]:
    wrong, answer, received = _final(case, seen)
    yield from wrong
    if answer is None:
        return
    if case.fields.get("partial"):
        return
    if not has_error(answer):
        yield f"the call ended with a result: {excerpt(json.dumps(answer).encode())}"
    for sent in seen.sent:
        if any(same(sent, document) for document in received):
            yield "what the upstream sent passed"
        elif isinstance(sent, dict) and sent.get("error") is not None and same(sent["error"], answer.get("error")):
            yield "the upstream's own error passed"


def _answer_allowed(case: Case, seen: Seen) -> Iterator[str]:
    wrong, _, received = _final(case, seen)
    yield from wrong
    if wrong:
        return
    yield from _blocked(seen)
    if not seen.sent:
        yield "nobody can read what the upstream sent"
    rest = iter([_restored(document, seen) for document in received])
    for sent in seen.sent:
        if not any(same(sent, document) for document in rest):
            yield f"changed or missing: {excerpt(json.dumps(sent).encode())}"
            return


def _restored(document: Any, seen: Seen) -> Any:
    result = document.get("result") if isinstance(document, dict) else None
    if not isinstance(result, dict) or result.get("requestState") not in seen.restored:
        return document
    return {**document, "result": {**result, "requestState": seen.restored[result["requestState"]]}}


def _answer_redacted(case: Case, seen: Seen) -> Iterator[str]:
    wrong, answer, _ = _final(case, seen)
    yield from wrong
    if answer is None:
        return
    finals = [sent for sent in seen.sent if is_answer(sent)]
    if not finals:
        yield "nobody can read what the upstream sent"
    elif has_error(answer) != has_error(finals[0]):
        yield f"the surrounding message did not pass: {excerpt(json.dumps(answer).encode())}"
    elif shape(answer) != shape(finals[0]):
        yield f"more than strings were changed: {excerpt(json.dumps(answer).encode())}"


def _answer_neutralized(case: Case, seen: Seen) -> Iterator[str]:
    yield from _final(case, seen)[0]


def _tools_rejected(case: Case, seen: Seen) -> Iterator[str]:
    taken: set[Any] = set()
    named = set(case.words("partial")) if not isinstance(case.fields.get("partial"), bool) else set()
    for number, listing in enumerate(seen.listings):
        shown = [tool.get("name") for tool in listing.shown or ()]
        for tool in listing.offered:
            name = tool.get("name")
            new = not any(same(tool, approved) for approved in listing.approved)
            bad = name in taken if len(seen.listings) > 1 else name in named if named else new or _alone(listing)
            if bad and (len(seen.listings) == 1 or number) and name in shown:
                yield f"the tool {name!r} is listed"
            if not bad and case.fields.get("partial") and name not in shown:
                yield f"the tool {name!r} is not listed"
        taken |= {tool.get("name") for tool in listing.offered}


def _alone(listing: Listing) -> bool:
    """Whether what was offered is what was approved, so that the definition itself has to be refused."""
    return all(any(same(tool, approved) for approved in listing.approved) for tool in listing.offered)


def _tools_allowed(case: Case, seen: Seen) -> Iterator[str]:
    yield from _blocked(seen)
    for listing in seen.listings:
        shown = {tool.get("name"): tool for tool in listing.shown or ()}
        for tool in listing.offered:
            if tool.get("name") not in shown:
                yield f"the tool {tool.get('name')!r} is not listed"
            elif not same(tool, shown[tool.get("name")]):
                yield f"the tool {tool.get('name')!r} was changed"


def _tools_redacted(case: Case, seen: Seen) -> Iterator[str]:
    for listing in seen.listings:
        shown = listing.shown or []
        if [shape(tool) for tool in shown] != [shape(tool) for tool in listing.offered]:
            yield "not every tool is listed, or more than strings were changed"


def _tools_neutralized(case: Case, seen: Seen) -> Iterator[str]:
    """No namespace that a client sees has a name twice, or a name of another server's."""
    for listing in seen.listings:
        names = [tool.get("name") for tool in listing.shown or ()]
        if len(set(names)) != len(names):
            yield "a name is listed twice"
        if not all(any(same(tool, offered) for offered in listing.offered) for tool in listing.shown or ()):
            yield "a list shows what its server did not offer"


Judge = Callable[[Case, Seen], Iterable[str]]
OUTCOMES: dict[tuple[str, str], Judge] = {
    ("request", "reject"): _request_rejected,
    ("request", "allow"): _request_allowed,
    ("request", "redact"): _request_redacted,
    ("request", "neutralized"): _request_neutralized,
    ("answer", "reject"): _answer_rejected,
    ("answer", "allow"): _answer_allowed,
    ("answer", "redact"): _answer_redacted,
    ("answer", "neutralized"): _answer_neutralized,
    ("tools", "reject"): _tools_rejected,
    ("tools", "allow"): _tools_allowed,
    ("tools", "redact"): _tools_redacted,
    ("tools", "neutralized"): _tools_neutralized,
}


# Findings that are recorded of every definition, good or bad.
UNCRITICAL = ("list-filtered", "definition-learned", "tool-new")


def _blocked(seen: Seen) -> Iterator[str]:
    for record in seen.records():
        if record.get("event") in ("request.refused", "message.blocked"):
            yield f"recorded as {record['event']}: {record.get('rule')}"
        for finding in record.get("findings") or ():
            if finding.get("action") == "block":
                yield f"a blocking finding: {finding.get('rule')}"


def _flagged(case: Case, seen: Seen) -> bool:
    # That a list was narrowed says something about the client's rights, unless the client has all of them.
    narrowed = any(len(listing.shown or ()) < len(listing.offered) for listing in seen.listings)
    for record in seen.records():
        if record.get("event") in ("request.refused", "message.blocked"):
            return True
        for finding in record.get("findings") or ():
            if finding.get("rule") not in UNCRITICAL or (finding.get("rule") == "list-filtered" and narrowed):
                return True
    return False


def _answered_with_error(response: Answered) -> bool:
    try:
        found = [document for document in documents(response.headers, response.body) if is_answer(document)]
    except ValueError:
        return False
    return bool(found) and all(map(has_error, found))
