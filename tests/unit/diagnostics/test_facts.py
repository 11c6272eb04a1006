import socket
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from agent.config.settings import ScriptedSettings, WhisperCppSettings
from agent.diagnostics.facts import (
    Storage,
    connect_problem,
    has_gpu,
    need_mb,
    storage_below,
    write_problem,
)
from tests.unprivileged import closed


@pytest.mark.parametrize("path", ["proc/driver/nvidia/version", "dev/nvhost-gpu"])
def test_a_gpu_shows_in_its_drivers_files(tmp_path: Path, path: str) -> None:
    """On a PC in /proc, on a Jetson in /dev."""
    assert not has_gpu(tmp_path)
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).touch()
    assert has_gpu(tmp_path)


def test_a_broker_answers_or_does_not() -> None:
    """Somebody who listens is no problem; a closed port is refused."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert connect_problem("127.0.0.1", port) == ""
    assert connect_problem("127.0.0.1", port) == "connection refused"


def test_a_broker_that_has_no_address_is_a_problem_too() -> None:
    """A name that cannot be resolved (.invalid never is) is one phrase, not an exception."""
    assert connect_problem("broker.invalid", 1883) != ""


def test_a_state_folder_need_not_exist_yet_but_must_be_possible(tmp_path: Path) -> None:
    """It is made on first use; what counts is whether that would work. Nothing is left behind."""
    assert write_problem(tmp_path / "a" / "b") == ""
    assert list(tmp_path.iterdir()) == []
    assert write_problem(Path("/proc/edgescribe")) != ""


def test_a_state_folder_that_this_user_may_not_see_is_a_problem_and_no_end(tmp_path: Path) -> None:
    """As that of a service is: below a folder of root's."""
    with closed(tmp_path):
        assert write_problem(tmp_path / "edgescribe") == "permission denied"


def test_the_need_of_memory_is_known_without_the_model(tmp_path: Path) -> None:
    """By the catalogue, or by the file's size; without a model the agent needs none for it."""
    assert need_mb(WhisperCppSettings()) == 153
    own = tmp_path / "own.bin"
    own.write_bytes(bytes(1_000_000))
    assert need_mb(WhisperCppSettings(model=str(own))) > need_mb(WhisperCppSettings(model="/nowhere.bin"))
    assert need_mb(ScriptedSettings()) == need_mb(None) == 0


SD_CARD = Storage("/dev/mmcblk0p2", "ext4", read_only=False, errors=0, wear_pct=None)
MOUNTS = """\
/dev/mmcblk0p2 / ext4 rw,noatime 0 0
tmpfs /run tmpfs rw 0 0
/dev/sda1 /var/lib ext4 ro,relatime 0 0
/dev/sdb1 /mnt/a\\040b vfat rw 0 0
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an SD card and two disks."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mounts").write_text(MOUNTS, encoding="utf-8")
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "proc"))
    (tmp_path / "sys/fs/ext4/sda1").mkdir(parents=True)
    (tmp_path / "sys/fs/ext4/sda1/errors_count").write_text("3\n", encoding="ascii")
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        ("/home/pi/state", replace(SD_CARD, errors=None)),
        ("/var/lib/edgescribe", Storage("/dev/sda1", "ext4", read_only=True, errors=3, wear_pct=None)),
        ("/var/library", replace(SD_CARD, errors=None)),
        ("/mnt/a b/state", Storage("/dev/sdb1", "vfat", read_only=False, errors=None, wear_pct=None)),
    ],
)
def test_the_nearest_file_system_above_a_folder_is_the_one(root: Path, folder: str, found: Storage) -> None:
    """By whole names of folders, blanks included."""
    assert storage_below(Path(folder), root) == found


def test_a_machine_without_mounts_has_no_storage(root: Path) -> None:
    """As in some containers: there is no finding."""
    (root / "proc/self/mounts").write_text("", encoding="utf-8")
    assert storage_below(Path("/var"), root) is None
