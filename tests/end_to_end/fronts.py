"""nginx and haproxy before a gateway: the files of ``config/`` with their ports changed, each in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from tests.end_to_end.sdk.processes import PROJECT, free_port, program

__all__ = ["FRONTS", "Needs", "front"]

FRONTS = ("nginx", "haproxy")
START_TIMEOUT = 20.0
Needs = Callable[[str, str], str]

# What a distribution's own nginx.conf has around the file.
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
worker_processes 1;
{user}
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/mcpgw.conf;
}}
"""


def changed(text: str, changes: dict[str, str]) -> str:
    """``text`` with each key replaced wherever it stands; AssertionError where it does not stand at all."""
    for old, new in changes.items():
        assert old in text, f"{old!r} is not in the file any more"
        text = text.replace(old, new)
    return text


def nginx(binary: str, folder: Path, port: int, servers: list[int], admin: list[int]) -> list[str | Path]:
    """The command that runs config/nginx/mcpgw.conf on a port, before gateways on these ports.

    ``admin`` is for haproxy: the free nginx asks nobody for his health.
    """
    folder.mkdir(parents=True)
    site = (PROJECT / "config" / "nginx" / "mcpgw.conf").read_text()
    copies = "\n".join(f"server 127.0.0.1:{each};" for each in servers)
    changes = {
        "server 127.0.0.1:8080;": copies,
        "listen 80;": f"listen 127.0.0.1:{port};",
        "/var/log/nginx/mcpgw.log": f"{folder}/access.log",
    }
    (folder / "mcpgw.conf").write_text(changed(site, changes))
    user = "user root root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, user=user))
    return [binary, "-p", folder, "-c", folder / "nginx.conf"]


def haproxy(binary: str, folder: Path, port: int, servers: list[int], admin: list[int]) -> list[str | Path]:
    """The command that runs config/haproxy/mcpgw.cfg on a port; ``admin`` are the gateways' admin ports."""
    folder.mkdir(parents=True)
    text = (PROJECT / "config" / "haproxy" / "mcpgw.cfg").read_text()
    pairs = list(enumerate(zip(servers, admin, strict=True), 1))
    changes = {
        "server copy1 127.0.0.1:8080 port 9090": "\n    ".join(
            f"server copy{number} 127.0.0.1:{data} port {check}" for number, (data, check) in pairs
        ),
        "server copy1 127.0.0.1:8080 track mcpgw/copy1": "\n    ".join(
            f"server copy{number} 127.0.0.1:{data} track mcpgw/copy{number}" for number, (data, _) in pairs
        ),
        "bind :80\n": f"bind 127.0.0.1:{port}\n",
    }
    (folder / "mcpgw.cfg").write_text(changed(text, changes))
    return [binary, "-db", "-f", folder / "mcpgw.cfg"]


COMMANDS = {"nginx": nginx, "haproxy": haproxy}


@contextlib.asynccontextmanager
async def front(
    kind: str, needs: Needs, folder: Path, servers: list[int], admin: list[int]
) -> AsyncIterator[tuple[int, Path]]:
    """``nginx`` or ``haproxy`` before gateways on these ports: its own port, and the file with all that it logged."""
    # Debian keeps servers where not every user's PATH looks.
    binary = shutil.which(kind, path=f"{os.environ['PATH']}:/usr/sbin") or needs(kind, f"apt-get install {kind}")
    port = free_port()
    command = COMMANDS[kind](binary, folder, port, servers, admin)
    log = folder / f"{kind}.log"
    with program(command, log) as child:
        assert await _answers(child, port), f"{child.args!r} did not get ready:\n{last_words(log)}"
        yield port, folder / "access.log" if kind == "nginx" else log


async def _answers(child: subprocess.Popen[bytes], port: int) -> bool:
    """Waits until the program accepts connections; False if it has ended or takes too long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_TIMEOUT):
            while child.poll() is None:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return True
                await asyncio.sleep(0.02)
    return False


def last_words(log: Path) -> str:
    return log.read_text(errors="replace")[-4000:]
