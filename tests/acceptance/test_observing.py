"""What the device says about itself, asked of a real agent: Prometheus, telemetry, `edgescribe top`."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.request import urlopen

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.agent_process import LIMIT_S, AgentProcess, command, environment, options, write_wav
from tests.support.boards import unfold
from tests.support.clips import clip, silence
from tests.support.receiver import eventually as eventually_within


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether it comes true in the time that a very busy machine may need to start an agent."""
    return eventually_within(condition, LIMIT_S)


class StartAgent(Protocol):
    """Starts `edgescribe run` on minutes of speech in real time, without a broker."""

    def __call__(self, **settings: Any) -> AgentProcess:
        """Return the process; what is published goes to its standard output."""


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[StartAgent]:
    """Agents that are killed at the end."""
    quiet = silence(1.0)
    speech = np.concatenate([quiet, *(part for _ in range(80) for part in (clip("en_vm-msgforwarded"), quiet))])
    recording = write_wav(tmp_path / "speech.wav", speech)
    agents: list[AgentProcess] = []

    def start_one(**settings: Any) -> AgentProcess:
        defaults = {
            "mqtt__enabled": False,
            "stdout__enabled": True,
            "source__kind": "wav",
            "source__path": recording,
            "source__pace": "realtime",
            "engine__kind": "scripted",
            "telemetry__interval_s": 1.0,
        }
        agents.append(AgentProcess(tmp_path, defaults | settings))
        return agents[-1]

    yield start_one
    for agent in agents:
        agent.kill()


def published(agent: AgentProcess, topic: str) -> list[dict[str, Any]]:
    """Payloads on a topic of the device, so far."""
    lines = [json.loads(line) for line in agent.stdout.splitlines() if line.endswith("}")]
    return [line["payload"] for line in lines if line["topic"].endswith(f"/{topic}")]


def test_prometheus_reads_what_telemetry_says(start_agent: StartAgent) -> None:
    """By HTTP from a running agent, in its own format: as many utterances as were published."""
    agent = start_agent(prometheus__enabled=True, prometheus__port=0)
    agent.await_log("/metrics")
    found = re.search(r"metrics at (http://127\.0\.0\.1:\d+/metrics)", agent.stderr)
    assert found
    url = found[1]

    def scraped() -> dict[str, float]:
        with urlopen(url, timeout=60) as response:  # noqa: S310 - the address is the agent's own
            text = response.read().decode()
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return {" ".join((sample.name, *sample.labels.values())): sample.value for sample in samples}

    assert eventually(lambda: len(published(agent, "transcript")) >= 2)
    said = len(published(agent, "transcript"))
    assert eventually(lambda: scraped()["edgescribe_utterances_total published"] >= said)
    now = scraped()
    assert now["edgescribe_real_time_factor_count"] >= said
    assert now["edgescribe_resident_memory_bytes"] > 20_000_000
    assert 0.0 <= now["edgescribe_cpu_usage_ratio"] <= 1.0
    agent.stop()
    assert agent.wait() == 0


def test_the_agent_reads_the_machine_below_the_root_that_is_configured(start_agent: StartAgent, tmp_path: Path) -> None:
    """A Raspberry Pi 3 with a weak supply: `health` says so at once, telemetry has its figures, and both recover."""
    board = tmp_path / "board"
    unfold("raspberry-pi-3", board)
    agent = start_agent(telemetry__host_root=str(board), telemetry__hot_c=50.0)
    assert eventually(lambda: bool(published(agent, "telemetry")))
    telemetry = published(agent, "telemetry")[-1]
    assert telemetry["pwr"] == {"uv_now": True, "thr_now": True, "uv_events": 1, "thr_events": 1}
    assert (telemetry["cpu"]["temp_c"], telemetry["wifi"]["rssi_dbm"]) == (53.7, -49)
    # The governor may add what it makes of it.
    assert eventually(lambda: set(published(agent, "health")[-1]["codes"]) >= {"undervoltage", "throttled", "hot"})
    (board / "sys/class/thermal/thermal_zone0/temp").write_text("44000\n", encoding="ascii")
    (board / "sys/devices/platform/soc/soc:firmware/get_throttled").write_text("50000\n", encoding="ascii")
    (board / "sys/class/hwmon/hwmon1/in0_lcrit_alarm").write_text("0\n", encoding="ascii")
    assert eventually(lambda: "hot" not in published(agent, "health")[-1]["codes"])
    assert eventually(lambda: published(agent, "telemetry")[-1]["pwr"]["uv_now"] is False)
    assert published(agent, "telemetry")[-1]["pwr"]["uv_events"] == 1


