"""The unit under a real systemd: starts, hangs, dies, reloads and stops, inside its sandbox, with sound in it."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import REPOSITORY
from tests.deploy.systemd_host.conftest import Service
from tests.deploy.systemd_host.host import RigError, SystemdHost
from tests.support.receiver import eventually

# The first run fetches a Debian, which takes minutes.
pytestmark = [pytest.mark.systemd_host, pytest.mark.slow, pytest.mark.timeout(900)]

BASE = """\
source.device = "virtual_microphone"
mqtt.enabled = false
stdout.enabled = true
device.id = "pi-1"
"""
SCRIPTED = BASE + 'engine.kind = "scripted"\n'
DROP_INS = REPOSITORY / "systemd" / "drop-ins"
EDGESCRIBE = "/opt/edgescribe/current/bin/edgescribe"
BACK_S = 10.0
SHORT_WATCHDOG = "WatchdogSec=6"


@pytest.fixture
def measured() -> Callable[[str, float], None]:
    """Writes down how long something took, for `pytest -rP`."""

    def note(what: str, seconds: float) -> None:
        print(f"{what}: {seconds:.1f} s")  # noqa: T201 - shown by -rP

    return note


def published(host: SystemdHost, topic: str, since: str = "") -> list[Any]:
    """Payloads on a topic of the device."""
    lines = [json.loads(line) for line in host.journal(since).splitlines() if line.startswith('{"topic"')]
    return [line["payload"] for line in lines if line["topic"] == f"edgescribe/v1/pi-1/{topic}"]


def hears(host: SystemdHost, since: str = "") -> bool:
    """Whether it publishes what is said, within a generous limit."""
    return eventually(lambda: bool(published(host, "transcript", since)), 60.0)


def main(host: SystemdHost) -> psutil.Process:
    """The agent's process."""
    process = host.main_pid()
    assert process is not None, host.journal()
    return process


def until_back(host: SystemdHost, killed: psutil.Process) -> float:
    """Seconds until another main process is READY."""
    began_s = time.monotonic()
    assert eventually(
        lambda: (
            host.property("ActiveState") == "active"
            and (process := host.main_pid()) is not None
            and process.pid != killed.pid
        ),
        60.0,
    ), host.journal()
    return time.monotonic() - began_s


@pytest.mark.usefixtures("speech")
def test_it_is_ready_when_it_listens(service: Service, measured: Callable[[str, float], None]) -> None:
    """`systemctl start` returns when the agent says READY, the status says what it does, and words come."""
    cursor_s = time.monotonic()
    host = service(SCRIPTED)
    measured("start to READY", time.monotonic() - cursor_s)
    assert host.property("ActiveState") == "active"
    assert host.property("StatusText") == "listening to microphone virtual_microphone"
    assert hears(host)


def test_a_missing_microphone_is_no_failure(service: Service) -> None:
    """The service is up and says what it waits for; it is not restarted."""
    host = service(SCRIPTED.replace("virtual_microphone", "plughw:CARD=Gone"))
    assert eventually(lambda: host.property("StatusText") == "no microphone plughw:CARD=Gone: waiting for it", 30.0)
    assert (host.property("ActiveState"), host.property("NRestarts")) == ("active", "0")


@pytest.mark.usefixtures("speech")
def test_an_agent_that_is_killed_is_back_within_ten_seconds(
    service: Service, measured: Callable[[str, float], None]
) -> None:
    """After kill -9 of the main process systemd starts another, and no engine is left over."""
    host = service(SCRIPTED)
    assert hears(host)
    victim = main(host)
    (engine,) = victim.children()
    victim.kill()
    back_s = until_back(host, victim)
    measured("kill -9 to READY", back_s)
    assert back_s <= BACK_S
    assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE
    assert hears(host, host.cursor())


