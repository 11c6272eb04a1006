"""A TCP server with limits. Its address, or the network that resolves its name, may appear after the agent starts."""

import contextlib
import errno
import io
import logging
import math
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from agent.errors import ConfigError
from agent.worker import Worker

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = logging.getLogger(__name__)

_IP_FREEBIND: Final = 15
"""See ip(7); Python has no name for it. Linux uses it for IPv6, too."""
RETRY_S: Final = 10.0
"""Pause before the next attempt to resolve a name."""
_NAME: Final = re.compile(r"(?:(?!-)[\w-]{1,63}(?<!-)\.)*(?!\d+$)(?!-)[\w-]{1,63}(?<!-)\.?")
"""A host name: labels, the last of them no number, as it is in a misspelt address (RFC 1123, 2.1)."""
CLIENTS: Final = 8
"""Connections that a server serves at once."""
UNPROVEN_S: Final = 60.0
"""A client without a complete request makes room before a client whose last one was this long ago."""
JOIN_S: Final = 2.0
"""When a server closes: time for the accepting thread to end, and for all others together."""
PAUSE_S: Final = 0.5
"""Pause after a connection could not be accepted."""
QUIET_S: Final = 60.0
"""Pause between two lines in the log about clients that send nonsense or are too slow."""
LONGEST_REASON: Final = 200
"""Characters of such a line: it may quote a client."""


class ClientError(Exception):
    """A client is too slow, or sends nonsense. The message says which."""


