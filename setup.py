"""Builds the gateway's core as extension modules where MCPGW_COMPILE=1 says so: see docs/compiled.md.

Without it, the package is plain Python.  Everything else about the package is in setup.cfg.
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import setup

# The rooms that a message passes through.
ROOMS = ("wire", "protocol", "guard", "identity", "record", "relay")

# What stays Python in them: what runs at the start or for refusals, what is thin around libraries in C or waits for the
# network, and what derives from classes of aiohttp's.
PLAIN = {
    "guard": {
        "argument_options", "checks", "conditions", "gitleaks", "loading", "ruleset", "schema_cost", "schemas",
    },
    "protocol": {"errors"},
    "relay": {"admin", "connections", "http_sse", "server", "sse_session"},
}  # fmt: skip


def sources() -> list[str]:
    """The modules that are compiled, as paths from here."""
    return sorted(
        str(path)
        for room in ROOMS
        for path in Path("gateway", room).glob("*.py")
        if path.stem != "__init__" and path.stem not in PLAIN.get(room, ())
    )


if os.environ.get("MCPGW_COMPILE") == "1":
    from mypyc.build import mypycify

    # One C file for each module: a compiler cache then compiles what has changed.
    modules = mypycify(sources(), opt_level="2", debug_level="1", multi_file=True, group_name="mcpgw")
    setup(ext_modules=modules)
else:
    setup()
