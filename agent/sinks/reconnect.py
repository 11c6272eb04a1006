"""When to try the broker again, and in which version of the protocol. Pure: time and chance are arguments."""

import random
from enum import Enum, auto
from typing import Literal

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
    TAKEN_OVER = auto()
    """Another client has connected with our id."""
    LOST = auto()
    """There was a connection, and it broke."""


_PATIENT = frozenset({Cause.CREDENTIALS, Cause.CERTIFICATE, Cause.TAKEN_OVER})
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


class VersionChoice:
    """Which MQTT to speak next, where the setting says `auto`.

    5 first. A broker that refuses it in so many words gets 3.1.1 from then on. One that hangs up without a word is
    tried with 3.1.1 once, and the two alternate until one is answered: it may as well have been starting or full.
    """

    def __init__(self, setting: Literal["auto", "5", "3.1.1"]) -> None:
        self._auto = setting == "auto"
        self._certain = False
        self.version: Version = "3.1.1" if setting == "3.1.1" else "5"

    @property
    def guessing(self) -> bool:
        """True while `version` is 5 for want of anything better."""
        return self._auto and not self._certain and self.version == "5"

    def fall_back(self, cause: Cause) -> bool:
        """Choose anew after a failure; True if 3.1.1 is to be tried at once."""
        if not self._auto or self._certain:
            return False
        if cause is Cause.VERSION:
            self._certain = True
            self.version = "3.1.1"
            return True
        if cause is Cause.SILENT and self.version == "5":
            self.version = "3.1.1"
            return True
        # Whatever ended 3.1.1: it was a guess, so 5 gets its chance again.
        self.version = "5"
        return False
