"""When to try the broker again, and what to leave out then. Pure: time and chance are arguments."""

import random
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from paho.mqtt.client import topic_matches_sub

from agent.mqtt.connection import Cause, Oversized, Version

STABLE_S: Final = 60.0
"""A connection that holds for so long is a good one."""
LOSSES: Final = 5
"""Losses that convict a message. A link that is merely bad breaks at other moments, too."""
STRAIGHT_S: Final = 5.0
"""The message may have caused a loss within this time of its sending; a loss by time-out comes later."""
_REFUSED_S: Final = (60.0, 900.0)
_PATIENT: Final = frozenset({Cause.CREDENTIALS, Cause.CERTIFICATE, Cause.TAKEN_OVER, Cause.QOS, Cause.GREETING})
"""Only a person can mend these. Brokers ban clients that try again and again."""


class Backoff:
    """How long to wait before the next attempt: full jitter, uniform(0, min(`ceiling_s`, 2ⁿ)).

    n counts the attempts since the last connection that held for a minute. Where the broker refuses this client it is
    uniform(60, 900). Full jitter spreads a fleet best: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    def __init__(self, chance: random.Random, ceiling_s: float = 300.0) -> None:
        self._chance = chance
        self._ceiling_s = ceiling_s
        self._attempts = 0

    def wait_s(self, cause: Cause, connected_s: float = 0.0) -> float:
        """Seconds to wait after a failure for `cause`; the last connection held for `connected_s`."""
        if cause in _PATIENT:
            return self._chance.uniform(*_REFUSED_S)
        if connected_s >= STABLE_S:
            self._attempts = 0
        limit_s = min(self._ceiling_s, 2.0**self._attempts)
        # Beyond 2^16 the ceiling has long been reached; counting on would overflow a float after weeks.
        self._attempts = min(self._attempts + 1, 16)
        return self._chance.uniform(0.0, limit_s)


class Approach:
    """What to ask of the broker next: MQTT 5 or, where the setting says `auto`, 3.1.1; retained messages or none.

    MQTT 5 with retained messages comes first. A broker that refuses either gets less at once. One that hangs up
    silently is tried with 3.1.1 at once, since old brokers do that. After that connection ends, the first choice has
    its turn again: a proxy, a starting broker or a full one gives the same answers.
    """

    def __init__(self, setting: Literal["auto", "5", "3.1.1"]) -> None:
        self._auto = setting == "auto"
        self.version: Version = "3.1.1" if setting == "3.1.1" else "5"
        self.retained = True
        """Whether to publish retained messages, the will included."""

    @property
    def guessing(self) -> bool:
        """Whether it is not known yet if the broker speaks MQTT 5."""
        return self._auto and self.version == "5"

    def fall_back(self, cause: Cause) -> bool:
        """Choose anew after a failure; True if less is to be tried at once."""
        if cause is Cause.RETAIN and self.retained:
            self.retained = False
            return True
        self.retained = True
        if self.guessing and cause in {Cause.VERSION, Cause.SILENT}:
            self.version = "3.1.1"
            return True
        if self._auto:
            self.version = "5"
        return False


class Subscriptions:
    """Which filters to leave out, because they bring messages that are too large to be read.

    One message that is too large costs one connection. The next one begins with a clean session, or the broker would
    send a message of QoS 1 again. A retained one comes again with every subscription, so its filter is left out for an
    hour. The third one within ten minutes has the same effect.
    """

    LEFT_OUT_S: Final = 3_600.0
    _OFTEN: Final = 3
    _WITHIN_S: Final = 600.0

    def __init__(self, filters: Sequence[str]) -> None:
        self._filters = tuple(filters)
        self._until_s: dict[str, float] = {}
        self._times_s: deque[float] = deque(maxlen=self._OFTEN)

    def wanted(self, now_s: float) -> tuple[str, ...]:
        """The filters to subscribe to."""
        return tuple(name for name in self._filters if now_s >= self._until_s.get(name, 0.0))

    def trouble(self, now_s: float) -> bool:
        """Whether a message was too large within the last hour."""
        return bool(self._times_s) and now_s - self._times_s[-1] < self.LEFT_OUT_S

    def too_large(self, oversized: Oversized, now_s: float) -> tuple[str, ...]:
        """Take note of a message that was too large; return the filters that are left out because of it."""
        self._times_s.append(now_s)
        often = len(self._times_s) == self._OFTEN and now_s - self._times_s[0] < self._WITHIN_S
        if not oversized.retained and not often:
            return ()
        # A topic that cannot be read may belong to any filter.
        guilty = [name for name in self._filters if not oversized.topic or topic_matches_sub(name, oversized.topic)]
        self._until_s |= dict.fromkeys(guilty, now_s + self.LEFT_OUT_S)
        return tuple(guilty)


class PoisonMessageDetector:
    """Finds the message on which a broker hangs up without a reason.

    MQTT 3.1.1 cannot say that a message is too large, and not every MQTT 5 broker does. Then the link breaks, the
    message is sent first on the next one, and no message is ever delivered again. So after a loss messages go one at a
    time. A message that is alone in flight at five losses in a row, each straight after its sending, is set aside.
    Messages are told apart by any identity; the birth has a new one on each connection, so it is never set aside.

    A broker that takes no retained messages, or none of QoS 1, may hang up on the birth, and so on every connection.
    """

    def __init__(self) -> None:
        self.suspected = False
        """More than one loss points at the message that was alone in flight, the last one included."""
        self._suspects: set[object] = set()
        self._alone: object = None
        self._losses = 0
        self._connected_s = 0.0
        self._answered = True
        self._unanswered = 0

    def connected(self, now_s: float) -> None:
        """Note that there is a connection again."""
        self._connected_s = now_s
        self._answered = False

    def answered(self) -> bool:
        """Note that the broker has acknowledged a message; True for the first one of a connection."""
        first, self._answered, self._unanswered = not self._answered, True, 0
        return first

    @property
    def unwelcome(self) -> bool:
        """Whether the broker hung up straight after each of the last five connections, without any answer."""
        return self._unanswered >= LOSSES

    def window(self, widest: int, now_s: float) -> int:
        """Messages that may be in flight at once: one, until no suspect is left or the link has held for a minute.

        With more, a broker that resets the connection would drop its last acknowledgements, and innocent messages
        would look guilty.
        """
        return 1 if self._suspects and now_s - self._connected_s < STABLE_S else widest

    def acknowledged(self, message: object) -> None:
        """Note that the broker has answered a message, or that it is not sent again."""
        self._suspects.discard(message)
        if self._alone == message:
            self.suspected, self._alone = False, None

    def lost(self, in_flight: Mapping[object, float], now_s: float) -> bool:
        """Note that the link broke; True if the only message in flight is to be set aside.

        `in_flight` holds the messages that were not acknowledged, and when each was sent.
        """
        self.suspected = False
        if not self._answered and now_s - self._connected_s < STRAIGHT_S:
            self._unanswered += 1
        self._answered = True  # a connection counts once
        if not in_flight:
            return False
        self._suspects = {message for message, sent_s in in_flight.items() if now_s - sent_s < STRAIGHT_S}
        if len(in_flight) > 1:
            return False
        alone = next(iter(self._suspects), None)
        self._losses = self._losses + 1 if alone == self._alone else 1
        self._alone = alone
        convicted = alone is not None and self._losses >= LOSSES
        self.suspected = alone is not None and self._losses > 1
        if convicted:
            self.acknowledged(alone)
        return convicted
