"""When to try the broker again, and what to ask of it then. Pure: time and chance are arguments."""

import random
from collections import deque
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final, Literal

from paho.mqtt.client import topic_matches_sub

from agent.mqtt.packet import Oversized

Version = Literal["5", "3.1.1"]

STABLE_S = 60.0
"""A connection that holds for so long is a good one."""
_REFUSED_S = (60.0, 900.0)


class Cause(Enum):
    """Why there is no connection."""

    UNREACHABLE = auto()
    """No such host, connection refused, no route, time-out."""
    UNTRUSTED = auto()
    """The broker's certificate cannot be verified."""
    DATES = auto()
    """The broker's certificate is not valid at the time that this device's clock shows."""
    UNUSABLE_FILES = auto()
    """Our own certificate files were usable once, and are not now; perhaps they are just being renewed."""
    NO_TLS = auto()
    """TLS is not what it speaks, or not a version that we do."""
    CERTIFICATE = auto()
    """The broker does not take our certificate."""
    CREDENTIALS = auto()
    """The broker does not take our user name and password."""
    VERSION = auto()
    """The broker does not speak this version of MQTT, and says so."""
    SILENT = auto()
    """The broker ended the conversation before it answered; old brokers do that to a version they do not know."""
    REFUSED = auto()
    """The broker refuses us for a reason of its own (busy, quota, …)."""
    RETAIN = auto()
    """The broker keeps no retained messages, and says so."""
    QOS = auto()
    """The broker takes QoS 0 only, and says so."""
    GREETING = auto()
    """The broker hangs up on our first message, each time."""
    TOO_LARGE = auto()
    """We hung up, since the broker began to send a packet that is too large."""
    TAKEN_OVER = auto()
    """Another client has connected with our id."""
    LOST = auto()
    """There was a connection, and it broke."""


_PATIENT = frozenset({Cause.CREDENTIALS, Cause.CERTIFICATE, Cause.TAKEN_OVER, Cause.QOS, Cause.GREETING})
"""What only a person can put right: hurrying helps nobody, and brokers ban who insists."""


class Backoff:
    """How long to wait before the next attempt: full jitter, uniform(0, min(`ceiling_s`, 2ⁿ)).

    n counts the attempts since the last connection that held for a minute. Where the broker refuses who we are it is
    uniform(60, 900). Full jitter spreads a fleet best: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    def __init__(self, chance: random.Random, ceiling_s: float = 300.0) -> None:
        self._chance = chance
        self._ceiling_s = ceiling_s
        self._attempts = 0

    def wait_s(self, cause: Cause, connected_s: float = 0.0) -> float:
        """Seconds to wait after a failure for `cause`, the last connection having held for `connected_s`."""
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

    MQTT 5 with retained messages comes first. A broker that refuses either gets less at once. One that hangs up without
    a word is tried with 3.1.1 at once, since old brokers do that. When the connection ends that came of it, the first
    choice has its turn again: a proxy, a broker that starts or one that is full gives the same answers.
    """

    def __init__(self, setting: Literal["auto", "5", "3.1.1"]) -> None:
        self._auto = setting == "auto"
        self.version: Version = "3.1.1" if setting == "3.1.1" else "5"
        self.retained = True
        """Whether to publish retained messages, the will included."""

    @property
    def guessing(self) -> bool:
        """True while `version` is 5 for want of anything better."""
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
    """Which filters to leave out, since what comes by them is too large to be read.

    One message that is too large costs one connection. The next one begins with a clean session, or the broker would
    send a message of QoS 1 again. A retained one comes again with every subscription, so its filter is left out for an
    hour; as is the filter of the third one within ten minutes.
    """

    LEFT_OUT_S: Final = 3_600.0
    _OFTEN: Final = 3
    _WITHIN_S: Final = 600.0

    def __init__(self, filters: Sequence[str]) -> None:
        self._filters = tuple(filters)
        self._until_s: dict[str, float] = {}
        self._times_s: deque[float] = deque(maxlen=self._OFTEN)

    def wanted(self, now_s: float) -> tuple[str, ...]:
        """What to subscribe to."""
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
