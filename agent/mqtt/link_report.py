"""What log and `health` say about the link to the broker: one line for each change of its state."""

import logging
from typing import Literal

from agent.config.settings import MqttSettings
from agent.messages import Reply
from agent.mqtt.connection import LinkDown
from agent.mqtt.delivery import Outgoing
from agent.mqtt.packet import COMMAND_LIMIT_BYTES
from agent.mqtt.reconnect import STABLE_S, Cause
from agent.mqtt.tls import CLOCK_REMEDY

log = logging.getLogger("agent.mqtt.client")

_AWAY = frozenset({Cause.UNREACHABLE, Cause.LOST, Cause.SILENT})
"""One and the same trouble, seen at different moments."""

_EXPLANATIONS = {
    Cause.UNREACHABLE: "no broker at {at} ({why})",
    Cause.LOST: "lost the broker at {at} ({why})",
    Cause.SILENT: "{at} does not answer as a broker does ({why}): check mqtt.port and mqtt.tls.enabled, and whether "
    "the broker takes retained messages at QoS 1",
    Cause.UNTRUSTED: "cannot trust the broker at {at} ({why}): set mqtt.tls.ca_file to the authority that signed its "
    "certificate, and mqtt.host to a name in that certificate",
    Cause.DATES: "cannot trust the broker at {at} ({why}): " + CLOCK_REMEDY,
    Cause.UNUSABLE_FILES: "cannot connect to {at} ({why})",
    Cause.NO_TLS: "{at} does not speak TLS as it should ({why}): check mqtt.port and mqtt.tls.enabled",
    Cause.CERTIFICATE: "{at} does not take this device's certificate ({why}): check mqtt.tls.cert_file and key_file",
    Cause.CREDENTIALS: "{at} refuses the user '{user}' ({why}): check mqtt.username and mqtt.password",
    Cause.TAKEN_OVER: "another client connected to {at} as '{id}': give each device a device.id of its own",
    Cause.VERSION: '{at} does not speak this version of MQTT ({why}): set mqtt.protocol to "auto"',
    Cause.REFUSED: "{at} refuses us ({why})",
    Cause.RETAIN: "{at} refuses us ({why}), though nothing was to be retained",
    Cause.QOS: "{at} takes QoS 0 only ({why}) and so acknowledges nothing: use a broker that takes QoS 1",
    Cause.GREETING: "{at} hangs up on the first message of every connection ({why}): use a broker that takes retained "
    "messages at QoS 1, and check that its access control list lets '{id}' publish its status",
    Cause.TOO_LARGE: "hung up on {at} ({why}): no command has more than " + f"{COMMAND_LIMIT_BYTES} bytes",
}
_UNFIT = frozenset({Cause.QOS, Cause.GREETING})
_ERASURE = "erasure"
"""Stands for all topics that could not be erased."""
_FLAPS = 3
_NAMESAKE = "; this goes on and on: does another client use the id '{id}'?"
"""Many brokers, mosquitto before 2.1 among them, do not tell the one whom they throw out for a namesake."""

_BEHIND = ", each time right behind {topic} ({size} bytes)"
_LIMIT = "max_packet_size in mosquitto's configuration"

_ANONYMOUS = "{at} refuses clients without a password ({why}): set mqtt.password"


