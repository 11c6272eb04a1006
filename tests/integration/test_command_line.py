"""`edgescribe` as people meet it: what it says, where it says it, and how it exits."""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from agent.cli import VERBS
from agent.demonstration import RECORDING, bundled_recording
from agent.presentation import score, words
from tests.clips import SPEECH
from tests.integration.agent_process import LIMIT_S, command, environment, options
from tests.integration.mosquitto import free_port
from tests.integration.receiver import eventually

CLIP = SPEECH / "en_conf-waitforleader.flac"
CLIP_TEXT = bundled_recording()[0].text
MODEL = "tiny.en-q8_0"
ESCAPE = "\x1b["


class Edgescribe(Protocol):
    """Runs `edgescribe` to its end, with its output in pipes."""

    def __call__(self, *arguments: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Return what it said."""


@pytest.fixture
def edgescribe(tmp_path: Path) -> Edgescribe:
    """With an empty configuration and nothing but what `variables` say."""

    def run(*arguments: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command(*map(str, arguments)),
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
            stdin=subprocess.DEVNULL,
            env=environment(tmp_path, **variables),
        )

    return run


@pytest.fixture
def store(tmp_path: Path, pulled: Callable[[str], Path]) -> Path:
    """A copy of a real model in a store that may be damaged; the path of its file."""
    source = pulled(MODEL)
    folder = tmp_path / "store" / MODEL
    shutil.copytree(source.parent, folder)
    return folder / source.name


SCRIPTED = options({"engine__kind": "scripted", "engine__texts": ["one", "two", "three"]})
NO_BROKER = options({"mqtt__enabled": False, "stdout__enabled": True})


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
        (["trascribe"], ["'trascribe'", "'transcribe'", "edgescribe --help"]),
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


@pytest.mark.weights
@pytest.mark.parametrize("model", [MODEL, "tiny.en-ct2"])
def test_json_has_the_documented_fields(edgescribe: Edgescribe, pulled: Callable[[str], Path], model: str) -> None:
    """A line a recording: file, text and utterances, each with its times, its words and the evidence for them."""
    path = pulled(model)
    folder = path.parent.parent if path.is_file() else path.parent
    store = options({"models__dir": folder})
    done = edgescribe("transcribe", "--json", "--model", model, CLIP, *store)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    document = json.loads(line)
    assert set(document) == {"file", "text", "utterances"}
    assert document["file"] == str(CLIP)
    assert words(document["text"]) == words(CLIP_TEXT)
    (utterance,) = document["utterances"]
    measured = {"start_s", "duration_s", "avg_logprob", "compression_ratio", "audio_ctx", "rtf"}
    described = {"text", "lang", "verdict", "engine", "model", "truncated", "segments"}
    assert measured | described <= set(utterance)
    assert utterance["model"] == model
    assert utterance["avg_logprob"] < 0
    assert utterance["rtf"] > 0
    assert [set(segment) for segment in utterance["segments"]] == [{"start_s", "end_s", "text"}]


def read_one_line(folder: Path, *arguments: str) -> tuple[str, int, str]:
    """As `edgescribe … | head -1` does: the line, and when all is over the exit status and what it complained of."""
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(folder),
    )
    assert process.stdout
    assert process.stderr
    line = process.stdout.readline()
    process.stdout.close()
    complaints = process.stderr.read()
    status = process.wait(LIMIT_S)
    process.stderr.close()
    return line, status, complaints


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    """`edgescribe transcribe … | head -1`: one line, then silence, and the exit code of a broken pipe."""
    slow = options({"engine__delay_s": 0.5})
    assert read_one_line(tmp_path, "transcribe", str(RECORDING), *SCRIPTED, *slow) == ("one\n", 141, "")


def test_a_reader_that_leaves_an_agent_has_heard_enough(tmp_path: Path) -> None:
    """`edgescribe run … | head -1` without a broker: the recording is played to its end, and nothing is undelivered."""
    slow = {"source__kind": "wav", "source__path": RECORDING, "source__pace": "flat_out", "engine__delay_s": 0.5}
    line, status, complaints = read_one_line(tmp_path, "run", *SCRIPTED, *NO_BROKER, *options(slow))
    assert line
    assert status == 0, complaints
    assert "delivered" not in complaints


def in_a_terminal(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run in a terminal of 60 columns; exit status and everything that it showed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 60, 0, 0))
    variables = environment(folder, TERM="xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE"):
        variables.pop(name, None)
    process = subprocess.Popen(command(*arguments), stdin=theirs, stdout=theirs, stderr=theirs, env=variables)
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    os.close(ours)
    return process.wait(LIMIT_S), shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # EIO: the other side has closed it
        return b""


def test_people_get_colours_and_times(tmp_path: Path, edgescribe: Edgescribe) -> None:
    """In a terminal a line begins with its time and long ones are indented; in a pipe there is nothing but words."""
    long = "so long a sentence that it cannot possibly fit into a line of sixty columns"
    engine = options({"engine__kind": "scripted", "engine__texts": [long]})
    status, shown = in_a_terminal(tmp_path, "transcribe", str(CLIP), *engine)
    assert status == 0
    assert ESCAPE in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r", "").splitlines()
    assert plain[0].startswith("   0:00.0  so long a sentence")
    assert all(line.startswith(" " * 11) for line in plain[1:])
    assert " ".join(line[11:].strip() for line in plain) == long

    piped = edgescribe("transcribe", CLIP, *engine)
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, f"{long}\n", "")


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_every_verb_explains_itself(edgescribe: Edgescribe, verb: str) -> None:
    """`--help` of everything says how to write it and what it is for."""
    done = edgescribe(*([verb] if verb else []), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {f'edgescribe {verb}'.strip()} ")
    description = done.stdout.split("\n\n")[1]
    assert description[0].isupper()
    if not verb:
        assert [name for name in VERBS if not re.search(rf"^    {name}\s", done.stdout, re.MULTILINE)] == []


def demo_command(broker: str) -> list[str]:
    """`edgescribe demo`; for amqtt, in a Python that finds no mosquitto."""
    if broker == "mosquitto":
        return command("demo")
    hide = "shutil.which = lambda name, *_, which=shutil.which, **k: None if name == 'mosquitto' else which(name, **k)"
    script = f"import shutil, sys; {hide}; from agent.__main__ import main; sys.argv[1:] = ['demo']; sys.exit(main())"
    return [command()[0], "-c", script]


@pytest.mark.weights
@pytest.mark.mosquitto
@pytest.mark.parametrize("broker", ["mosquitto", "amqtt"])
def test_the_demonstration_shows_what_a_subscriber_receives(
    tmp_path: Path, pulled: Callable[[str], Path], broker: str
) -> None:
    """Every sentence arrives by MQTT with its latency and confidence, then the summary; in a pipe without colours."""
    done = subprocess.run(
        demo_command(broker),
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
        env=environment(tmp_path, EDGESCRIBE_MODELS__DIR=str(pulled(MODEL).parent.parent)),
    )
    assert (done.returncode, done.stderr) == (0, f"{MODEL} is on this device already\n"), done.stdout
    assert f"Broker: {broker} at 127.0.0.1:" in done.stdout
    assert ESCAPE not in done.stdout
    shown = re.findall(r"transcript  (.*?)  \[(\d+\.\d\d) s after the last word, confidence (\d+) %\]", done.stdout)
    sentences = bundled_recording()
    said = " ".join(sentence.text for sentence in sentences)
    result = score(said, " ".join(text for text, _, _ in shown))
    assert result.right >= 0.95 * result.expected, shown
    assert f"Of {result.expected} words that were said, {result.right} came through right." in done.stdout
    assert re.search(r"status +online\n", done.stdout)
    assert re.search(r"status +offline\n", done.stdout)
    assert re.search(r"telemetry +cpu \d+ %", done.stdout)


@pytest.mark.weights
@pytest.mark.mosquitto
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demonstration_that_is_stopped_leaves_nothing_behind(
    tmp_path: Path, pulled: Callable[[str], Path], number: signal.Signals
) -> None:
    """Ctrl-C (or kill) ends the agent and the broker too, and the summary of what there was is still given."""
    process = subprocess.Popen(
        command("demo"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(tmp_path, EDGESCRIBE_MODELS__DIR=str(pulled(MODEL).parent.parent)),
    )
    assert process.stdout
    said = ""
    while "transcript  " not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    began = time.monotonic()
    children = descendants(process.pid)
    assert len(children) >= 2
    process.send_signal(number)
    rest, _ = process.communicate(timeout=LIMIT_S)
    assert time.monotonic() - began < 60.0
    assert process.returncode == 0, rest
    assert "Traceback" not in rest
    assert "offline" in rest
    assert re.search(r"\d transcripts? in \d+ messages", rest)
    assert eventually(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 20.0)


def descendants(pid: int) -> list[int]:
    """Processes that `pid` has started, and those that they have."""
    own = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [found for child in map(int, own) for found in (child, *descendants(child))]


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
