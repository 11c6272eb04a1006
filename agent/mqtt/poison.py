"""Finds the message on which a broker hangs up without a word. Pure: time is an argument.

MQTT 3.1.1 has no way to say that a message is too large, and not every MQTT 5 broker says it: the link breaks, the
message is sent first on the next one, and nothing is ever delivered again. So after a loss messages go one at a time;
the one that is alone on its way at five losses in a row, each straight behind its sending, is to be set aside.

A broker that takes no retained messages, or none of QoS 1, may hang up on the birth, and so on all that we could send.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from agent.mqtt.delivery import Outgoing
from agent.mqtt.reconnect import STABLE_S

LOSSES: Final = 5
"""Losses that convict a message. A link that is merely bad breaks at other moments, too."""
STRAIGHT_S: Final = 5.0
"""A loss within this time of the sending may be its doing; one that a time-out noticed comes later."""
_CERTAIN: Final = 2
"""Losses from which on the message is worth a word."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """A message that the broker has not acknowledged yet."""

    message: Outgoing
    sent_s: float
    """Monotonic time."""


class PoisonMessageDetector:
    """What may be to blame for lost links. The birth, which is made anew for each connection, never is."""

    def __init__(self) -> None:
        self._suspects: set[object] = set()
        self._prime: Outgoing | None = None
        self._losses = 0
        self._by_prime = False
        self._connected_s = 0.0
        self._answered = True
        self._unanswered = 0

    def connected(self, now_s: float) -> None:
        """There is a connection again."""
        self._connected_s = now_s
        self._answered = False

    def answered(self) -> bool:
        """The broker has acknowledged a message; True for the first one of a connection."""
        first, self._answered, self._unanswered = not self._answered, True, 0
        return first

    @property
    def unwelcome(self) -> bool:
        """Whether the broker hung up straight after each of the last five connections, without any answer."""
        return self._unanswered >= LOSSES

    def window(self, widest: int, now_s: float) -> int:
        """Messages that may be on their way at once: one, until no suspect is left or the link has held for a minute.

        With more, a broker that resets the connection takes its last acknowledgements along, and the innocent look
        like the guilty one behind them.
        """
        return 1 if self._suspects and now_s - self._connected_s < STABLE_S else widest

    def acknowledged(self, message: Outgoing) -> None:
        """The broker has answered, or nobody asks it any more."""
        self._suspects.discard(_identity(message))
        if self._prime is not None and _identity(self._prime) == _identity(message):
            self._prime, self._losses = None, 0

    def lost(self, in_flight: Collection[InFlight], now_s: float) -> Outgoing | None:
        """The link broke with these not acknowledged; return the one to be set aside, if that is certain now."""
        self._by_prime = False
        if not self._answered and now_s - self._connected_s < STRAIGHT_S:
            self._unanswered += 1
        self._answered = True  # a connection counts once
        if not in_flight:
            return None
        straight = [sent.message for sent in in_flight if now_s - sent.sent_s < STRAIGHT_S]
        self._suspects = {_identity(message) for message in straight}
        if len(in_flight) > 1:
            return None
        if not straight:
            self._prime, self._losses = None, 0
            return None
        (message,) = straight
        again = self._prime is not None and _identity(self._prime) == _identity(message)
        self._prime, self._losses, self._by_prime = message, self._losses + 1 if again else 1, True
        if self._losses < LOSSES:
            return None
        self.acknowledged(message)
        return message

    @property
    def prime(self) -> Outgoing | None:
        """The message that more than one loss points at, the last one included."""
        return self._prime if self._by_prime and self._losses >= _CERTAIN else None


def _identity(message: Outgoing) -> object:
    """A message of the outbox is told by its key: read again from disk, its age differs a little."""
    return message if message.key is None else message.key
