import logging
import socket
from pathlib import Path

import pytest

from agent.tcp import listen_at, spelt

IPV6 = pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this kernel has no IPv6")


@pytest.mark.parametrize("host", ["192.0.2.7", pytest.param("2001:db8::7", marks=IPV6)])
def test_an_address_that_has_not_come_yet_is_listened_at(host: str, caplog: pytest.LogCaptureFixture) -> None:
    """After a power cut we are up before the network is: an address for documentation, which nobody has, is said so."""
    with listen_at(host, 0) as listener:
        assert listener.getsockname()[0] == host
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        port = listener.getsockname()[1]
    assert f"{host} is no address of this device yet: nobody gets through to {spelt(host, port)}" in caplog.text


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
