"""What the gateway tells the service manager: ready, stopping, still alive (sd_notify(3), sd_watchdog_enabled(3)).

The protocol is one datagram of ``NAME=value`` lines to the socket that ``NOTIFY_SOCKET`` names.  Without that variable,
as in a terminal or a container, every function does nothing and says so by its result.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

__all__ = ["notify", "ready", "stopping", "watchdog_interval"]

# A full queue means that the manager is busy.  READY=1 must not be lost, or the unit is killed at its start timeout;
# but the caller may be the event loop, so the wait is bounded.
_SEND_TIMEOUT = 1.0


def notify(state: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send ``state``, one or more ``NAME=value`` lines.  True if the manager's socket took it.

    Never raises for what the manager does or does not do: a gateway that serves is not stopped by a lost message.
    """
    name = environ.get("NOTIFY_SOCKET", "")
    if name.startswith("@"):
        address = "\0" + name[1:]  # Linux's abstract namespace: no file
    elif name.startswith("/"):
        address = name
    else:
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(_SEND_TIMEOUT)
            sender.sendto(state.encode(), address)
    except OSError:
        return False
    return True


def ready(text: str = "", environ: Mapping[str, str] = os.environ) -> bool:
    """The gateway accepts connections.  ``text`` becomes the status line of ``systemctl status``."""
    return notify("READY=1" + _status_line(text), environ)


def stopping(text: str = "", environ: Mapping[str, str] = os.environ) -> bool:
    """The gateway has begun to shut down: it drains, and ``TimeoutStopSec`` counts."""
    return notify("STOPPING=1" + _status_line(text), environ)


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Seconds between two ``WATCHDOG=1``: half of ``WATCHDOG_USEC``, as sd_watchdog_enabled(3) recommends.

    None when the manager expects no pings, or expects them of another process (``WATCHDOG_PID``).
    """
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not (microseconds.isascii() and microseconds.isdigit()) or int(microseconds) == 0:
        return None
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 2e6


def _status_line(text: str) -> str:
    # One line, or the rest would be read as further assignments.
    return "\nSTATUS=" + " ".join(text.split()) if text else ""
