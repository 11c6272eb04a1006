import json
from pathlib import Path

import pytest

from agent.config.settings import Settings
from agent.models.calibration import (
    NAME,
    CalibrationError,
    Skipped,
    as_json,
    folder_of,
    read_calibration,
    write_calibration,
)
from tests.calibrations import calibration, measurement

DOCUMENT = calibration(
    measurement("whisper_cpp", "tiny.en-q8_0"),
    measurement("faster_whisper", "base-ct2", errors=1),
    skipped=[Skipped("whisper_cpp", "small-q8_0", "no time was left for it")],
)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    """All of it, into a folder that need not exist yet, readable by the service whoever wrote it."""
    path = write_calibration(tmp_path / "state", DOCUMENT)
    assert read_calibration(tmp_path / "state") == DOCUMENT
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_a_new_one_takes_the_place_of_the_old(tmp_path: Path) -> None:
    """Calibrating again is enough."""
    write_calibration(tmp_path, DOCUMENT)
    other = calibration(measurement("faster_whisper", "tiny.en-ct2"))
    write_calibration(tmp_path, other)
    assert read_calibration(tmp_path) == other


def test_no_file_is_told_with_the_remedy(tmp_path: Path) -> None:
    """The first start on a new device."""
    with pytest.raises(CalibrationError, match="not calibrated: run `edgescribe calibrate`"):
        read_calibration(tmp_path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is damaged"),
        ("[]", "not written by this version"),
        ('{"v": 99}', "not written by this version"),
        ('{"v": 1}', "measured_at is not as it was written"),
        (as_json(DOCUMENT).replace('"whisper_cpp"', '"/bin/sh"'), "engine is not as it was written"),
        (as_json(DOCUMENT)[:-40], "is damaged"),
    ],
)
def test_what_was_not_written_by_us_is_not_believed(tmp_path: Path, text: str, problem: str) -> None:
    """Torn, of another version, or edited: one line with the remedy, never a traceback."""
    (tmp_path / NAME).write_text(text, encoding="utf-8")
    with pytest.raises(CalibrationError, match=problem) as caught:
        read_calibration(tmp_path)
    assert str(caught.value).endswith("run `edgescribe calibrate` again")
    assert "\n" not in str(caught.value)


def test_where_nothing_can_be_written_it_is_said(tmp_path: Path) -> None:
    """A file in the place of the folder, here."""
    (tmp_path / "state").touch()
    with pytest.raises(CalibrationError, match="cannot be written"):
        write_calibration(tmp_path / "state", DOCUMENT)


def test_the_document_is_json_for_other_programs_too() -> None:
    """With its version, so that they can tell."""
    document = json.loads(as_json(DOCUMENT))
    assert document["v"] == 1
    assert document["choice"]["candidate"] == {"engine": "faster_whisper", "model": "base-ct2", "threads": 1}
    assert len(document["measurements"]) == 2


def test_root_calibrates_for_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sudo edgescribe calibrate` is the remedy that the service names, so the service has to find the result."""
    monkeypatch.delenv("EDGESCRIBE_STATE_DIR", raising=False)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setattr("agent.models.calibration.SERVICE_STATE", tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert folder_of(Settings()) == tmp_path
    assert folder_of(Settings(state_dir=tmp_path / "own")) == tmp_path / "own"
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert folder_of(Settings()) != tmp_path
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "systemd"))
    assert folder_of(Settings()) == tmp_path / "systemd"
    with pytest.raises(CalibrationError, match="run `sudo edgescribe calibrate`"):
        read_calibration(tmp_path)
