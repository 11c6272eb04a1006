"""What may change within seconds and must not be missed: temperature, power, memory. Looked at about once a second."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.messages.telemetry import Pwr
from agent.telemetry.host import ROOT
from agent.telemetry.jetson import JetsonPower
from agent.telemetry.linux import memory, stalled_pct
from agent.telemetry.power import EventCounter, Flag, PowerReading
from agent.telemetry.raspberry_pi import RaspberryPi, vcgencmd
from agent.telemetry.thermal import Thermometer

LOOK_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Vitals:
    """One look. What this machine cannot tell is None."""

    at_s: float
    """Monotonic time of the look."""
    cpu_temp_c: float | None = None
    undervoltage: bool | None = None
    """The supply's voltage is too low, or was since the look before."""
    throttled: bool | None = None
    """The board slows itself down (heat, voltage, current), or did since the look before."""
    mem_available_mb: int | None = None
    """Memory in MiB that can still be had without swapping."""
    mem_pct: float | None = None
    """Memory in use, 0–100."""
    mem_stalled_pct: float | None = None
    """Share of the last 10 s in which some task waited for memory, 0–100 (PSI)."""
    undervoltage_events: int | None = None
    """How often it began, since the start."""
    throttled_events: int | None = None
    """Likewise."""

    @property
    def power(self) -> Pwr:
        """The flags and events, as telemetry has them."""
        return Pwr(
            uv_now=self.undervoltage,
            thr_now=self.throttled,
            uv_events=self.undervoltage_events,
            thr_events=self.throttled_events,
        )


class VitalsWatch:
    """Owned by the main thread, which calls `tick` about once a second. Any thread may read `latest`.

    Args:
        root: Where `/sys` and `/proc` of the machine are, see `Host`.
        ask: Asks the firmware of a Raspberry Pi by a program, where its kernel does not tell.
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
        # The program knows about the machine that we run on, and not about one below another folder.
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
        power = _either(self._pi.read(), self._jetson.read())
        self._undervoltage.look(power.undervoltage)
        self._throttled.look(power.throttled)
        mem = memory(self._root)
        return Vitals(
            at_s=now_s,
            cpu_temp_c=self._thermometer.celsius(),
            undervoltage=self._undervoltage.now,
            throttled=self._throttled.now,
            mem_available_mb=mem.avail_mb,
            mem_pct=mem.pct,
            mem_stalled_pct=stalled_pct(self._root, "memory", "avg10"),
            undervoltage_events=self._undervoltage.count,
            throttled_events=self._throttled.count,
        )


def _either(one: PowerReading, other: PowerReading) -> PowerReading:
    """No board is both."""
    unknown = Flag()
    return PowerReading(
        undervoltage=other.undervoltage if one.undervoltage == unknown else one.undervoltage,
        throttled=other.throttled if one.throttled == unknown else one.throttled,
    )
