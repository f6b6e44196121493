"""What a server may send, by revision: results, errors, notifications and requests of its own.

Up to 2025-11-25 a session says what may pass: the revision that was negotiated and what the client declared then.  In
2026-07-28 each request says it for itself, and a server must not go beyond that: no input is asked for that the client
did not declare on this request, no log message arrives unless this request set a level, nothing on a subscription that
was not subscribed to.  A client trusts its gateway to hold a server to that as a server of its own would.

Nothing here remembers anything but ``Subscription``, which knows whether its acknowledgement has come.  A function that
returns a bool says whether the message passes; what does not pass is dropped.  A result cannot be dropped, since its
client waits, so ``check_result`` raises.

The judgement by what is *said* in a message is the hooks'.  What a policy must see - methods of extensions, which no
table of ours knows - passes here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from ..wire.names import Cleared, fold
from .errors import UpstreamProtocolError
from .message import Call, Sender
from .methods import METHODS, declares, exists, missing_capability
from .modern import SUBSCRIPTION_ID
from .revisions import Revision

__all__ = [
    "INPUT_REQUESTS", "INPUT_REQUIRED_METHODS", "LOG_LEVEL", "TASKS_EXTENSION", "Stream", "Subscription",
    "check_error", "check_notification", "check_result", "check_server_request",
]  # fmt: skip

# The answer to a POST, the server's own stream (or a resumed one), or the answer to subscriptions/listen.
Stream = Literal["post", "get", "listen"]

LOG_LEVEL = "io.modelcontextprotocol/logLevel"
TASKS_EXTENSION = "io.modelcontextprotocol/tasks"

# Rules 7.11 and 7.12: what may be answered with input_required, and what input may be asked for.
INPUT_REQUIRED_METHODS = frozenset(("tools/call", "prompts/get", "resources/read"))
INPUT_REQUESTS = frozenset(("elicitation/create", "sampling/createMessage", "roots/list"))

# 2025-11-25's URLElicitationRequired; no other revision has it (rule 7.23).
_URL_ELICITATION_REQUIRED = -32042

# Members that decide how a client reads a result.  Clients of some SDKs accept other spellings of them.
_DECISIVE = {fold(name): name for name in ("resultType", "inputRequests", "requestState")}

_ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
_CANCELLED = "notifications/cancelled"


# -- answers ----------------------------------------------------------------------------------------------------------


def check_result(
    revision: Revision | None,
    call: Call,
    request_params: Mapping[str, Any],
    capabilities: Mapping[str, Any],
    result: Mapping[str, Any],
) -> Mapping[str, Any] | None:
    """Judge the result of a client's request: None passes it as it is, a mapping is what passes instead.

    ``request_params`` are those of the request, ``capabilities`` what the client declared on it.  Raises
    UpstreamProtocolError for what the revision does not allow.  Results of revisions with sessions, and of initialize
    (``revision`` is None), have no rules here.

    - ``resultType``: absent is ``complete``, values that nobody defined are invalid (rule 7.1)
    - ``input_required``: rules 7.11 and 7.12
    - ``task``: only from tools/call, and only for a client that declared the extension on this request (rule 11.4).
      The extension's text has examples of tasks/get with that value, against its own rule that they are ``complete``;
      servers that were written by the examples are corrected.
    - of subscriptions/listen: names its subscription, as everything on that stream does (rule 7.7)

    Cache hints are left alone: one on an input_required result is a server's fault that harms nobody (rule 7.16).
    """
    if revision is None or not revision.stateless:
        return None
    if not _spelled_right(result):
        raise _bad_result("has a member in a spelling that only some clients read")
    kind = result.get("resultType", "complete")
    if kind == "input_required":
        _check_input_required(call, capabilities, result)
    elif kind == "task":
        if call.method.startswith("tasks/") and call.method in METHODS:
            corrected = {**result, "resultType": "complete"}
            return check_result(revision, call, request_params, capabilities, corrected) or corrected
        _check_task(call, capabilities, result)
    elif kind != "complete":
        raise _bad_result("is of a type that the client cannot know")
    elif call.method == "subscriptions/listen":
        if not _names_subscription(call, result):
            raise _bad_result("does not name the subscription that it ends")
    elif call.method == "tasks/get" and "inputRequests" in result:
        _check_input_requests(capabilities, result["inputRequests"])
    return None


def _is_misspelt(member: str) -> bool:
    return _DECISIVE.get(fold(member.replace("_", "").replace("-", "")), member) != member


_spelled_right = Cleared(_is_misspelt)


def _check_input_required(call: Call, capabilities: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    if call.method not in INPUT_REQUIRED_METHODS:
        raise _bad_result("asks for input, which this method does not do")
    if "inputRequests" not in result and "requestState" not in result:
        raise _bad_result("asks for input and says neither which nor in what state")
    if type(result.get("requestState", "")) is not str:
        raise _bad_result("holds a requestState that is no string")
    if "inputRequests" in result:
        _check_input_requests(capabilities, result["inputRequests"])


def _check_input_requests(capabilities: Mapping[str, Any], requests: Any) -> None:
    """Rule 7.12, for results of their own and for tasks that wait (rule 11.4)."""
    if type(requests) is not dict:
        raise _bad_result("holds input requests that are no object")
    for request in requests.values():
        method = request.get("method") if type(request) is dict else None
        params = request.get("params", {}) if type(request) is dict else None
        if type(method) is not str or method not in INPUT_REQUESTS or type(params) is not dict:
            raise _bad_result("asks for input of a kind that there is not")
        missing = missing_capability(method, params, capabilities)
        if missing is not None:
            raise _bad_result(f"asks for input that the client did not declare: {missing}")


def _check_task(call: Call, capabilities: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    if call.method != "tools/call":
        raise _bad_result("is a task, which this method does not start")
    if not declares(capabilities, "extensions", TASKS_EXTENSION):
        raise _bad_result("is a task, and the client did not declare the extension")
    if type(result.get("taskId")) is not str:
        raise _bad_result("is a task without an id")


def _bad_result(what: str) -> UpstreamProtocolError:
    return UpstreamProtocolError(f"the upstream's result {what}", reason="upstream-result")


def check_error(revision: Revision | None, error: Mapping[str, Any]) -> bool:
    """Whether an error of a server passes: the member ``error`` of its message.

    -32042 asks a client to open URLs, in 2025-11-25 alone (rule 7.23).  -32002, which 2026-07-28 has no more, passes
    everywhere: its clients are told to understand it from older servers (rule 7.22).
    """
    if error.get("code") != _URL_ELICITATION_REQUIRED:
        return True
    # It came and went with the notification that says the person is done.
    return revision is not None and exists("notifications/elicitation/complete", revision, Sender.SERVER)


# -- notifications and requests ---------------------------------------------------------------------------------------


def check_notification(
    revision: Revision | None,
    call: Call | None,
    request_params: Mapping[str, Any],
    message_params: Mapping[str, Any],
    method: str,
    stream: Stream,
) -> bool:
    """Whether a server's notification passes on a stream.

    ``call`` and ``request_params`` are the request that the stream answers (None and empty for ``get``), as it went
    upstream; ``method`` and ``message_params`` are the notification's.  What the revision does not have is dropped
    (rule 7.23), and so is ``ui/*``, which is spoken between a host and its frames only (rule 12.4).

    In 2026-07-28 a stream holds what belongs to its request: progress under its own token, log messages if it set a
    level (rules 7.2, 7.3, 7.25); changes come on subscriptions, where ``Subscription`` knows the order as well; there
    are no other streams.
    """
    if method.startswith("ui/") or (method in METHODS and not exists(method, revision, Sender.SERVER)):
        return False
    if revision is None or not revision.stateless:
        return True
    if stream == "get" or call is None:
        return False
    if stream == "listen":
        return _belongs_to_subscription(call, request_params, method, message_params)
    if method in METHODS:
        belongs = _OF_REQUESTS.get(method)
        return belongs is not None and belongs(_meta(request_params), message_params)
    return True


def _is_progress(meta: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
    token = meta.get("progressToken")
    return token is not None and _same(token, params.get("progressToken"))


def _is_logged(meta: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
    return meta.get(LOG_LEVEL) is not None


_OF_REQUESTS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], bool]] = {
    "notifications/progress": _is_progress,
    "notifications/message": _is_logged,
}


def check_server_request(
    revision: Revision | None, capabilities: Mapping[str, Any], method: str, params: Mapping[str, Any] | None = None
) -> bool:
    """Whether a server may send this request on a stream.

    Not where the revision has none (rule 7.2) or not this one (rule 4.1), not without the capability that the client
    must have declared, nor the mode of it that ``params`` asks for (rule 3.3), and never ``ui/*`` (rule 12.4).
    """
    if method.startswith("ui/") or (revision is not None and not revision.server_requests):
        return False
    if method not in METHODS:
        return True
    return (
        exists(method, revision, Sender.SERVER)
        and missing_capability(method, {} if params is None else params, capabilities) is None
    )


# -- subscriptions ----------------------------------------------------------------------------------------------------


class Subscription:
    """One subscriptions/listen: what its server has to say on it, and when (rules 7.3, 7.7, 7.8).

    ``call`` is the request, ``request_params`` its params as they went upstream: a hook may have narrowed the filter or
    written URIs in normal form.
    """

    __slots__ = ("_acknowledged", "_call", "_params")

    def __init__(self, call: Call, request_params: Mapping[str, Any]) -> None:
        self._call = call
        self._params = request_params
        self._acknowledged = False

    def admits(self, method: str, params: Mapping[str, Any]) -> bool:
        """Whether a notification passes, asked once for each in order.

        The acknowledgement comes first and once; what comes before it is dropped, since a client does not know yet what
        was agreed.  An end, notifications/cancelled, may come at any time (rule 7.6).
        """
        if not _belongs_to_subscription(self._call, self._params, method, params):
            return False
        if method == _ACKNOWLEDGED:
            first, self._acknowledged = not self._acknowledged, True
            return first
        return self._acknowledged or method == _CANCELLED


def _belongs_to_subscription(
    call: Call, request_params: Mapping[str, Any], method: str, params: Mapping[str, Any]
) -> bool:
    if method == _CANCELLED:
        # The text of cancellation shows it without _meta; what it ends is what requestId says.
        return _same(params.get("requestId"), call.id)
    if not _names_subscription(call, params):
        return False
    if method == _ACKNOWLEDGED:
        return True
    matches = _OF_SUBSCRIPTIONS.get(method)
    wanted = request_params.get("notifications")
    return matches is not None and isinstance(wanted, Mapping) and matches(wanted, params)


def _changed(member: str) -> Callable[[Mapping[str, Any], Mapping[str, Any]], bool]:
    return lambda wanted, params: wanted.get(member) is True


def _is_subscribed(wanted: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
    uri = params.get("uri")
    uris = wanted.get("resourceSubscriptions")
    return type(uri) is str and type(uris) is list and any(_covers(each, uri) for each in uris)


def _covers(subscribed: Any, uri: str) -> bool:
    """Whether it is the resource, or one below it: a server may name a sub-resource of what was subscribed to."""
    if type(subscribed) is not str or not uri.startswith(subscribed):
        return False
    return len(uri) == len(subscribed) or subscribed.endswith("/") or uri[len(subscribed)] in "/?#"


def _is_own_task(wanted: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
    tasks = wanted.get("taskIds")
    return type(tasks) is list and type(params.get("taskId")) is str and params["taskId"] in tasks


# Which member of the filter asks for what (SEP-2575; the last one is the tasks extension's).
_OF_SUBSCRIPTIONS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], bool]] = {
    "notifications/tools/list_changed": _changed("toolsListChanged"),
    "notifications/prompts/list_changed": _changed("promptsListChanged"),
    "notifications/resources/list_changed": _changed("resourcesListChanged"),
    "notifications/resources/updated": _is_subscribed,
    "notifications/tasks": _is_own_task,
}


def _names_subscription(call: Call, body: Mapping[str, Any]) -> bool:
    """Whether params or a result carry the listen request's own id, in the same JSON type (rule 7.7)."""
    return _same(_meta(body).get(SUBSCRIPTION_ID), call.id)


def _meta(body: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = body.get("_meta")
    return meta if isinstance(meta, Mapping) else {}


def _same(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other
