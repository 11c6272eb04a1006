"""A bridge of its own for a few hosts and this machine, whose cables can be pulled."""

import contextlib
import os
import socket
import subprocess
from typing import Final

PREFIX: Final = "eft"
"""Interfaces have at most 15 characters: `eft12345br`, `eft12345v1`."""


class Network:
    """`address(0)` is this machine; hosts get the numbers from 1 on."""

    def __init__(self) -> None:
        self._name = f"{PREFIX}{os.getpid() % 100_000}"
        self._subnet = _free_subnet()

    def address(self, number: int) -> str:
        """IPv4 address of a host."""
        return f"{self._subnet}.{10 + number}"

    def open(self) -> None:
        """Make the bridge."""
        _run("ip", "link", "add", f"{self._name}br", "type", "bridge")
        _run("ip", "address", "add", f"{self.address(0)}/24", "dev", f"{self._name}br")
        _run("ip", "link", "set", f"{self._name}br", "up")

    def attach(self, number: int, init_pid: int) -> None:
        """Give the host with this PID 1 a cable to the bridge."""
        outside, inside = f"{self._name}v{number}", ("nsenter", f"--target={init_pid}", "--net", "ip")
        _run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", str(init_pid))
        _run("ip", "link", "set", outside, "master", f"{self._name}br", "up")
        _run(*inside, "address", "add", f"{self.address(number)}/24", "dev", "eth0")
        _run(*inside, "link", "set", "eth0", "up")
        _run(*inside, "link", "set", "lo", "up")

    def pull(self, number: int) -> None:
        """Pull the cable."""
        _run("ip", "link", "set", f"{self._name}v{number}", "down")

    def plug(self, number: int) -> None:
        """Put it back in."""
        _run("ip", "link", "set", f"{self._name}v{number}", "up")

    def close(self) -> None:
        """Take the bridge away; the cables go with their hosts. Idempotent."""
        with contextlib.suppress(RuntimeError):
            _run("ip", "link", "delete", f"{self._name}br")


def _free_subnet() -> str:
    """Three numbers of a private network that this machine has no part in."""
    taken = subprocess.run(["ip", "-4", "address"], capture_output=True, text=True, check=True).stdout
    for third in range(256):
        subnet = f"10.{200 + os.getpid() % 50}.{third}"
        if f" {subnet}." not in taken:
            return subnet
    raise RuntimeError("every network is taken")


def answers(address: str, port: int) -> bool:
    """Whether somebody takes connections there."""
    with contextlib.suppress(OSError):
        socket.create_connection((address, port), timeout=1.0).close()
        return True
    return False


def _run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}: {result.stderr.strip()}")
