"""The properties of a PUBLISH packet, and how large it gets: brokers hang up on what is too large for them."""

from typing import Any, Final

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.delivery import Outgoing
from agent.errors import SinkError

_VARINT_BITS: Final = 7


class PacketTooLarge(SinkError):  # noqa: N818 - reads as a condition, as `LinkDown` does
    """The broker would hang up on this message, so it was not sent."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"{size_bytes} bytes, and the broker takes {limit_bytes}")
        self.size_bytes = size_bytes
        """The whole packet, as the broker counts it."""
        self.limit_bytes = limit_bytes
        """The broker's Maximum Packet Size."""


def properties_of(packet_type: int, **values: Any) -> Properties:
    """MQTT 5 properties by their names in paho; None is left out."""
    properties = Properties(packet_type)  # type: ignore[no-untyped-call]  # paho has not annotated it
    for name, value in values.items():
        if value is not None:
            setattr(properties, name, value)
    return properties


def publish_properties(outgoing: Outgoing, expiry_s: int | None) -> Properties:
    """What a message carries besides its payload, with what is left of its expiry."""
    return properties_of(
        PacketTypes.PUBLISH,
        PayloadFormatIndicator=1,
        ContentType=outgoing.content_type,
        UserProperty=[("schema", outgoing.schema)],
        MessageExpiryInterval=expiry_s,
        CorrelationData=outgoing.correlation,
    )


def publish_bytes(outgoing: Outgoing, properties: Properties | None) -> int:
    """Size of the whole packet (MQTT 5.0, 2.1.4 and 3.3): fixed header, topic, packet id, properties and payload."""
    packet_id_bytes = 2 if outgoing.qos else 0
    properties_bytes = 0 if properties is None else len(properties.pack())  # type: ignore[no-untyped-call]
    topic_bytes = 2 + len(outgoing.topic.encode())
    remaining_bytes = topic_bytes + packet_id_bytes + properties_bytes + len(outgoing.payload)
    length_bytes = max(1, -(-remaining_bytes.bit_length() // _VARINT_BITS))  # a variable byte integer: 7 bits a byte
    return 1 + length_bytes + remaining_bytes
