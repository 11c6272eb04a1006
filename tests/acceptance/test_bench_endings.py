"""How a run ends that is not left to end by itself: nothing stays behind, and what was measured is reported."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

SLOW = ("--system", "scripted:none:delay_s=2", "--limit", "4")
_START_LIMIT_S = 60.0


def begin(tmp_path: Path, *arguments: str) -> "subprocess.Popen[str]":
    """`edgescribe bench …` with results in `tmp_path`."""
    environment = {key: text for key, text in os.environ.items() if not key.startswith("EDGESCRIBE_")}
    # Whoever runs the tests with nohup, or behind everything else, passes on that they are ignored.
    heard = ["env", "--default-signal=HUP,INT"]
    command = [*heard, sys.executable, "-m", "agent", "bench", *arguments, "--out", str(tmp_path / "out")]
    return subprocess.Popen(
        [*command, "--set", f"state_dir={tmp_path}"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def await_text(path: Path, text: str) -> None:
    """Until the file has it."""
    deadline_s = time.monotonic() + _START_LIMIT_S
    while not (path.exists() and text in path.read_text(encoding="utf-8")):
        assert time.monotonic() < deadline_s, f"nothing of {text} in {path}"
        time.sleep(0.1)


def family_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Everything it has started."""
    return psutil.Process(process.pid).children(recursive=True)


def plays(process: psutil.Process) -> bool:
    """Whether it is an agent that has its recording open."""
    with contextlib.suppress(psutil.Error):
        return any(file.path.endswith("recording.wav") for file in process.open_files())
    return False


def survivors(family: list[psutil.Process]) -> list[psutil.Process]:
    """Who is still there after a while; they are ended all the same."""
    left = psutil.wait_procs(family, timeout=60.0)[1]
    for process in left:
        process.kill()
    return left


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    """Systems are stopped between clips, and go all the same."""
    with begin(tmp_path, *SLOW, "--system", "scripted:none:delay_s=2,busy=1") as run:
        await_text(tmp_path / "out" / "raw.jsonl", '"Measurement"')
        family = family_of(run)
        run.send_signal(number)
        run.communicate(timeout=120)
    assert len(family) >= 2
    assert survivors(family) == []
    assert run.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_measured_until_then_is_reported(tmp_path: Path, number: signal.Signals) -> None:
    """Tables, page and figures of the clips so far, and how to go on."""
    with begin(tmp_path, *SLOW) as run:
        await_text(tmp_path / "out" / "raw.jsonl", '"Measurement"')
        run.send_signal(number)
        printed, said = run.communicate(timeout=120)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["systems"][0]["clips"] >= 1
    assert (tmp_path / "out" / "report.html").exists()
    assert "scripted:none" in printed
    assert "--resume" in said
    assert "Traceback" not in said
    assert run.returncode == 130


@pytest.mark.mosquitto
@pytest.mark.skipif(
    shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None, reason="mosquitto is missing"
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_agent_that_is_timed_is_ended_with_the_run(tmp_path: Path, number: signal.Signals) -> None:
    """It would play its recording to the end, for nobody."""
    with begin(tmp_path, "--latency", "--system", "scripted:none") as run:
        deadline_s = time.monotonic() + _START_LIMIT_S
        while not (agents := [one for one in family_of(run) if plays(one)]):
            assert time.monotonic() < deadline_s, "no agent has begun to play"
            time.sleep(0.1)
        run.send_signal(number)
        run.communicate(timeout=120)
    assert survivors(agents) == []
