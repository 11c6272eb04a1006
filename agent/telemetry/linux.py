"""What every Linux tells: load, memory, pressure, disks, interfaces. All below `root`, so that tests bring their own.

Read here rather than by psutil, which looks into the real /proc only. Formats: proc(5); accounting/psi.rst and
admin-guide/iostats.rst of the kernel's documentation; JESD84-B51 for the wear of an eMMC.
"""

import math
from pathlib import Path
from typing import Final

from agent.messages.telemetry import Mem, Net, Psi, Wifi
from agent.telemetry.files import fields, hexadecimal, number, text, whole, within

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
_WEAKEST_DBM, _STRONGEST_DBM = -120, 0


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
    words = (text(root / "proc/loadavg") or "").split()
    return None if not words else within(_decimal(words[0]), 0.0, 1e6)


def memory(root: Path) -> Mem:
    """What the machine has left; without the agent's own share."""
    sizes = {name: size for name, words in fields(root / "proc/meminfo").items() if (size := whole(_first(words)))}
    total_kib, available_kib = sizes.get("MemTotal"), sizes.get("MemAvailable")
    swap_kib, swap_free_kib = sizes.get("SwapTotal"), sizes.get("SwapFree", 0)
    used = None
    if total_kib and available_kib and 0 < available_kib <= total_kib:
        used = round(100 * (1 - available_kib / total_kib), 1)
    swapped = None
    if swap_kib and 0 <= swap_free_kib <= swap_kib:
        swapped = round(100 * (1 - swap_free_kib / swap_kib), 1)
    return Mem(avail_mb=None if used is None else (available_kib or 0) // _KIB_PER_MIB, pct=used, swap_pct=swapped)


def pressure(root: Path) -> Psi | None:
    """Of the last minute. Raspberry Pi kernels have it with `psi=1` on their command line only."""
    found = {
        field: stalled_pct(root, resource) for field, resource in (("cpu", "cpu"), ("mem", "memory"), ("io", "io"))
    }
    return Psi(**found) if any(pct is not None for pct in found.values()) else None


def stalled_pct(root: Path, resource: str, window: str = "avg60") -> float | None:
    """Share of a window (`avg10`, `avg60` or `avg300`, in seconds), 0–100, in which some task waited for `resource`."""
    for word in fields(root / "proc/pressure" / resource).get("some", ()):
        name, _, value = word.partition("=")
        if name == window:
            return within(_decimal(value), 0.0, 100.0)
    return None


def written_mb(root: Path) -> int | None:
    """MiB written since the machine booted, to all disks and cards that are real ones."""
    sectors = [
        count
        for disk in sorted((root / "sys/block").glob("*"))
        if (disk / "device").exists() and (count := _nth(text(disk / "stat"), _SECTORS_WRITTEN)) is not None
    ]
    return sum(sectors) * _SECTOR_BYTES // _MIB if sectors else None


def wear_pct(root: Path) -> int | None:
    """How much of its life the eMMC that has lived most of it has used up, 10–100. SD cards do not tell."""
    tenths = [
        tenth
        for path in sorted((root / "sys/block").glob("mmcblk*/device/life_time"))
        for word in (text(path) or "").split()
        if (tenth := hexadecimal(word)) is not None and 0 < tenth <= _END_OF_LIFE + 1  # 0: not defined
    ]
    return 10 * min(max(tenths), _END_OF_LIFE) if tenths else None


def network(root: Path) -> Net | None:
    """Bytes of the machine's own interfaces: neither the loopback nor what containers and tunnels count once more."""
    sent, received = [], []
    for interface in sorted((root / "sys/class/net").glob("*")):
        if (interface / "device").exists():
            sent.append(number(interface / "statistics/tx_bytes"))
            received.append(number(interface / "statistics/rx_bytes"))
    tx_mb, rx_mb = _total_mb(sent), _total_mb(received)
    return None if tx_mb is None and rx_mb is None else Net(tx_mb=tx_mb, rx_mb=rx_mb)


def wifi(root: Path) -> Wifi | None:
    """Strength of the best wireless link (/proc/net/wireless: interface, status, quality, level, noise, …)."""
    levels = []
    for line in (text(root / "proc/net/wireless") or "").splitlines():
        interface, colon, rest = line.partition(":")
        words = rest.split()
        if colon and "|" not in interface and len(words) > 2:  # noqa: PLR2004 - status, quality, level
            levels.append(within(_decimal(words[2].rstrip(".")), _WEAKEST_DBM, _STRONGEST_DBM))
    known = [level for level in levels if level is not None and level < 0]
    return Wifi(rssi_dbm=round(max(known))) if known else None


def _total_mb(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None and count >= 0]
    return sum(known) // _MIB if known else None


def _nth(words: str | None, index: int) -> int | None:
    parts = (words or "").split()
    value = whole(parts[index]) if len(parts) > index else None
    return value if value is None or value >= 0 else None


def _first(words: list[str]) -> str | None:
    return words[0] if words else None


def _decimal(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
