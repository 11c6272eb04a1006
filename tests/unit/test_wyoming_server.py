"""The sockets; what stands behind them is in `test_wyoming_conversation.py`."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import BinaryIO, cast

import pytest
from wyoming.asr import Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import read_event, write_event
from wyoming.ping import Ping, Pong

from agent import wyoming as wyoming_server
from agent.audio.frames import Pcm16
from agent.config.settings import AssistSettings
from agent.errors import ConfigError
from agent.telemetry.tcp import CLIENTS, TcpServer
from agent.worker import Worker
from agent.wyoming import Conversation, assist_server, service_info
from tests.starved import no_descriptors

ANY_PORT = AssistSettings(enabled=True, port=0)


def never(worker: Worker) -> None:
    """The thread must not fail."""
    raise AssertionError(worker.failure)


def serve(settings: AssistSettings = ANY_PORT) -> TcpServer:
    """A server that hears nothing."""
    return assist_server(settings, lambda: Conversation(lambda: service_info("tiny", ["en"]), lambda _pcm: ""), never)


@pytest.fixture
def server() -> Iterator[TcpServer]:
    """At a free port."""
    with closing(serve()) as running:
        yield running


def pong(connection: socket.socket) -> str | None:
    """What a ping on `connection` is answered with."""
    connection.settimeout(30)
    with cast("BinaryIO", connection.makefile("rwb")) as stream:
        write_event(Ping("hello").event(), stream)
        answer = read_event(stream)
    return Pong.from_event(answer).text if answer else None


def becomes(condition: Callable[[], bool], within_s: float = 30.0) -> bool:
    """Whether it does."""
    until_s = time.monotonic() + within_s
    while not (met := condition()) and time.monotonic() < until_s:
        time.sleep(0.01)
    return met


def test_without_descriptors_it_says_so_and_serves_when_there_are_some_again(
    server: TcpServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once, not at each attempt; who waited meanwhile is answered."""
    with socket.socket() as client:
        with no_descriptors():
            client.connect(("127.0.0.1", server.port))
            assert becomes(lambda: "a connection could not be taken (Too many open files)" in caplog.text)
            time.sleep(1.2)
        assert pong(client) == "hello"
    assert caplog.text.count("could not be taken") == 1


def test_its_thread_ends_without_a_word_when_it_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    """Closing is no trouble with the network."""
    running = serve()
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        assert pong(client) == "hello"
        running.close()
        running.close()
        assert client.recv(1) == b""
    assert "assist" not in {thread.name for thread in threading.enumerate()}
    assert caplog.text == ""


def test_an_address_that_has_not_come_yet_is_no_reason_to_stay_down(caplog: pytest.LogCaptureFixture) -> None:
    """The device's own one in the network, after a power cut: Wi-Fi takes longer than we do."""
    serve(AssistSettings(enabled=True, host="192.0.2.7", port=0)).close()
    assert "192.0.2.7 is no address of this device yet" in caplog.text


def test_a_name_that_nobody_knows_yet_is_no_reason_to_stay_down(caplog: pytest.LogCaptureFixture) -> None:
    """It is said with its setting; closing meanwhile does not wait for it."""
    serve(AssistSettings(enabled=True, host="edgescribe.invalid", port=0)).close()
    assert "assist.host = edgescribe.invalid: cannot listen at" in caplog.text
    assert "assist" not in {thread.name for thread in threading.enumerate()}


def test_a_misspelt_address_is_said_in_one_line() -> None:
    """No name will ever look like that."""
    with pytest.raises(ConfigError, match=r"assist: cannot listen at 192\.168\.1\.300:0 \(.+\): set assist.host"):
        serve(AssistSettings(enabled=True, host="192.168.1.300", port=0))


def test_a_port_that_is_taken_is_said_in_one_line(server: TcpServer) -> None:
    """What, where, and what to do about it."""
    taken = AssistSettings(enabled=True, port=server.port)
    said = rf"assist: cannot listen at 127.0.0.1:{server.port} \(address already in use\): set assist.host"
    with pytest.raises(ConfigError, match=said):
        serve(taken)


def connected(server: TcpServer, said: bytes = b"") -> socket.socket:
    """A client that has said so much."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    client.sendall(said)
    return client


def hung_up(client: socket.socket) -> bool:
    """Whether the server ends the connection without a word."""
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def trickled(client: socket.socket, text: bytes) -> bool:
    """Whether the server hangs up on a client that sends `text` again and again, a byte at a time."""
    try:
        for byte in text * 10_000:
            client.sendall(bytes([byte]))
            time.sleep(0.01)
    except OSError:
        return True
    return False


def test_clients_that_say_nothing_complete_keep_nobody_out(server: TcpServer) -> None:
    """As many as there are places, and as many again: half a line, half an event, nothing at all."""
    halves = (b'{"type": "pi', b'{"type": "audio-chunk", "payload_length": 4000}\n1234', b"")
    with ExitStack() as clients:
        for said in halves * CLIENTS:
            clients.enter_context(connected(server, said))
        for _ in range(3):
            with connected(server) as client:
                assert pong(client) == "hello"


def test_a_client_in_the_midst_of_a_request_keeps_its_place(server: TcpServer) -> None:
    """However many others come between two chunks of its sound."""
    with connected(server) as speaker, ExitStack() as clients:
        assert pong(speaker) == "hello"
        for _ in range(3 * CLIENTS):
            clients.enter_context(connected(server, b'{"type": "pi'))
        assert pong(speaker) == "hello"


@pytest.mark.parametrize(
    "text",
    [
        b'{"type": "audio-chunk", ',
        b'{"type": "audio-chunk", "data": {"rate": 16000, "width": 2, "channels": 1}, "payload_length": 1}\n.',
    ],
    ids=["one event", "one request"],
)
def test_the_time_for_a_request_is_limited_as_a_whole(
    text: bytes, server: TcpServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A byte every moment keeps no connection open, neither within an event nor with one event after the other."""
    monkeypatch.setattr(wyoming_server, "EVENT_S", 1.0 if text.endswith(b", ") else 60.0)
    monkeypatch.setattr(wyoming_server, "REQUEST_S", 60.0 if text.endswith(b", ") else 2.0)
    with connected(server) as client:
        assert trickled(client, text)
    assert becomes(lambda: "too slow" in caplog.text)


