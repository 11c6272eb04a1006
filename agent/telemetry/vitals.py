"""Watches temperature, power and memory about once a second: they may change within seconds."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.messages.telemetry import Pwr
from agent.telemetry.host import ROOT, Flag, PowerReading, Thermometer, memory, stalled_pct, text
from agent.telemetry.jetson import JetsonPower
from agent.telemetry.raspberry_pi import RaspberryPi, vcgencmd

LOOK_EVERY_S: Final = 1.0
CODES: Final = ("undervoltage", "throttled", "hot")
"""Troubles of the machine, as codes of `health`."""
LASTS_S: Final = 60.0
"""A flag is still reported for this time after its end: a supply that dips every few seconds is one trouble."""
COOLER_BY_C: Final = 5.0
"""`hot` ends this far below the temperature at which it began."""
PULL_CODES: Final = ("pull_rewound", "pull_untrusted")
"""Reasons of `edgescribe-pull` to refuse a commit."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """One look at the machine. A value that it cannot tell is None."""

    at_s: float
    """Monotonic time of the look."""
    cpu_temp_c: float | None = None
    power: Pwr = field(default_factory=Pwr)
    """Flags that are set, or were set since the last look, and how often each was set since the start."""
    mem_available_mb: int | None = None
    """Memory in MiB that is available without swapping."""
    mem_stalled_pct: float | None = None
    """Share of the last 10 s in which some task waited for memory, 0–100 (PSI)."""


class EventCounter:
    """Counts how often a flag was set, from looks at it some seconds apart.

    A flag that was set only between two looks is one event if the board remembers it. Else it is missed.
    """

    def __init__(self) -> None:
        self.now: bool | None = None
        """Whether it is set, or was set since the last look; None if unknown."""
        self.count: int | None = None
        """Events since the start; None if unknown."""
        self._seen: int | None = None

    def look(self, flag: Flag) -> None:
        """Take in the next look."""
        if flag.now is None and flag.seen is None:
            self.now = None
            return
        # A count from before the first look is no event.
        risen = flag.seen is not None and self._seen is not None and flag.seen > self._seen
        self._seen = self._seen if flag.seen is None else flag.seen
        happening = bool(flag.now) or risen
        self.count = (self.count or 0) + (happening and not self.now)
        self.now = happening


class VitalsWatch:
    """Owned by the main thread, which calls `tick` about once a second. Any thread may read `latest`.

    Args:
        root: Folder with `/sys` and `/proc` of the machine, see `Host`.
        ask: Asks the firmware of a Raspberry Pi by a program, if the kernel has no flags.
        clock_s: Monotonic.
    """

    def __init__(
        self,
        root: Path = ROOT,
        *,
        ask: Callable[[], int | None] = vcgencmd,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._clock_s = clock_s
        self._thermometer = Thermometer(root)
        # The program tells about the machine that runs it, not about one below another folder.
        self._pi = RaspberryPi(root, ask if root == ROOT else None)
        self._jetson = JetsonPower(root)
        self._undervoltage, self._throttled = EventCounter(), EventCounter()
        self.latest = self._look(clock_s())
        """The last look; replaced as a whole."""

    def tick(self) -> Vitals:
        """Look again, if the last look is a second old; return the latest."""
        now_s = self._clock_s()
        if now_s - self.latest.at_s >= LOOK_EVERY_S:
            self.latest = self._look(now_s)
        return self.latest

    def _look(self, now_s: float) -> Vitals:
        power = self._pi.read()
        if power == PowerReading():
            power = self._jetson.read()
        low, slow = self._undervoltage, self._throttled
        low.look(power.undervoltage)
        slow.look(power.throttled)
        return Vitals(
            at_s=now_s,
            cpu_temp_c=self._thermometer.celsius(),
            power=Pwr(uv_now=low.now, thr_now=slow.now, uv_events=low.count, thr_events=slow.count),
            mem_available_mb=memory(self._root).avail_mb,
            mem_stalled_pct=stalled_pct(self._root, "memory", "avg10"),
        )


class HostConditions:
    """Makes the codes of `health`, with a hysteresis so that they do not flap."""

    def __init__(self, hot_c: float) -> None:
        self._hot_c = hot_c
        self._last_s: dict[str, float] = {}
        self._hot = False

    def codes(self, vitals: Vitals) -> tuple[str, ...]:
        """Return the troubles at the time of this look, in the order of `CODES`."""
        for code, flag in (("undervoltage", vitals.power.uv_now), ("throttled", vitals.power.thr_now)):
            if flag:
                self._last_s[code] = vitals.at_s
        if vitals.cpu_temp_c is not None:
            self._hot = vitals.cpu_temp_c >= self._hot_c - (COOLER_BY_C if self._hot else 0.0)
        lasting = {code for code, last_s in self._last_s.items() if vitals.at_s - last_s < LASTS_S}
        return tuple(code for code in CODES if code in lasting or (code == "hot" and self._hot))


def pull_codes(root: Path) -> tuple[str, ...]:
    """Return the troubles of the fleet's repository that `edgescribe-pull` has noted below `root`."""
    said = (text(root / "var/lib/edgescribe-pull.health") or "").split()
    return tuple(code for code in PULL_CODES if code in said)