@pytest.mark.usefixtures("speech")
def test_a_hang_is_aborted_with_its_stack_and_the_service_comes_back(
    service: Service, measured: Callable[[str, float], None]
) -> None:
    """Without isolation an inference that hangs stops the signs of life; the line that hung is in the journal."""
    host = service(
        SCRIPTED + "engine.isolation = 'thread'\nengine.delay_s = 600\nengine.budget_s = 0.5\n", SHORT_WATCHDOG
    )
    victim = main(host)
    cursor = host.cursor()
    assert eventually(
        lambda: "Watchdog timeout" in host.ask("journalctl", "--after-cursor", cursor, "--no-pager"), 90.0
    )
    back_s = until_back(host, victim)
    measured("watchdog abort to READY", back_s)
    assert back_s <= BACK_S
    journal = host.journal(cursor)
    assert "transcribe has been silent for" in journal
    assert "Fatal Python error: Aborted" in journal
    assert "agent/asr/scripted.py" in journal


@pytest.mark.usefixtures("speech")
def test_a_hang_of_the_engines_process_is_not_even_noticed_by_systemd(service: Service) -> None:
    """With isolation only that process is ended: same agent, no restart, the utterance is reported."""
    host = service(SCRIPTED + "engine.delay_s = 600\nengine.budget_s = 0.5\n", SHORT_WATCHDOG)
    agent = main(host)
    # Two attempts at what was decoded ahead, and two at the sentence, each four times as long as the speech.
    assert eventually(lambda: bool(published(host, "transcript/failed")), 300.0)
    assert (main(host).pid, host.property("NRestarts")) == (agent.pid, "0")


@pytest.mark.usefixtures("speech")
def test_a_frozen_agent_is_aborted(service: Service, measured: Callable[[str, float], None]) -> None:
    """SIGSTOP of the main process: the watchdog brings it back."""
    host = service(SCRIPTED, SHORT_WATCHDOG)
    victim = main(host)
    began_s = time.monotonic()
    victim.suspend()
    until_back(host, victim)
    measured("SIGSTOP to READY, WatchdogSec=6", time.monotonic() - began_s)
    assert hears(host, host.cursor())


@pytest.mark.usefixtures("speech")
def test_a_reload_keeps_the_process_and_changes_the_words(service: Service) -> None:
    """`systemctl reload`: what can be applied is, what cannot is named, nobody is restarted."""
    host = service(SCRIPTED + 'engine.texts = ["before"]\n')
    assert hears(host)
    agent = main(host)
    host.write("/etc/edgescribe/config.toml", SCRIPTED.replace("pi-1", "pi-2") + 'engine.texts = ["after"]\n')
    host.do("systemctl", "reload", "edgescribe")
    assert eventually(lambda: "reloaded: applied engine.texts; needs a restart: device.id" in host.journal(), 30.0)
    assert eventually(lambda: host.property("ActiveState") == "active", 30.0)
    cursor = host.cursor()
    assert eventually(lambda: [each["text"] for each in published(host, "transcript", cursor)][-1:] == ["after"], 60.0)
    assert main(host).pid == agent.pid


@pytest.mark.usefixtures("speech")
def test_a_stop_delivers_what_was_said(service: Service, measured: Callable[[str, float], None]) -> None:
    """What was under way is transcribed and published; the service ends in good order, within its limit."""
    host = service(SCRIPTED + "engine.delay_s = 3\n")
    assert hears(host)
    cursor = host.cursor()
    assert eventually(lambda: "ON" in published(host, "vad", cursor), 30.0)
    time.sleep(1.0)  # somebody is in the middle of a sentence
    cursor, began_s = host.cursor(), time.monotonic()
    host.do("systemctl", "stop", "edgescribe")
    stopped_s = time.monotonic() - began_s
    measured("stop, with an inference of 3 s under way", stopped_s)
    assert stopped_s < 30.0
    assert (host.property("Result"), host.property("ExecMainStatus")) == ("success", "0")
    assert published(host, "transcript", cursor)


@pytest.mark.usefixtures("speech")
def test_wrong_settings_stay_down(service: Service, host: SystemdHost) -> None:
    """Exit status 78 is not tried again: it would be as wrong the next time."""
    with pytest.raises(RigError):
        service(SCRIPTED + "vad.threshold = 7\n")
    assert (host.property("ExecMainStatus"), host.property("NRestarts")) == ("78", "0")
    assert host.property("ActiveState") == "failed"


