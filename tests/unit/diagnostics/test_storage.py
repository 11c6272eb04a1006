from dataclasses import replace
from pathlib import Path

import pytest

from agent.diagnostics.finding import Status
from agent.diagnostics.storage import Memory, Storage, findings, look, memory_findings

WELL = Storage("/dev/mmcblk0p2", "ext4", read_only=False, errors=0, wear_pct=None)
MOUNTS = """\
/dev/mmcblk0p2 / ext4 rw,noatime 0 0
tmpfs /run tmpfs rw 0 0
/dev/sda1 /var/lib ext4 ro,relatime 0 0
/dev/sdb1 /mnt/a\\040b vfat rw 0 0
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with an SD card and two disks."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/mounts").write_text(MOUNTS, encoding="utf-8")
    (tmp_path / "sys/fs/ext4/sda1").mkdir(parents=True)
    (tmp_path / "sys/fs/ext4/sda1/errors_count").write_text("3\n", encoding="ascii")
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        ("/home/pi/state", replace(WELL, errors=None)),
        ("/var/lib/edgescribe", Storage("/dev/sda1", "ext4", read_only=True, errors=3, wear_pct=None)),
        ("/var/library", replace(WELL, errors=None)),
        ("/mnt/a b/state", Storage("/dev/sdb1", "vfat", read_only=False, errors=None, wear_pct=None)),
    ],
)
def test_the_nearest_file_system_above_a_folder_is_the_one(root: Path, folder: str, found: Storage) -> None:
    """By whole names of folders, blanks included."""
    assert look(Path(folder), root) == found


def test_a_machine_that_says_nothing_has_nothing_wrong(tmp_path: Path) -> None:
    """Without /proc there is no finding."""
    assert look(Path("/var"), tmp_path) is None


@pytest.mark.parametrize(
    ("storage", "status"),
    [
        (WELL, Status.OK),
        (replace(WELL, wear_pct=30), Status.OK),
        (replace(WELL, read_only=True), Status.FAIL),
        (replace(WELL, errors=3), Status.WARN),
        (replace(WELL, wear_pct=90), Status.WARN),
        (replace(WELL, file_system="tmpfs"), Status.WARN),
    ],
)
def test_a_medium_is_judged_by_what_it_admits(storage: Storage, status: Status) -> None:
    """One finding, with a remedy where one is needed."""
    (finding,) = findings(storage)
    assert finding.status is status
    assert bool(finding.remedy) is (status is not Status.OK)


def test_swap_is_a_finding_only_where_memory_is_scarce_too() -> None:
    """A board may keep in its swap what nobody needs."""
    assert list(memory_findings(Memory(512, 200, 90.0))) == []
    assert list(memory_findings(Memory(512, 30, 10.0))) == []
    (finding,) = memory_findings(Memory(512, 30, 90.0))
    assert finding.remedy
