"""Tells systemd the state of the agent: sd_notify(3) over its socket, without a library."""

import os
import socket
import time
from collections.abc import Mapping

ABSTRACT = "@"
"""First character of an address outside the file system. On the wire it is a NUL byte."""
US_PER_S = 1_000_000


class Notifier:
    """Sends states to the service manager, if there is one (`NOTIFY_SOCKET` is set).

    Any thread may call every method. No method blocks or fails: a full or absent socket loses the message, because the
    agent must not stop for it.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith(ABSTRACT) else address
        self.watchdog_s = _watchdog_s(environment)
        """Longest time between two calls of `watchdog` before systemd ends the agent; None if it does not watch."""

    def ready(self, status: str) -> None:
        """Report that the agent has started or reloaded. `systemctl status` shows `status`."""
        self._send("READY=1", f"STATUS={_one_line(status)}")

    def status(self, text: str) -> None:
        """Report the work of the agent, in a few words."""
        self._send(f"STATUS={_one_line(text)}")

    def watchdog(self) -> None:
        """Report that the pipeline makes progress."""
        if self.watchdog_s is not None:
            self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Report that the agent reads the settings again. Call `ready` at its end."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000}")

    def stopping(self) -> None:
        """Report that the agent is stopping. Draining may take a while."""
        self._send("STOPPING=1", "STATUS=stopping")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, self._address)
        except OSError:
            return


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Read `WATCHDOG_USEC`, if it is for this process (`WATCHDOG_PID`) and not for its parent."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    limit_us = environment.get("WATCHDOG_USEC", "")
    return int(limit_us) / US_PER_S if limit_us.isdecimal() and int(limit_us) else None


def _one_line(text: str) -> str:
    """Remove line breaks: each would begin another assignment."""
    return " ".join(text.split())
