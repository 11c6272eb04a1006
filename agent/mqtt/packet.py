"""How large a packet may be, in both directions, and the properties of a PUBLISH packet."""

import errno
import logging
import struct
from dataclasses import dataclass
from typing import Any, Final

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.exception import MQTTException
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.errors import SinkError
from agent.mqtt.delivery import Outgoing

log = logging.getLogger("agent.mqtt.client")

COMMAND_LIMIT_BYTES: Final = 16_384
"""Largest packet that the agent reads: the 8,192 bytes of a command, and as many for topic and properties."""
CONTRACT_LIMIT_BYTES: Final = 65_536
"""Largest packet that a subscriber to devices reads. A transcript, the largest message, has about 16 KB."""

_VARINT_BITS: Final = 7
_PUBLISH: Final = 0x30
_TYPE_MASK: Final = 0xF0
_RETAIN: Final = 0x01
_QOS_1: Final = 0x02
_QOS_2: Final = 0x04
_BEGINNING_BYTES: Final = 2_048
"""Read of a packet that is too large, for its topic."""


@dataclass(frozen=True, slots=True)
class Oversized:
    """A packet that was too large to be read."""

    size_bytes: int
    topic: str | None = None
    """None where it is no message, or its topic did not come with the first bytes."""
    retained: bool = False
    """The broker sends it again to each new subscription."""

    def __str__(self) -> str:
        """As it stands in a message to people."""
        kind = "a retained packet" if self.retained else "a packet"
        return f"{kind} of {self.size_bytes} bytes" + (f" on {self.topic}" if self.topic else "")


class BoundedClient(Client):
    """A paho client that hangs up as soon as the fixed header announces a packet of more than `limit_bytes`.

    paho itself reads up to 256 MiB into memory (MQTT 5.0, 2.1.4). A message at QoS 2 ends the connection as well: paho
    would keep it until the broker releases it, and we never subscribe at QoS 2.

    It passes over a message that it cannot read, and acknowledges it. paho hangs up on properties with the sign U+FEFF,
    and on some that brokers let through unchecked. The broker would deliver such a message again on every connection.
    """

    def __init__(self, limit_bytes: int, client_id: str = "", **options: Any) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, client_id, **options)
        self.limit_bytes = limit_bytes
        self.oversized: Oversized | None = None
        """What this client hung up on last."""

    def _sock_recv(self, bufsize: int) -> bytes:
        """Read from the socket. paho asks for the fixed header byte by byte, then for all that is left of the packet.

        Raises:
            OSError: the packet is none that we take. paho logs it, and reports a lost connection.
        """
        command = self._in_packet["command"]
        is_message = command & _TYPE_MASK == _PUBLISH
        if is_message and command & _QOS_2:
            raise OSError(errno.EPROTO, "a message at QoS 2, which was not asked for")
        if bufsize <= self.limit_bytes:
            return super()._sock_recv(bufsize)
        beginning = super()._sock_recv(_BEGINNING_BYTES)
        topic = _topic(beginning) if is_message else None
        self.oversized = Oversized(bufsize, topic, retained=is_message and bool(command & _RETAIN))
        raise OSError(errno.EMSGSIZE, f"{self.oversized} is not read")

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


def _topic(beginning: bytes) -> str | None:
    """The topic at the beginning of a PUBLISH packet's variable header (MQTT 5.0, 3.3.2.1); None if it is cut off."""
    length_bytes = int.from_bytes(beginning[:2], "big")
    name = beginning[2 : 2 + length_bytes]
    try:
        return name.decode() if len(name) == length_bytes else None
    except UnicodeDecodeError:
        return None


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
