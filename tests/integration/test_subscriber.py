import socket
import threading
from contextlib import closing

import pytest

from agent.config.settings import MqttSettings
from agent.errors import SinkError
from agent.mqtt.subscriber import LinkChange, Subscriber

TOPIC = "edgescribe/v1/pi-1/\x1b[2J\x9b31m"


def serve(listener: socket.socket, first_byte: int) -> None:
    """A broker that lets anything pass: it sends the beginning of a huge message on `TOPIC`."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(1_024)
        connection.sendall(b"\x20\x02\x00\x00")  # CONNACK
        packet_id = connection.recv(1_024)[2:4]
        connection.sendall(b"\x90\x03" + packet_id + b"\x01")  # SUBACK
        topic = TOPIC.encode()
        connection.sendall(bytes([first_byte]) + b"\xff\xff\xff\x7f" + len(topic).to_bytes(2, "big") + topic)
        connection.recv(1_024)


@pytest.mark.parametrize("retained", [False, True])
def test_a_hostile_topic_steers_no_terminal(*, retained: bool) -> None:
    """The reason why the connection was given up names the topic without its controls."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        broker = threading.Thread(target=serve, args=(listener, 0x31 if retained else 0x30))
        broker.start()
        settings = MqttSettings(host="127.0.0.1", port=listener.getsockname()[1])
        with closing(Subscriber(settings)) as subscriber:
            assert subscriber.event(30.0) == LinkChange(connected=True)
            if retained:
                with pytest.raises(SinkError) as found:
                    subscriber.event(30.0)
                reason = str(found.value)
            else:
                change = subscriber.event(30.0)
                assert isinstance(change, LinkChange)
                reason = change.reason
        broker.join(30.0)
    assert "edgescribe/v1/pi-1/?[2J?31m" in reason
    assert reason.isprintable()
