import subprocess
import sys
from pathlib import Path

import pytest

from agent.telemetry.host import CpuLoad, Thermometer, cpu_frequency_mhz, wear_pct, wifi
from agent.telemetry.snapshot import Host
from agent.telemetry.vitals import Vitals


def write(path: Path, text: str) -> None:
    """Write a file of a literal /sys tree, parents included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


def zone(root: Path, index: int, kind: str, millidegrees: int) -> None:
    """Add a thermal zone."""
    write(root / f"sys/class/thermal/thermal_zone{index}/type", f"{kind}\n")
    write(root / f"sys/class/thermal/thermal_zone{index}/temp", f"{millidegrees}\n")


def test_a_raspberry_pi_has_one_zone(tmp_path: Path) -> None:
    """`cpu-thermal`, in thousandths of a degree."""
    zone(tmp_path, 0, "cpu-thermal", 48_312)
    assert Thermometer(tmp_path).celsius() == 48.3


def test_a_jetson_zone_is_found_by_type_wherever_it_stands(tmp_path: Path) -> None:
    """Orin numbers its zones otherwise than Nano; a board sensor in front must not be taken for the processor."""
    zone(tmp_path, 0, "tboard-thermal", 39_000)
    zone(tmp_path, 1, "gpu-thermal", 55_000)
    zone(tmp_path, 5, "CPU-therm", 51_500)
    assert Thermometer(tmp_path).celsius() == 51.5


def test_a_pc_prefers_the_package_to_the_case(tmp_path: Path) -> None:
    """The zone acpitz is often a constant; the package sensor is the processor."""
    zone(tmp_path, 0, "acpitz", 27_800)
    zone(tmp_path, 2, "x86_pkg_temp", 61_000)
    assert Thermometer(tmp_path).celsius() == 61.0


def test_a_sensor_serves_where_there_is_no_zone(tmp_path: Path) -> None:
    """AMD processors have hwmon's k10temp only; it is found by name among disks and batteries."""
    write(tmp_path / "sys/class/hwmon/hwmon0/name", "nvme\n")
    write(tmp_path / "sys/class/hwmon/hwmon0/temp1_input", "35000\n")
    write(tmp_path / "sys/class/hwmon/hwmon3/name", "k10temp\n")
    write(tmp_path / "sys/class/hwmon/hwmon3/temp1_input", "44125\n")
    assert Thermometer(tmp_path).celsius() == 44.1


@pytest.mark.parametrize("reading", ["-256000", "", "garbage", "999000"])
def test_an_impossible_temperature_is_left_out(tmp_path: Path, reading: str) -> None:
    """A sleeping block's -256 °C must raise no alarm, and no 0 takes its place."""
    write(tmp_path / "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    write(tmp_path / "sys/class/thermal/thermal_zone0/temp", reading)
    assert Thermometer(tmp_path).celsius() is None


def test_a_zone_that_cannot_be_read_gives_way_to_the_next(tmp_path: Path) -> None:
    """A file that is there and cannot be read (here: a folder) is as good as none."""
    write(tmp_path / "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").mkdir()
    zone(tmp_path, 1, "soc-thermal", 50_000)
    assert Thermometer(tmp_path).celsius() == 50.0


def test_the_clock_is_that_of_the_fastest_cores(tmp_path: Path) -> None:
    """Clusters with clocks of their own (big and little) report the one that does the work."""
    write(tmp_path / "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq", "600000\n")
    write(tmp_path / "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq", "1800000\n")
    assert cpu_frequency_mhz(tmp_path) == 1_800


def test_an_empty_machine_has_no_sensors(tmp_path: Path) -> None:
    """Nothing is invented."""
    assert Thermometer(tmp_path).celsius() is None
    assert cpu_frequency_mhz(tmp_path) is None


def test_a_thermometer_that_falls_silent_is_looked_for_anew(tmp_path: Path) -> None:
    """A driver that was loaded again has another number."""
    zone(tmp_path, 0, "cpu-thermal", 50_000)
    thermometer = Thermometer(tmp_path)
    assert thermometer.celsius() == 50.0
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").unlink()
    assert thermometer.celsius() is None
    zone(tmp_path, 3, "cpu-thermal", 51_000)
    assert thermometer.celsius() == 51.0


def test_this_machine_can_be_read(tmp_path: Path) -> None:
    """Memory, load and disk of the machine that runs the tests lie within their bounds."""
    reading = Host(tmp_path).read(Vitals(at_s=0.0))
    assert reading.cpu.pct is not None
    assert 0.0 <= reading.cpu.pct <= 100.0
    assert reading.cpu.load1 is not None
    assert reading.mem.avail_mb
    assert reading.mem.rss_mb
    assert 5.0 < reading.mem.rss_mb < 4_096.0
    assert reading.disk.pct is not None


def test_a_state_folder_that_is_not_there_yet_has_no_disk(tmp_path: Path) -> None:
    """Telemetry goes out before the folder was made."""
    assert Host(tmp_path / "later").read(Vitals(at_s=0.0)).disk.pct is None


def test_memory_counts_the_engine_in_its_own_process(tmp_path: Path) -> None:
    """Memory is that of the agent with its children: an engine's process is most of it."""
    host = Host(tmp_path)
    alone = host.read(Vitals(at_s=0.0)).mem.rss_mb
    code = "import sys; block = bytearray(100_000_000); print(len(block), flush=True); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout
        child.stdout.readline()
        together = host.read(Vitals(at_s=0.0)).mem.rss_mb
    finally:
        child.communicate()
    assert alone is not None
    assert together is not None
    assert together > alone + 90


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
