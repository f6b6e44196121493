from __future__ import annotations

import pytest
from multidict import CIMultiDict

from gateway.protocol import modern
from gateway.protocol.errors import HeaderMismatch, InvalidParams, UnsupportedRevision
from gateway.protocol.headers import McpFields
from gateway.protocol.revisions import LEGACY, MODERN, REVISIONS, SUPPORTED, revision

META = {modern.VERSION_MEMBER: "2026-07-28", modern.CAPABILITIES_MEMBER: {}}
FIELDS = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"}


def test_a_correct_request():
    assert (
        modern.check_request(McpFields(CIMultiDict(FIELDS)), "tools/list", {"_meta": META}) is REVISIONS["2026-07-28"]
    )


@pytest.mark.parametrize(
    ("meta", "fields", "error"),
    [
        # rule 6.4: what is missing beats what disagrees, and that beats what is not supported
        (None, {"Mcp-Method": "wrong"}, InvalidParams),
        ("text", FIELDS, InvalidParams),
        ({modern.VERSION_MEMBER: "2031-01-01"}, {}, InvalidParams),
        ({modern.CAPABILITIES_MEMBER: {}}, FIELDS, InvalidParams),
        ({**META, modern.CAPABILITIES_MEMBER: []}, FIELDS, InvalidParams),
        ({**META, modern.VERSION_MEMBER: "2031-01-01"}, FIELDS, HeaderMismatch),
        (META, {**FIELDS, "MCP-Protocol-Version": "2025-11-25"}, HeaderMismatch),
        (META, {"Mcp-Method": "tools/list"}, HeaderMismatch),
        (META, {**FIELDS, "Mcp-Method": "tools/call"}, HeaderMismatch),
        (
            {**META, modern.VERSION_MEMBER: "2031-01-01"},
            {**FIELDS, "MCP-Protocol-Version": "2031-01-01"},
            UnsupportedRevision,
        ),
        (
            {**META, modern.VERSION_MEMBER: "2025-11-25"},
            {**FIELDS, "MCP-Protocol-Version": "2025-11-25"},
            UnsupportedRevision,
        ),
    ],
)
def test_the_order_of_the_checks(meta, fields, error):
    """Rule 6.4."""
    with pytest.raises(error):
        modern.check_request(McpFields(CIMultiDict(fields)), "tools/list", {} if meta is None else {"_meta": meta})


@pytest.mark.parametrize(
    ("header", "params", "is_modern"),
    [
        (None, {}, False),
        ("2025-11-25", {}, False),
        ("2026-07-28", {}, True),
        ("2031-01-01", {}, True),
        (None, {"_meta": META}, True),
        ("2025-11-25", {"_meta": META}, True),
        (None, {"_meta": {"progressToken": 1}}, False),
        (None, {"_meta": "text"}, False),
    ],
)
def test_the_era_is_read_from_header_and_body(header, params, is_modern):
    """Rules 6.24 and 6.25."""
    fields = {} if header is None else {"MCP-Protocol-Version": header}
    assert modern.speaks_modern(McpFields(CIMultiDict(fields)), params) is is_modern


def test_the_table_of_revisions():
    assert SUPPORTED == tuple(sorted(SUPPORTED)) == (*LEGACY, *MODERN)
    assert revision(None) is None
    assert revision("2031-01-01") is None
    error = modern.unsupported("x" * 500)
    assert error.data["supported"] == list(MODERN)
    assert modern.unsupported("x", LEGACY).data["supported"] == list(LEGACY)
    assert len(error.data["requested"]) == 64