def top(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`edgescribe top`, with the settings of the agent in `folder`."""
    return subprocess.run(
        command("top", *arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
        env=environment(folder, COLUMNS="120"),
    )


def glance(folder: Path) -> dict[str, Any]:
    """What the agent tells who looks."""
    done = top(folder, "--once", "--json")
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def test_top_shows_what_the_agent_hears_and_what_it_made_of_it(start_agent: StartAgent, tmp_path: Path) -> None:
    """Level, probability, the last words and where the time went, from the agent's own socket; as a picture, too."""
    agent = start_agent(engine__texts=["the heater is off"])
    assert eventually(lambda: len(published(agent, "transcript")) >= 1)
    assert eventually(lambda: glance(tmp_path)["sound"].get("rms_dbfs", -96.0) > -60.0)
    seen = glance(tmp_path)
    assert (seen["engine"], seen["listening"], seen["shows_text"]) == ("scripted", True, True)
    assert seen["last"]["text"] == "the heater is off"
    assert set(seen["last"]["latency_ms"]) == {"vad_close", "queue", "encode_decode", "total_from_speech_end"}
    assert seen["telemetry"]["mem"]["rss_mb"] > 20
    done = top(tmp_path, "--once")
    assert done.returncode == 0
    assert "the heater is off" in done.stdout
    assert re.search(r"^level +[█▐░┆]{40}", done.stdout, re.MULTILINE)
    lines = top(tmp_path, "--seconds", "1.5").stdout.splitlines()
    assert lines
    assert all(re.match(r"\d\d:\d\d:\d\d  ", line) for line in lines)


def test_top_keeps_to_the_privacy_of_the_settings(start_agent: StartAgent, tmp_path: Path) -> None:
    """With `keywords` no word of an utterance is to be seen, though it was understood."""
    agent = start_agent(
        engine__texts=["the heater is off"],
        publish__privacy="keywords",
        publish__keywords=["heater"],
        log__level="debug",
    )
    assert eventually(lambda: len(published(agent, "keyword")) >= 2)
    done = top(tmp_path, "--once", "--json")
    assert json.loads(done.stdout)["shows_text"] is False
    assert "heater" not in done.stdout
    assert "last" not in json.loads(done.stdout)


def test_top_leaves_no_socket_behind(start_agent: StartAgent, tmp_path: Path) -> None:
    """It is there while the agent runs, for this user only, and says in one line that there is none afterwards."""
    agent = start_agent()
    agent.await_log("listening to")
    socket = tmp_path / "state" / "top.sock"
    assert socket.stat().st_mode & 0o777 == 0o600
    agent.stop()
    assert agent.wait() == 0
    assert not socket.exists()
    done = top(tmp_path, "--once")
    assert done.returncode == 1
    assert done.stderr.startswith(f"edgescribe: no agent answers at {socket}")
    assert len(done.stderr.splitlines()) == 1


def test_top_can_be_switched_off(start_agent: StartAgent, tmp_path: Path) -> None:
    """No socket, and the agent is none the worse."""
    agent = start_agent(top__enabled=False)
    assert eventually(lambda: len(published(agent, "transcript")) >= 1)
    assert not (tmp_path / "state" / "top.sock").exists()


_BEFORE_THE_NETWORK = """
import subprocess, sys, time
from urllib.error import URLError
from urllib.request import urlopen

agent = subprocess.Popen(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=open(sys.argv[1], "wb"))
try:
    while b"listening to" not in open(sys.argv[1], "rb").read():
        assert agent.poll() is None
        time.sleep(0.05)
    try:
        urlopen("http://192.0.2.7:9478/metrics", timeout=5)
    except URLError as error:
        print(error.reason.strerror, flush=True)
    for change in ("link set lo up", "address add 192.0.2.7/32 dev lo"):
        subprocess.run(["ip", *change.split()], check=True)
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        try:
            print("edgescribe_up" in urlopen("http://192.0.2.7:9478/metrics", timeout=60).read().decode())
            break
        except URLError:
            time.sleep(0.1)
finally:
    agent.kill()
"""


def test_metrics_are_served_once_the_network_is_there(tmp_path: Path) -> None:
    """After a power cut an address comes by Wi-Fi when the agent is long up: a namespace without any, then with one."""
    alone = ["unshare", "--map-root-user", "--net"]
    if not shutil.which("ip") or subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no network namespace can be made here, or there is no ip(8)")
    settings = {
        "mqtt__enabled": False,
        "stdout__enabled": True,
        "source__kind": "wav",
        "source__path": write_wav(tmp_path / "quiet.wav", silence(300.0)),
        "source__pace": "realtime",
        "engine__kind": "scripted",
        "prometheus__enabled": True,
        "prometheus__host": "192.0.2.7",
    }
    agent = command("run", *options(settings))
    done = subprocess.run(
        [*alone, sys.executable, "-c", _BEFORE_THE_NETWORK, tmp_path / "stderr", *agent],
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env=environment(tmp_path, no_proxy="*"),
    )
    assert (done.stdout, done.returncode) == ("Network is unreachable\nTrue\n", 0), done.stderr


def without_proc(*arguments: str, mount: str) -> list[str]:
    """The command line of `edgescribe` in a namespace whose /proc is mounted by `mount`; skips where none is made."""
    alone = ["unshare", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c"]
    if subprocess.run([*alone, mount], check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    return [*alone, f'{mount} && exec "$@"', "sh", *command(*arguments)]


@pytest.mark.parametrize("mount", ["mount -t tmpfs none /proc", "mount -t proc -o subset=pid none /proc"])
def test_an_agent_starts_without_proc(tmp_path: Path, mount: str) -> None:
    """Containers and `ProcSubset=pid` hide /proc. Telemetry leaves out unreadable figures, and words are published."""
    recording = write_wav(tmp_path / "speech.wav", np.concatenate([clip("en_vm-msgforwarded"), silence(1.0)]))
    settings = {
        "mqtt__enabled": False,
        "stdout__enabled": True,
        "source__kind": "wav",
        "source__path": recording,
        "engine__kind": "scripted",
        "telemetry__interval_s": 1.0,
    }
    done = subprocess.run(
        without_proc("run", *options(settings), mount=mount),
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env=environment(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    messages = {line["topic"].rpartition("/")[2]: line["payload"] for line in map(json.loads, done.stdout.splitlines())}
    assert messages["transcript"]["text"]
    assert messages["telemetry"]["mem"] == {}


@pytest.mark.parametrize("verb", ["doctor", "calibrate"])
def test_a_command_that_needs_proc_says_so_in_one_line(tmp_path: Path, verb: str) -> None:
    """It has nothing to go by without the memory and the processor of the machine."""
    (tmp_path / "config.toml").write_text('engine.kind = "scripted"\n', encoding="utf-8")
    done = subprocess.run(
        without_proc(verb, mount="mount -t tmpfs none /proc"),
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env=environment(tmp_path),
    )
    assert (done.returncode, done.stderr.count("\n")) == (72, 1), done.stderr
