"""What of the machine's condition belongs into `health`."""

from pathlib import Path
from typing import Final

from agent.telemetry.files import text
from agent.telemetry.vitals import Vitals

CODES: Final = ("undervoltage", "throttled", "hot")
LASTS_S: Final = 60.0
"""So long after it was last so, a flag is still reported: a supply that dips every few seconds is one trouble."""
COOLER_BY_C: Final = 5.0
"""`hot` ends so far below the temperature at which it began."""


PULL_CODES: Final = ("pull_rewound", "pull_untrusted")
"""What `edgescribe-pull` says of a commit that it refuses."""


def pull_codes(root: Path) -> tuple[str, ...]:
    """What is wrong with the fleet's repository, as `edgescribe-pull` has left it below `root`."""
    said = (text(root / "var/lib/edgescribe-pull.health") or "").split()
    return tuple(code for code in PULL_CODES if code in said)


class HostConditions:
    """Codes with a hysteresis, so that `health` does not flap."""

    def __init__(self, hot_c: float) -> None:
        self._hot_c = hot_c
        self._last_s: dict[str, float] = {}
        self._hot = False

    def codes(self, vitals: Vitals) -> tuple[str, ...]:
        """What is wrong at the time of this look."""
        for code, flag in (("undervoltage", vitals.undervoltage), ("throttled", vitals.throttled)):
            if flag:
                self._last_s[code] = vitals.at_s
        if vitals.cpu_temp_c is not None:
            self._hot = vitals.cpu_temp_c >= self._hot_c - (COOLER_BY_C if self._hot else 0.0)
        lasting = {code for code, last_s in self._last_s.items() if vitals.at_s - last_s < LASTS_S}
        return tuple(code for code in CODES if code in lasting or (code == "hot" and self._hot))
