import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.models.calibration import as_json
from agent.mqtt.command_calibrate import Calibrator
from agent.mqtt.commands import Outcome
from tests.calibrations import calibration, measurement

FOUND = as_json(calibration(measurement("whisper_cpp", "tiny.en-q8_0"), measurement("faster_whisper", "tiny.en-ct2")))


def calibrator(script: str, limit_s: float = 60.0) -> Calibrator:
    """Runs a script instead of the verb."""
    return Calibrator((sys.executable, "-c", script), limit_s)


def measured(by: Calibrator, *options: str) -> Outcome:
    """What a calibration finds; in a thread of its own, whose priority stays low."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(by.measure, options).result(60)


def appears(path: Path) -> int:
    """The number in a file, once it is there."""
    limit_s = time.monotonic() + 60
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < limit_s
        time.sleep(0.02)
    return int(path.read_text())


def is_gone(pid: int) -> bool:
    """Whether a process ends within a while; a zombie has ended."""
    limit_s = time.monotonic() + 30
    while time.monotonic() < limit_s:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def test_what_was_chosen_is_told_with_the_figures() -> None:
    """Engine, model and threads of the document that was printed, and a row for each that was measured."""
    outcome = measured(calibrator(f"print({FOUND!r})"))
    assert outcome.code == "ok"
    assert outcome.result
    assert outcome.result["model"] in {"tiny.en-q8_0", "tiny.en-ct2"}
    assert outcome.result["model"] in outcome.msg
    assert {one["engine"] for one in outcome.result["measurements"]} == {"whisper_cpp", "faster_whisper"}


def test_the_process_gets_the_options_and_goes_behind_the_agent(tmp_path: Path) -> None:
    """The settings reach it; the processor and the memory are the agent's first."""
    written = tmp_path / "written"
    script = (
        "import os, sys; from pathlib import Path;"
        f"Path({str(written)!r}).write_text(repr((sys.argv[1:], os.nice(0))));"
        "sys.exit('edgescribe: no model is here')"
    )
    outcome = measured(calibrator(script), "--config", "a.toml", "--set", "state_dir=/x")
    assert (outcome.code, outcome.msg) == ("failed", "no model is here")
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert written.read_text() == repr((["--config", "a.toml", "--set", "state_dir=/x"], min(19, own + 5)))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("raise SystemExit(3)", "status 3"),
        ("print('{}')", "cannot be read"),
    ],
)
def test_whatever_goes_wrong_is_told(script: str, said: str) -> None:
    """A crash, a failure without a word, and nonsense."""
    outcome = measured(calibrator(script))
    assert outcome.code == "failed"
    assert said in outcome.msg


def test_a_measurement_that_hangs_is_ended() -> None:
    """The reply says how long it took."""
    assert "longer than 2 s" in measured(calibrator("import time; time.sleep(600)", limit_s=2.0)).msg


def test_the_end_of_the_agent_ends_it_with_all_its_processes(tmp_path: Path) -> None:
    """Also one in a session of its own that is stopped, as those are that wait for their turn; none is begun later."""
    written = tmp_path / "pid"
    script = (
        "import signal, subprocess, sys, time; from pathlib import Path;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True);"
        "child.send_signal(signal.SIGSTOP);"
        f"Path({str(written)!r}).write_text(str(child.pid)); time.sleep(600)"
    )
    busy = calibrator(script)
    with ThreadPoolExecutor(1) as executor:
        answer = executor.submit(busy.measure, ())
        pid = appears(written)
        busy.close()
        assert answer.result(60).code == "failed"
    assert is_gone(pid)
    assert measured(busy).msg == "the agent is stopping"
