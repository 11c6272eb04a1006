"""What the device says about itself, asked of a real agent: Prometheus, and the telemetry of another machine."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.request import urlopen

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.boards import unfold
from tests.clips import clip, silence
from tests.integration.agent_process import AgentProcess, write_wav
from tests.integration.receiver import eventually


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
    assert eventually(lambda: set(published(agent, "health")[-1]["codes"]) == {"undervoltage", "throttled", "hot"})
    (board / "sys/class/thermal/thermal_zone0/temp").write_text("44000\n", encoding="ascii")
    (board / "sys/devices/platform/soc/soc:firmware/get_throttled").write_text("50000\n", encoding="ascii")
    (board / "sys/class/hwmon/hwmon1/in0_lcrit_alarm").write_text("0\n", encoding="ascii")
    assert eventually(lambda: "hot" not in published(agent, "health")[-1]["codes"])
    assert eventually(lambda: published(agent, "telemetry")[-1]["pwr"]["uv_now"] is False)
    assert published(agent, "telemetry")[-1]["pwr"]["uv_events"] == 1
