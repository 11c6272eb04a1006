"""TCP ports to listen at, also where the address, or what finds it for a name, comes later than we do."""

import contextlib
import errno
import logging
import re
import socket
import threading
from typing import Final

log = logging.getLogger(__name__)

_IP_FREEBIND: Final = 15
"""See ip(7); Python has no name for it. Linux obeys it for IPv6 as well."""
RETRY_S: Final = 10.0
"""Before a name is asked for again."""
_NAME: Final = re.compile(r"(?:(?!-)[\w-]{1,63}(?<!-)\.)*(?!\d+$)(?!-)[\w-]{1,63}(?<!-)")
"""A host name: labels, the last of which is no number, as in a misspelt address (RFC 1123, 2.1)."""


class Port:
    """A port to listen at: at once, or, where `host` is a name that nobody knows yet, as soon as somebody does.

    As with an address (`listen_at`), after a power cut we are up before what resolves names is. Such a name is logged
    under its setting, `key`, once for each reason; whether it is only late or wrong cannot be told.

    Raises:
        OSError: as `listen_at`, but of names only what can be none, such as `192.168.1.300`.
    """

    def __init__(self, key: str, host: str, port: int) -> None:
        self._key = key
        self._host = host
        self.number = port
        """Where it listens; as long as it does not, what was asked for."""
        self._listener: socket.socket | None = None
        self._said: set[str] = set()
        try:
            self._open()
        except socket.gaierror as error:
            if not _NAME.fullmatch(host.removesuffix(".")):
                raise
            self._say(error)

    @property
    def open(self) -> bool:
        """Whether it listens, or did."""
        return self._listener is not None

    def __str__(self) -> str:
        """As it stands in a URL."""
        return spelt(self._host, self.number)

    def wait(self, closing: threading.Event) -> socket.socket | None:
        """The socket that listens, None if `closing` was set before there was one. To be called in one thread.

        To ask for a name may take longer than the caller of `closing.set` has time.
        """
        while self._listener is None and not closing.wait(RETRY_S):
            try:
                self._open()
            except OSError as error:  # the port may have been taken meanwhile: no worse than a name that is not known
                self._say(error)
        return self._listener

    def close(self) -> None:
        """Listen no more; idempotent. Who waits for a connection wakes up."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def _open(self) -> None:
        self._listener = listen_at(self._host, self.number)
        self.number = int(self._listener.getsockname()[1])

    def _say(self, error: OSError) -> None:
        reason = (error.strerror or str(error)).lower()
        if reason not in self._said:
            self._said.add(reason)
            log.warning(
                f"{self._key} = {self._host}: nobody gets through to {self} yet ({reason}): tried again every "
                f"{RETRY_S:.0f} s; if the name is wrong, set an address of this device"
            )


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
    except TypeError as error:  # so says Python of a part of more than 63 bytes, once umlauts and the like are encoded
        raise OSError(errno.EINVAL, "not a host name") from error
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        listener.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
        listener.bind((host, port))
        here = spelt(host, listener.getsockname()[1])
        log.warning(f"{host} is no address of this device yet: nobody gets through to {here} before it is")
