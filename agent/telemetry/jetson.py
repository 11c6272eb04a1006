"""Reads a Jetson's GPU, rails, power mode, and its flags for under-voltage and over-current.

    /sys/class/devfreq/*                   GPU: cur_freq in Hz, device/load in thousandths
    hwmon `ina3221`, iio `ina3221x`        rails: label, mV and mA (iio, JetPack 4: mW)
    hwmon `soctherm_oc`                    Orin: oc1 counts under-voltage, oc2 and oc3 over-current
    /sys/class/thermal/cooling_device*     types ending in `throttle-alert`: above 0 while heat slows the chip
    /var/lib/nvpmodel/status, /etc/nvpmodel.conf    the number of the power mode, and its name

NVIDIA's Jetson Linux Developer Guide, "Platform Power and Performance", describes them for each board.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agent.messages.telemetry import Gpu
from agent.telemetry.host import Flag, PowerReading, first, hwmon, named, number, text, zone_c

_GPUS: Final = re.compile(r"(.*\.)?(gpu|gv11b|gp10b|ga10b|gb10b)$")
_GPU_ZONES: Final = ("gpu-thermal", "gpu-therm", "gpu_thermal")
_FASTEST_GPU_HZ: Final = 10_000_000_000
_MOST_W: Final = 1_000.0
_CHANNELS: Final = (1, 2, 3)
"""Channels of an ina3221. Its fourth, `sum of shunt voltages`, is no rail."""
_UNUSED: Final = frozenset({"nc", "sum of shunt voltages"})
_INPUTS: Final = frozenset({"vdd_in", "pom_5v_in"})
"""Rails of the whole module."""
_MOST_STEPS: Final = 100
"""Largest state of a cooling device. The alerts have two states."""
_MODE: Final = re.compile(r"pmode:(\d{1,6})")


def gpu(root: Path) -> Gpu | None:
    """Return load, clock and temperature of the GPU. Other boards have one thermal zone for the whole chip."""
    devices = [path for path in sorted((root / "sys/class/devfreq").glob("*")) if _GPUS.fullmatch(path.name)]
    thousandths = first((path / "device/load" for path in devices), 1_000)
    hertz = first((path / "cur_freq" for path in devices), _FASTEST_GPU_HZ)
    found = Gpu(
        pct=None if thousandths is None else thousandths / 10,
        temp_c=zone_c(root, _GPU_ZONES),
        freq_mhz=None if hertz is None else hertz // 1_000_000,
    )
    return None if found == Gpu() else found


def rails_w(root: Path) -> dict[str, float]:
    """Return the watts of each rail by its label."""
    found = (*_hwmon_rails(root), *_iio_rails(root))
    return {label: round(watts, 2) for label, watts in found if 0.0 <= watts <= _MOST_W}


def input_w(rails: dict[str, float]) -> float | None:
    """Return the watts of the whole module, if it has a rail for that."""
    return next((watts for label, watts in rails.items() if label.lower() in _INPUTS), None)


def _hwmon_rails(root: Path) -> Iterator[tuple[str, float]]:
    for name, device in hwmon(root):
        for channel in _CHANNELS if name == "ina3221" else ():
            label = text(device / f"in{channel}_label")
            millivolts, milliamperes = number(device / f"in{channel}_input"), number(device / f"curr{channel}_input")
            if _is_rail(label) and millivolts is not None and milliamperes is not None:
                yield str(label), millivolts * milliamperes / 1e6


def _iio_rails(root: Path) -> Iterator[tuple[str, float]]:
    for name, device in named(root, "sys/bus/iio/devices/iio:device*", "name"):
        for channel in range(3) if name.startswith("ina3221") else ():
            label = text(device / f"rail_name_{channel}")
            milliwatts = number(device / f"in_power{channel}_input")
            if _is_rail(label) and milliwatts is not None:
                yield str(label), milliwatts / 1e3


def _is_rail(label: str | None) -> bool:
    return label is not None and label.isascii() and label.isprintable() and label.lower() not in _UNUSED


def power_mode(root: Path) -> str | None:
    """Return the name of the power mode, such as `MAXN`; its number if it has no name."""
    chosen = _MODE.search(text(root / "var/lib/nvpmodel/status") or "")
    if chosen is None:
        return None
    mode = int(chosen[1])
    title = re.search(rf"<\s*POWER_MODEL\s+ID={mode}\s+NAME=(\w{{1,32}})", text(root / "etc/nvpmodel.conf") or "")
    return title[1] if title else str(mode)


class JetsonPower:
    """Reads the power flags of the Jetson below `root`. Other machines have none."""

    def __init__(self, root: Path) -> None:
        counters = [device for name, device in hwmon(root) if name == "soctherm_oc"]
        self._undervoltage = [device / "oc1_event_cnt" for device in counters]
        self._overcurrent = [device / f"oc{channel}_event_cnt" for device in counters for channel in (2, 3)]
        cooling = named(root, "sys/class/thermal/cooling_device*", "type")
        self._alerts = [device / "cur_state" for kind, device in cooling if kind.endswith("throttle-alert")]

    def read(self) -> PowerReading:
        """Return the current flags and counts."""
        alerts = [state for path in self._alerts if (state := number(path, _MOST_STEPS)) is not None]
        throttled = any(alerts) if alerts else None
        return PowerReading(Flag(seen=_sum(self._undervoltage)), Flag(throttled, _sum(self._overcurrent)))


def _sum(paths: list[Path]) -> int | None:
    counts = [count for path in paths if (count := number(path)) is not None]
    return sum(counts) if counts else None
