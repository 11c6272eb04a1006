"""The sockets; what stands behind them is in `test_conversation.py`."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import BinaryIO, cast

import pytest
from wyoming.event import read_event, write_event
from wyoming.ping import Ping, Pong

from agent.assist.conversation import Conversation, Offer
from agent.assist.server import AssistServer
from agent.config.assist import AssistSettings
from agent.errors import ConfigError
from agent.worker import Worker
from tests.starved import no_descriptors

ANY_PORT = AssistSettings(enabled=True, port=0)


def never(worker: Worker) -> None:
    """The thread must not fail."""
    raise AssertionError(worker.failure)


def serve(settings: AssistSettings = ANY_PORT) -> AssistServer:
    """A server that hears nothing."""
    return AssistServer(settings, lambda: Conversation(lambda: Offer("tiny", ("en",)), lambda _pcm: ""), never)


@pytest.fixture
def server() -> Iterator[AssistServer]:
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
    server: AssistServer, caplog: pytest.LogCaptureFixture
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
    assert "assist.host = edgescribe.invalid: nobody gets through" in caplog.text
    assert "assist" not in {thread.name for thread in threading.enumerate()}


def test_a_misspelt_address_is_said_in_one_line() -> None:
    """No name will ever look like that."""
    with pytest.raises(ConfigError, match=r"assist: cannot listen on 192\.168\.1\.300:0 \(.+\): set assist.host"):
        serve(AssistSettings(enabled=True, host="192.168.1.300", port=0))


def test_a_port_that_is_taken_is_said_in_one_line(server: AssistServer) -> None:
    """What, where, and what to do about it."""
    taken = AssistSettings(enabled=True, port=server.port)
    said = rf"assist: cannot listen on 127.0.0.1:{server.port} \(address already in use\): set assist.host"
    with pytest.raises(ConfigError, match=said):
        serve(taken)
