from pathlib import Path

import pytest

from agent.telemetry.linux import CpuLoad, wear_pct, wifi


def write(path: Path, text: str) -> None:
    """Write a file of a literal tree, parents included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


def stat(root: Path, *ticks: int) -> None:
    """The line of all cores in /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice."""
    write(root / "proc/stat", f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3 4\n")


def test_load_is_what_was_not_idle_since_the_last_look(tmp_path: Path) -> None:
    """Waiting for a disk is idle; what guests took is contained in the user's time already."""
    stat(tmp_path, 100, 0, 100, 800, 0, 0, 0, 0, 50, 0)
    load = CpuLoad(tmp_path)
    stat(tmp_path, 150, 0, 100, 900, 50, 0, 0, 0, 100, 0)
    assert load.pct() == 25.0
    stat(tmp_path, 150, 0, 100, 1_000, 50, 0, 0, 0, 100, 0)
    assert load.pct() == 0.0


def test_load_is_never_negative(tmp_path: Path) -> None:
    """Idle time may run back a little: the kernel gathers it core by core."""
    stat(tmp_path, 100, 0, 100, 800, 0, 0, 0, 0, 0, 0)
    load = CpuLoad(tmp_path)
    stat(tmp_path, 110, 0, 100, 795, 0, 0, 0, 0, 0, 0)
    assert load.pct() == 100.0
    stat(tmp_path, 105, 0, 100, 810, 0, 0, 0, 0, 0, 0)
    assert load.pct() == 0.0


@pytest.mark.parametrize(
    ("life_time", "expected"),
    [("0x01 0x02", 20), ("0x0a 0x01", 100), ("0x0b 0x0b", 100), ("0x00 0x00", None), ("0x0c 0x01", 10), ("", None)],
)
def test_wear_is_that_of_the_more_worn_half(tmp_path: Path, life_time: str, expected: int | None) -> None:
    """Tenths, types A and B (JESD84-B51: 0 is not defined, 11 beyond the estimate, more is reserved)."""
    write(tmp_path / "sys/block/mmcblk0/device/life_time", life_time)
    assert wear_pct(tmp_path) == expected


def test_a_wireless_link_that_is_down_has_no_strength(tmp_path: Path) -> None:
    """Level 0 and -256 are what drivers say when they are not connected."""
    write(tmp_path / "proc/net/wireless", " wlan0: 0000    0.    0.  -256  0 0 0 0 0 0\n wlan1: 0000 0. -256. -256 0\n")
    assert wifi(tmp_path) is None
