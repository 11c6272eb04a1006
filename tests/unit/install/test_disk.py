from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.config.state_file import write_whole
from agent.errors import InstallError
from agent.install import disk
from agent.install.facts import CONFIG, PASSWORD, RECORD, UNIT_FILE, Record, below, digest
from agent.install.plan import DROP_INS, MODELS, SECRET, PlannedFile

UNIT = PlannedFile(str(UNIT_FILE), "[Service]\n")
LOW_MEMORY = PlannedFile(str(DROP_INS / "low-memory.conf"), "[Service]\nMemoryMax=1G\n")
SETTINGS = PlannedFile(str(CONFIG), "[mqtt]\n")
SECRET_FILE = PlannedFile(str(PASSWORD), "hunter2\n", SECRET)
ALL = (UNIT, LOW_MEMORY, SETTINGS, SECRET_FILE)


@dataclass
class Device:
    """A file system of its own, with what a Debian has before anything is installed."""

    root: Path

    @property
    def record(self) -> Record:
        """What is written down of the installation."""
        return Record.from_text(below(self.root, RECORD).read_text())

    def tree(self) -> dict[str, str]:
        """Every path, with its mode and its content."""
        return {
            str(path.relative_to(self.root)): f"{path.lstat().st_mode:o} {path.read_text() if path.is_file() else ''}"
            for path in sorted(self.root.rglob("*"))
        }

    def install(self, *planned: PlannedFile) -> tuple[str, ...]:
        """Write it as the verb does; return what was written."""
        known = self.record if below(self.root, RECORD).exists() else Record()
        return disk.write(planned, disk.make_folder(MODELS, known, self.root), self.root)

    def file(self, path: Path) -> Path:
        """Where it lies for this test."""
        return below(self.root, path)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """A Debian that has never heard of us."""
    for folder in ("etc/systemd/system", "var/lib/private", "run"):
        (tmp_path / folder).mkdir(parents=True)
    return Device(tmp_path)


def test_uninstalling_leaves_the_file_system_as_it_was(device: Device) -> None:
    """Files, folders, models and what systemd keeps for the service: path for path, nothing is left."""
    before = device.tree()
    assert device.install(*ALL) == tuple(file.path for file in ALL)
    (device.root / "var/lib/private/edgescribe/outbox").mkdir(parents=True)
    (device.root / "var/lib/edgescribe").symlink_to("private/edgescribe")
    device.file(Path(MODELS) / "tiny.en-q8_0").mkdir()
    assert disk.remove(device.record, purge=False, root=device.root) == ()
    assert device.tree() == before


def test_installing_again_writes_nothing(device: Device) -> None:
    """What is there as it should be is not touched, and remains known."""
    device.install(*ALL)
    before = device.tree()
    assert device.install(*ALL) == ()
    assert device.tree() == before


def test_the_password_is_never_open_to_others(device: Device) -> None:
    """Mode 600; and where somebody has opened it, it is closed again."""
    device.install(SECRET_FILE)
    password = device.file(PASSWORD)
    assert password.stat().st_mode & 0o777 == 0o600
    password.chmod(0o644)
    assert device.install(SECRET_FILE) == (str(PASSWORD),)
    assert password.stat().st_mode & 0o777 == 0o600


def test_nothing_that_others_may_read_helps_to_guess_the_password(device: Device) -> None:
    """The record names its file and says no more; where an earlier version has kept a digest, that goes, too."""
    device.install(*ALL)
    assert device.record.files[str(PASSWORD)] == ""
    known = {**device.record.files, str(PASSWORD): digest(SECRET_FILE.text)}
    disk.write(ALL[:-1], Record(known, device.record.folders), device.root)
    assert device.record.files[str(PASSWORD)] == ""


def test_what_somebody_changed_or_added_stays_and_is_named(device: Device) -> None:
    """Settings changed by hand and `systemctl edit` outlive us, unless they are to be purged; a password never does."""
    before = device.tree()
    device.install(*ALL)
    record = device.record
    device.file(CONFIG).write_text("[mqtt]\n# mine\n")
    device.file(PASSWORD).write_text("changed\n")
    override = DROP_INS / "override.conf"
    device.file(override).write_text("[Service]\n")
    assert disk.remove(record, purge=False, root=device.root) == (str(CONFIG), str(override))
    assert not device.file(PASSWORD).exists()
    assert not device.file(UNIT_FILE).exists()
    assert disk.remove(record, purge=True, root=device.root) == ()
    assert device.tree() == before


def test_what_was_there_before_stays(device: Device) -> None:
    """A folder of models that we did not make, with what lies in it, is somebody else's."""
    device.file(Path(MODELS)).mkdir()
    (device.file(Path(MODELS)) / "mine.bin").write_text("weights")
    before = device.tree()
    device.install(UNIT)
    disk.remove(device.record, purge=True, root=device.root)
    assert device.tree() == before


def test_a_drop_in_that_is_no_longer_needed_goes(device: Device) -> None:
    """After the card has moved to a larger board; one that was changed by hand stays."""
    device.install(UNIT, LOW_MEMORY)
    assert device.install(UNIT) == (LOW_MEMORY.path,)
    assert not device.file(Path(LOW_MEMORY.path)).exists()
    device.install(UNIT, LOW_MEMORY)
    device.file(Path(LOW_MEMORY.path)).write_text("[Service]\nMemoryMax=2G\n")
    assert device.install(UNIT) == ()
    assert device.file(Path(LOW_MEMORY.path)).exists()


def test_a_disk_that_cannot_be_written_is_one_line(device: Device) -> None:
    """Which file, and why."""
    (device.root / "etc/edgescribe").write_text("a file where a folder should be")
    with pytest.raises(InstallError, match="cannot be"):
        device.install(*ALL)


@pytest.mark.parametrize("whole", range(1, len(ALL)))
def test_an_installation_that_is_cut_off_can_be_finished_and_removed(
    whole: int, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full after `whole` files: they are known as ours, and neither stay behind nor need --force."""
    before = device.tree()
    put, names = write_whole, {file.path for file in ALL[whole:]}

    def fill(path: Path, text: str, mode: int) -> None:
        if f"/{path.relative_to(device.root)}" in names:
            raise OSError(28, "No space left on device", str(path))
        put(path, text, mode)

    with monkeypatch.context() as patched:
        patched.setattr(disk, "write_whole", fill)
        with pytest.raises(InstallError, match="No space left"):
            device.install(*ALL)
    assert device.record.wrote(UNIT.path, UNIT.text)
    assert disk.remove(device.record, purge=False, root=device.root) == ()
    assert device.tree() == before


def test_a_record_that_is_none_is_one_line() -> None:
    """A damaged record is not taken for an empty one: then everything would look like somebody else's."""
    for text in ("", "[]", '{"files": 3, "folders": []}'):
        with pytest.raises(InstallError, match=r"installed\.json: not a record"):
            Record.from_text(text)
