"""Temperatures, fan and processor clock, on any board. Zones are found by type and sensors by name, never by index."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from agent.messages.telemetry import Fan
from agent.telemetry.files import named, number, text, whole, within

_PLAUSIBLE_C: Final = (-40.0, 150.0)
"""Zones of blocks that are switched off read as -256 °C on a Jetson."""

_CPU_ZONES: Final = (
    "cpu-thermal",  # Raspberry Pi, Jetson Orin
    "cpu_thermal",
    "bcm2835_thermal",  # older Raspberry Pi kernels
    "cpu-therm",  # Jetson Nano, Xavier (there with a capital C)
    "x86_pkg_temp",
    "soc-thermal",
    "soc_thermal",
    "acpitz",
)
"""Types of thermal zones that are the processor's, the most exact first; compared without regard to case."""

_CPU_SENSORS: Final = ("cpu_thermal", "coretemp", "k10temp", "zenpower")
"""Names of hwmon devices that are the processor's, for machines without such a zone."""

_GPU_ZONES: Final = ("gpu-thermal", "gpu-therm", "gpu_thermal")

_PWM_FULL: Final = 255
_FASTEST_FAN_RPM: Final = 50_000
_FASTEST_CLOCK_MHZ: Final = 10_000


class Thermometer:
    """Temperature of the processor. Looks for the sensor once, and anew when that one falls silent."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path: Path | None = None

    def celsius(self) -> float | None:
        """In °C; None where there is no sensor, or none that says anything sensible."""
        if self._path is None or (now_c := _celsius(self._path)) is None:
            self._path, now_c = _first_c(_cpu_sensors(self._root))
        return now_c


def cpu_temperature_c(root: Path) -> float | None:
    """Temperature of the processor in °C, from its thermal zone, else from its hwmon sensor."""
    return Thermometer(root).celsius()


def gpu_temperature_c(root: Path) -> float | None:
    """Temperature of a Jetson's GPU in °C; other boards have one zone for all of the chip, and none of this name."""
    return _first_c(_zones(root, _GPU_ZONES))[1]


def _cpu_sensors(root: Path) -> Iterator[Path]:
    yield from _zones(root, _CPU_ZONES)
    sensors = dict(named(root / "sys/class/hwmon", "hwmon*", "name"))
    yield from (sensors[name] / "temp1_input" for name in _CPU_SENSORS if name in sensors)


def _zones(root: Path, kinds: Iterable[str]) -> Iterator[Path]:
    zones = dict(named(root / "sys/class/thermal", "thermal_zone*", "type"))
    yield from (zones[kind] / "temp" for kind in kinds if kind in zones)


def _first_c(paths: Iterable[Path]) -> tuple[Path | None, float | None]:
    """The first of `paths` that can be read, and what it says in °C."""
    return next(((path, celsius) for path in paths if (celsius := _celsius(path)) is not None), (None, None))


def _celsius(path: Path) -> float | None:
    millidegrees = number(path)
    return None if millidegrees is None else within(round(millidegrees / 1_000, 1), *_PLAUSIBLE_C)


def cpu_frequency_mhz(root: Path) -> int | None:
    """The clock of the fastest core at this moment, in MHz (cpufreq)."""
    policies = (root / "sys/devices/system/cpu/cpufreq").glob("policy*/scaling_cur_freq")
    clocks_mhz = (khz // 1_000 for path in policies if (khz := number(path)) is not None)
    return max((mhz for mhz in clocks_mhz if 0 < mhz < _FASTEST_CLOCK_MHZ), default=None)


def fan(root: Path) -> Fan | None:
    """The fan: a tachometer and a duty by hwmon, or the files that a Jetson Nano has instead."""
    speeds, duties = [], []
    for _, device in named(root / "sys/class/hwmon", "hwmon*", "name"):
        # Jetson Orin calls the one `rpm`, and keeps it in a device of its own.
        speeds += [device / "fan1_input", device / "rpm"]
        duties += [device / "pwm1"]
    nano = root / "sys/devices/pwm-fan"
    if text(nano / "tach_enable") == "1":  # else its 0 means nothing
        speeds.append(nano / "rpm_measured")
    rpm = _first_within(speeds, _FASTEST_FAN_RPM)
    pwm = _first_within([*duties, nano / "cur_pwm"], _PWM_FULL)
    if rpm is None and pwm is None:
        return None
    return Fan(rpm=rpm, pct=None if pwm is None else round(100 * pwm / _PWM_FULL))


def _first_within(paths: Iterable[Path], highest: int) -> int | None:
    found = (value for path in paths if (value := whole(text(path))) is not None)
    return next((value for value in found if 0 <= value <= highest), None)
