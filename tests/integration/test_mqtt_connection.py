"""One connection against a peer that answers exactly what the test says, byte for byte."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from agent.config.settings import MqttSettings
from agent.messages import Status
from agent.mqtt.connection import Cause, Connection, LinkDown, PacketTooLarge, Version
from agent.mqtt.delivery import Outgoing
from tests.integration.conftest import OpenSink
from tests.messages import transcript
from tests.support.receiver import eventually

WILL = Outgoing.of("pi-1", Status(state="offline"), 0.0)
ACCEPTED_5 = b"\x20\x03\x00\x00\x00"
ACCEPTED_311 = b"\x20\x02\x00\x00"


class Peer:
    """Takes one connection, waits for CONNECT, sends `answers`, then listens until the test is done with it."""

    def __init__(self, *answers: bytes) -> None:
        self.received = b""
        self._answers = answers
        self._done = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        client.settimeout(0.05)
        with client:
            self._listen(client)
            for answer in self._answers:
                client.sendall(answer)
            while self._answers[-1] and not self._done:
                self._listen(client)

    def _listen(self, client: socket.socket) -> None:
        with contextlib.suppress(TimeoutError, ConnectionError):
            if not (data := client.recv(65_536)):
                self._done = True
            self.received += data

    def close(self) -> None:
        """Hang up."""
        self._done = True
        self._thread.join()
        self._listener.close()


@contextlib.contextmanager
def connected(version: Version, *answers: bytes) -> Iterator[Connection]:
    """A connection to a peer that gives these answers; an empty last one makes it hang up at once."""
    peer = Peer(*answers)
    connection = Connection(MqttSettings(host="127.0.0.1", port=peer.port), "pi-1", version, WILL, 10)
    try:
        connection.open(5.0)
        yield connection
    finally:
        connection.drop()
        peer.close()


def failure(connection: Connection) -> LinkDown:
    """Step until the connection is down; return why."""
    for _ in range(100):
        try:
            connection.step(None, 0.1)
        except LinkDown as down:
            return down
    pytest.fail("the connection is still up")


@pytest.mark.parametrize(
    ("version", "connack", "cause"),
    [
        ("5", b"\x20\x03\x00\x84\x00", Cause.VERSION),
        ("5", b"\x20\x02\x00\x01", Cause.VERSION),  # what a 3.1.1 broker says (MQTT 3.1.1, 3.1.2.2)
        ("5", b"\x20\x03\x00\x86\x00", Cause.CREDENTIALS),
        ("5", b"\x20\x03\x00\x87\x00", Cause.CREDENTIALS),
        ("5", b"\x20\x03\x00\x8a\x00", Cause.CREDENTIALS),
        ("5", b"\x20\x03\x00\x88\x00", Cause.REFUSED),
        ("5", b"\x20\x03\x00\x97\x00", Cause.REFUSED),
        ("5", b"", Cause.SILENT),
        ("3.1.1", b"\x20\x02\x00\x01", Cause.SILENT),
        ("3.1.1", b"\x20\x02\x00\x04", Cause.CREDENTIALS),
        ("3.1.1", b"\x20\x02\x00\x05", Cause.CREDENTIALS),
        ("3.1.1", b"\x20\x02\x00\x03", Cause.REFUSED),
    ],
)
def test_a_refusal_is_understood(version: Version, connack: bytes, cause: Cause) -> None:
    """Each answer to CONNECT leads to the cause that the log and the back-off act on."""
    with connected(version, connack) as connection:
        assert failure(connection).cause is cause


@pytest.mark.parametrize(
    ("packet", "cause"),
    [
        (b"\xe0\x01\x8e", Cause.TAKEN_OVER),
        (b"\xe0\x01\x8b", Cause.REFUSED),  # server shutting down
        (b"", Cause.LOST),
    ],
)
def test_the_end_of_a_connection_is_understood(packet: bytes, cause: Cause) -> None:
    """Being thrown out for a namesake is told from a broker that goes away."""
    with connected("5", ACCEPTED_5, packet) as connection:
        assert failure(connection).cause is cause


@pytest.mark.parametrize(
    ("properties", "window"),
    [(b"\x00", 8), (b"\x03\x21\x00\x03", 3), (b"\x03\x21\xff\xff", 8), (b"\x03\x21\x00\x01", 1)],
)
def test_the_window_is_the_smaller_of_ours_and_the_brokers(properties: bytes, window: int) -> None:
    """Receive Maximum (MQTT 5, 3.2.2.3.3) is honoured, which paho leaves to us."""
    connack = b"\x20" + bytes([2 + len(properties)]) + b"\x00\x00" + properties
    with connected("5", connack) as connection:
        while not connection.accepted:
            connection.step(None, 0.1)
        assert connection.window == window


@pytest.mark.parametrize("words", ["", "turn on the light", "word " * 1_000])
def test_a_packet_is_as_large_as_the_brokers_limit_and_no_larger(words: str) -> None:
    """Maximum Packet Size (MQTT 5, 3.2.2.3.6) counts all that goes over the wire; one byte less, and nothing goes."""
    outgoing = Outgoing.of("pi-1", transcript(1, words), 0.0)
    size_bytes = len(_sent(outgoing, None))
    assert len(_sent(outgoing, size_bytes)) == size_bytes
    with pytest.raises(PacketTooLarge) as raised:
        _sent(outgoing, size_bytes - 1)
    assert (raised.value.size_bytes, raised.value.limit_bytes) == (size_bytes, size_bytes - 1)


def _sent(outgoing: Outgoing, limit_bytes: int | None) -> bytes:
    """What goes over the wire for a message when the broker takes no more than that."""
    properties = b"" if limit_bytes is None else b"\x27" + limit_bytes.to_bytes(4, "big")
    peer = Peer(b"\x20" + bytes([3 + len(properties)]) + b"\x00\x00" + bytes([len(properties)]) + properties)
    connection = Connection(MqttSettings(host="127.0.0.1", port=peer.port), "pi-1", "5", WILL, 10)
    try:
        connection.open(5.0)
        while not connection.accepted:
            connection.step(None, 0.1)
        greeting_bytes = len(peer.received)
        connection.publish(outgoing, 60)
        assert eventually(lambda: outgoing.payload in peer.received)
        return peer.received[greeting_bytes:]
    finally:
        connection.drop()
        peer.close()


@pytest.mark.parametrize(
    ("reason", "refused"), [(b"\x00", False), (b"\x10", False), (b"\x87", True), (b"\x97", True), (b"\x99", True)]
)
def test_an_acknowledgement_below_128_is_a_delivery(reason: bytes, refused: bool) -> None:  # noqa: FBT001 - a column
    """`No matching subscribers` is as good as success; from 128 on the broker has not taken the message."""
    with connected("5", ACCEPTED_5, b"\x40\x04\x00\x01" + reason + b"\x00") as connection:
        connection.publish(Outgoing.of("pi-1", transcript(1), 0.0), 60)
        acks = [ack for _ in range(20) for ack in connection.step(None, 0.05)]
    assert [(ack.packet_id, ack.refusal is not None) for ack in acks] == [(1, refused)]


def test_no_more_is_on_its_way_than_the_broker_allows(open_sink: OpenSink) -> None:
    """With a Receive Maximum of 3 and no acknowledgement, birth and two transcripts go out, and nothing after them."""
    peer = Peer(b"\x20\x06\x00\x00\x03\x21\x00\x03")
    sink = open_sink(MqttSettings(host="127.0.0.1", port=peer.port))
    for seq in range(10):
        sink.send(transcript(seq))
    assert eventually(lambda: peer.received.count(b"turn on the light") == 2)
    time.sleep(0.5)
    assert peer.received.count(b"turn on the light") == 2
    sink.close(0.1)
    peer.close()


def test_mqtt_3_keeps_no_session_and_sends_no_properties() -> None:
    """CONNECT says level 4 and clean session, with the retained will at QoS 1."""
    peer = Peer(ACCEPTED_311)
    connection = Connection(MqttSettings(host="127.0.0.1", port=peer.port), "pi-1", "3.1.1", WILL, 10)
    connection.open(5.0)
    while not connection.accepted:
        connection.step(None, 0.1)
    connection.drop()
    peer.close()
    assert peer.received[2:10] == b"\x00\x04MQTT\x04\x2e"  # will retain, will QoS 1, will, clean session
    assert peer.received[12:] == b"\x00\x04pi-1\x00\x19edgescribe/v1/pi-1/status\x00\x07offline"


def test_mqtt_5_resumes_its_session_for_an_hour() -> None:
    """CONNECT says level 5, no clean start, session expiry 3600 s, will delay 10 s."""
    peer = Peer(ACCEPTED_5)
    connection = Connection(MqttSettings(host="127.0.0.1", port=peer.port), "pi-1", "5", WILL, 10)
    connection.open(5.0)
    while not connection.accepted:
        connection.step(None, 0.1)
    connection.drop()
    peer.close()
    assert b"MQTT\x05\x2c\x00\x1e" in peer.received  # will retain, will QoS 1, will; keep-alive 30 s
    assert b"\x11\x00\x00\x0e\x10" in peer.received
    assert b"\x18\x00\x00\x00\x0a" in peer.received


def test_the_network_gives_up_after_thirty_seconds() -> None:
    """The kernel breaks a connection whose data nobody acknowledges, and does not hold small packets back."""
    with connected("5", ACCEPTED_5) as connection:
        sock = connection._client.socket()
        assert isinstance(sock, socket.socket)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
