"""Whose task is it?  A ledger of the tasks that servers started, by client.

A server must bind a task to the caller that it was started for (rules 11.2, 11.5).  Behind a gateway every caller has
the gateway's credentials, so the server sees one caller and its binding holds nothing (rules 9.2, 9.3): whoever learns
a task id could read its result, answer its questions or cancel it, and tasks/list shows everybody's.  The gateway is
the only one that can tell callers apart, so it keeps the binding itself.

The ledger learns a task from the result that starts it, on its way to the client, and knows no other way.  A task that
it does not know and a task of another client are the same thing to whoever asks: "unknown task", -32602.  A gateway
that was started anew knows no tasks, nor does a second copy of it: their owners get that answer as well, and nobody
gets more.

Memory is bounded.  When it is full, the client that has most tasks loses the one that it has not used for longest, so
that no client can push another's tasks out.

Two revisions have tasks, and their shapes differ (rules 11.1, 11.4, 11.6)::

    2025-11-25   result: {"task": {"taskId": ..}}
                 tasks/get, tasks/result, tasks/list, tasks/cancel; notifications/tasks/status
    2026-07-28   result: {"resultType": "task", "taskId": ..}
                 tasks/get, tasks/update, tasks/cancel; notifications/tasks

Tasks that a *client* runs for its server (2025-11-25: sampling and elicitation) are not in the ledger: they are named
in the session that they belong to, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..wire.names import fold
from .errors import InvalidParams, UpstreamProtocolError
from .methods import METHODS
from .revisions import Revision

__all__ = ["TaskOwners"]

# Characters of a task id that is remembered; the specification's own are UUIDs.
MAX_ID = 1024

_Key = tuple[str, str]


class TaskOwners:
    """Which client each task belongs to, for all upstreams.

    ``capacity`` is how many tasks are remembered, at least one; ``ttl`` how many seconds a task is remembered after it
    was last used.  It should be longer than servers keep theirs: polling keeps a task alive here.
    """

    def __init__(self, capacity: int, ttl: float) -> None:
        self._capacity = max(1, capacity)
        self._ttl = ttl
        self._owners: dict[_Key, str] = {}
        # By client: when each of its tasks was used last, longest ago first.
        self._used: dict[str, dict[_Key, float]] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def learn(self, client: str, upstream: str, document: Mapping[str, Any], now: float) -> None:
        """Note whose task it is that a server's response, about to go to a client, starts.

        Call it with every response to a client's tools/call, after the hooks.  Raises UpstreamProtocolError for an id
        that another client's task has: a server that answers two callers with one task would share its result.
        """
        task = _started(document.get("result"))
        if task is None:
            return
        if len(task) > MAX_ID:
            raise UpstreamProtocolError("the upstream gave out a task id that is too long", reason="upstream-task")
        key = (upstream, task)
        owner = self._owners.get(key)
        if owner is not None and owner != client and not self._is_over(key, owner, now):
            raise UpstreamProtocolError("the upstream gave out the id of another task", reason="upstream-task")
        self._forget(key)
        self._expire(client, now)
        if len(self._owners) >= self._capacity:
            richest = max(self._used, key=lambda each: len(self._used[each]))
            self._forget(next(iter(self._used[richest])))
        self._owners[key] = client
        self._used.setdefault(client, {})[key] = now

    def check(self, client: str, upstream: str, task: object, now: float, *, revision: Revision | None = None) -> None:
        """Raises InvalidParams unless the task is the client's: the same for one that there is not (rules 11.2, 11.5).

        The HTTP status is 400 in a stateless revision, as for every -32602 there, and 200 in a session: there it is the
        answer to a well-formed request, and a client could take a 400 for the end of the transport (section 10).
        """
        key = (upstream, task) if isinstance(task, str) else None
        if key is None or self._owners.get(key) != client or self._is_over(key, client, now):
            error = InvalidParams("unknown task", reason="unknown-task")
            if revision is None or not revision.stateless:
                error.status = 200
            raise error
        used = self._used[client]
        del used[key]
        used[key] = now

    def check_request(
        self,
        client: str,
        upstream: str,
        method: str,
        params: Mapping[str, Any],
        now: float,
        *,
        revision: Revision | None = None,
    ) -> None:
        """``check`` for whatever tasks a client's request names: tasks/*, and the filter of subscriptions/listen
        (rule 7.8).  Raises InvalidParams."""
        known = METHODS.get(method)
        if known is not None and known.name == "taskId":
            self.check(client, upstream, params.get("taskId"), now, revision=revision)
        if method != "subscriptions/listen":
            return
        wanted = params.get("notifications")
        if not isinstance(wanted, Mapping):
            return
        for member in wanted:
            if fold(member.replace("_", "").replace("-", "")) != "taskids":
                continue
            # A server that reads another spelling would subscribe to what was not checked.
            tasks = wanted[member] if member == "taskIds" else None
            if not isinstance(tasks, list):
                raise InvalidParams("taskIds must be a list of the ids of tasks")
            for task in tasks:
                self.check(client, upstream, task, now, revision=revision)

    def filter_list(self, client: str, upstream: str, result: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The result of tasks/list with the client's own tasks only, or None if that changes nothing (rule 11.2).

        Order and all other members stay, the cursor of the next page too: an empty page may have one (rule 7.20).
        Raises UpstreamProtocolError for a list that cannot be read.
        """
        tasks = result.get("tasks", [])
        if not isinstance(tasks, list) or any(fold(each) == "tasks" and each != "tasks" for each in result):
            raise UpstreamProtocolError("the upstream's list of tasks is malformed", reason="upstream-result")
        own = [task for task in tasks if isinstance(task, dict) and self.owns_notification(client, upstream, task)]
        return None if len(own) == len(tasks) else {**result, "tasks": own}

    def owns_notification(self, client: str, upstream: str, params: Mapping[str, Any]) -> bool:
        """Whether what a server tells a client about a task - params of notifications/tasks and
        notifications/tasks/status - is about its own."""
        task = params.get("taskId")
        return isinstance(task, str) and self._owners.get((upstream, task)) == client

    def _is_over(self, key: _Key, owner: str, now: float) -> bool:
        return now - self._used[owner][key] > self._ttl

    def _expire(self, client: str, now: float) -> None:
        for key in list(self._used.get(client, ())):
            if not self._is_over(key, client, now):
                break
            self._forget(key)

    def _forget(self, key: _Key) -> None:
        owner = self._owners.pop(key, None)
        if owner is not None:
            used = self._used[owner]
            del used[key]
            if not used:
                del self._used[owner]


def _started(result: object) -> str | None:
    """The id of the task that a result starts, or None."""
    if not isinstance(result, dict):
        return None
    task = result if result.get("resultType") == "task" else result.get("task")
    id = task.get("taskId") if isinstance(task, dict) else None
    return id if isinstance(id, str) else None
