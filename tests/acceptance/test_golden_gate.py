"""The collection's module that asks a device for a golden utterance: real broker, real agent, its words judged."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.support.agent_process import AgentProcess, write_wav
from tests.support.clips import silence
from tests.support.mosquitto import Mosquitto, StartMosquitto, free_port, program

pytestmark = pytest.mark.mosquitto

MODULE = REPOSITORY / "ansible" / "plugins" / "modules" / "golden_utterance.py"
SENTENCE = "Please hold while we try to connect you."
ACCESS = REPOSITORY / "docs" / "broker" / "edgescribe.acl"


@pytest.fixture
def broker(tmp_path: Path, start_mosquitto: StartMosquitto) -> Mosquitto:
    """Names, passwords, and the access control list as it is shipped."""
    passwords = tmp_path / "passwords"
    for name in ("pi-1", "pi-2"):
        create = [] if passwords.exists() else ["-c"]
        subprocess.run([program("mosquitto_passwd"), "-b", *create, str(passwords), name, "hunter2"], check=True)
    return start_mosquitto("allow_anonymous false", f"password_file {passwords}", f"acl_file {ACCESS}")


@pytest.fixture
def start_agent(tmp_path: Path, broker: Mosquitto) -> Iterator[Callable[..., AgentProcess]]:
    """The device `pi-1`, which listens to silence and answers from a list; killed at the end."""
    agents: list[AgentProcess] = []
    quiet = write_wav(tmp_path / "quiet.wav", silence(300.0))

    def start_one(*texts: str, **settings: Any) -> AgentProcess:
        folder = tmp_path / f"agent-{len(agents)}"
        folder.mkdir()
        defaults = {
            "device__id": "pi-1",
            "engine__kind": "scripted",
            "engine__texts": list(texts),
            "source__kind": "wav",
            "source__path": str(quiet),
            "mqtt__host": "127.0.0.1",
            "mqtt__port": broker.port,
        }
        agents.append(AgentProcess(folder, {**defaults, **settings}, EDGESCRIBE_MQTT__PASSWORD="hunter2"))
        return agents[-1]

    yield start_one
    for agent in agents:
        agent.kill()


def ask(folder: Path, port: int, **parameters: Any) -> dict[str, Any]:
    """Run the module as Ansible does on a device: a process of its own, arguments on its standard input."""
    password = folder / "password"
    password.write_text("hunter2\n", encoding="utf-8")
    arguments = {
        "host": "127.0.0.1",
        "port": port,
        "device_id": "pi-1",
        "username": "pi-1",
        "password_file": str(password),
        "sentence": SENTENCE,
        "timeout_s": 60.0,
        **parameters,
    }
    text = json.dumps({"ANSIBLE_MODULE_ARGS": arguments})
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    result = subprocess.run(
        [sys.executable, str(MODULE)], input=text, capture_output=True, text=True, check=False, env=environment
    )
    assert result.stdout, result.stderr
    assert "hunter2" not in result.stdout + result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_right_words_pass(tmp_path: Path, broker: Mosquitto, start_agent: Callable[..., AgentProcess]) -> None:
    """A device with its own rights at the broker asks itself; it need not be online yet when it is asked."""
    start_agent(SENTENCE)
    answer = ask(tmp_path, broker.port)
    assert not answer.get("failed"), answer
    assert (answer["text"], answer["score"], answer["changed"]) == (SENTENCE, 1.0, False)


@pytest.mark.parametrize("words", ["You connect to try we while hold please", "Please hold", f"{SENTENCE} {SENTENCE}"])
def test_other_words_fail_whatever_the_device_thinks_of_them(
    words: str, tmp_path: Path, broker: Mosquitto, start_agent: Callable[..., AgentProcess]
) -> None:
    """Wrong order, missing and invented words: the judge is here, and says what was heard."""
    start_agent(words)
    answer = ask(tmp_path, broker.port)
    assert answer["failed"]
    assert words in answer["msg"]
    assert answer["score"] < 0.8


def test_a_device_that_may_not_be_asked_says_so_at_once(
    tmp_path: Path, broker: Mosquitto, start_agent: Callable[..., AgentProcess]
) -> None:
    """`commands.allow` without it: the reason, and no waiting until time is up."""
    start_agent(SENTENCE, commands__allow=["mute"])
    answer = ask(tmp_path, broker.port, timeout_s=120.0)
    assert answer["failed"]
    assert "not_allowed" in answer["msg"]
    assert answer["took_s"] < 100.0


def test_silence_fails_when_time_is_up(tmp_path: Path, broker: Mosquitto) -> None:
    """No device, no answer."""
    answer = ask(tmp_path, broker.port, timeout_s=2.0)
    assert answer["failed"]
    assert "no answer in time" in answer["msg"]


def test_a_broker_that_refuses_or_is_not_there_is_named(tmp_path: Path, broker: Mosquitto) -> None:
    """A wrong name fails at once; no broker, when time is up."""
    assert "not authorised" in ask(tmp_path, broker.port, username="nobody")["msg"]
    port = free_port()
    assert f"no broker at 127.0.0.1:{port}" in ask(tmp_path, port, timeout_s=1.0)["msg"]
