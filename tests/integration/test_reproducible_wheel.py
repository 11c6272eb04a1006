import hashlib
import os
import shutil
from pathlib import Path

import pytest

from supply.house import build_agent
from tests.conftest import REPOSITORY

PARTS = ("agent", "models", "systemd", "pyproject.toml", "README.md", "LICENSE")
"""What the wheel is made of."""


def built(folder: Path, root: Path) -> str:
    """SHA-256 of the wheel that is made from the tree at `root`."""
    build_agent(folder, folder / "log", root)
    (wheel,) = folder.glob("*.whl")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_two_builds_of_the_wheel_are_the_same_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another folder, other times of files and other permissions make no difference."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in PARTS:
        source = REPOSITORY / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, elsewhere / name)
    for path in elsewhere.rglob("*.py"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(0o600)
    first, second = tmp_path / "first", tmp_path / "second"
    assert built(first, REPOSITORY) == built(second, elsewhere)


def test_the_time_of_the_files_is_that_of_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a later commit gives another wheel, and the same commit the same."""
    digests: list[str] = []
    for epoch in ("1700000000", "1700000000", "1700009999"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        digests.append(built(tmp_path / str(len(digests)), REPOSITORY))
    assert digests[0] == digests[1] != digests[2]
