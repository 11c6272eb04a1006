import random
from pathlib import Path

import pytest

from agent.messages.telemetry import Cpu, Disk, Fan, Gpu, Mem, Net, Psi, Pwr, Wifi
from agent.telemetry.snapshot import Host, HostReading
from agent.telemetry.vitals import Vitals, VitalsWatch
from tests.support.boards import BOARDS, unfold

EXPECTED = {
    "raspberry-pi-3": HostReading(
        cpu=Cpu(pct=11.3, load1=0.42, temp_c=53.7, freq_mhz=600),
        mem=Mem(avail_mb=597, pct=34.3, swap_pct=25.0),
        disk=Disk(written_mb=100),
        pwr=Pwr(uv_now=True, thr_now=True, uv_events=1, thr_events=1),
        wifi=Wifi(rssi_dbm=-49),
        net=Net(tx_mb=50, rx_mb=10),
    ),
    "raspberry-pi-4": HostReading(
        cpu=Cpu(pct=5.2, load1=0.08, temp_c=51.1, freq_mhz=1_800),
        mem=Mem(avail_mb=3_224, pct=15.0),
        disk=Disk(written_mb=512),
        psi=Psi(cpu=2.53, mem=0.0, io=0.42),
        pwr=Pwr(uv_now=False, thr_now=False, uv_events=0, thr_events=0),
        fan=Fan(rpm=5_000, pct=100),
        net=Net(tx_mb=1_024, rx_mb=512),
    ),
    "raspberry-pi-5": HostReading(
        cpu=Cpu(pct=10.0, load1=1.05, temp_c=62.2, freq_mhz=2_400),
        mem=Mem(avail_mb=6_855, pct=15.0, swap_pct=0.0),
        disk=Disk(written_mb=10_240),
        pwr=Pwr(uv_now=False, thr_now=False, uv_events=0, thr_events=0),
        fan=Fan(rpm=1_468, pct=29),
        wifi=Wifi(rssi_dbm=-55),
        net=Net(tx_mb=2, rx_mb=3),
    ),
    "raspberry-pi-zero-2-w": HostReading(
        cpu=Cpu(pct=40.0, load1=2.31, temp_c=70.4, freq_mhz=1_000),
        mem=Mem(avail_mb=107, pct=75.0, swap_pct=50.0),
        disk=Disk(written_mb=20),
        pwr=Pwr(uv_now=False, uv_events=0),
        wifi=Wifi(rssi_dbm=-79),
        net=Net(tx_mb=7, rx_mb=30),
    ),
    "jetson-nano": HostReading(
        cpu=Cpu(pct=15.0, load1=0.61, temp_c=24.5, freq_mhz=1_479),
        mem=Mem(avail_mb=1_982, pct=50.0, swap_pct=0.0),
        disk=Disk(written_mb=300),
        pwr=Pwr(in_w=2.14, rails_w={"POM_5V_IN": 2.14, "POM_5V_GPU": 0.04, "POM_5V_CPU": 0.64}, mode="MAXN"),
        gpu=Gpu(pct=37.5, temp_c=26.5, freq_mhz=76),
        fan=Fan(pct=31),
        net=Net(tx_mb=100, rx_mb=200),
    ),
    "jetson-orin-nano": HostReading(
        cpu=Cpu(pct=10.0, load1=0.95, temp_c=48.3, freq_mhz=1_510),
        mem=Mem(avail_mb=5_714, pct=25.0, swap_pct=0.0),
        disk=Disk(written_mb=2_048),
        psi=Psi(cpu=0.12, mem=0.0, io=0.05),
        pwr=Pwr(
            uv_now=False,
            thr_now=False,
            uv_events=0,
            thr_events=0,
            in_w=4.74,
            rails_w={"VDD_IN": 4.74, "VDD_CPU_GPU_CV": 0.64, "VDD_SOC": 1.43},
            mode="25W",
        ),
        gpu=Gpu(pct=12.3, temp_c=47.2, freq_mhz=305),
        fan=Fan(rpm=2_140, pct=35),
        net=Net(tx_mb=1, rx_mb=2),
    ),
}


