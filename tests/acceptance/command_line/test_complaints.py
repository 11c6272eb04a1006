"""What `edgescribe` says where it cannot do what is asked, in one line, and how it exits."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.command_line.conftest import CLIP, CLIP_TEXT, MODEL, NO_BROKER, SCRIPTED, Edgescribe
from tests.support.agent_process import options
from tests.support.bundled import RECORDING
from tests.support.mosquitto import free_port
from tests.support.words import words


@pytest.fixture
def store(tmp_path: Path, pulled: Callable[[str], Path]) -> Path:
    """A copy of a real model in a store that may be damaged; the path of its file."""
    source = pulled(MODEL)
    folder = tmp_path / "store" / MODEL
    shutil.copytree(source.parent, folder)
    return folder / source.name


def complaint(done: "subprocess.CompletedProcess[str]", status: int) -> str:
    """The one line that was said, held to be one line, ours, and not a trace."""
    assert done.stdout == ""
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith("edgescribe: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.endswith("\n")
    return done.stderr


def flip_a_byte(path: Path) -> None:
    """Change one bit in the middle of the weights."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ["COMMAND", "edgescribe --help"]),
        (["trascribe"], ["'trascribe'", "transcribe", "edgescribe --help"]),
        (["transcribe"], ["FILE", "edgescribe transcribe --help"]),
        (["run", "--fast"], ["--fast"]),
        (["models"], ["ACTION", "edgescribe models --help"]),
        (["models", "quantise", "a.bin", "b.bin", "--type", "q3_k"], ["q3_k", "q8_0"]),
    ],
)
def test_a_command_line_that_makes_no_sense(edgescribe: Edgescribe, arguments: list[str], said: list[str]) -> None:
    """One line names what is wrong and where help is; exit 2, as with every Unix program."""
    line = complaint(edgescribe(*arguments), 2)
    assert [word for word in said if word not in line] == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["foo=1"], ["foo is not a setting"]),
        (["engine.thread=1"], ["engine.thread is not a setting", "did you mean engine.threads?"]),
        (["engine.threads=many"], ["engine.threads", '"many"', "0 to 64"]),
        (["engine.kind=whisper"], ["engine.kind", '"whisper"', "whisper_cpp, faster_whisper"]),
        (["engine.threads"], ["--set engine.threads", "KEY=VALUE"]),
        (["source.kind=wav"], ["source.path is missing"]),
        (["mqtt.enabled=false"], ["nobody would see the transcripts", "stdout.enabled"]),
    ],
)
@pytest.mark.parametrize("verb", ["run", "check"])
def test_a_setting_that_makes_no_sense(edgescribe: Edgescribe, verb: str, settings: list[str], said: list[str]) -> None:
    """Key, value and remedy in one line; 78, so that systemd does not try again."""
    line = complaint(edgescribe(verb, *[part for setting in settings for part in ("--set", setting)]), 78)
    assert [word for word in said if word not in line] == []


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('[mqtt]\nhots = "x"\n', [":2: ", "mqtt.hots is not a setting", "did you mean mqtt.host?"]),
        ('[mqqt]\nhost = "x"\n', ["mqqt is not a setting", "did you mean mqtt?"]),
        ("[mqtt]\nport = 99999\n", [":2: ", "mqtt.port = 99999", "1 to 65535"]),
        ('[mqtt\nhost = "x"\n', [":1: ", "not valid TOML"]),
        ("[mqtt]\nhost = \xe4\n", ["not UTF-8"]),
    ],
)
def test_a_configuration_file_that_makes_no_sense(
    edgescribe: Edgescribe, tmp_path: Path, toml: str, said: list[str]
) -> None:
    """File, line, key and remedy in one line; 78."""
    file = tmp_path / "wrong.toml"
    file.write_bytes(toml.encode("latin-1"))
    line = complaint(edgescribe("run", "--config", file), 78)
    assert [word for word in [str(file), *said] if word not in line] == []


def test_a_variable_that_makes_no_sense(edgescribe: Edgescribe) -> None:
    """A misspelt `EDGESCRIBE_` variable is no silent no-op: it is named, with what was meant; 78."""
    line = complaint(edgescribe("run", EDGESCRIBE_ENGIN__THREADS="2"), 78)
    assert "EDGESCRIBE_ENGIN__THREADS" in line
    assert "did you mean engine.threads?" in line


def test_a_configuration_file_that_is_not_there(edgescribe: Edgescribe) -> None:
    """The file that was asked for is named, and who asked for it; 78."""
    line = complaint(edgescribe("run", "--config", "/nowhere/config.toml"), 78)
    assert "/nowhere/config.toml" in line
    assert "--config" in line


def bad_recordings(folder: Path) -> dict[str, Path]:
    """What people give a transcriber by mistake."""
    (folder / "text.wav").write_text("Dear diary,\n" * 100, encoding="utf-8")
    (folder / "empty.wav").touch()
    (folder / "folder.wav").mkdir()
    return {name: folder / f"{name}.wav" for name in ("missing", "text", "empty", "folder")}