class Reporter:
    """Remembers what was said last, so that it is said once. Used by the sink's thread, but for `overflow`."""

    def __init__(self, settings: MqttSettings, device_id: str) -> None:
        self._address = f"{settings.host}:{settings.effective_port}"
        self._user = settings.username_for(device_id)
        self._device_id = device_id
        self._said: Cause | None = None
        self._flaps = 0
        self._overflowed = False
        self._refused: set[str] = set()
        self.conditions: tuple[str, ...] = ()
        """What the broker cannot do, as codes for `health`."""

    def up(self, version: Literal["5", "3.1.1"], waiting: int, *, retained: bool = True) -> None:
        """The broker has accepted us and acknowledged our first message; as retained, or it keeps none."""
        log.info(f"mqtt: connected to {self._address} (MQTT {version}){_waiting(waiting)}")
        if not retained:
            log.warning(
                f"mqtt: {self._address} keeps no retained messages: subscribers that come later do not see status, "
                "state and health until they change"
            )
        self.conditions = () if retained else ("mqtt_not_retained",)
        self._said = None
        self._overflowed = False
        self._refused.clear()

    def down(
        self,
        down: LinkDown,
        waiting: int,
        wait_s: float,
        *,
        connected_s: float = 0.0,
        suspect: Outgoing | None = None,
    ) -> None:
        """There is no connection; the next attempt comes in `wait_s`. The last one held for `connected_s`.

        `suspect` is what the broker seems to hang up on.
        """
        self._flaps = self._flaps + 1 if down.cause is Cause.LOST and connected_s < STABLE_S else 0
        self.conditions = ("mqtt_unfit",) if down.cause in _UNFIT else ()
        state = Cause.LOST if down.cause in _AWAY else down.cause
        if state is self._said:
            return
        self._said = state
        doubt = ""
        if suspect is not None:
            doubt = _BEHIND.format(topic=suspect.topic, size=len(suspect.payload))
        elif self._flaps >= _FLAPS:
            doubt = _NAMESAKE.format(id=self._device_id)
        log.warning(f"mqtt: {self._explain(down)}{doubt}{_waiting(waiting)}, {_next_attempt(wait_s)}")

    def _explain(self, down: LinkDown) -> str:
        anonymous = down.cause is Cause.CREDENTIALS and self._user is None
        template = _ANONYMOUS if anonymous else _EXPLANATIONS[down.cause]
        return template.format(at=self._address, why=down.reason, user=self._user, id=self._device_id)

    def overflow(self) -> None:
        """The outbox is full, and the oldest message had to go; may be called from any thread."""
        if not self._overflowed:
            self._overflowed = True
            log.warning("mqtt: the queue is full, dropping the oldest messages: see mqtt.outbox")

    def refused(self, outgoing: Outgoing, reason: str) -> None:
        """The broker did not take a message."""
        if self._is_news(outgoing):
            log.warning(
                f"mqtt: {self._address} does not take {outgoing.topic} ({reason}): check its access control list"
            )

    def left_out(self, filters: tuple[str, ...]) -> None:
        """What comes by these filters is too large, and would come again."""
        log.warning(
            f"mqtt: not subscribing to {', '.join(filters)} for an hour, since messages there are too large: remove a "
            "retained one with mosquitto_pub -r -n -t TOPIC"
        )

    def not_erased(self, outgoing: Outgoing, reason: str) -> None:
        """The broker keeps what it retains on its topic, and probably on others; one line tells of all."""
        if _ERASURE not in self._refused:
            self._refused.add(_ERASURE)
            log.warning(
                f"mqtt: {self._address} does not let us delete what it retains on {outgoing.topic} ({reason}): "
                f"delete it there, for example `mosquitto_pub -r -n -t {outgoing.topic}`"
            )

    def too_large(self, outgoing: Outgoing, size_bytes: int, limit_bytes: int) -> None:
        """A message was not sent, since the broker would hang up on it."""
        if self._is_news(outgoing):
            log.warning(
                f"mqtt: {self._address} takes no packet above {limit_bytes} bytes, and one on {outgoing.topic} has "
                f"{size_bytes} and is not sent: raise the broker's limit ({_LIMIT})"
            )

    def _is_news(self, outgoing: Outgoing) -> bool:
        """Whether this is the first of its topic; of replies, on topics that others make up, the first of all."""
        kind = outgoing.schema if outgoing.schema == Reply.schema_name else outgoing.topic
        news = kind not in self._refused
        self._refused.add(kind)
        return news

    def set_aside(self, outgoing: Outgoing, losses: int) -> None:
        """The broker has hung up on a message so often that it is not sent to it again."""
        self._flaps = 0  # it was not a namesake
        log.warning(
            f"mqtt: {self._address} hung up {losses} times right behind a message on {outgoing.topic} "
            f"({len(outgoing.payload)} bytes), which is not sent again: check its limit to the size of packets "
            f"({_LIMIT}) and its access control list"
        )

    def deaf(self, filters: list[str]) -> None:
        """The broker does not let us hear what is sent to these topics."""
        for name in filters:
            if name not in self._refused:
                self._refused.add(name)
                log.warning(f"mqtt: {self._address} does not let us read {name}: check its access control list")


def _waiting(messages: int) -> str:
    if not messages:
        return ""
    return "; 1 message waits" if messages == 1 else f"; {messages} messages wait"


def _next_attempt(wait_s: float) -> str:
    return "retrying" if wait_s < 60 else f"trying again in {round(wait_s / 60)} min"  # noqa: PLR2004 - seconds a minute