@pytest.fixture(autouse=True)
def _without_our_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that of the process that runs the tests (test_host.py), and takes most of the time of a look."""
    monkeypatch.setattr(Host, "_resident_mb", lambda _host: None)


def look(root: Path) -> tuple[HostReading, Vitals]:
    """One look at the machine below `root`, without what is this process's own."""
    vitals = VitalsWatch(root, clock_s=lambda: 0.0).latest
    return Host(root / "state", root).read(vitals), vitals


def test_the_six_boards_are_here() -> None:
    """None is left out of the tests below by a slip of the pen."""
    assert set(BOARDS) == set(EXPECTED)


@pytest.mark.parametrize("board", BOARDS)
def test_a_board_gives_exactly_its_telemetry(board: str, tmp_path: Path) -> None:
    """Every value in its unit, and nothing of what the board cannot tell."""
    unfold(board, tmp_path)
    assert look(tmp_path)[0] == EXPECTED[board]


@pytest.mark.parametrize("board", BOARDS)
def test_the_vitals_of_a_board_are_those_of_its_telemetry(board: str, tmp_path: Path) -> None:
    """What is looked at every second agrees with what is published every minute."""
    unfold(board, tmp_path)
    reading, vitals = look(tmp_path)
    expected = EXPECTED[board]
    assert vitals.cpu_temp_c == expected.cpu.temp_c
    assert vitals.mem_available_mb == expected.mem.avail_mb
    flags = vitals.power.model_dump(exclude_none=True)
    assert flags == (expected.pwr or Pwr()).model_dump(include=FLAGS, exclude_none=True)
    assert (vitals.mem_stalled_pct is None) == (reading.psi is None)


GARBAGE = (
    b"",
    b"\xff\xfe\x00garbage\x80 - : = \n\n: :\n",
    b"9" * 5_000 + b"\n",
    b"-99999999999\n",
    b"not a number at all, none whatsoever\n" * 9,
    "\u0661\u0662\u0663 nan inf 1e999\n".encode(),
)


FLAGS = {"uv_now", "thr_now", "uv_events", "thr_events"}
PARTLY = {
    "cpu.freq_mhz",
    "net.tx_mb",
    "net.rx_mb",
    "pwr.rails_w",
    "pwr.mode",
    "pwr.uv_events",
    "pwr.thr_events",
    "wifi.rssi_dbm",
}
"""Sums and choices, which are right as well with one of their sources less."""


def spoilt(reading: HostReading, expected: HostReading) -> set[str]:
    """Parts of `reading` that are not as expected. Only to be left out is allowed for what is in them."""
    parts = set()
    for name in HostReading.__slots__:
        was = getattr(expected, name) or Mem()
        is_now = getattr(reading, name) or was.__class__()
        for field, right in was.model_dump().items():
            value = getattr(is_now, field)
            if value != right:
                parts.add(name)
                assert value is None or f"{name}.{field}" in PARTLY, f"{name}.{field} = {value}, not {right}"
    return parts


@pytest.mark.parametrize("board", BOARDS)
def test_a_file_that_is_garbled_or_gone_costs_its_own_figures_only(board: str, tmp_path: Path) -> None:
    """Each file in turn says nonsense, is gone, is a folder (whose reading fails as a sleeping sensor's does)."""
    for path in unfold(board, tmp_path):
        right = path.read_bytes()
        for garbage in GARBAGE:
            path.write_bytes(garbage)
            assert len(spoilt(look(tmp_path)[0], EXPECTED[board])) <= 1, f"{path} as {garbage[:20]!r}"
        path.unlink()
        assert len(spoilt(look(tmp_path)[0], EXPECTED[board])) <= 1, f"without {path}"
        path.mkdir()
        assert len(spoilt(look(tmp_path)[0], EXPECTED[board])) <= 1, f"{path} is a folder"
        path.rmdir()
        path.write_bytes(right)
    assert look(tmp_path)[0] == EXPECTED[board]


@pytest.mark.parametrize("board", BOARDS)
def test_everything_garbled_at_once_is_an_empty_reading(board: str, tmp_path: Path) -> None:
    """Bytes by chance in all files: no exception, and no value that is not a value."""
    chance = random.Random(board)  # noqa: S311 - repeats itself
    for path in unfold(board, tmp_path):
        path.write_bytes(chance.randbytes(chance.randrange(200)))
    reading, vitals = look(tmp_path)
    assert (reading.psi, reading.gpu, reading.wifi, reading.net, reading.fan) == (None,) * 5
    assert vitals == Vitals(at_s=0.0)
