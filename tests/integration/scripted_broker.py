"""A broker that says what a test wants, packet by packet, for what no real one can be configured to do."""

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, DISCONNECT = 1, 2, 3, 4, 8, 9, 14
HANG_UP: Final = b""
ACCEPTED_5: Final = b"\x20\x03\x00\x00\x00"
ACCEPTED_311: Final = b"\x20\x02\x00\x00"


class ScriptedBroker:
    """Takes one connection after the other. Runs until the `with` block ends.

    `answer` gets the number of the connection, from 1 on, and a packet of the client's: the first byte of its fixed
    header and what is behind the fixed header. It returns what the broker sends, None for nothing, `HANG_UP` to close.
    """

    def __init__(self, answer: Callable[[int, int, bytes], bytes | None]) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.packets: list[tuple[int, int, bytes]] = []
        """Number of the connection, first byte and the rest of every packet that came."""
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="scripted broker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in (self._listener, self._client):
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()
        self._thread.join()

    def of(self, kind: int) -> list[tuple[int, int, bytes]]:
        """The packets of one type."""
        return [packet for packet in self.packets if packet[1] >> 4 == kind]

    def _run(self) -> None:
        number = 0
        with contextlib.suppress(OSError):
            while True:
                self._client, _ = self._listener.accept()
                number += 1
                with self._client, contextlib.suppress(OSError, EOFError):
                    self._serve(self._client, number)

    def _serve(self, client: socket.socket, number: int) -> None:
        while True:
            head, rest = read_packet(client)
            self.packets.append((number, head, rest))
            answer = self._answer(number, head, rest)
            if answer == HANG_UP:
                return
            if answer is not None:
                client.sendall(answer)


def read_packet(client: socket.socket) -> tuple[int, bytes]:
    """The first byte of a packet and what is behind its fixed header (MQTT 5.0, 2.1)."""
    head = _exactly(client, 1)[0]
    length, shift = 0, 0
    while True:
        byte = _exactly(client, 1)[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return head, _exactly(client, length)


def _exactly(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (part := client.recv(size - len(data))):
            raise EOFError
        data += part
    return data


def packet_id(head: int, rest: bytes) -> bytes:
    """The two bytes of a PUBLISH packet's or a SUBSCRIBE packet's identifier."""
    if head >> 4 != PUBLISH:
        return rest[:2]
    topic_bytes = int.from_bytes(rest[:2], "big")
    return rest[2 + topic_bytes : 4 + topic_bytes]


def accommodating(version: str, head: int, rest: bytes) -> bytes | None:
    """What an ordinary broker answers."""
    match head >> 4:
        case 1:
            return ACCEPTED_5 if version == "5" else ACCEPTED_311
        case 3 if head & 0x06:
            return b"\x40\x02" + packet_id(head, rest)
        case 8:
            identifier = packet_id(head, rest)
            return b"\x90\x04" + identifier + b"\x00\x01" if version == "5" else b"\x90\x03" + identifier + b"\x01"
        case _:
            return None
