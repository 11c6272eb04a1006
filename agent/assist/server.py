"""The sockets of the Wyoming protocol: a thread that accepts, and one for each of a few connections."""

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from typing import BinaryIO, Final, Protocol, cast

from wyoming.event import Event, Eventable, read_event, write_event

from agent.config.assist import AssistSettings
from agent.errors import ConfigError
from agent.tcp import Port, spelt
from agent.worker import Worker

log = logging.getLogger(__name__)

CONNECTIONS: Final = 8
"""Who comes when so many are connected is hung up on."""
IDLE_S: Final = 120.0
"""A connection on which nothing comes for so long is closed."""
LONGEST_LINE_BYTES: Final = 64 * 1024
LONGEST_PART_BYTES: Final = 1024 * 1024
"""What one event may announce to bring: half a minute of sound, while satellites send 64 ms."""
JOIN_S: Final = 2.0
PAUSE_S: Final = 0.5
"""Before the next connection is taken where one could not be."""


class Answers(Protocol):
    """What stands behind a connection, see `conversation.Conversation`."""

    def answer(self, event: Event) -> Eventable | None:
        """The answer to `event`, None if it wants none."""


class AssistServer:
    """Serves connections from construction, or as soon as the name of its host is known, until `close`.

    `converse` is called once for each of them.

    Raises:
        ConfigError: the address cannot be listened on.
    """

    def __init__(
        self,
        settings: AssistSettings,
        converse: Callable[[], Answers],
        on_failure: Callable[[Worker], None],
    ) -> None:
        self._converse = converse
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._port = _listen(settings)
        self._worker = Worker("assist", self._accept, on_failure)
        self._worker.start()

    @property
    def port(self) -> int:
        """Where it listens, or will."""
        return self._port.number

    def close(self) -> None:
        """Hang up on everybody; idempotent. A request that is being transcribed gets no answer."""
        self._closing.set()
        self._port.close()
        self._worker.join(JOIN_S)
        with self._lock:
            connections = dict(self._connections)
        for connection in connections:
            _end(connection)
        for thread in connections.values():
            thread.join(JOIN_S)

    def _accept(self) -> None:
        if (listener := self._port.wait(self._closing)) is None:
            return
        with listener:
            log.info(f"assist: listening on {self._port}")
            self._take(listener)

    def _take(self, listener: socket.socket) -> None:
        troubled = False
        while not self._closing.is_set():
            try:
                connection, _address = listener.accept()
            except OSError as error:  # closed; or who came has gone again, or there are no descriptors or memory left
                if not troubled and not self._closing.is_set():
                    log.warning(f"assist: a connection could not be taken ({error.strerror})")
                troubled = True
                self._closing.wait(PAUSE_S)
                continue
            troubled = False
            with self._lock:
                if len(self._connections) >= CONNECTIONS:
                    _end(connection)
                    continue
                thread = threading.Thread(target=self._serve, args=(connection,), name="assist-talk", daemon=True)
                self._connections[connection] = thread
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        conversation = self._converse()
        try:
            connection.settimeout(IDLE_S)
            with cast("BinaryIO", connection.makefile("rwb")) as stream:
                guarded = cast("BinaryIO", _Guarded(stream))
                while (event := read_event(guarded)) is not None:
                    if (answer := conversation.answer(event)) is not None:
                        write_event(answer.event(), stream)
        except (OSError, _Malformed, KeyError, TypeError, AttributeError) as error:
            # Whoever hangs up, falls silent or sends nonsense is not our failure.
            log.debug("assist: %r", error)
        finally:
            _end(connection)
            with self._lock:
                self._connections.pop(connection, None)


class _Malformed(Exception):  # noqa: N818 - it never leaves this module
    """An event announces more than it can need."""


class _Guarded:
    """What `read_event` needs of a file, with limits: a header line or a length may come from anybody."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readline(self) -> bytes:
        """Read a header."""
        line = self._stream.readline(LONGEST_LINE_BYTES)
        if len(line) == LONGEST_LINE_BYTES:
            raise _Malformed("a header without an end")
        return line

    def read(self, size: int) -> bytes:
        """Read what a header has announced, or the first part of it."""
        if not 0 <= size <= LONGEST_PART_BYTES:
            raise _Malformed(f"{size} bytes in one event")
        return self._stream.read(size)


def _listen(settings: AssistSettings) -> Port:
    try:
        return Port("assist.host", settings.host, settings.port)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(
            f"assist: cannot listen on {spelt(settings.host, settings.port)} ({reason}): set assist.host to an address "
            "of this device, and assist.port to one that is free"
        ) from error


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)  # which wakes the thread that waits on it
    sock.close()