def test_the_size_of_a_request_is_limited_as_a_whole(
    server: TcpServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Events that nobody knows are passed over, and counted."""
    monkeypatch.setattr(wyoming_server, "REQUEST_BYTES", 100_000)
    with connected(server) as client, suppress(ConnectionError):
        for _ in range(2_000):
            client.sendall(b'{"type": "dance", "payload_length": 1000}\n' + bytes(1_000))
        assert hung_up(client)
    assert becomes(lambda: "sends too much" in caplog.text)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"[" * 50_000 + b"\n",
        b'{"type": "x", "data_length": 50000}\n' + b"[" * 50_000,
        b'{"a":' * 10_000 + b"\n",
        b'{"type": "x", "padding": "' + b"x" * 100_000 + b'"}\n',
        b'{"type": "x", "payload_length": 200000000}\n',
        b'{"type": "x", "data_length": 200000000}\n',
        b'{"type": "x", "payload_length": -1}\n',
        b'{"type": "x", "payload_length": 1e999}\n',
        b'{"type": "x", "payload_length": "1"}\n',
        b'{"type": "x", "payload_length": true}\n',
        b'{"type": "x", "data_length": 2}\n[]',
        b'{"type": "x", "data": 7}\n',
        b'{"type": 7}\n',
        b"{}\n",
        b"null\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"1" * 5_000 + b"\n",
        bytes(range(256)) * 20 + b"\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
    ],
    ids=lambda nonsense: nonsense[:30].decode(errors="replace"),
)
def test_nonsense_ends_one_connection_with_one_line(
    nonsense: bytes, server: TcpServer, caplog: pytest.LogCaptureFixture
) -> None:
    """No thread dies of it, nothing is reserved for it, and the next client is answered."""
    for _ in range(3):
        with connected(server) as client, suppress(ConnectionError):
            client.sendall(nonsense)
            assert hung_up(client)
    with connected(server) as client:
        assert pong(client) == "hello"
    assert becomes(lambda: len(caplog.records) > 0)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "closed the connection from 127.0.0.1" in line
    assert len(line) < 500


def test_a_text_that_cannot_be_sent_back_is_an_error_and_the_connection_goes_on(server: TcpServer) -> None:
    """A lone surrogate is valid JSON, and no Unicode."""
    with connected(server, b'{"type": "ping", "data": {"text": "\\ud800"}}\n') as client:
        with cast("BinaryIO", client.makefile("rwb")) as stream:
            answer = read_event(stream)
        assert answer is not None
        assert answer.type == "error"
        assert pong(client) == "hello"


class Interpreter:
    """Answers with what it heard, when it is told to."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.asked = threading.Semaphore(0)

    def __call__(self, pcm: Pcm16) -> str:
        """The number of samples."""
        self.asked.release()
        assert self.may_answer.wait(60)
        return str(len(pcm))


@pytest.fixture
def interpreter() -> Interpreter:
    """Waits before it answers."""
    return Interpreter()


def spoken(connection: socket.socket, samples: int) -> None:
    """Ask for the words in so many samples."""
    with cast("BinaryIO", connection.makefile("rwb")) as stream:
        for event in (AudioStart(16_000, 2, 1), AudioChunk(16_000, 2, 1, bytes(2 * samples)), AudioStop()):
            write_event(event.event(), stream)


def answer_to(connection: socket.socket) -> str:
    """The words."""
    with cast("BinaryIO", connection.makefile("rwb")) as stream:
        event = read_event(stream)
    assert event is not None
    return Transcript.from_event(event).text


def test_clients_that_wait_for_their_words_lose_their_place_to_nobody(interpreter: Interpreter) -> None:
    """Where all places are taken by such, one more is turned away; each gets the words for its own sound."""
    conversation = partial(Conversation, lambda: service_info("tiny", ["en"]), interpreter)
    with closing(assist_server(ANY_PORT, conversation, never)) as server, ExitStack() as stack:
        clients = [stack.enter_context(connected(server)) for _ in range(CLIENTS)]
        for number, client in enumerate(clients):
            spoken(client, 100 + number)
        for _ in clients:
            assert interpreter.asked.acquire(timeout=60)
        with connected(server) as one_more:
            assert hung_up(one_more)
        interpreter.may_answer.set()
        assert [answer_to(client) for client in clients] == [str(100 + number) for number in range(CLIENTS)]
