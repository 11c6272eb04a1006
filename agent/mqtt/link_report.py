"""Log lines and `health` codes about the link to the broker: one line for each change of its state."""

import logging
from typing import Final

from agent.config.settings import MqttSettings
from agent.messages import Reply
from agent.mqtt.connection import Cause, LinkDown, Version
from agent.mqtt.delivery import Outgoing
from agent.mqtt.reconnect import LOSSES, STABLE_S

log = logging.getLogger("agent.mqtt.client")

_AWAY: Final = frozenset({Cause.UNREACHABLE, Cause.LOST, Cause.SILENT})
"""One and the same trouble, seen at different moments."""
_UNFIT: Final = frozenset({Cause.QOS, Cause.GREETING})
_FLAPS: Final = 3
_LIMIT: Final = "max_packet_size in mosquitto's configuration"


class LinkReporter:
    """Logs each change once. Used by the thread `mqtt`, but `overflow` may be called from any thread."""

    def __init__(self, settings: MqttSettings, device_id: str) -> None:
        self._address = f"{settings.host}:{settings.effective_port}"
        self._user = settings.username_for(device_id)
        self._device_id = device_id
        self._state: Cause | None = None
        self._flaps = 0
        self._said: set[str] = set()
        self.conditions: tuple[str, ...] = ()
        """Missing abilities of the broker, as codes for `health`."""

    def up(self, version: Version, waiting: int, *, retained: bool = True) -> None:
        """Report that the broker has acknowledged a first message. Without `retained` it keeps no retained ones."""
        log.info(f"mqtt: connected to {self._address} (MQTT {version}){_waiting(waiting)}")
        if not retained:
            log.warning(
                f"mqtt: {self._address} keeps no retained messages: subscribers that come later do not see status, "
                "state and health until they change"
            )
        self.conditions = () if retained else ("mqtt_not_retained",)
        self._state = None
        self._said.clear()

    def down(
        self, down: LinkDown, waiting: int, wait_s: float, *, connected_s: float = 0.0, suspect: Outgoing | None = None
    ) -> None:
        """Report that there is no connection; the last one held for `connected_s`, and the next comes in `wait_s`.

        `suspect` is the message on which the broker seems to hang up.
        """
        self._flaps = self._flaps + 1 if down.cause is Cause.LOST and connected_s < STABLE_S else 0
        self.conditions = ("mqtt_unfit",) if down.cause in _UNFIT else ()
        state = Cause.LOST if down.cause in _AWAY else down.cause
        if state is self._state:
            return
        self._state = state
        text = down.cause.value.format(at=self._address, why=down.reason, user=self._user, id=self._device_id)
        if down.cause is Cause.CREDENTIALS and self._user is None:
            text = f"{self._address} refuses clients without a password ({down.reason}): set mqtt.password"
        if suspect is not None:
            text += f", each time right behind {suspect.topic} ({len(suspect.payload)} bytes)"
        elif self._flaps >= _FLAPS:
            # Many brokers, such as mosquitto before 2.1, give no reason when a client with the same id comes.
            text += f"; this happens again and again: does another client use the id '{self._device_id}'?"
        when = "retrying" if wait_s < 60 else f"trying again in {round(wait_s / 60)} min"  # noqa: PLR2004 - seconds a minute
        log.warning(f"mqtt: {text}{_waiting(waiting)}, {when}")

    def _warn_once(self, subject: str, text: str) -> None:
        """Warn once a connection; may be called from any thread."""
        if subject not in self._said:
            self._said.add(subject)
            log.warning(f"mqtt: {text}")

    def overflow(self) -> None:
        """Report that the outbox is full, and dropped its oldest message."""
        self._warn_once("overflow", "the queue is full, dropping the oldest messages: see mqtt.outbox")

    def refused(self, outgoing: Outgoing, reason: str) -> None:
        """Report that the broker has refused a message. Empty ones delete a retained message: one line is for all."""
        topic = outgoing.topic
        if outgoing.payload:
            text = f"{self._address} does not take {topic} ({reason}): check its access control list"
            self._warn_once(_kind(outgoing), text)
        else:
            text = f"{self._address} does not let this device delete its retained message on {topic} ({reason})"
            self._warn_once("deletion", f"{text}: delete it there, for example `mosquitto_pub -r -n -t {topic}`")

    def too_large(self, outgoing: Outgoing, size_bytes: int, limit_bytes: int) -> None:
        """Report that a message was not sent, since the broker would hang up on it."""
        self._warn_once(
            _kind(outgoing),
            f"{self._address} takes no packet above {limit_bytes} bytes, and one on {outgoing.topic} has {size_bytes} "
            f"and is not sent: raise the broker's limit ({_LIMIT})",
        )

    def deaf(self, filters: list[str]) -> None:
        """Report that the broker refuses the subscription to these topics."""
        for name in filters:
            text = f"{self._address} does not let this device read {name}: check its access control list"
            self._warn_once(name, text)

    def left_out(self, filters: tuple[str, ...]) -> None:
        """Report that messages on these topics are too large, and would come again."""
        log.warning(
            f"mqtt: not subscribing to {', '.join(filters)} for an hour, since messages there are too large: remove a "
            "retained one with mosquitto_pub -r -n -t TOPIC"
        )

    def set_aside(self, outgoing: Outgoing) -> None:
        """Report that a message is not sent again: the broker has hung up on it too often."""
        self._flaps = 0  # no other client had the same id
        log.warning(
            f"mqtt: {self._address} hung up {LOSSES} times right behind a message on {outgoing.topic} "
            f"({len(outgoing.payload)} bytes), which is not sent again: check its limit to the size of packets "
            f"({_LIMIT}) and its access control list"
        )


def _kind(outgoing: Outgoing) -> str:
    """The topic; of replies, whose topics others choose, the schema."""
    return outgoing.schema if outgoing.schema == Reply.schema_name else outgoing.topic


def _waiting(messages: int) -> str:
    if not messages:
        return ""
    return "; 1 message waits" if messages == 1 else f"; {messages} messages wait"
