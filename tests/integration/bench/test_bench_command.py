"""`edgescribe bench` from end to end, with the engine that needs no weights."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from agent.audio.frames import SAMPLE_RATE_HZ
from agent.bench import score
from agent.bench.latency import quiet_room
from agent.bench.records import FILE_NAME, Measurement, read_journal
from agent.cli import parser
from agent.errors import ConfigError, ModelError

SCRIPTED = ("--system", "scripted:none", "--system", "scripted:none:delay_s=0.01")


def run(tmp_path: Path, *arguments: str) -> int:
    """The verb, with results and models in `tmp_path`."""
    places = ("--out", str(tmp_path / "out"), "--set", f"state_dir={tmp_path}")
    args = parser("bench").parse_args(["bench", *arguments, *places])
    status: int = args.run(args)
    return status


def measured(tmp_path: Path) -> list[Measurement]:
    """What is in the raw results."""
    return [record for record in read_journal(tmp_path / "out") if isinstance(record, Measurement)]


def test_a_run_leaves_tables_json_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every bundled clip goes through every system, and the figures are in all three places."""
    assert run(tmp_path, *SCRIPTED, "--limit", "3") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    names = ["scripted:none", "scripted:none:delay_s=0.01"]
    assert len(measured(tmp_path)) == 6
    assert sorted(system["name"] for system in report["systems"]) == names
    assert all(system["error_rate"]["value"] > 0.5 for system in report["systems"])
    for text in (capsys.readouterr().out, (tmp_path / "out" / "report.html").read_text()):
        assert all(name in text for name in names)


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """What was measured is kept, what was cut short is done again, and nothing is done twice."""
    run(tmp_path, *SCRIPTED, "--limit", "3")
    path = tmp_path / "out" / FILE_NAME
    before = measured(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    run(tmp_path, *SCRIPTED, "--limit", "3", "--resume")
    after = measured(tmp_path)
    assert after[:-1] == before[:-1]
    assert len(after) == len(before)


def test_a_second_pass_is_taken_when_it_is_asked_for(tmp_path: Path) -> None:
    """A run may grow from pass to pass: what the first has does not stand for the second, and is not taken again."""
    run(tmp_path, *SCRIPTED, "--limit", "2")
    first = measured(tmp_path)
    run(tmp_path, *SCRIPTED, "--limit", "2", "--repeats", "2", "--resume")
    both = measured(tmp_path)
    assert both[: len(first)] == first
    assert sorted((one.system, one.step) for one in both[len(first) :]) == sorted(
        (one.system, one.step) for one in first
    )
    assert {one.repeat for one in both[len(first) :]} == {1}


def test_results_are_not_mixed_by_accident(tmp_path: Path) -> None:
    """A second run into the same folder must say that it is the same one."""
    run(tmp_path, *SCRIPTED, "--limit", "1")
    with pytest.raises(ConfigError, match="--resume"):
        run(tmp_path, *SCRIPTED, "--limit", "1")


def test_taking_turns_in_memory_changes_no_result(tmp_path: Path) -> None:
    """With room for one system only, all clips are still measured."""
    run(tmp_path, *SCRIPTED, "--limit", "3", "--resident", "1")
    assert len({(m.system, m.step) for m in measured(tmp_path)}) == 6


def test_another_run_is_not_taken_for_the_same(tmp_path: Path) -> None:
    """The name of a system says nothing of --threads and of defaults, and results of both would be mixed."""
    run(tmp_path, "--system", "scripted:none", "--limit", "1", "--threads", "1")
    before = measured(tmp_path)
    with pytest.raises(ConfigError, match=r"scripted:none with threads 1, not 2: .*another --out"):
        run(tmp_path, "--system", "scripted:none", "--limit", "2", "--threads", "2", "--resume")
    assert measured(tmp_path) == before
    run(tmp_path, "--system", "scripted:none", "--limit", "2", "--threads", "1", "--resume")
    assert len(measured(tmp_path)) == 2


def test_an_engine_without_a_model_has_no_peers(tmp_path: Path) -> None:
    """--peers is for models; what has none is measured by itself."""
    assert run(tmp_path, "--system", "scripted", "--peers", "--limit", "1") == 0
    assert [one.system for one in measured(tmp_path)] == ["scripted"]


def recordings(folder: Path) -> Path:
    """A set of three clips, of which the second is no recording."""
    folder.mkdir()
    rows = ["id\tfile\tseconds\tlanguage\ttext"]
    for number in range(3):
        rows.append(f"{number}\t{number}.wav\t1.0\ten\thello")
        soundfile.write(folder / f"{number}.wav", quiet_room(SAMPLE_RATE_HZ), SAMPLE_RATE_HZ)
    (folder / "1.wav").write_text("no sound")
    (folder / "manifest.tsv").write_text("\n".join(rows) + "\n")
    return folder


def test_a_recording_that_cannot_be_read_costs_only_itself(tmp_path: Path) -> None:
    """The others are measured, and the report says which one was not, and why."""
    assert run(tmp_path, str(recordings(tmp_path / "set")), "--system", "scripted:none") == 0
    assert {one.clip_id for one in measured(tmp_path)} == {"0", "2"}
    (failure,) = json.loads((tmp_path / "out" / "report.json").read_text())["failures"]
    assert failure["step"] == "set/1"
    assert "1.wav is not a sound file" in failure["reason"]


def test_the_report_says_what_was_not_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A system that knows English only has fewer clips than the others, and nobody should have to guess why."""
    folder = recordings(tmp_path / "set")
    manifest = folder / "manifest.tsv"
    manifest.write_text(manifest.read_text().replace("1.0\ten", "1.0\tde", 2))
    run(tmp_path, str(folder), "--system", "scripted:tiny.en-q8_0", "--system", "scripted:tiny-q8_0")
    assert "clips left out, as scripted:tiny.en-q8_0 knows English only: 2 in de" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["left_out"] == [{"system": "scripted:tiny.en-q8_0", "clips": {"de": 2}}]


def test_a_recording_that_is_not_there_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    """Hours later would be too late."""
    folder = recordings(tmp_path / "set")
    (folder / "1.wav").unlink()
    (folder / "2.wav").unlink()
    with pytest.raises(ConfigError, match=r"1\.wav: .*2 of 3 files are missing"):
        run(tmp_path, str(folder), "--system", "scripted:none")
    assert not (tmp_path / "out").exists()


def test_a_baseline_is_found_by_its_path_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    """Whatever name a system has in the results; one that was measured before counts as well."""
    out = tmp_path / "out"
    with pytest.raises(
        ConfigError, match=r"--baseline whisper_cpp:nobody: .*scripted:none, scripted:none:delay_s=0\.01"
    ):
        run(tmp_path, *SCRIPTED, "--limit", "1", "--baseline", "whisper_cpp:nobody")
    assert not out.exists()
    run(tmp_path, *SCRIPTED, "--limit", "1", "--baseline", "scripted:/some/folder/none:delay_s=0.01")
    assert json.loads((out / "report.json").read_text())["baseline"] == SCRIPTED[-1]
    run(tmp_path, "--system", "scripted", "--limit", "1", "--resume", "--baseline", SCRIPTED[1])
    assert json.loads((out / "report.json").read_text())["baseline"] == SCRIPTED[1]


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ((), ConfigError, "no model is installed"),
        (("--system", "whisper_cpp:tiny.en-q8_0"), ModelError, "models pull tiny.en-q8_0"),
        (("--system", "scripted:none", "--language", "de", "--skip", "demo"), ConfigError, "no clip is left"),
        (("--latency", "--system", "stock-pywhispercpp:tiny.en-q8_0"), ConfigError, "whole system"),
        (("/nowhere", "--system", "scripted:none"), ConfigError, "nowhere"),
        (("--stream", "--system", "scripted:none"), ConfigError, "--stream"),
        (("--stream", "--system", "stock-faster-whisper:tiny.en-ct2"), ConfigError, "--stream"),
        (("--system", "scripted:none", "--noise", "/nowhere"), ConfigError, "/nowhere"),
        (("--latency", "--system", "scripted:none:hang_over_ms=1"), ConfigError, "hang_over_ms"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    tmp_path: Path, arguments: tuple[str, ...], error: type[Exception], complaint: str
) -> None:
    """The message says what is missing and what to do."""
    with pytest.raises(error, match=complaint) as raised:
        run(tmp_path, *arguments)
    assert "\n" not in str(raised.value)


@pytest.fixture
def no_normaliser(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without the extra `bench`."""
    monkeypatch.setitem(sys.modules, "whisper_normalizer", None)
    for name in ("basic", "english"):
        monkeypatch.setitem(sys.modules, f"whisper_normalizer.{name}", None)
    score.normaliser.cache_clear()


@pytest.mark.usefixtures("no_normaliser")
def test_what_could_not_be_scored_is_not_measured(tmp_path: Path) -> None:
    """Without the normaliser a run is refused before it leaves anything behind."""
    with pytest.raises(ConfigError, match="the extra `bench`"):
        run(tmp_path, *SCRIPTED, "--limit", "1")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_normaliser")
def test_noise_needs_no_normaliser(tmp_path: Path) -> None:
    """Where nothing is said there are no error rates: such clips are measured without the extra."""
    sound = tmp_path / "noise.wav"
    soundfile.write(sound, np.zeros(8_000, dtype=np.int16), 16_000)
    manifest = tmp_path / "clips.tsv"
    rows = (("id", "file", "seconds", "language", "text"), ("1", sound.name, "0.5", "none", ""))
    manifest.write_text("".join("\t".join(row) + "\n" for row in rows))
    assert run(tmp_path, str(manifest), *SCRIPTED) == 0
