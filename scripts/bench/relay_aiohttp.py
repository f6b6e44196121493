"""A bare relay on aiohttp, tuned, without rules: what a gateway on aiohttp is measured against.

    relay_aiohttp.py PORT UPSTREAM_PORT

The low-level server without router, middleware and access log; one pooled client session without cookies, proxies and
decompression; uvloop.  What comes from the server goes out as it comes.
"""

from __future__ import annotations

import asyncio
import gc
import sys

import aiohttp
import uvloop
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

REQUEST_FIELDS = ("Content-Type", "Accept", "Mcp-Session-Id", "Mcp-Protocol-Version", "Last-Event-Id")
ANSWER_FIELDS = ("Content-Type", "Cache-Control", "Mcp-Session-Id")


async def main(port: int, upstream_port: int) -> None:
    url = URL(f"http://127.0.0.1:{upstream_port}/mcp")
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=75),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept-Encoding"),
        read_bufsize=256 * 1024,
    )

    async def relay(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read() if request.can_read_body else None
        headers = CIMultiDict((name, request.headers[name]) for name in REQUEST_FIELDS if name in request.headers)
        async with session.request(request.method, url, data=body, headers=headers, allow_redirects=False) as answer:
            fields = CIMultiDict((name, answer.headers[name]) for name in ANSWER_FIELDS if name in answer.headers)
            length = answer.content_length
            if length is not None and length <= 64 * 1024:
                return web.Response(status=answer.status, body=await answer.content.read(), headers=fields)
            response = web.StreamResponse(status=answer.status, headers=fields)
            response.content_length = length
            await response.prepare(request)
            async for part in answer.content.iter_any():
                await response.write(part)
            await response.write_eof()
            return response

    runner = web.ServerRunner(web.Server(relay, access_log=None, handler_cancellation=True, auto_decompress=False))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    gc.collect()
    gc.freeze()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
