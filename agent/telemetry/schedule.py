"""When telemetry is due. Pure: time and chance are arguments."""

import hashlib
import random

_JITTER = 0.1


class TelemetrySchedule:
    """Due every `interval_s` seconds, give or take a tenth; the first time after a share of it that the id decides.

    So a fleet that starts together (after a power cut, say) does not speak in chorus, and drifts apart further.
    """

    def __init__(self, interval_s: float, device_id: str, started_s: float, chance: random.Random) -> None:
        self._interval_s = interval_s
        self._chance = chance
        digest = hashlib.sha256(device_id.encode()).digest()
        phase = int.from_bytes(digest[:8]) / 2**64
        self.next_s = started_s + phase * interval_s
        """Monotonic time at which the next message is due."""

    def change_interval(self, interval_s: float, now_s: float) -> None:
        """Be due every `interval_s` seconds from now on."""
        self._interval_s = interval_s
        self.next_s = min(self.next_s, now_s + interval_s)

    def due(self, now_s: float) -> bool:
        """Tell whether a message is due at `now_s`; if so, the next one is planned. What was missed is not made up."""
        if now_s < self.next_s:
            return False
        self.next_s = now_s + self._interval_s * self._chance.uniform(1 - _JITTER, 1 + _JITTER)
        return True
