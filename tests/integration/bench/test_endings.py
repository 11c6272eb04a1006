"""How a run ends that is not left to end by itself: nothing stays behind, and what was measured is reported."""

import os
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
    command = [sys.executable, "-m", "agent", "bench", *arguments, "--out", str(tmp_path / "out")]
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


def survivors(family: list[psutil.Process]) -> list[psutil.Process]:
    """Who is still there after a while; they are ended all the same."""
    left = psutil.wait_procs(family, timeout=5.0)[1]
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
        run.communicate(timeout=30)
    assert len(family) >= 2
    assert survivors(family) == []
    assert run.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
