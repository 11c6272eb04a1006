"""The sockets of the Wyoming protocol: events are read from each client, and answered."""

import contextlib
import io
import json
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from wyoming.event import Event, Eventable, write_event

from agent.config.assist import AssistSettings
from agent.errors import ConfigError
from agent.tcp import Client, ClientError, Port, TcpServer, spelt
from agent.worker import Worker

IDLE_S: Final = 120.0
"""A connection on which no request begins for so long is closed."""
EVENT_S: Final = 20.0
"""From the first byte of an event to its last."""
REQUEST_S: Final = 180.0
"""From the first byte of a request to its last: sound comes as fast as it is spoken, for two minutes at most."""
REQUEST_BYTES: Final = 100_000_000
"""Of one request: two minutes at 96 kHz, two channels of 32 bits, and some."""
LONGEST_LINE_BYTES: Final = 64 * 1024
LONGEST_DATA_BYTES: Final = 64 * 1024
LONGEST_PAYLOAD_BYTES: Final = 4_000_000
"""Two minutes of 16 kHz, one channel of 16 bits, in one event. Satellites send 64 ms."""
ANSWER_S: Final = 20.0
"""For the client to take an answer."""


class Answers(Protocol):
    """What stands behind a connection, see `conversation.Conversation`."""

    def answer(self, event: Event) -> Eventable | None:
        """The answer to `event`, None if it wants none."""


class AssistServer(TcpServer):
    """Serves connections from construction, or as soon as the name of its host is known, until `close`.

    `converse` is called once for each of them, from its thread.

    Raises:
        ConfigError: the address cannot be listened on.
    """

    def __init__(
        self, settings: AssistSettings, converse: Callable[[], Answers], on_failure: Callable[[Worker], None]
    ) -> None:
        try:
            port = Port("assist.host", settings.host, settings.port)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigError(
                f"assist: cannot listen on {spelt(settings.host, settings.port)} ({reason}): set assist.host to an "
                "address of this device, and assist.port to one that is free"
            ) from error
        super().__init__("assist", port, lambda client: _serve(client, converse()), on_failure)


def _serve(client: Client, answers: Answers) -> None:
    """Answer the events of one client until it closes, or falls silent between two requests.

    A request is all that comes until the next answer. Its limits hold for all of it together.

    Raises:
        ClientError: the client is too slow, sends too much, or no Wyoming.
    """
    stream = io.BufferedReader(client)
    request_until_s: float | None = None
    while _comes_more(client, stream, request_until_s):
        now_s = time.monotonic()
        request_until_s = request_until_s or now_s + REQUEST_S
        client.until_s = min(request_until_s, now_s + EVENT_S)
        event = read_event(stream)
        client.waiting_since_s = None
        answer = answers.answer(event)
        if answer is not None:
            request_until_s = None
            packed = io.BytesIO()
            write_event(answer.event(), packed)
            client.send(packed.getvalue(), ANSWER_S)
        client.waiting_since_s = time.monotonic()


def _comes_more(client: Client, stream: "io.BufferedReader[Client]", request_until_s: float | None) -> bool:
    """Wait for the next event; return False when the connection is over."""
    if request_until_s is not None:
        client.until_s = request_until_s
        return bool(stream.peek(1))
    client.until_s, client.left_bytes = time.monotonic() + IDLE_S, REQUEST_BYTES
    with contextlib.suppress(ClientError):  # silence between two requests is no fault
        return bool(stream.peek(1))
    return False


def read_event(stream: "io.BufferedReader[Client]") -> Event:
    """Read one event: a line of JSON, then as many bytes of JSON and of payload as the line says.

    The `wyoming` package reads any length that is announced, and returns None for nonsense as for the end.

    Raises:
        ClientError: it is no event, or too long.
        ValueError, RecursionError: the JSON cannot be parsed.
    """
    line = stream.readline(LONGEST_LINE_BYTES)
    head = json.loads(line) if line.endswith(b"\n") else None
    if not isinstance(head, dict) or not isinstance(head.get("type"), str):
        raise ClientError("no Wyoming event")
    more = _take(stream, head.get("data_length"), LONGEST_DATA_BYTES)
    data = {**_object(head.get("data")), **_object(json.loads(more) if more else None)}
    return Event(head["type"], data, _take(stream, head.get("payload_length"), LONGEST_PAYLOAD_BYTES))


def _object(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ClientError("the data of an event are no JSON object")
    return value


def _take(stream: "io.BufferedReader[Client]", size: Any, limit: int) -> bytes | None:
    """Read a part of `size` bytes; return None if the header announces none."""
    if size is None:
        return None
    if type(size) is not int or not 0 <= size <= limit:
        raise ClientError(f"a part of {size} bytes, where {limit} are allowed")
    part = stream.read(size)
    if len(part) < size:
        raise ConnectionResetError("closed in the middle of an event")
    return part
