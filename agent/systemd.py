"""Telling systemd how it goes: sd_notify(3) over its socket, without a library."""

import os
import socket
import time
from collections.abc import Mapping

ABSTRACT = "@"
"""First character of an address that lives outside the file system; on the wire it is a NUL byte."""
US_PER_S = 1_000_000


class Notifier:
    """Sends states to the service manager; does nothing where there is none (`NOTIFY_SOCKET` is not set).

    Every method may be called from any thread, never blocks, and never fails: a full or vanished socket loses the
    message, as nothing that depends on it is worth stopping for.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith(ABSTRACT) else address
        self.watchdog_s = _watchdog_s(environment)
        """Longest time that systemd goes without `watchdog` before it aborts us; None if it does not watch."""

    def ready(self, status: str) -> None:
        """Everything is up; `status` is shown by `systemctl status`."""
        self._send("READY=1", f"STATUS={_one_line(status)}")

    def status(self, text: str) -> None:
        """What we are doing, in a few words."""
        self._send(f"STATUS={_one_line(text)}")

    def watchdog(self) -> None:
        """Sign of life, to be given only if the pipeline really makes progress."""
        if self.watchdog_s is not None:
            self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """The settings are being read anew; `ready` says when that is done."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000}")

    def stopping(self) -> None:
        """We are on our way out; draining may take a while."""
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
    """From `WATCHDOG_USEC`, if it is meant for this process (`WATCHDOG_PID`) and not for its parent."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    limit_us = environment.get("WATCHDOG_USEC", "")
    return int(limit_us) / US_PER_S if limit_us.isdecimal() and int(limit_us) else None


def _one_line(text: str) -> str:
    """A line break would begin another assignment."""
    return " ".join(text.split())
