import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.systemd import Notifier


class Manager:
    """The end of the socket that systemd holds."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.settimeout(60)

    def received(self) -> list[str]:
        """The lines of the next message."""
        return self._socket.recv(4096).decode().splitlines()

    def close(self) -> None:
        """Go away."""
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """A service manager that listens at a path, or at an abstract address (as in containers)."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@edgescribe-test-{os.getpid()}"
    listening = Manager(address)
    yield listening
    listening.close()


def test_states_reach_the_manager(manager: Manager) -> None:
    """READY, STATUS, RELOADING and STOPPING arrive as sd_notify(3) spells them."""
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    notifier.ready("listening")
    assert manager.received() == ["READY=1", "STATUS=listening"]
    notifier.status("mic absent")
    assert manager.received() == ["STATUS=mic absent"]
    notifier.reloading()
    reloading, monotonic = manager.received()
    assert reloading == "RELOADING=1"
    assert monotonic.removeprefix("MONOTONIC_USEC=").isdecimal()
    notifier.stopping()
    assert manager.received()[0] == "STOPPING=1"


def test_a_status_cannot_smuggle_in_another_state(manager: Manager) -> None:
    """Line breaks in a text (a device's name, say) do not become assignments."""
    Notifier({"NOTIFY_SOCKET": manager.address}).status("mic\nSTOPPING=1")
    assert manager.received() == ["STATUS=mic STOPPING=1"]


def test_the_watchdog_is_fed_only_if_it_watches_us(manager: Manager) -> None:
    """With a limit for this process, WATCHDOG=1; with one for another process, or none, nothing."""
    ours = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "60000000"}
    assert Notifier(ours).watchdog_s == 60.0
    assert Notifier({**ours, "WATCHDOG_PID": str(os.getpid())}).watchdog_s == 60.0
    others = Notifier({**ours, "WATCHDOG_PID": "1"})
    assert others.watchdog_s is None
    others.watchdog()
    Notifier({"NOTIFY_SOCKET": manager.address}).watchdog()
    Notifier(ours).watchdog()
    assert manager.received() == ["WATCHDOG=1"]
    others.status("no more")
    assert manager.received() == ["STATUS=no more"]


def test_nobody_listening_is_no_error(manager: Manager) -> None:
    """Without a manager, or with one that has gone, notifying does nothing."""
    Notifier({}).ready("listening")
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    manager.close()
    notifier.ready("listening")


def test_a_manager_that_does_not_read_blocks_nobody(manager: Manager) -> None:
    """A full socket drops messages; the pipeline goes on."""
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    for _ in range(10_000):
        notifier.status("busy")
    assert manager.received() == ["STATUS=busy"]
