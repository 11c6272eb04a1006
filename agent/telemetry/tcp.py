"""TCP ports to listen at, also where the address, or what finds it for a name, comes later than we do.

`TcpServer` serves the clients of a port, each in a thread of its own and within limits.
"""

import contextlib
import errno
import io
import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from agent.worker import Worker

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = logging.getLogger(__name__)

_IP_FREEBIND: Final = 15
"""See ip(7); Python has no name for it. Linux obeys it for IPv6 as well."""
RETRY_S: Final = 10.0
"""Before a name is asked for again."""
_NAME: Final = re.compile(r"(?:(?!-)[\w-]{1,63}(?<!-)\.)*(?!\d+$)(?!-)[\w-]{1,63}(?<!-)")
"""A host name: labels, the last of which is no number, as in a misspelt address (RFC 1123, 2.1)."""
CLIENTS: Final = 8
"""Connections that a port serves at once."""
UNPROVEN_S: Final = 60.0
"""A client that has sent nothing complete yet makes room before one that last did so this long ago."""
JOIN_S: Final = 2.0
"""When a server closes: for the thread that accepts to end, and for all others together."""
PAUSE_S: Final = 0.5
"""Before the next connection is accepted where one could not be."""
QUIET_S: Final = 60.0
"""Between two lines in the log about clients that send nonsense or are too slow."""
LONGEST_REASON: Final = 200
"""Characters of such a line: a client may have written what it quotes."""


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


class ClientError(Exception):
    """A client is too slow, or sends what makes no sense. The message says which."""


class Client(io.RawIOBase):
    """A connection, as a file of what its client sends. Only the thread that serves it reads, sends, and sets limits.

    The limits hold for all reads together, however small the parts are that come. A limit for each part would let a
    client that sends a byte every second hold the connection for hours.
    """

    def __init__(self, connection: socket.socket, address: tuple[str, int]) -> None:
        super().__init__()
        self.connection = connection
        self.address = address
        """Host and port, as `socket.accept` gives them."""
        self.waiting_since_s: float | None = time.monotonic() - UNPROVEN_S
        """Since when we wait for something complete from the client (monotonic clock); None while it waits for us."""
        self.until_s = 0.0
        """Until when to read, by the monotonic clock."""
        self.left_bytes = 0
        """How much to read at most from now on."""

    def readable(self) -> bool:
        """Return True: `io.BufferedReader` asks."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Wait for at least one byte; return 0 when the client has closed.

        Raises:
            ClientError: the time is up, or more comes than is allowed.
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

    def send(self, data: bytes, limit_s: float) -> None:
        """Send all of `data`.

        Raises:
            OSError: the client does not take it within `limit_s` seconds, or is gone.
        """
        self.connection.settimeout(limit_s)
        self.connection.sendall(data)

    def hang_up(self) -> None:
        """End the conversation; any thread may call it. The thread that reads wakes up."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class TcpServer:
    """Serves the clients of `port` from construction, or as soon as the name of its host is known, until `close`.

    `serve` is called once for each client, in a thread of its own; the connection ends when it returns. It may raise
    anything: that ends one connection, with a line in the log. `CLIENTS` are served at once. One more takes the place
    of the client that we have waited for longest; it is turned away only if all of them wait for us.

    `name` is that of the thread that accepts. `greeting` is logged with the address in place of `{}`.
    """

    def __init__(
        self,
        name: str,
        port: Port,
        serve: Callable[[Client], None],
        on_failure: Callable[[Worker], None],
        greeting: str = "listening on {}",
    ) -> None:
        self._name = name
        self._port = port
        self._serve = serve
        self._greeting = greeting
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._clients: dict[Client, Worker] = {}
        self._quiet_until_s = 0.0
        self._worker = Worker(name, self._accept, on_failure)
        self._worker.start()

    @property
    def port(self) -> int:
        """Where it listens, or will."""
        return self._port.number

    def close(self) -> bool:
        """Hang up on all clients; idempotent. Return False if a thread has not ended in time."""
        self._closing.set()
        self._port.close()
        # A thread that still asks for the address of a name has nothing to lose.
        ended = self._worker.join(JOIN_S) or not self._port.open
        with self._lock:
            clients = dict(self._clients)
        for client in clients:
            client.hang_up()
        until_s = time.monotonic() + JOIN_S
        joined = [worker.join(max(0.0, until_s - time.monotonic())) for worker in clients.values()]
        return ended and all(joined)

    def _accept(self) -> None:
        if (listener := self._port.wait(self._closing)) is None:
            return
        log.info(f"{self._name}: {self._greeting.format(self._port)}")
        troubled = False
        with listener:
            while not self._closing.is_set():
                try:
                    connection, address = listener.accept()
                except OSError as error:  # closed; or the client has gone, or no descriptors or memory are left
                    if not troubled and not self._closing.is_set():
                        log.warning(f"{self._name}: a connection could not be taken ({error.strerror})")
                    troubled = True
                    self._closing.wait(PAUSE_S)
                    continue
                troubled = False
                self._welcome(Client(connection, address))

    def _welcome(self, client: Client) -> None:
        worker = Worker(f"{self._name}-client", lambda: self._attend(client), lambda worker: self._fail(client, worker))
        with self._lock:
            if len(self._clients) >= CLIENTS and not self._make_room():
                client.connection.close()
                return
            self._clients[client] = worker
        worker.start()

    def _make_room(self) -> bool:
        """Hang up on the client that we have waited for longest; return False if we wait for none."""
        waiting = [client for client in self._clients if client.waiting_since_s is not None]
        slowest = min(waiting, key=lambda client: client.waiting_since_s or 0.0, default=None)
        if slowest is None:
            return False
        slowest.hang_up()
        del self._clients[slowest]
        return True

    def _attend(self, client: Client) -> None:
        try:
            self._serve(client)
        except OSError as error:  # the client has gone, or does not read, or had to make room
            log.debug(f"{self._name}: {client.address[0]}: {error}")
        finally:
            client.hang_up()
            client.connection.close()
            with self._lock:
                self._clients.pop(client, None)

    def _fail(self, client: Client, worker: Worker) -> None:
        """Log what a client did wrong, at most once in `QUIET_S`."""
        now_s = time.monotonic()
        with self._lock:
            quiet = now_s < self._quiet_until_s
            if not quiet:
                self._quiet_until_s = now_s + QUIET_S
        reason = str(worker.failure)[:LONGEST_REASON]
        log.log(
            logging.DEBUG if quiet else logging.WARNING,
            f"{self._name}: closed the connection from {client.address[0]} ({reason!a}); for {QUIET_S:.0f} s further "
            "lines like this are written at log.level = debug only",
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
