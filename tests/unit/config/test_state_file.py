"""What other programs, bad cards and people leave in the state folder: no file of it ends the agent."""

import json
from pathlib import Path

import pytest

from agent.config.commanded import FILE as CHANGES
from agent.config.commanded import LISTENING, Applied
from agent.config.settings import Settings
from agent.config.state_file import read_json, write_json
from agent.models.calibration import NAME, CalibrationError, as_json, read_calibration
from agent.models.store import Ledger
from agent.mqtt.discovery import FILE as ANNOUNCED
from agent.mqtt.sequence import Sequence
from tests.calibrations import calibration, measurement
from tests.unit.mqtt.test_discovery import DEVICE, FACTS
from tests.unit.mqtt.test_discovery_announcer import Rig

HUGE = "1" + 400 * "0"
HOSTILE = {
    "empty": b"",
    "torn": b'{"next": 4',
    "binary": bytes(range(256)),
    "deep list": 100_000 * b"[",
    "deep table": 100_000 * b'{"next":',
    "endless number": b'{"next": ' + 10_000 * b"9" + b"}",
    "surrogate": b'{"next": "\\ud800", "\\ud800": 1}',
    "another encoding": '{"next": 1}'.encode("utf-16")[:-1],
    "null": b"null",
    "number": b"7",
    "text": b'"next"',
    "list": b"[[], {}]",
}
"""Contents that the agent never writes."""
NUMBERS = (
    "Infinity",
    "-Infinity",
    "NaN",
    "1e400",
    HUGE,
    str(2**63),
    str(2**53 + 1),
    "0",
    "-1",
    "true",
    "4.5",
    '"4"',
    "[]",
)
"""Values in the place of a number to go on with."""


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_json_is_one_kind_of_error(tmp_path: Path, content: bytes) -> None:
    """A reader has to catch `ValueError` and `OSError`, and nothing else."""
    path = tmp_path / "file.json"
    path.write_bytes(content)
    try:
        read_json(path)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017 - some of them are JSON


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A half-written file of a crash is no obstacle, and a failed write leaves the old file."""
    path = tmp_path / "state" / "file.json"
    write_json(path, {"a": 1})
    (path.parent / ".file.json.new").mkdir()
    with pytest.raises(OSError, match="file"):
        write_json(path, {"a": 2})
    (path.parent / ".file.json.new").rmdir()
    (path.parent / ".file.json.new").write_bytes(b"half")
    assert read_json(path) == {"a": 1}
    write_json(path, {"a": 3}, mode=0o644)
    assert (read_json(path), path.stat().st_mode & 0o777) == ({"a": 3}, 0o644)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_that_cannot_be_is_no_number_to_go_on_with(
    tmp_path: Path, number: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Counting starts anew from the other notes, and one line says so."""
    (tmp_path / "sequence.json").write_text(f'{{"next": {number}, "exact": true, "keeper": null}}', encoding="utf-8")
    sequence = Sequence(tmp_path, None, "boot-1", stored_next=7, counter="database")
    assert (sequence.next(), sequence.damaged) == (7, True)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    sequence.close()
    assert read_json(tmp_path / "sequence.json")["next"] == 8


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_no_file_of_the_state_folder_ends_the_agent(tmp_path: Path, content: bytes) -> None:
    """Each reader goes on as on the first day."""
    for name in ("sequence.json", CHANGES, NAME, ANNOUNCED, "verified.json"):
        (tmp_path / name).write_bytes(content)
    assert Sequence(tmp_path, None, "boot-1", stored_next=None, counter="database").next() == 1
    applied = Applied(tmp_path)
    assert applied.overlay(Settings()) == Settings()
    assert applied.remember(LISTENING, value=False)
    assert not Applied(tmp_path).listening
    with pytest.raises(CalibrationError):
        read_calibration(tmp_path)
    Rig(tmp_path, DEVICE)
    ledger, model = Ledger(tmp_path), tmp_path / "model.bin"
    model.write_bytes(b"weights")
    assert ledger.trusted(model) is None
    ledger.trust(model, ledger.digest(model))
    assert Ledger(tmp_path).trusted(model) == ledger.digest(model)


@pytest.mark.parametrize("value", ["Infinity", "[[]]", HUGE, "-1", '"\\ud800"', '"x"', "[" * 900 + "]" * 900])
def test_no_value_of_a_change_ends_the_agent(tmp_path: Path, value: str) -> None:
    """Values that no command can have set are left out, and the next command is kept."""
    text = (
        f'{{"vad.threshold": {{"value": {value}, "instead_of": 0.5}}, "x": {{"value": {value}, "instead_of": null}}}}'
    )
    (tmp_path / CHANGES).write_text(text, encoding="utf-8")
    applied = Applied(tmp_path)
    assert applied.overlay(Settings()).vad == Settings().vad
    assert applied.remember("vad.threshold", 0.7)


@pytest.mark.parametrize(
    "changes",
    [
        {"prefix": "home#"},
        {"prefix": "home\0"},
        {"prefix": "\ud800"},
        {"prefix": 7},
        {"device_id": "a/b"},
        {"components": ["rtf"]},
        {"components": {"rtf": 7}},
        {"components": {"+": "sensor"}},
        {"mode": "whole"},
    ],
)
def test_no_topic_is_made_of_what_was_never_announced(tmp_path: Path, changes: dict[str, object]) -> None:
    """A topic that the broker refuses would break the connection again and again."""
    sound = {"mode": "component", "prefix": "homeassistant", "device_id": "old", "components": {"rtf": "sensor"}}
    (tmp_path / ANNOUNCED).write_text(json.dumps(sound | changes), encoding="utf-8")
    rig = Rig(tmp_path, DEVICE)
    rig.announcer.announce(FACTS)
    assert [outgoing.topic for outgoing in rig.link.taken() if not outgoing.payload] == []


@pytest.mark.parametrize("threads", ["-1", "1000000000", HUGE, "null"])
def test_a_calibration_with_impossible_figures_is_none(tmp_path: Path, threads: str) -> None:
    """The engine would refuse them with a traceback."""
    text = as_json(calibration(measurement("whisper_cpp", "tiny.en-q8_0", threads=3)))
    assert '"threads": 3' in text
    (tmp_path / NAME).write_text(text.replace('"threads": 3', f'"threads": {threads}'), encoding="utf-8")
    with pytest.raises(CalibrationError, match="is not as it was written"):
        read_calibration(tmp_path)
