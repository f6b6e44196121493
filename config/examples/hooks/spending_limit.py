"""A hook of one's own: refuses tool calls whose amount is above a limit.

hooks:
  - policy
  - kind: config.examples.hooks.spending_limit:SpendingLimit
    directions: [client]
    methods: [tools/call]
    options: {argument: amount, limit: 1000}
  - sanitize
"""

from __future__ import annotations

from gateway.guard.hook import PASS, Block, Exchange, Finding, Verdict
from gateway.protocol.errors import PolicyDenied
from gateway.protocol.message import Message

__all__ = ["SpendingLimit"]


class SpendingLimit:
    """Blocks a call of any tool whose argument ``argument`` is a number above ``limit``, or no number at all."""

    name = "spending-limit"

    def __init__(self, limit: float, argument: str = "amount") -> None:
        if limit < 0:
            raise ValueError("limit must not be negative")
        self._limit = limit
        self._argument = argument

    def on_message(self, message: Message, exchange: Exchange) -> Verdict:
        arguments = message.params.get("arguments")
        if not isinstance(arguments, dict) or self._argument not in arguments:
            return PASS
        amount = arguments[self._argument]
        # bool is an int in Python, and "5000" may be a number to the server: what is not plainly a number is refused.
        is_number = isinstance(amount, int | float) and not isinstance(amount, bool)
        if is_number and amount <= self._limit:
            return PASS
        exchange.note(Finding(self.name, "over-limit", "block", f"/params/arguments/{self._argument}"))
        return Block(
            PolicyDenied(
                f"{self._argument} must be a number of at most {self._limit:g}", reason="over-limit", key="hooks"
            )
        )