def status_of(process: psutil.Process) -> dict[str, str]:
    """What the kernel tells about a process."""
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    return dict(line.split(":\t", 1) for line in lines)


def waits_seen_by(agent: psutil.Process, engine: psutil.Process) -> list[str]:
    """What the agent, with its user and its view of /proc, is told of how long its engine waited for a processor."""
    user, inside = status_of(agent)["Uid"].split()[0], status_of(engine)["NSpid"].split()[-1]
    enter = ["nsenter", f"--target={agent.pid}", "--mount", "--pid", "--user"]
    become = ["setpriv", f"--reuid={user}"]
    show = ["sh", "-c", f"cat /proc/{inside}/task/*/schedstat /proc/{inside}/task/*/stat"]
    done = subprocess.run([*enter, *become, *show], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.weights
@pytest.mark.usefixtures("speech")
@pytest.mark.parametrize("model", ["tiny.en-q8_0", "tiny.en-ct2"])
def test_the_sandbox_holds_while_it_transcribes(model: str, service: Service, weights: Callable[[str], str]) -> None:
    """A user of its own, no privileges, a filter on calls, one more on the engine; and the words are right."""
    drop_in = (DROP_INS / "faster-whisper.conf").read_text(encoding="utf-8") if model.endswith("-ct2") else ""
    host = service(BASE + weights(model) + 'log.level = "debug"\n', drop_in.replace("[Service]", ""))
    assert hears(host)
    assert eventually(lambda: "forwarded" in published(host, "transcript")[-1]["text"], 60.0), host.journal()
    agent = main(host)
    (engine,) = agent.children()
    assert waits_seen_by(agent, engine)
    for process, filters in ((agent, 1), (engine, 2)):
        status = status_of(process)
        assert 61_184 <= int(status["Uid"].split()[0]) <= 65_519
        assert int(status["CapBnd"], 16) == 0
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert int(status["Seccomp_filters"]) >= filters
    assert int(Path(f"/proc/{engine.pid}/oom_score_adj").read_text(encoding="ascii")) == 500
    assert engine.nice() > agent.nice()
    assert "without network and files" in host.journal()


@pytest.mark.weights
def test_an_engine_that_the_sandbox_forbids_says_what_to_install(
    service: Service, weights: Callable[[str], str], host: SystemdHost
) -> None:
    """CTranslate2 compiles at run time on x86-64: one line names the drop-in, and there is no traceback."""
    with pytest.raises(RigError):
        service(BASE + weights("tiny.en-ct2"))
    assert "faster-whisper.conf" in host.journal()
    assert "Traceback" not in host.journal()


@pytest.mark.usefixtures("speech")
def test_the_password_reaches_the_agent_and_not_its_engine(service: Service, host: SystemdHost) -> None:
    """A credential is in the agent's own folder; the engine is not told where that is."""
    host.write("/etc/edgescribe/mqtt-password", "hunter2\n")
    (host.root / "etc/edgescribe/mqtt-password").chmod(0o600)
    service(SCRIPTED)
    agent = main(host)
    (engine,) = agent.children()
    assert "CREDENTIALS_DIRECTORY" in agent.environ()
    assert "CREDENTIALS_DIRECTORY" not in engine.environ()
    assert "hunter2" not in host.journal()


@pytest.mark.usefixtures("speech")
def test_top_looks_into_the_sandbox_as_root_and_nobody_else(service: Service) -> None:
    """The socket lies in the runtime folder of the service: root sees what it hears, others are told to become root."""
    host = service(SCRIPTED)
    assert hears(host)
    seen = json.loads(host.do(EDGESCRIBE, "top", "--once", "--json"))
    assert seen["last"]["text"]
    assert seen["telemetry"]["mem"]["rss_mb"] > 20
    nobody = ("setpriv", "--reuid=nobody", "--clear-groups", "env", "HOME=/nonexistent")
    with pytest.raises(RigError, match="sudo edgescribe top"):
        host.do(*nobody, EDGESCRIBE, "top", "--once")
