"""What a real Home Assistant makes of a real agent: entities, their values, their buttons, and its own restart."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.acceptance.home_assistant.hass import HomeAssistant
from tests.support.agent_process import AgentProcess, write_wav
from tests.support.clips import clip, silence
from tests.support.mosquitto import Mosquitto
from tests.support.receiver import Receiver, eventually

pytestmark = [pytest.mark.mosquitto, pytest.mark.home_assistant, pytest.mark.slow, pytest.mark.timeout(900)]

TEXT = "Turn the lights on."
EVENT = "event.kitchen_transcript"


@pytest.fixture
def agent(tmp_path: Path, broker: Mosquitto) -> Iterator[AgentProcess]:
    """The device `kitchen`, in whose room somebody speaks every few seconds."""
    sentence = np.concatenate([silence(2.0), clip("en_pls-hold-while-try"), silence(1.5)])
    recording = write_wav(tmp_path / "speech.wav", np.tile(sentence, 150))
    (tmp_path / "agent").mkdir()
    process = AgentProcess(
        tmp_path / "agent",
        {
            "device__id": "kitchen",
            "device__name": "Kitchen",
            "engine__kind": "scripted",
            "engine__texts": [TEXT],
            "source__kind": "wav",
            "source__path": str(recording),
            "mqtt__host": "127.0.0.1",
            "mqtt__port": broker.port,
            "telemetry__interval_s": 2,
            "discovery__mode": "component",
            "publish__keywords": ["lights on"],
        },
    )
    yield process
    process.kill()


@pytest.fixture
def hass(tmp_path: Path, broker: Mosquitto) -> Iterator[HomeAssistant]:
    """A fresh Home Assistant with the MQTT integration."""
    home = HomeAssistant(tmp_path / "hass")
    home.start()
    home.onboard(broker.port)
    yield home
    home.stop()


def comes_to(hass: HomeAssistant, entity: str, holds: Callable[[dict[str, Any]], bool]) -> bool:
    """Whether the state of an entity comes to be so."""
    return eventually(lambda: (state := hass.states().get(entity)) is not None and holds(state), 60.0)


def number(state: dict[str, Any]) -> float:
    """The value of a sensor; 0 as long as Home Assistant has not heard of any (`unknown`, `unavailable`)."""
    try:
        return float(state["state"])
    except ValueError:
        return 0.0


def is_alive(hass: HomeAssistant) -> None:
    """Words come as events, metrics as numbers, and the switches show what is applied."""
    assert comes_to(hass, EVENT, lambda state: state["attributes"].get("text") == TEXT), hass.log
    seen = hass.states()[EVENT]
    assert seen["attributes"]["event_type"] == "transcript"
    assert seen["attributes"]["verdict"] == "confident"
    assert comes_to(hass, EVENT, lambda state: state["state"] > seen["state"]), "a second event"
    assert comes_to(hass, "sensor.kitchen_memory_of_edgescribe", lambda state: number(state) > 1)
    assert comes_to(hass, "switch.kitchen_listening", lambda state: state["state"] == "on")
    assert comes_to(hass, "binary_sensor.kitchen_speaking", lambda state: state["state"] == "on")
    assert comes_to(hass, "binary_sensor.kitchen_problem", lambda state: state["state"] == "off")
    assert comes_to(hass, "binary_sensor.kitchen_under_voltage", lambda state: state["state"] == "off")
    assert comes_to(hass, "number.kitchen_vad_threshold", lambda state: 0 < number(state) < 1)
    assert comes_to(hass, "update.kitchen_agent", lambda state: state["state"] == "off")


def test_the_device_appears_works_and_survives_a_restart_of_home_assistant(
    hass: HomeAssistant, agent: AgentProcess, broker: Mosquitto
) -> None:
    """From discovery to buttons; after its restart the retained messages and our answer to its birth bring all back."""
    is_alive(hass)
    memory = hass.states()["sensor.kitchen_memory_of_edgescribe"]["attributes"]
    assert (memory["unit_of_measurement"], memory["device_class"]) == ("MiB", "data_size")
    assert "sensor.kitchen_last_transcript" not in hass.states(), "disabled by default"

    hass.call("number", "set_value", entity_id="number.kitchen_vad_threshold", value=0.65)
    assert comes_to(hass, "number.kitchen_vad_threshold", lambda state: number(state) == 0.65)
    hass.call("switch", "turn_off", entity_id="switch.kitchen_listening")
    assert comes_to(hass, "switch.kitchen_listening", lambda state: state["state"] == "off")
    hass.call("switch", "turn_on", entity_id="switch.kitchen_listening")
    assert comes_to(hass, "switch.kitchen_listening", lambda state: state["state"] == "on")

    hass.stop()
    with Receiver(broker.port, "homeassistant/#") as receiver:
        hass.start()
        is_alive(hass)
        births = ("homeassistant/event/kitchen/transcript/config", "homeassistant/sensor/kitchen/cpu_pct/config")
        assert eventually(lambda: {one.topic for one in receiver.messages if not one.retained} >= set(births))
    # Only now was the MQTT integration there when the automations were set up.
    assert comes_to(hass, "light.kitchen", lambda state: state["state"] == "on"), "docs/examples: light by keyword"
    for name in ("light_by_keyword", "announce_under_voltage", "mute_at_night"):
        assert hass.states()[f"automation.{name}"]["state"] == "on", "docs/examples: not valid"
    ours = [line for line in hass.log.splitlines() if "edgescribe" in line.lower()]
    assert [line for line in ours if "MQTT is not enabled" not in line] == [], "it complains about what we sent"

    hass.call("button", "press", entity_id="button.kitchen_restart")
    assert agent.wait() == 75
    assert comes_to(hass, "switch.kitchen_listening", lambda state: state["state"] == "unavailable")
