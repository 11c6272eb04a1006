"""TCP ports to listen at, also where the address comes later than we do."""

import errno
import logging
import socket
from typing import Final

log = logging.getLogger(__name__)

_IP_FREEBIND: Final = 15
"""See ip(7); Python has no name for it. Linux obeys it for IPv6 as well."""


def listen_at(host: str, port: int) -> socket.socket:
    """A listening socket.

    An address that this device does not have is logged, and no error: after a power cut we are up before Wi-Fi and DHCP
    are. Who asks there gets through as soon as the device has the address.

    Raises:
        OSError: the port is taken or not allowed, or `host` cannot be resolved.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(listener, host, port)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def spelt(host: str, port: int) -> str:
    """`host:port`, as it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bind(listener: socket.socket, host: str, port: int) -> None:
    try:
        listener.bind((host, port))
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        listener.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
        listener.bind((host, port))
        here = spelt(host, listener.getsockname()[1])
        log.warning(f"{host} is no address of this device yet: nobody gets through to {here} before it is")
