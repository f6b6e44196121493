"""fastmcp's proxy, on a port, for an upstream.  Runs in an environment of its own: peer_fastmcp.py PORT URL"""

from __future__ import annotations

import sys

from fastmcp.server import create_proxy

create_proxy(sys.argv[2]).run(
    transport="http",
    host="127.0.0.1",
    port=int(sys.argv[1]),
    path="/mcp",
    stateless_http=True,
    show_banner=False,
    log_level="error",
)
