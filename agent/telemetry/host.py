"""What every Linux tells: temperatures, clock, fan, load, memory, pressure, disks, interfaces.

All is read below `root`, so that tests and containers bring their own, and not by psutil, which looks into the real
/proc only. Formats: proc(5); accounting/psi.rst and admin-guide/iostats.rst of the kernel's documentation; JESD84-B51
for the wear of an eMMC. Zones are found by type and sensors by name, never by index.

A value that cannot be read, or is impossible, is None; nothing raises. Files may be absent, sensors of sleeping blocks
answer EAGAIN or EINVAL, and firmware answers with rubbish.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.messages.telemetry import Fan, Mem, Net, Psi, Wifi

ROOT: Final = Path("/")

_LONGEST: Final = 65_536
_KIB_PER_MIB: Final = 1024
_MIB: Final = 1024 * 1024
_SECTOR_BYTES: Final = 512
"""In /sys/block/*/stat, whatever the disk's own sectors are."""
_SECTORS_WRITTEN: Final = 6
_GUEST_COLUMNS: Final = 8
"""Columns of /proc/stat from here on are contained in earlier ones."""
_IDLE, _IOWAIT = 3, 4
_END_OF_LIFE: Final = 10
"""An eMMC counts its life in tenths from 1; 11 is beyond its estimate."""
_WEAKEST_DBM, _STRONGEST_DBM = -120, -1
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
_PWM_FULL: Final = 255
_FASTEST_FAN_RPM: Final = 50_000
_FASTEST_CLOCK_KHZ: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Flag:
    """One look at something that is so or not."""

    now: bool | None = None
    """Whether it is so at this moment; None where the board cannot say."""
    seen: int | None = None
    """A count or a flag of the board's own that rises when it happens; None where there is none."""


@dataclass(frozen=True, slots=True)
class PowerReading:
    """What the board says about its power."""

    undervoltage: Flag = Flag()
    throttled: Flag = Flag()


def text(path: Path) -> str | None:
    """The file's text without the white space and NUL bytes around it; None if it is empty as well."""
    try:
        with path.open("rb") as file:
            # The device tree ends its strings with a NUL byte.
            return file.read(_LONGEST).decode("ascii", errors="replace").strip("\0 \t\r\n") or None
    except (OSError, ValueError):  # ValueError: a NUL byte in a name that was read before
        return None


def whole(word: str | None, base: int = 10) -> int | None:
    """A whole number; a hexadecimal one with `0x` in front or without."""
    try:
        return int(word or "", base)
    except ValueError:
        return None


def number(path: Path, most: float = math.inf, least: float = 0) -> int | None:
    """The file's one whole number, if it lies between what is possible."""
    value = whole(text(path))
    return value if value is not None and least <= value <= most else None


def decimal(word: str, least: float, most: float) -> float | None:
    """A decimal number, if it lies between what is possible."""
    try:
        value = float(word)
    except ValueError:
        return None
    return value if least <= value <= most else None


def named(root: Path, pattern: str, name: str) -> list[tuple[str, Path]]:
    """Folders that match `pattern`, in order, with what their file `name` says, in lower case."""
    found = ((text(path / name), path) for path in sorted(root.glob(pattern)))
    return [(label.lower(), path) for label, path in found if label]


def hwmon(root: Path) -> list[tuple[str, Path]]:
    """The devices of the hardware monitor, by name."""
    return named(root, "sys/class/hwmon/hwmon*", "name")


def _fields(path: Path) -> dict[str, list[str]]:
    """Lines such as `MemTotal:  3884360 kB` by their first word, without its colon; the last of a name counts."""
    lines = (line.split() for line in (text(path) or "").splitlines())
    return {words[0].rstrip(":"): words[1:] for words in lines if words}


class Thermometer:
    """Temperature of the processor. Looks for the sensor once, and anew when that one falls silent."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path: Path | None = None

    def celsius(self) -> float | None:
        """In °C; None where there is no sensor, or none that says anything sensible."""
        if self._path is None or (now_c := _celsius(self._path)) is None:
            sensors = dict(hwmon(self._root))
            inputs = (sensors[name] / "temp1_input" for name in _CPU_SENSORS if name in sensors)
            self._path, now_c = _first_c([*_zones(self._root, _CPU_ZONES), *inputs])
        return now_c


def zone_c(root: Path, kinds: Iterable[str]) -> float | None:
    """Temperature in °C of the first thermal zone of one of these types that can be read."""
    return _first_c(_zones(root, kinds))[1]


def _zones(root: Path, kinds: Iterable[str]) -> Iterator[Path]:
    zones = dict(named(root, "sys/class/thermal/thermal_zone*", "type"))
    yield from (zones[kind] / "temp" for kind in kinds if kind in zones)


def _first_c(paths: Iterable[Path]) -> tuple[Path | None, float | None]:
    """The first of `paths` that can be read, and what it says in °C."""
    return next(((path, celsius) for path in paths if (celsius := _celsius(path)) is not None), (None, None))


def _celsius(path: Path) -> float | None:
    coldest_c, hottest_c = _PLAUSIBLE_C
    millidegrees = number(path, hottest_c * 1_000, coldest_c * 1_000)
    return None if millidegrees is None else round(millidegrees / 1_000, 1)


def cpu_frequency_mhz(root: Path) -> int | None:
    """The clock of the fastest core at this moment, in MHz (cpufreq)."""
    policies = (root / "sys/devices/system/cpu/cpufreq").glob("policy*/scaling_cur_freq")
    clocks_khz = (number(path, _FASTEST_CLOCK_KHZ, 1_000) for path in policies)
    return max((khz // 1_000 for khz in clocks_khz if khz is not None), default=None)


def fan(root: Path) -> Fan | None:
    """The fan: a tachometer and a duty by hwmon, or the files that a Jetson Nano has instead."""
    devices = [device for _, device in hwmon(root)]
    # Jetson Orin calls the tachometer `rpm`, and keeps it in a device of its own.
    speeds = [device / name for device in devices for name in ("fan1_input", "rpm")]
    nano = root / "sys/devices/pwm-fan"
    if text(nano / "tach_enable") == "1":  # else its 0 means nothing
        speeds.append(nano / "rpm_measured")
    rpm = first(speeds, _FASTEST_FAN_RPM)
    pwm = first([*(device / "pwm1" for device in devices), nano / "cur_pwm"], _PWM_FULL)
    if rpm is None and pwm is None:
        return None
    return Fan(rpm=rpm, pct=None if pwm is None else round(100 * pwm / _PWM_FULL))


def first(paths: Iterable[Path], most: int) -> int | None:
    """The first number among these files that is possible."""
    return next((value for path in paths if (value := number(path, most)) is not None), None)


class CpuLoad:
    """Load of all cores between one `pct` and the next; where no time has passed in between, since the boot."""

    def __init__(self, root: Path) -> None:
        self._path = root / "proc/stat"
        self._last = self._ticks()

    def pct(self) -> float | None:
        """Percentage, 0–100; None if it cannot be told."""
        before, self._last = self._last, self._ticks()
        if self._last is None:
            return None
        if before is None or before == self._last:
            before = (0,) * len(self._last)
        total = sum(self._last) - sum(before)
        idle = sum(self._last[_IDLE : _IOWAIT + 1]) - sum(before[_IDLE : _IOWAIT + 1])
        # Both may step back a little: the kernel gathers them core by core.
        return round(min(100.0, max(0.0, 100.0 * (total - idle) / total)), 1) if total > 0 else None

    def _ticks(self) -> tuple[int, ...] | None:
        words = (text(self._path) or "").partition("\n")[0].split()
        numbers = [whole(word) for word in words[1 : 1 + _GUEST_COLUMNS]]
        known = tuple(value for value in numbers if value is not None)
        return known if len(known) == len(numbers) > _IOWAIT and words[0] == "cpu" else None


def load1(root: Path) -> float | None:
    """Mean number of running tasks over the last minute."""
    return decimal((text(root / "proc/loadavg") or "").partition(" ")[0], 0.0, 1e6)


def memory(root: Path) -> Mem:
    """What the machine has left; without the agent's own share."""
    sizes = ((name, whole(words[0])) for name, words in _fields(root / "proc/meminfo").items() if words)
    kib = {name: size for name, size in sizes if size is not None}
    available_kib = kib.get("MemAvailable", -1)
    used_pct = _used_pct(kib.get("MemTotal", 0), available_kib)
    swap_pct = _used_pct(kib.get("SwapTotal", 0), kib.get("SwapFree", 0))
    return Mem(avail_mb=None if used_pct is None else available_kib // _KIB_PER_MIB, pct=used_pct, swap_pct=swap_pct)


def _used_pct(total: int, free: int) -> float | None:
    return round(100 * (1 - free / total), 1) if total > 0 and 0 <= free <= total else None


def pressure(root: Path) -> Psi | None:
    """Of the last minute. Raspberry Pi kernels have it with `psi=1` on their command line only."""
    psi = Psi(cpu=stalled_pct(root, "cpu"), mem=stalled_pct(root, "memory"), io=stalled_pct(root, "io"))
    return None if psi == Psi() else psi


def stalled_pct(root: Path, resource: str, window: str = "avg60") -> float | None:
    """Share of a window (`avg10`, `avg60` or `avg300`, in seconds), 0–100, in which some task waited for `resource`."""
    some = dict(word.partition("=")[::2] for word in _fields(root / "proc/pressure" / resource).get("some", ()))
    return decimal(some.get(window, ""), 0.0, 100.0)


def written_mb(root: Path) -> int | None:
    """MiB written since the machine booted, to all disks and cards that are real ones."""
    sectors = []
    for disk in (root / "sys/block").glob("*"):
        words = (text(disk / "stat") or "").split()
        count = whole(words[_SECTORS_WRITTEN]) if len(words) > _SECTORS_WRITTEN else None
        if count is not None and count >= 0 and (disk / "device").exists():
            sectors.append(count)
    return sum(sectors) * _SECTOR_BYTES // _MIB if sectors else None


def wear_pct(root: Path) -> int | None:
    """How much of its life the eMMC that has lived most of it has used up, 10–100. SD cards do not tell."""
    files = (root / "sys/block").glob("mmcblk*/device/life_time")
    tenths = (whole(word, 16) for path in files for word in (text(path) or "").split())
    known = [tenth for tenth in tenths if tenth is not None and 0 < tenth <= _END_OF_LIFE + 1]  # 0: not defined
    return 10 * min(max(known), _END_OF_LIFE) if known else None


def network(root: Path) -> Net | None:
    """Bytes of the machine's own interfaces: neither the loopback nor what containers and tunnels count once more."""
    own = [interface for interface in (root / "sys/class/net").glob("*") if (interface / "device").exists()]
    net = Net(tx_mb=_total_mb(own, "tx_bytes"), rx_mb=_total_mb(own, "rx_bytes"))
    return None if net == Net() else net


def _total_mb(interfaces: list[Path], name: str) -> int | None:
    counts = [count for one in interfaces if (count := number(one / "statistics" / name)) is not None]
    return sum(counts) // _MIB if counts else None


def wifi(root: Path) -> Wifi | None:
    """Strength of the best wireless link (/proc/net/wireless: interface, status, quality, level, noise, …)."""
    levels = []
    for line in (text(root / "proc/net/wireless") or "").splitlines():
        interface, colon, rest = line.partition(":")
        words = rest.split()
        if colon and "|" not in interface and len(words) > 2:  # noqa: PLR2004 - status, quality, level
            levels.append(decimal(words[2].rstrip("."), _WEAKEST_DBM, _STRONGEST_DBM))
    known = [level for level in levels if level is not None]
    return Wifi(rssi_dbm=round(max(known))) if known else None
