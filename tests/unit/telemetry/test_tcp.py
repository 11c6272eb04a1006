import logging
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.telemetry import tcp
from agent.telemetry.tcp import TcpServer, listen_at, spelt
from agent.worker import Worker
from tests.support.receiver import eventually

IPV6 = pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this kernel has no IPv6")


@pytest.mark.parametrize("host", ["192.0.2.7", pytest.param("2001:db8::7", marks=IPV6)])
def test_an_address_that_has_not_come_yet_is_listened_at(host: str, caplog: pytest.LogCaptureFixture) -> None:
    """After a power cut we are up before the network is: an address for documentation, which nobody has, is said so."""
    with listen_at(host, 0) as listener:
        assert listener.getsockname()[0] == host
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        port = listener.getsockname()[1]
    assert f"{host} is no address of this device yet: {spelt(host, port)}" in caplog.text


def test_an_address_of_this_device_is_nothing_to_talk_about(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever connects there gets through."""
    with caplog.at_level(logging.DEBUG), listen_at("127.0.0.1", 0) as listener:
        socket.create_connection(listener.getsockname(), timeout=30).close()
        listener.accept()[0].close()
    assert caplog.text == ""


def test_a_port_that_is_taken_stays_an_error() -> None:
    """Of an address that is there, and of one that is not yet: to wait would not help."""
    for host in ("127.0.0.1", "192.0.2.7"):
        with listen_at(host, 0) as first, pytest.raises(OSError, match="in use"):
            listen_at(host, first.getsockname()[1])


def test_addresses_are_spelt_as_in_a_url() -> None:
    """Those with colons in brackets."""
    assert spelt("127.0.0.1", 80) == "127.0.0.1:80"
    assert spelt("::1", 80) == "[::1]:80"


UNKNOWN = "edgescribe.invalid"
"""By RFC 2606 nobody ever knows it."""


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """No name is known before it is called; afterwards each stands for this device. Names are asked for often."""
    later = threading.Event()

    def resolving(host: str, port: int) -> socket.socket:
        return listen_at("127.0.0.1" if later.is_set() else host, port)

    monkeypatch.setattr(tcp, "listen_at", resolving)
    monkeypatch.setattr(tcp, "RETRY_S", 0.01)
    return later.set


def serve(host: str, port: int = 0) -> TcpServer:
    """A server with the settings `assist` that says hello."""

    def never(worker: Worker) -> None:
        raise AssertionError(worker.failure)

    return TcpServer("assist", host, port, lambda client: client.connection.sendall(b"hello"), never)


def test_a_name_that_nobody_knows_yet_is_listened_at_as_soon_as_somebody_does(
    known: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    """After a power cut we are up before DNS is. It is said once, with its setting and what to do if it is wrong."""
    with closing(serve(UNKNOWN)) as server:
        assert server.port == 0
        threading.Timer(0.2, known).start()
        assert eventually(lambda: server.port > 0)
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
            assert client.recv(5) == b"hello"
    assert [record.message for record in caplog.records if "assist.host" in record.message] == caplog.messages
    assert len(caplog.messages) == len(set(caplog.messages)) <= 2  # the reason may change once, as a network comes
    assert f"assist.host = {UNKNOWN}: cannot listen at {UNKNOWN}:0 yet" in caplog.messages[0]
    assert "if the name is wrong, set an address of this device" in caplog.messages[0]


@pytest.mark.usefixtures("known")
def test_waiting_for_a_name_ends_when_it_is_closed() -> None:
    """A service that is stopped meanwhile does not wait for its network."""
    server = serve(UNKNOWN)
    assert server.close()
    assert eventually(lambda: "assist" not in {thread.name for thread in threading.enumerate()})


def test_a_port_that_was_taken_while_its_name_was_unknown_is_waited_for(
    known: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The microphone, which works, does not stop for it; it is said."""
    with listen_at("127.0.0.1", 0) as taken, closing(serve(UNKNOWN, taken.getsockname()[1])) as server:
        known()
        assert eventually(lambda: f"at {UNKNOWN}:{server.port} yet (address already in use)" in caplog.text)


@pytest.mark.parametrize("host", ["192.168.1.300", "kitchen board", "-kitchen", "fd00::x", "a..b", "k" * 64, "ü" * 60])
def test_what_can_be_no_name_is_an_error_at_once(host: str) -> None:
    """No network makes it one."""
    with pytest.raises(ConfigError, match=r"assist: .*set assist\.host"):
        serve(host)


@pytest.mark.parametrize("host", ["kitchen", "kitchen.local.", "4board.example", "küche.local"])
def test_what_may_be_a_name_is_waited_for(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a dot at its end, digits, letters of any language."""
    monkeypatch.setattr(tcp, "listen_at", lambda _host, port: listen_at(UNKNOWN, port))
    server = serve(host, 1)
    assert server.port == 1
    assert server.close()
