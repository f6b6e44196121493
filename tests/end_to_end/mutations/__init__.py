"""Requests that two HTTP parsers may read in two ways, as raw bytes.

Each holds a call that is its own (``carrier``), and most hide two more behind or within it: one of a tool that the
policy denies, and one that it allows.  Which of them are requests is for the receivers to agree on.
"""

from __future__ import annotations

from .framing import chunks, codings, lengths
from .heads import heads, names
from .pipelines import pipelines
from .table import HOST, Case, Table, Token, call, post

__all__ = ["HOST", "Case", "call", "cases", "post"]


def cases(own: str, other: str) -> list[Case]:
    """The whole table, for callers with these tokens."""
    table = Table(Token(own.encode(), other.encode()))
    for family in (codings, lengths, chunks, heads, names, pipelines):
        family(table)
    return table.cases
