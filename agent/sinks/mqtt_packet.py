"""The properties of a PUBLISH packet, and how large it gets: brokers hang up on what is too large for them."""

import logging
import struct
from typing import Any, Final

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.exception import MQTTException
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.delivery import Outgoing
from agent.errors import SinkError

log = logging.getLogger("agent.sinks.mqtt")

_VARINT_BITS: Final = 7
_QOS_1: Final = 0x02


class TolerantClient(Client):
    """A paho client that passes over a message that it cannot read, and acknowledges it.

    paho hangs up on properties with the sign U+FEFF, and on some that brokers let through unchecked. The broker would
    deliver such a message again on every connection.
    """

    def _handle_publish(self) -> MQTTErrorCode:
        try:
            return super()._handle_publish()
        except (MQTTException, ValueError, LookupError, struct.error) as error:
            packet = self._in_packet["packet"]
            topic_bytes = int.from_bytes(packet[:2], "big")
            topic, packet_id = packet[2 : 2 + topic_bytes], packet[2 + topic_bytes : 4 + topic_bytes]
            log.warning(f"mqtt: ignored a message on {bytes(topic[:100])!r} that cannot be read ({error})")
            if self._in_packet["command"] & _QOS_1:
                return self._send_puback(int.from_bytes(packet_id, "big"))
            return MQTTErrorCode.MQTT_ERR_SUCCESS


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
