"""What the machine says about itself: psutil where it serves, /sys where it does not. What cannot be read is left out.

Thermal zones are found by type and sensors by name, never by index: indices change with kernels and device trees.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from agent.wire import Cpu, Disk, Mem

_MIB: Final = 1024 * 1024
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


@dataclass(frozen=True, slots=True)
class HostReading:
    """One look at the machine."""

    cpu: Cpu
    mem: Mem
    disk: Disk


class Host:
    """Reads the machine. Not thread-safe: CPU load is measured from one `read` to the next."""

    def __init__(self, state_dir: Path, sys_root: Path = Path("/sys")) -> None:
        self._state_dir = state_dir
        self._sys = sys_root
        self._process = psutil.Process()
        psutil.cpu_percent()  # the first answer is meaningless by design; get it over with

    def read(self) -> HostReading:
        """Look at everything once; takes a few milliseconds."""
        return HostReading(cpu=self._cpu(), mem=self._mem(), disk=self._disk())

    def _cpu(self) -> Cpu:
        try:
            load1 = round(psutil.getloadavg()[0], 2)
        except OSError:
            load1 = None
        return Cpu(
            pct=psutil.cpu_percent(),
            load1=load1,
            temp_c=cpu_temperature_c(self._sys),
            freq_mhz=cpu_frequency_mhz(self._sys),
        )

    def _mem(self) -> Mem:
        try:
            memory = psutil.virtual_memory()
            swap = psutil.swap_memory()
        except OSError:
            return Mem()
        return Mem(
            avail_mb=memory.available // _MIB,
            pct=memory.percent,
            rss_mb=round(self._resident_bytes() / _MIB, 1),
            swap_pct=swap.percent if swap.total else None,
        )

    def _resident_bytes(self) -> int:
        """Memory of the agent: this process and the engine's, which may end at any moment."""
        resident = int(self._process.memory_info().rss)
        for child in self._process.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                resident += int(child.memory_info().rss)
        return resident

    def _disk(self) -> Disk:
        try:
            return Disk(pct=psutil.disk_usage(str(self._state_dir)).percent)
        except OSError:
            return Disk()


def cpu_temperature_c(sys_root: Path) -> float | None:
    """Temperature of the processor in °C, from its thermal zone, else from its hwmon sensor."""
    zones = {
        kind.lower(): zone
        for zone in sorted((sys_root / "class/thermal").glob("thermal_zone*"))
        if (kind := _text(zone / "type"))
    }
    sensors = {
        name: hwmon for hwmon in sorted((sys_root / "class/hwmon").glob("hwmon*")) if (name := _text(hwmon / "name"))
    }
    candidates = [zones[kind] / "temp" for kind in _CPU_ZONES if kind in zones]
    candidates += [sensors[name] / "temp1_input" for name in _CPU_SENSORS if name in sensors]
    return next((celsius for path in candidates if (celsius := _celsius(path)) is not None), None)


def cpu_frequency_mhz(sys_root: Path) -> int | None:
    """The clock of the fastest core at this moment, in MHz (cpufreq)."""
    policies = (sys_root / "devices/system/cpu/cpufreq").glob("policy*/scaling_cur_freq")
    clocks_khz = [khz for path in policies if (khz := _number(path)) is not None]
    return max(clocks_khz) // 1_000 if clocks_khz else None


def _celsius(path: Path) -> float | None:
    millidegrees = _number(path)
    if millidegrees is None:
        return None
    celsius = round(millidegrees / 1_000, 1)
    lowest, highest = _PLAUSIBLE_C
    return celsius if lowest <= celsius <= highest else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        # Not only absent files: sensors of sleeping blocks answer EAGAIN or EINVAL.
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    try:
        return int(text) if text else None
    except ValueError:
        return None
