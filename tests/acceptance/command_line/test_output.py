"""What `edgescribe` shows when all is well: to people, to programs, and to readers that leave."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.command_line.conftest import CLIP, CLIP_TEXT, ESCAPE, MODEL, NO_BROKER, SCRIPTED, Edgescribe
from tests.support.agent_process import LIMIT_S, command, environment, options
from tests.support.bundled import RECORDING, sentences
from tests.support.receiver import eventually
from tests.support.words import errors, words

VERBS = (
    *("run", "demo", "transcribe", "models", "devices", "service", "config", "check"),
    *("doctor", "bench", "calibrate", "watch", "top"),
)


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


def in_a_terminal(folder: Path, *arguments: str, **wishes: str) -> tuple[int, str]:
    """Run in a terminal of 60 columns; exit status and everything that it showed. `wishes` are further variables."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 60, 0, 0))
    variables = environment(folder, TERM="xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE"):
        variables.pop(name, None)
    variables.update(wishes)
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


@pytest.mark.parametrize("wish", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["colours", "NO_COLOR", "dumb"])
@pytest.mark.parametrize("verb", ["doctor", "models list", "transcribe"])
def test_who_wants_no_escapes_gets_none(tmp_path: Path, verb: str, wish: dict[str, str]) -> None:
    """By NO_COLOR, or because the terminal knows none: not bold or dim either. Lines stay within the terminal."""
    arguments = {
        "doctor": ["doctor", "--no-mic", "--set", "mqtt.enabled=false"],
        "models list": ["models", "list"],
        "transcribe": ["transcribe", str(CLIP), *SCRIPTED],
    }[verb]
    _status, shown = in_a_terminal(tmp_path, *arguments, **wish)
    assert shown.strip()
    assert (ESCAPE in shown) is not bool(wish)
    if verb == "doctor":
        prose = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines() if "/" not in line]
        assert max(len(line) for line in prose) <= 60


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
    script = (
        f"import runpy, shutil, sys; {hide}; sys.argv[1:] = ['demo']; runpy.run_module('agent', run_name='__main__')"
    )
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
    said = " ".join(sentences())
    wrong, count = errors(said, " ".join(text for text, _, _ in shown)), len(words(said))
    assert wrong <= 0.05 * count, shown
    assert f"Of {count} words that were said, {count - wrong} came through right." in done.stdout
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
    children = descendants(process.pid)
    assert len(children) >= 2
    process.send_signal(number)
    rest, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, rest
    assert "Traceback" not in rest
    assert "offline" in rest
    assert re.search(r"\d transcripts? in \d+ messages", rest)
    assert eventually(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 20.0)


def descendants(pid: int) -> list[int]:
    """Processes that `pid` has started, and those that they have."""
    own = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [found for child in map(int, own) for found in (child, *descendants(child))]
