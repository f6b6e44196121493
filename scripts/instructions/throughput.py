"""``python -m scripts.instructions.throughput``: megabytes a second that the hook ``sanitize`` reads, with all rules.

Three sizes of each kind of text, so that it shows whether time is linear.  Goals: 200 MB/s of prose, 100 MB/s of JSON
that looks like code.  Exit status 1 where a goal is missed at 1 MiB, as it is on a machine that does other things too.
"""

from __future__ import annotations

import base64
import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Mapping

from gateway.config.model import Policy
from gateway.guard.hook import Exchange
from gateway.guard.sanitize import SanitizeHook
from gateway.protocol.message import Call, Message, Sender
from gateway.wire.envelope import classify

from .workload import PROSE

__all__ = ["KINDS", "rate"]

SIZES = (64 << 10, 1 << 20, 8 << 20)
GOALS = {"prose": 200.0, "JSON like code": 100.0}
# Of so many rounds the best counts; longer ones are not repeated as often.
ROUNDS = 7
LONG = 2.0


def _repeated(text: str, size: int) -> str:
    return (text * (size // len(text) + 1))[:size]


def _code(size: int) -> str:
    """What a tool that reads a repository answers: names, digests, paths, numbers, quoted JSON."""
    source = random.Random(1)  # noqa: S311
    names = ("apiVersion", "token_count", "secretName", "keyboard", "author", "passwordless", "sessionTimeout", "url")
    lines = []
    length = 0
    for number in itertools.count():
        record = {
            source.choice(names): f"src/app/{source.choice(names)}/index_{number}.ts",
            "sha": f"{source.getrandbits(160):040x}",
            "line": number,
            "text": f"const {source.choice(names)} = await client.{source.choice(names)}(ctx, {{id: '{number}'}});",
        }
        lines.append(json.dumps(record))
        length += len(lines[-1]) + 1
        if length >= size:
            return "\n".join(lines)[:size]
    raise AssertionError


def _base64(size: int) -> str:
    data = random.Random(2).randbytes(size)  # noqa: S311
    return base64.b64encode(data).decode()[:size]


# What is worst: each keyword of a rule, over and over, and beginnings of secrets that come to nothing.
KINDS: Mapping[str, Callable[[int], str]] = {
    "prose": lambda size: _repeated(PROSE, size),
    "JSON like code": _code,
    "base64": _base64,
    "worst: keywords": lambda size: _repeated(
        "ghp_ AKIA xoxb- sk- eyJ glpat- key= token: password= secret AIza ", size
    ),
    "worst: beginnings": lambda size: _repeated("ghp_FAKE0fake1TEST2test3 AKIAFAKE eyJhbGciOiJ.eyJ ", size),
    "worst: quoted members": lambda size: _repeated('{\\"password\\":\\"', size),
    "worst: one long word": lambda size: "a" * size,
    "worst: invisible": lambda size: _repeated("a\u200b", size // 4),
}


def rate(kind: str, size: int) -> float:
    """Megabytes (10^6 bytes of UTF-8) a second, of a result whose text is ``size`` bytes or a little less."""
    text = KINDS[kind](size)
    document = {"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": text}]}}
    message = Message(classify(document), document, Sender.SERVER, Call(7, "tools/call", "get_file"))
    hook, policy = SanitizeHook(), Policy()
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        hook.on_message(message, Exchange("r-1", "alice", "up", "default", policy))
        best = min(best, time.perf_counter() - begun)
        if best > LONG:
            break
    return len(text.encode()) / best / 1e6


def main() -> int:
    """Prints the table; returns the exit status."""
    sizes = "".join(f"{size >> 10:>12,} KiB" for size in SIZES)
    print(f"{'sanitize, MB/s':<24}{sizes}{'goal':>10}")
    missed = []
    for kind in KINDS:
        rates = [rate(kind, size) for size in SIZES]
        goal = GOALS.get(kind)
        shown = "".join(f"{each:>16,.1f}" for each in rates)
        print(f"{kind:<24}{shown}{f'{goal:,.0f}' if goal else '-':>10}", flush=True)
        if goal is not None and rates[1] < goal:
            missed.append(kind)
    if missed:
        print(f"MISSED: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
