"""The broker and the subscriber that `edgescribe demo` brings along."""

import importlib.util
import shutil
import socket

import pytest
from paho.mqtt import publish

from agent.config.settings import MqttSettings
from agent.errors import SinkError
from agent.mqtt.embedded_broker import Kind, embedded_broker
from agent.mqtt.subscriber import Subscriber
from tests.support.mosquitto import free_port
from tests.support.receiver import eventually


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_what_is_published_reaches_the_subscriber(kind: Kind) -> None:
    """A broker on a free port, a subscriber that misses nothing, and no broker left behind."""
    with embedded_broker(kind=kind) as broker:
        assert broker.kind == kind
        with Subscriber(broker.settings, "greeting/#") as subscriber:
            for number in range(5):
                publish.single(f"greeting/{number}", f"hello {number}", 1, hostname=broker.host, port=broker.port)
            received = [subscriber.get(10.0) for _ in range(5)]
        assert subscriber.get(0.1) is None
    assert [(message.topic, message.payload) for message in received if message] == [
        (f"greeting/{number}", f"hello {number}".encode()) for number in range(5)
    ]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((broker.host, broker.port), timeout=1.0)


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_a_port_can_be_asked_for(kind: Kind) -> None:
    """So that another terminal can look on."""
    port = free_port()
    with embedded_broker(port, kind) as broker:
        assert broker.port == port
        socket.create_connection((broker.host, port), timeout=1.0).close()


@pytest.mark.mosquitto
def test_mosquitto_is_preferred() -> None:
    """It speaks MQTT 5 and starts ten times as fast."""
    with embedded_broker() as broker:
        assert broker.kind == "mosquitto"


def test_a_port_that_is_taken_is_said() -> None:
    """Mosquitto's own complaint is passed on, and nothing stays behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        # Our own socket answers the connection that would tell that it has started, so it must not listen.
    with socket.socket() as held:
        held.bind(("127.0.0.1", port))
        with (
            pytest.raises(SinkError, match=f"did not start on port {port}: .*in use"),
            embedded_broker(port, "mosquitto"),
        ):
            pytest.fail("it started")


def test_without_any_broker_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither mosquitto nor amqtt: the message says how to get either."""
    monkeypatch.setattr(shutil, "which", lambda *_args, **_kwargs: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SinkError, match="apt install mosquitto"), embedded_broker():
        pytest.fail("it started")


def test_a_subscriber_without_a_broker_says_so() -> None:
    """One line with the address."""
    port = free_port()
    with pytest.raises(SinkError, match=rf"no broker at 127\.0\.0\.1:{port} \(Connection refused\)"):
        Subscriber(MqttSettings(host="127.0.0.1", port=port))


def test_iteration_ends_when_the_subscriber_is_closed() -> None:
    """What was received is still delivered, then the loop ends."""
    with embedded_broker(kind="mosquitto") as broker:
        subscriber = Subscriber(broker.settings, "greeting")
        publish.single("greeting", "hello", 1, hostname=broker.host, port=broker.port)
        first = subscriber.get(10.0)
        subscriber.close()
        assert first
        assert [*subscriber] == []


def test_a_message_that_is_too_large_is_never_received() -> None:
    """The subscriber hangs up on it, comes back, and receives what follows."""
    with embedded_broker(kind="mosquitto") as broker, Subscriber(broker.settings, "greeting") as subscriber:
        publish.single("greeting", bytes(5 << 20), 1, hostname=broker.host, port=broker.port)

        received = []

        def greeted() -> bool:
            publish.single("greeting", "hello", 1, hostname=broker.host, port=broker.port)
            if message := subscriber.get(0.2):
                received.append(message.payload)
            return b"hello" in received

        assert eventually(greeted)
        assert set(received) == {b"hello"}