@pytest.mark.parametrize("name", ["missing", "text", "empty", "folder"])
def test_what_is_no_recording(edgescribe: Edgescribe, tmp_path: Path, name: str) -> None:
    """One line names the file and what can be read; 65, from `transcribe` and from `run` alike."""
    path = bad_recordings(tmp_path)[name]
    transcribed = edgescribe("transcribe", path, *SCRIPTED)
    listened = edgescribe("run", *SCRIPTED, *NO_BROKER, "--set", "source.kind=wav", "--set", f"source.path={path}")
    for done in (transcribed, listened):
        line = complaint(done, 65)
        assert str(path) in line
        assert "WAV, FLAC, OGG" in line


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"engine__model": "tiny.em-q8_0"}, ["unknown model tiny.em-q8_0", "did you mean tiny.en-q8_0"]),
        ({"engine__model": "nonsense"}, ["unknown model nonsense", "edgescribe models list"]),
        ({"engine__model": "base-q8_0"}, ["not on this device", "edgescribe models pull base-q8_0"]),
        ({"engine__model": "tiny.en-ct2"}, ["ctranslate2", "needs ggml", "edgescribe models list"]),
        ({"engine__language": "de"}, ["tiny.en-q8_0", "knows English only", 'set engine.model = "tiny-q8_0"']),
        ({"engine__language": "zz"}, ['engine.language = "zz"', "a language code that Whisper knows"]),
        ({"engine__model": "/nowhere/own.bin"}, ["/nowhere/own.bin", "no such model"]),
        ({"engine__model": str(CLIP)}, [str(CLIP), "not a ggml file", "edgescribe models convert"]),
        ({"engine__kind": "faster_whisper", "engine__model": "tiny.en-q8_0"}, ["ggml", "needs ctranslate2"]),
        ({"engine__kind": "faster_whisper", "engine__model": str(CLIP)}, [str(CLIP), "CTranslate2 needs a folder"]),
    ],
)
def test_a_model_that_cannot_be_used(edgescribe: Edgescribe, settings: dict[str, str], said: list[str]) -> None:
    """One line names the model and the remedy; 78, from `transcribe` and from `run` alike."""
    transcribed = edgescribe("transcribe", CLIP, *options(settings))
    listened = edgescribe("run", *options({**settings, "source__kind": "wav", "source__path": CLIP}))
    for done in (transcribed, listened):
        line = complaint(done, 78)
        assert [word for word in said if word not in line] == []


@pytest.mark.weights
def test_a_model_in_the_store_that_is_not_what_it_should_be(edgescribe: Edgescribe, store: Path) -> None:
    """One flipped bit, then a cut: both are noticed before native code sees the file, and how to repair it is said."""
    settings = options({"models__dir": store.parent.parent})
    sound = edgescribe("transcribe", CLIP, *settings)
    assert (sound.returncode, words(sound.stdout)) == (0, words(CLIP_TEXT)), sound.stderr

    flip_a_byte(store)
    line = complaint(edgescribe("transcribe", CLIP, *settings), 78)
    assert "digest" in line
    assert f"edgescribe models pull {MODEL}" in line

    os.truncate(store, 20_000_000)
    line = complaint(edgescribe("transcribe", CLIP, *settings), 78)
    assert "20000000 bytes instead of 43550795" in line
    assert f"edgescribe models pull {MODEL}" in line


@pytest.mark.weights
def test_an_own_model_that_changes(edgescribe: Edgescribe, store: Path, tmp_path: Path) -> None:
    """A file by path is taken as it is the first time; if it changes or is cut, that is said and it is not used."""
    own = tmp_path / "own.bin"
    shutil.copy(store, own)
    settings = options({"engine__model": own})
    assert edgescribe("transcribe", CLIP, *settings).returncode == 0

    flip_a_byte(own)
    line = complaint(edgescribe("transcribe", CLIP, *settings), 78)
    assert str(own) in line
    assert f"edgescribe models trust {own}" in line

    os.truncate(own, 20_000_000)
    line = complaint(edgescribe("transcribe", CLIP, *settings), 78)
    assert f"{own}: cut short or damaged" in line


@pytest.mark.alsa
def test_a_microphone_that_is_not_there(edgescribe: Edgescribe) -> None:
    """The device is named and what to set instead, without a word from libasound itself; 69."""
    line = complaint(edgescribe("run", *SCRIPTED, *NO_BROKER, "--set", "source.device=plughw:CARD=Absent"), 69)
    assert 'cannot open the microphone "plughw:CARD=Absent"' in line
    assert "source.device" in line or "plug one in" in line


def test_one_bad_file_does_not_keep_the_others(edgescribe: Edgescribe) -> None:
    """The recordings before and behind it are transcribed; the exit code tells that something was wrong."""
    done = edgescribe("transcribe", CLIP, "/nowhere.wav", RECORDING, *SCRIPTED)
    assert done.returncode == 65
    assert done.stderr.count("\n") == 1
    assert "/nowhere.wav" in done.stderr
    before, _, behind = done.stdout.partition("/nowhere.wav:\n")
    assert before.splitlines() == [f"{CLIP}:", "one"]
    assert behind.splitlines()[:4] == [f"{RECORDING}:", "two", "three", "one"]


def test_check_asks_for_what_is_missing(edgescribe: Edgescribe) -> None:
    """A configuration that is fine but for the model is told how to get it; with nothing to miss it is fine."""
    line = complaint(edgescribe("check", "--set", "source.kind=wav", "--set", f"source.path={CLIP}"), 78)
    assert "edgescribe models pull tiny.en-q8_0" in line
    done = edgescribe("check", *SCRIPTED, "--set", "source.kind=wav", "--set", f"source.path={CLIP}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "configuration is fine\n", "")


def test_an_unknown_broker_is_said_once(edgescribe: Edgescribe) -> None:
    """A broker that refuses the connection: one line at the end, whatever the level of the log; 69."""
    settings = options(
        {
            "source__kind": "wav",
            "source__path": CLIP,
            "source__pace": "flat_out",
            "mqtt__host": "127.0.0.1",
            "mqtt__port": free_port(),
            "log__level": "error",
        }
    )
    line = complaint(edgescribe("run", *SCRIPTED, *settings), 69)
    assert "edgescribe: 1 message could not be delivered" in line
