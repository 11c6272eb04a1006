"""How old a message is, though clocks jump and boards reboot."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from agent.messages import identity


@dataclass(frozen=True, slots=True)
class Stamp:
    """An instant on every clock there is."""

    boot_id: str
    """The boot that `monotonic_s` counts in (random(4))."""
    monotonic_s: float
    """Seconds since an arbitrary point near the boot; never jumps, and starts anew with every boot."""
    wall_s: float
    """Seconds since 1970 (UTC). A guess, unless `synced`."""
    synced: bool
    """Whether the wall clock was synchronised."""

    def at(self, monotonic_s: float) -> "Stamp":
        """The instant of the same boot at which the monotonic clock showed `monotonic_s`."""
        return Stamp(self.boot_id, monotonic_s, self.wall_s + monotonic_s - self.monotonic_s, self.synced)

    def age_s(self, now: "Stamp") -> float:
        """Seconds from here until `now`; a lower bound where they cannot be known.

        Within a boot the monotonic clock tells, whatever became of the wall clock. Across boots the wall clocks tell if
        both were synchronised; else it is at least as long as the machine has been up. So a wrong clock can keep a
        message for too long, but never throws one away too early.
        """
        if self.boot_id == now.boot_id:
            return max(0.0, now.monotonic_s - self.monotonic_s)
        wall_s = now.wall_s - self.wall_s if self.synced and now.synced else 0.0
        return max(now.monotonic_s, wall_s)


Clock = Callable[[], Stamp]
"""Tells the time. Injected, so that tests can make it jump."""


def system_clock() -> Clock:
    """The machine's own clocks."""
    boot_id = identity.boot_id()

    def now() -> Stamp:
        return Stamp(boot_id, time.monotonic(), time.time(), identity.time_synced())

    return now