class Client(io.RawIOBase):
    """A connection, as a file to read from. Only the thread that serves it reads, sends, and sets limits.

    The limits hold for all reads together. With a limit for each read, a client could send a byte every second and hold
    the connection for hours.
    """

    def __init__(self, connection: socket.socket, address: tuple[str, int]) -> None:
        super().__init__()
        self.connection = connection
        self.address = address
        """Host and port, as `socket.accept` gives them."""
        self.waiting_since_s = time.monotonic() - UNPROVEN_S
        """Since when the server waits for a complete request (monotonic); infinite while the client waits."""
        self.until_s = 0.0
        """Until when to read (monotonic)."""
        self.left_bytes = 0
        """Most bytes to read from now on."""

    def readable(self) -> bool:
        """Return True: `io.BufferedReader` asks."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Wait for at least one byte; return 0 when the client has closed.

        Raises:
            ClientError: the time is up, or the client sends too much.
            OSError: the client is gone.
        """
        if not self.left_bytes:
            raise ClientError("sends too much")
        try:
            self.connection.settimeout(max(0.001, self.until_s - time.monotonic()))
            count = self.connection.recv_into(memoryview(buffer)[: self.left_bytes])
        except TimeoutError as error:
            raise ClientError("too slow") from error
        self.left_bytes -= count
        return count

    def hang_up(self) -> None:
        """End the connection. Any thread may call it; the reading thread wakes up."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class TcpServer:
    """Serves clients until `close`: from construction, or as soon as `host` can be resolved.

    Each client has a thread of its own. The thread calls `serve` once; then the connection ends. An error in `serve`
    ends that connection only, with a line in the log. `CLIENTS` clients are served at once. One more takes the place of
    the client for which the server has waited longest. If all of them wait for the server, it is hung up on.

    After a power cut, the agent starts before the network. A name that cannot be resolved may be late or wrong: the
    server logs it and tries again. `listen_at` waits for an address.

    `name` is that of the accepting thread, and of the section with `host` and `port`. `greeting` is logged with the
    address in place of `{}`.

    Raises:
        ConfigError: the port is taken or not allowed, or `host` cannot be a name, such as `192.168.1.300`.
    """

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        serve: Callable[[Client], None],
        on_failure: Callable[[Worker], None],
        greeting: str = "listening on {}",
    ) -> None:
        self._name, self._host, self._serve, self._greeting = name, host, serve, greeting
        self.port = port
        """The port that it listens on; before that, the configured port."""
        self._closing = threading.Event()
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._clients: dict[Client, Worker] = {}
        self._logged: set[str] = set()
        self._quiet_until_s = 0.0
        try:
            self._listen()
        except OSError as error:
            if not isinstance(error, socket.gaierror) or not _NAME.fullmatch(host):
                remedy = f"set {name}.host to an address of this device, and {name}.port to one that is free"
                raise ConfigError(f"{name}: cannot listen at {self._address} ({_reason(error)}): {remedy}") from error
            self._log_retry(error)
        self._worker = Worker(name, self._accept, on_failure)
        self._worker.start()

    def close(self) -> bool:
        """Hang up on all clients. Return False if a thread has not ended in time. May be called twice."""
        self._closing.set()
        if self._listener:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        # A thread that still resolves a name may go on: it holds no client.
        ended = self._worker.join(JOIN_S) or not self._listener
        with self._lock:
            clients = dict(self._clients)
        for client in clients:
            client.hang_up()
        until_s = time.monotonic() + JOIN_S
        return ended and all(worker.join(max(0.0, until_s - time.monotonic())) for worker in clients.values())

    @property
    def _address(self) -> str:
        return spelt(self._host, self.port)

    def _listen(self) -> None:
        self._listener = listen_at(self._host, self.port)
        self.port = int(self._listener.getsockname()[1])

    def _log_retry(self, error: OSError) -> None:
        self._log_once(
            f"{self._name}.host = {self._host}: cannot listen at {self._address} yet ({_reason(error)}); "
            f"retrying every {RETRY_S:.0f} s; if the name is wrong, set an address of this device"
        )

    def _log_once(self, text: str) -> None:
        if text not in self._logged:
            self._logged.add(text)
            log.warning(text)

    def _accept(self) -> None:
        while not self._listener:
            if self._closing.wait(RETRY_S):
                return
            try:
                self._listen()
            except OSError as error:  # also a port that another program has taken meanwhile
                self._log_retry(error)
        log.info(f"{self._name}: {self._greeting.format(self._address)}")
        with self._listener:
            while not self._closing.is_set():
                try:
                    client = Client(*self._listener.accept())
                except OSError as error:  # closed; or the client has gone, or descriptors or memory are short
                    if not self._closing.is_set():
                        self._log_once(f"{self._name}: a connection could not be taken ({error.strerror})")
                    self._closing.wait(PAUSE_S)
                else:
                    self._logged.clear()
                    self._welcome(client)

    def _welcome(self, client: Client) -> None:
        worker = Worker(f"{self._name}-client", lambda: self._attend(client), lambda worker: self._fail(client, worker))
        with self._lock:
            if len(self._clients) >= CLIENTS:
                slowest = min(self._clients, key=lambda one: one.waiting_since_s)
                if slowest.waiting_since_s == math.inf:
                    client.connection.close()
                    return
                slowest.hang_up()
                del self._clients[slowest]
            self._clients[client] = worker
        worker.start()

    def _attend(self, client: Client) -> None:
        try:
            self._serve(client)
        except OSError as error:  # the client has gone, does not read, or had to make room
            log.debug(f"{self._name}: {client.address[0]}: {error}")
        finally:
            client.hang_up()
            client.connection.close()
            with self._lock:
                self._clients.pop(client, None)

    def _fail(self, client: Client, worker: Worker) -> None:
        """Log the error of a client, at most once in `QUIET_S`."""
        with self._lock:
            level = logging.DEBUG if time.monotonic() < self._quiet_until_s else logging.WARNING
            if level == logging.WARNING:
                self._quiet_until_s = time.monotonic() + QUIET_S
        what = f"{self._name}: closed the connection from {client.address[0]}"
        reason = str(worker.failure)[:LONGEST_REASON]
        log.log(level, f"{what} ({reason!a}); for {QUIET_S:.0f} s further ones are logged at log.level = debug only")


def listen_at(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    An address that this device does not have is logged, and is no error: after a power cut, the agent starts before
    Wi-Fi and DHCP. Clients can connect as soon as the device has the address.

    Raises:
        OSError: the port is taken or not allowed, or `host` cannot be resolved.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            listener.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
            listener.bind((host, port))
            here = spelt(host, listener.getsockname()[1])
            log.warning(f"{host} is no address of this device yet: {here} cannot be reached until it is")
        listener.listen()
    except BaseException as error:
        listener.close()
        if isinstance(error, TypeError):  # Python raises it for a label of more than 63 bytes, umlauts encoded
            raise OSError(errno.EINVAL, "not a host name") from error
        raise
    return listener


def spelt(host: str, port: int) -> str:
    """Return `host:port`, as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
