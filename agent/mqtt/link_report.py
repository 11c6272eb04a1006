"""What log and `health` say about the link to the broker: one line for each change of its state."""

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
    """Remembers what was said last, so that it is said once. Used by the thread `mqtt`, but for `overflow`."""

    def __init__(self, settings: MqttSettings, device_id: str) -> None:
        self._address = f"{settings.host}:{settings.effective_port}"
        self._user = settings.username_for(device_id)
        self._device_id = device_id
        self._state: Cause | None = None
        self._flaps = 0
        self._said: set[str] = set()
        self.conditions: tuple[str, ...] = ()
        """What the broker cannot do, as codes for `health`."""

    def up(self, version: Version, waiting: int, *, retained: bool = True) -> None:
        """The broker has accepted us and acknowledged our first message; as retained, or it keeps none."""
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
        if state is self._state:
            return
        self._state = state
        doubt = ""
        if suspect is not None:
            doubt = f", each time right behind {suspect.topic} ({len(suspect.payload)} bytes)"
        elif self._flaps >= _FLAPS:
            # Many brokers, mosquitto before 2.1 among them, do not tell the one whom they throw out for a namesake.
            doubt = f"; this goes on and on: does another client use the id '{self._device_id}'?"
        log.warning(f"mqtt: {self._explain(down)}{doubt}{_waiting(waiting)}, {_next_attempt(wait_s)}")

    def _explain(self, down: LinkDown) -> str:
        if down.cause is Cause.CREDENTIALS and self._user is None:
            return f"{self._address} refuses clients without a password ({down.reason}): set mqtt.password"
        return down.cause.value.format(at=self._address, why=down.reason, user=self._user, id=self._device_id)

    def _warn_once(self, subject: str, text: str) -> None:
        """Warn once a connection; may be called from any thread."""
        if subject not in self._said:
            self._said.add(subject)
            log.warning(f"mqtt: {text}")

    def overflow(self) -> None:
        """The outbox is full, and the oldest message had to go; may be called from any thread."""
        self._warn_once("overflow", "the queue is full, dropping the oldest messages: see mqtt.outbox")

    def refused(self, outgoing: Outgoing, reason: str) -> None:
        """The broker did not take a message. An empty one would have deleted a retained one: one line tells of all."""
        topic = outgoing.topic
        if outgoing.payload:
            text = f"{self._address} does not take {topic} ({reason}): check its access control list"
            self._warn_once(_kind(outgoing), text)
        else:
            text = f"{self._address} does not let us delete what it retains on {topic} ({reason})"
            self._warn_once("deletion", f"{text}: delete it there, for example `mosquitto_pub -r -n -t {topic}`")

    def too_large(self, outgoing: Outgoing, size_bytes: int, limit_bytes: int) -> None:
        """A message was not sent, since the broker would hang up on it."""
        self._warn_once(
            _kind(outgoing),
            f"{self._address} takes no packet above {limit_bytes} bytes, and one on {outgoing.topic} has {size_bytes} "
            f"and is not sent: raise the broker's limit ({_LIMIT})",
        )

    def deaf(self, filters: list[str]) -> None:
        """The broker does not let us hear what is sent to these topics."""
        for name in filters:
            self._warn_once(name, f"{self._address} does not let us read {name}: check its access control list")

    def left_out(self, filters: tuple[str, ...]) -> None:
        """What comes by these filters is too large, and would come again."""
        log.warning(
            f"mqtt: not subscribing to {', '.join(filters)} for an hour, since messages there are too large: remove a "
            "retained one with mosquitto_pub -r -n -t TOPIC"
        )

    def set_aside(self, outgoing: Outgoing) -> None:
        """The broker has hung up on a message so often that it is not sent to it again."""
        self._flaps = 0  # it was not a namesake
        log.warning(
            f"mqtt: {self._address} hung up {LOSSES} times right behind a message on {outgoing.topic} "
            f"({len(outgoing.payload)} bytes), which is not sent again: check its limit to the size of packets "
            f"({_LIMIT}) and its access control list"
        )


def _kind(outgoing: Outgoing) -> str:
    """The topic; of replies, which go to topics that others make up, the schema."""
    return outgoing.schema if outgoing.schema == Reply.schema_name else outgoing.topic


def _waiting(messages: int) -> str:
    if not messages:
        return ""
    return "; 1 message waits" if messages == 1 else f"; {messages} messages wait"


def _next_attempt(wait_s: float) -> str:
    return "retrying" if wait_s < 60 else f"trying again in {round(wait_s / 60)} min"  # noqa: PLR2004 - seconds a minute
