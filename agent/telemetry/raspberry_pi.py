"""Reads the firmware's flags about the power of a Raspberry Pi, from the sources that the kernel has.

    hwmon `rpi_volt`, in0_lcrit_alarm    under-voltage since the driver's last look, every 2 s (raspberrypi-hwmon.rst)
    sysfs get_throttled                  all flags; only in Raspberry Pi's own kernels, which warn once a boot
    vcgencmd get_throttled               the same by a program, if the kernel does not tell about throttling

https://www.raspberrypi.com/documentation/computers/os.html#get_throttled has the bits.
"""

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from agent.telemetry.host import Flag, PowerReading, hwmon, text, whole

_UNDERVOLTAGE: Final = 1 << 0
_SLOWED: Final = 1 << 1 | 1 << 2 | 1 << 3
"""Clock capped, throttled, soft temperature limit: three steps of the same thing."""
_STICKY: Final = 16
"""Bits from here on are those events since the boot, or since a program cleared them."""
_ALL_BITS: Final = 0xFFFFF
_ALARMS: Final[Mapping[str | None, bool]] = {"0": False, "1": True}
_ASK_EVERY_S: Final = 30.0
_ANSWER_S: Final = 2.0
_FLAGS: Final = re.compile(r"throttled=(0x[0-9a-fA-F]+)")


class RaspberryPi:
    """Reads the flags of the Raspberry Pi below `root`. Other machines have none."""

    def __init__(self, root: Path, ask: Callable[[], int | None] | None = None) -> None:
        self._alarm = next((path / "in0_lcrit_alarm" for name, path in hwmon(root) if name == "rpi_volt"), None)
        # soc on a Pi 3 and 4, soc@107c000000 on a Pi 5.
        files = sorted((root / "sys/devices/platform").glob("soc*/*firmware/get_throttled"))
        self._flags = files[0] if files else None
        is_pi = "raspberry pi" in (text(root / "proc/device-tree/model") or "").lower()
        self._ask = ask if is_pi and not files else None
        self._asked_s = float("-inf")
        self._answer: int | None = None

    def read(self) -> PowerReading:
        """Return the current flags. Without another source, ask the program every 30 s."""
        flags = whole(text(self._flags), 16) if self._flags else self._asked()
        alarm = _ALARMS.get(text(self._alarm)) if self._alarm else None
        if flags is None or not 0 <= flags <= _ALL_BITS:
            return PowerReading(undervoltage=Flag(alarm))
        low = bool(flags & _UNDERVOLTAGE) or alarm is True
        return PowerReading(
            undervoltage=Flag(low, flags >> _STICKY & _UNDERVOLTAGE),
            throttled=Flag(bool(flags & _SLOWED), flags >> _STICKY & _SLOWED),
        )

    def _asked(self) -> int | None:
        if self._ask and time.monotonic() - self._asked_s >= _ASK_EVERY_S:
            self._asked_s = time.monotonic()
            self._answer = self._ask()
            if self._answer is None:
                self._ask = None  # it will never answer: a sandbox has no /dev/vcio
        return self._answer


def vcgencmd() -> int | None:
    """Return the flags from the program `vcgencmd`; None if it is absent or fails. Takes some milliseconds."""
    program = shutil.which("vcgencmd")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "get_throttled"], capture_output=True, text=True, timeout=_ANSWER_S, check=True, errors="replace"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = _FLAGS.search(done.stdout)
    return whole(found[1], 16) if found else None
