"""Reads the sensors of every Linux: temperatures, clock, fan, load, memory, pressure, disks, interfaces.

It reads files below `root`: tests and containers have another root. psutil only reads the real /proc. Formats: proc(5);
accounting/psi.rst and admin-guide/iostats.rst of the kernel's documentation; JESD84-B51 for the wear of an eMMC. It
finds zones by type and sensors by name, never by index.

A value is None if it cannot be read or is impossible; no function raises. Files may be absent, sensors of sleeping
blocks return EAGAIN or EINVAL, and firmware returns rubbish.
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
"""Unit of /sys/block/*/stat, for all disks."""
_SECTORS_WRITTEN: Final = 6
_GUEST_COLUMNS: Final = 8
"""Earlier columns of /proc/stat contain those from here on."""
_IDLE, _IOWAIT = 3, 4
_END_OF_LIFE: Final = 10
"""An eMMC counts its life in tenths from 1; 11 is beyond its estimate."""
_WEAKEST_DBM, _STRONGEST_DBM = -120, -1
_PLAUSIBLE_C: Final = (-40.0, 150.0)
"""On a Jetson, zones of blocks that are off have -256 °C."""
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
"""Types of the processor's thermal zones, the most exact first, in lower case."""
_CPU_SENSORS: Final = ("cpu_thermal", "coretemp", "k10temp", "zenpower")
"""Names of the processor's hwmon devices, for machines without such a zone."""
_PWM_FULL: Final = 255
_FASTEST_FAN_RPM: Final = 50_000
_FASTEST_CLOCK_KHZ: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Flag:
    """One look at a flag of the board."""

    now: bool | None = None
    """Whether it is set at this moment; None if the board cannot tell."""
    seen: int | None = None
    """A count or a flag of the board that rises with each event; None if there is none."""


@dataclass(frozen=True, slots=True)
class PowerReading:
    """The board's flags about its power."""

    undervoltage: Flag = Flag()
    throttled: Flag = Flag()


def text(path: Path) -> str | None:
    """Return the file's text without white space and NUL bytes around it; None if that is empty."""
    try:
        with path.open("rb") as file:
            # Strings of the device tree end with a NUL byte.
            return file.read(_LONGEST).decode("ascii", errors="replace").strip("\0 \t\r\n") or None
    except (OSError, ValueError):  # ValueError: a NUL byte in a name that was read before
        return None


def whole(word: str | None, base: int = 10) -> int | None:
    """Return a whole number; a hexadecimal one may begin with `0x`."""
    try:
        return int(word or "", base)
    except ValueError:
        return None


def number(path: Path, most: float = math.inf, least: float = 0) -> int | None:
    """Return the file's whole number if it is possible, from `least` to `most`."""
    value = whole(text(path))
    return value if value is not None and least <= value <= most else None


def decimal(word: str, least: float, most: float) -> float | None:
    """Return a decimal number if it is possible, from `least` to `most`."""
    try:
        value = float(word)
    except ValueError:
        return None
    return value if least <= value <= most else None


def named(root: Path, pattern: str, name: str) -> list[tuple[str, Path]]:
    """Return the folders that match `pattern`, in order, with the text of their file `name` in lower case."""
    found = ((text(path / name), path) for path in sorted(root.glob(pattern)))
    return [(label.lower(), path) for label, path in found if label]


def hwmon(root: Path) -> list[tuple[str, Path]]:
    """Return the devices of the hardware monitor, with their names."""
    return named(root, "sys/class/hwmon/hwmon*", "name")


def _fields(path: Path) -> dict[str, list[str]]:
    """Return lines such as `MemTotal:  3884360 kB` by their first word, without its colon."""
    lines = (line.split() for line in (text(path) or "").splitlines())
    return {words[0].rstrip(":"): words[1:] for words in lines if words}


class Thermometer:
    """Measures the processor's temperature. It searches for the sensor once, and again if that one fails."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path: Path | None = None

    def celsius(self) -> float | None:
        """Return the temperature in °C; None without a working sensor."""
        if self._path is None or (now_c := _celsius(self._path)) is None:
            sensors = dict(hwmon(self._root))
            inputs = (sensors[name] / "temp1_input" for name in _CPU_SENSORS if name in sensors)
            self._path, now_c = _first_c([*_zones(self._root, _CPU_ZONES), *inputs])
        return now_c


def zone_c(root: Path, kinds: Iterable[str]) -> float | None:
    """Return the temperature in °C of the first readable thermal zone of one of these types."""
    return _first_c(_zones(root, kinds))[1]


def _zones(root: Path, kinds: Iterable[str]) -> Iterator[Path]:
    zones = dict(named(root, "sys/class/thermal/thermal_zone*", "type"))
    yield from (zones[kind] / "temp" for kind in kinds if kind in zones)


def _first_c(paths: Iterable[Path]) -> tuple[Path | None, float | None]:
    """Return the first readable one of `paths`, and its temperature in °C."""
    return next(((path, celsius) for path in paths if (celsius := _celsius(path)) is not None), (None, None))


def _celsius(path: Path) -> float | None:
    coldest_c, hottest_c = _PLAUSIBLE_C
    millidegrees = number(path, hottest_c * 1_000, coldest_c * 1_000)
    return None if millidegrees is None else round(millidegrees / 1_000, 1)


def cpu_frequency_mhz(root: Path) -> int | None:
    """Return the present clock of the fastest core, in MHz (cpufreq)."""
    policies = (root / "sys/devices/system/cpu/cpufreq").glob("policy*/scaling_cur_freq")
    clocks_khz = (number(path, _FASTEST_CLOCK_KHZ, 1_000) for path in policies)
    return max((khz // 1_000 for khz in clocks_khz if khz is not None), default=None)


def fan(root: Path) -> Fan | None:
    """Return the fan's speed and duty, from hwmon or from the files of a Jetson Nano."""
    devices = [device for _, device in hwmon(root)]
    # Jetson Orin calls the tachometer `rpm`, and keeps it in a device of its own.
    speeds = [device / name for device in devices for name in ("fan1_input", "rpm")]
    nano = root / "sys/devices/pwm-fan"
    if text(nano / "tach_enable") == "1":  # else it is always 0
        speeds.append(nano / "rpm_measured")
    rpm = first(speeds, _FASTEST_FAN_RPM)
    pwm = first([*(device / "pwm1" for device in devices), nano / "cur_pwm"], _PWM_FULL)
    if rpm is None and pwm is None:
        return None
    return Fan(rpm=rpm, pct=None if pwm is None else round(100 * pwm / _PWM_FULL))


def first(paths: Iterable[Path], most: int) -> int | None:
    """Return the first possible number among these files."""
    return next((value for path in paths if (value := number(path, most)) is not None), None)


class CpuLoad:
    """Measures the load of all cores from one `pct` to the next; without time in between, since the boot."""

    def __init__(self, root: Path) -> None:
        self._path = root / "proc/stat"
        self._last = self._ticks()

    def pct(self) -> float | None:
        """Return the load, 0–100; None if unknown."""
        before, self._last = self._last, self._ticks()
        if self._last is None:
            return None
        if before is None or before == self._last:
            before = (0,) * len(self._last)
        total = sum(self._last) - sum(before)
        idle = sum(self._last[_IDLE : _IOWAIT + 1]) - sum(before[_IDLE : _IOWAIT + 1])
        # Both may decrease a little: the kernel adds them up core by core.
        return round(min(100.0, max(0.0, 100.0 * (total - idle) / total)), 1) if total > 0 else None

    def _ticks(self) -> tuple[int, ...] | None:
        words = (text(self._path) or "").partition("\n")[0].split()
        numbers = [whole(word) for word in words[1 : 1 + _GUEST_COLUMNS]]
        known = tuple(value for value in numbers if value is not None)
        return known if len(known) == len(numbers) > _IOWAIT and words[0] == "cpu" else None


def load1(root: Path) -> float | None:
    """Return the mean number of running tasks over the last minute."""
    return decimal((text(root / "proc/loadavg") or "").partition(" ")[0], 0.0, 1e6)


def memory(root: Path) -> Mem:
    """Return the memory of the machine, without the agent's own share."""
    sizes = ((name, whole(words[0])) for name, words in _fields(root / "proc/meminfo").items() if words)
    kib = {name: size for name, size in sizes if size is not None}
    available_kib = kib.get("MemAvailable", -1)
    used_pct = _used_pct(kib.get("MemTotal", 0), available_kib)
    swap_pct = _used_pct(kib.get("SwapTotal", 0), kib.get("SwapFree", 0))
    return Mem(avail_mb=None if used_pct is None else available_kib // _KIB_PER_MIB, pct=used_pct, swap_pct=swap_pct)


def _used_pct(total: int, free: int) -> float | None:
    return round(100 * (1 - free / total), 1) if total > 0 and 0 <= free <= total else None


def pressure(root: Path) -> Psi | None:
    """Return the pressure of the last minute. A Raspberry Pi has it only with `psi=1` on the kernel's command line."""
    psi = Psi(cpu=stalled_pct(root, "cpu"), mem=stalled_pct(root, "memory"), io=stalled_pct(root, "io"))
    return None if psi == Psi() else psi


def stalled_pct(root: Path, resource: str, window: str = "avg60") -> float | None:
    """Return the share of `window`, 0–100, in which a task waited for `resource`; `avg10` are the last 10 s."""
    some = dict(word.partition("=")[::2] for word in _fields(root / "proc/pressure" / resource).get("some", ()))
    return decimal(some.get(window, ""), 0.0, 100.0)


def written_mb(root: Path) -> int | None:
    """Return the MiB written to all real disks and cards since the boot."""
    sectors = []
    for disk in (root / "sys/block").glob("*"):
        words = (text(disk / "stat") or "").split()
        count = whole(words[_SECTORS_WRITTEN]) if len(words) > _SECTORS_WRITTEN else None
        if count is not None and count >= 0 and (disk / "device").exists():
            sectors.append(count)
    return sum(sectors) * _SECTOR_BYTES // _MIB if sectors else None


def wear_pct(root: Path) -> int | None:
    """Return the used share of life of the most worn eMMC, 10–100. SD cards do not tell it."""
    files = (root / "sys/block").glob("mmcblk*/device/life_time")
    tenths = (whole(word, 16) for path in files for word in (text(path) or "").split())
    known = [tenth for tenth in tenths if tenth is not None and 0 < tenth <= _END_OF_LIFE + 1]  # 0: not defined
    return 10 * min(max(known), _END_OF_LIFE) if known else None


def network(root: Path) -> Net | None:
    """Return the traffic of the machine's own interfaces, without loopback, containers and tunnels."""
    own = [interface for interface in (root / "sys/class/net").glob("*") if (interface / "device").exists()]
    net = Net(tx_mb=_total_mb(own, "tx_bytes"), rx_mb=_total_mb(own, "rx_bytes"))
    return None if net == Net() else net


def _total_mb(interfaces: list[Path], name: str) -> int | None:
    counts = [count for one in interfaces if (count := number(one / "statistics" / name)) is not None]
    return sum(counts) // _MIB if counts else None


def wifi(root: Path) -> Wifi | None:
    """Return the strength of the best wireless link (/proc/net/wireless: interface, status, quality, level, …)."""
    levels = []
    for line in (text(root / "proc/net/wireless") or "").splitlines():
        interface, colon, rest = line.partition(":")
        words = rest.split()
        if colon and "|" not in interface and len(words) > 2:  # noqa: PLR2004 - status, quality, level
            levels.append(decimal(words[2].rstrip("."), _WEAKEST_DBM, _STRONGEST_DBM))
    known = [level for level in levels if level is not None]
    return Wifi(rssi_dbm=round(max(known))) if known else None
