"""`edgescribe transcribe` on recordings that come from elsewhere or are not whole."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.acceptance.command_line.conftest import CLIP, NO_BROKER, SCRIPTED, Edgescribe
from tests.support.agent_process import LIMIT_S, command, environment
from tests.support.bundled import RECORDING
from tests.support.clips import SAMPLE_RATE_HZ, clip


def piped(folder: Path, data: bytes, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Run `edgescribe` with `data` in a pipe at its standard input."""
    return subprocess.run(
        command(*arguments),
        input=data,
        capture_output=True,
        check=False,
        timeout=LIMIT_S,
        env=environment(folder),
    )


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input_is_a_recording(tmp_path: Path, name: str) -> None:
    """Behind a pipe and from a file alike."""
    done = piped(tmp_path, CLIP.read_bytes(), "transcribe", name, *SCRIPTED)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"one\n", b"")
    with CLIP.open("rb") as file:
        redirected = subprocess.run(
            command("transcribe", name, *SCRIPTED),
            stdin=file,
            capture_output=True,
            check=False,
            timeout=LIMIT_S,
            env=environment(tmp_path),
        )
    assert (redirected.returncode, redirected.stdout) == (0, b"one\n")


def test_an_agent_takes_its_recording_from_a_pipe(tmp_path: Path) -> None:
    """`source.path = "-"`."""
    source = ("--set", "source.kind=wav", "--set", "source.path=-", "--set", "source.pace=flat_out")
    done = piped(tmp_path, CLIP.read_bytes(), "run", *SCRIPTED, *NO_BROKER, *source)
    assert done.returncode == 0, done.stderr
    assert b'/transcript"' in done.stdout


def test_empty_standard_input_is_refused(tmp_path: Path) -> None:
    """In one line; 65."""
    done = piped(tmp_path, b"", "transcribe", "-", *SCRIPTED)
    assert (done.returncode, done.stdout) == (65, b"")
    assert done.stderr.count(b"\n") == 1
    assert b"standard input is empty" in done.stderr


def test_the_words_of_a_file_that_is_cut_off_are_printed(edgescribe: Edgescribe, tmp_path: Path) -> None:
    """As text and as JSON; then one line says what is missing; 65."""
    path = tmp_path / "cut.flac"
    path.write_bytes(RECORDING.read_bytes()[: RECORDING.stat().st_size // 2])
    text = edgescribe("transcribe", path, *SCRIPTED)
    as_json = edgescribe("transcribe", "--json", path, *SCRIPTED)
    (document,) = map(json.loads, as_json.stdout.splitlines())
    assert text.stdout.splitlines() == [utterance["text"] for utterance in document["utterances"]] != []
    for done in (text, as_json):
        assert done.returncode == 65
        assert done.stderr.count("\n") == 1
        assert str(path) in done.stderr


def test_one_channel_of_several_can_be_chosen(edgescribe: Edgescribe, tmp_path: Path) -> None:
    """Where the channels cancel each other, one line says so and which to choose; 65. With that one there are words."""
    path = tmp_path / "opposite.wav"
    speech = clip("en_conf-waitforleader")
    soundfile.write(path, np.stack([speech // 2, -speech], axis=1), SAMPLE_RATE_HZ)
    together = edgescribe("transcribe", path, *SCRIPTED)
    assert together.returncode == 0, "half of it is left"
    soundfile.write(path, np.stack([speech, -speech], axis=1), SAMPLE_RATE_HZ)
    cancelled = edgescribe("transcribe", path, *SCRIPTED)
    assert (cancelled.returncode, cancelled.stdout) == (65, "")
    assert cancelled.stderr.count("\n") == 1
    assert "--channel" in cancelled.stderr
    chosen = edgescribe("transcribe", "--channel", "2", path, *SCRIPTED)
    assert (chosen.returncode, chosen.stdout, chosen.stderr) == (0, "one\n", "")
    absent = edgescribe("transcribe", "--channel", "3", path, *SCRIPTED)
    assert (absent.returncode, absent.stdout) == (65, "")
