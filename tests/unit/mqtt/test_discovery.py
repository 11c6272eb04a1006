import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from agent.config.settings import COMMANDS, DiscoverySettings
from agent.messages.telemetry import METRICS, TelemetryMessage
from agent.mqtt.discovery import (
    MIGRATE,
    SPEAKING_OFF_S,
    Announced,
    Batch,
    DeviceFacts,
    announcements,
    entities,
    plan,
)
from agent.mqtt.publisher import VAD_REPEAT_S
from agent.telemetry.snapshot import absent_metrics
from tests.conftest import REPOSITORY
from tests.support.boards import BOARDS, unfold

DEVICE, COMPONENT, OFF = (DiscoverySettings(mode=mode) for mode in ("device", "component", "off"))
FACTS = DeviceFacts(
    device_id="living-room",
    name="Living room",
    agent="0.1.0",
    hardware="Raspberry Pi 5 Model B Rev 1.0",
    models=("tiny.en-q8_0", "base-q8_0"),
    languages=("auto", "de", "en"),
    commands=frozenset(COMMANDS),
    telemetry_interval_s=60.0,
    publishes_text=True,
    keywords=("heater off", "lights"),
)
ROOT = "edgescribe/v1/living-room/"

# Options of the platforms in Home Assistant 2026.11 (components/mqtt/abbreviations.py), as far as we use them.
ABBREVIATIONS = {
    *("p", "name", "uniq_id", "def_ent_id", "stat_t", "val_tpl", "dev_cla", "stat_cla", "unit_of_meas", "ent_cat"),
    *("exp_aft", "off_dly", "en", "ic", "evt_typ", "cmd_t", "ops", "min", "max", "step", "mode", "pl_on", "pl_off"),
    *("json_attr_t", "json_attr_tpl", "msg_exp_int", "atype", "type", "stype", "t", "pl"),
}


def whole(facts: DeviceFacts = FACTS) -> dict[str, Any]:
    """The one message of device discovery."""
    (config,) = announcements(DEVICE, facts).values()
    payload: dict[str, Any] = json.loads(config)
    return payload


def component(key: str, facts: DeviceFacts = FACTS) -> dict[str, Any]:
    """One component of it, with the shared state topic filled in as Home Assistant does."""
    payload = whole(facts)
    own: dict[str, Any] = payload["cmps"][key]
    return {"stat_t": payload["stat_t"]} | own


def numbers(model: type[BaseModel], above: str = "") -> set[str]:
    """Paths of all numbers in a message."""
    found = set()
    for name, field in model.model_fields.items():
        kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
        part = next((kind for kind in kinds if issubclass(kind, BaseModel)), None)
        if part:
            found |= numbers(part, f"{above}{name}.")
        elif int in kinds or float in kinds:
            found.add(above + name)
    return found


def test_a_device_is_one_message_with_what_it_must_have() -> None:
    """Topic, device, origin and availability, once for all components; there is nothing else at the top."""
    ((topic, config),) = announcements(DEVICE, FACTS).items()
    assert topic == "homeassistant/device/living-room/config"
    payload = json.loads(config)
    assert payload.keys() == {"dev", "o", "avty_t", "stat_t", "cmps"}
    assert payload["dev"] == {
        "ids": ["edgescribe_living-room"],
        "name": "Living room",
        "mf": "edgescribe",
        "mdl": "Raspberry Pi 5 Model B Rev 1.0",
        "sw": "0.1.0",
    }
    assert payload["o"] == {"name": "edgescribe", "sw": "0.1.0"}
    assert payload["avty_t"] == ROOT + "status"
    assert payload["stat_t"] == ROOT + "telemetry"


def test_everything_the_contract_names_is_offered() -> None:
    """Each entity with its platform and device class."""
    found = {key: (value["p"], value.get("dev_cla")) for key, value in whole()["cmps"].items()}
    assert (
        found.items()
        >= {
            "transcript": ("event", None),
            "last_transcript": ("sensor", None),
            "speaking": ("binary_sensor", "sound"),
            "problem": ("binary_sensor", "problem"),
            "undervoltage": ("binary_sensor", "problem"),
            "agent": ("update", "firmware"),
            "listen": ("switch", None),
            "model": ("select", None),
            "language": ("select", None),
            "vad_threshold": ("number", None),
            "min_confidence": ("number", None),
            "initial_prompt": ("text", None),
            "restart": ("button", "restart"),
            "identify": ("button", "identify"),
            "cpu_temp_c": ("sensor", "temperature"),
            "mqtt_outbox_n": ("sensor", None),
        }.items()
    )


def test_only_words_that_home_assistant_knows_are_used() -> None:
    """A misspelt option is dropped in silence there."""
    used = {key for value in whole()["cmps"].values() for key in value}
    assert used <= ABBREVIATIONS


def test_ids_are_unique_and_lasting() -> None:
    """Entities have a unique id and a suggested entity id; `object_id`, which ends with 2026.4, is not sent."""
    parts = {key: value for key, value in whole()["cmps"].items() if value["p"] != "device_automation"}
    assert all(value["uniq_id"] == f"edgescribe_living-room_{key}" for key, value in parts.items())
    assert component("undervoltage")["def_ent_id"] == "binary_sensor.living_room_under_voltage"
    assert component("asr_lat_ms_p95")["def_ent_id"] == "sensor.living_room_latency_p95"
    assert len({value["def_ent_id"] for value in parts.values()}) == len(parts)
    assert all(re.fullmatch(r"[a-z_]+\.[a-z0-9_]+", value["def_ent_id"]) for value in parts.values())
    assert not {"object_id", "obj_id"} & {key for value in parts.values() for key in value}


def test_every_number_of_telemetry_has_a_sensor() -> None:
    """A number that is not in the table is never seen."""
    assert {metric.path for metric in METRICS if metric.name} == numbers(TelemetryMessage) - {"v"}


@pytest.mark.parametrize("metric", [metric for metric in METRICS if metric.name], ids=lambda metric: metric.path)
def test_metrics_are_diagnostic_and_expire(metric: Any) -> None:
    """What comes by an unretained topic every minute is unavailable after three of them without news."""
    config = component(metric.path.replace(".", "_"))
    assert config["stat_t"] == ROOT + "telemetry"
    assert config["exp_aft"] == 180
    assert config["ent_cat"] == "diagnostic"
    assert config["stat_cla"] in {"measurement", "total_increasing"}
    assert ("dev_cla" in config) <= ("unit_of_meas" in config)


def test_the_expiry_follows_the_interval() -> None:
    """A fleet that speaks every five minutes is not unavailable in between."""
    assert component("cpu_pct", replace(FACTS, telemetry_interval_s=300.0))["exp_aft"] == 900


def test_speech_that_goes_unmentioned_is_over() -> None:
    """`vad` is repeated only while somebody speaks, so silence there is no fault: off after three repetitions."""
    config = component("speaking")
    assert config["off_dly"] == SPEAKING_OFF_S == 3 * VAD_REPEAT_S
    assert "exp_aft" not in config


def test_the_last_transcript_fits_into_a_state_and_is_off_by_default() -> None:
    """Longer states become `unknown`, and the recorder keeps every state."""
    config = component("last_transcript")
    assert config["val_tpl"] == "{{ value_json.text[:255] }}"
    assert config["en"] is False


def test_controls_show_applied_values_and_send_commands() -> None:
    """State comes from `state`, commands go to `cmd/<name>`, both by the same name."""
    for key in ("listen", "model", "language", "vad_threshold", "min_confidence", "initial_prompt"):
        config = component(key)
        assert config["stat_t"] == ROOT + "state"
        assert config["cmd_t"] == f"{ROOT}cmd/{key}"
        assert "opt" not in config
    assert component("model")["ops"] == ["tiny.en-q8_0", "base-q8_0"]
    assert component("language")["ops"] == ["auto", "de", "en"]
    assert component("restart")["cmd_t"] == ROOT + "cmd/restart"


def test_what_is_not_obeyed_is_not_offered() -> None:
    """No buttons that do nothing."""
    components = whole(replace(FACTS, commands=frozenset({"identify"})))["cmps"]
    assert {value["p"] for value in components.values()} & {"switch", "select", "number", "text", "button"} == {
        "button"
    }
    assert "restart" not in components


def test_what_cannot_be_measured_is_not_offered() -> None:
    """No sensor that is unknown for ever."""
    components = whole(replace(FACTS, absent=frozenset({"cpu.temp_c"})))["cmps"]
    assert "cpu_temp_c" not in components
    assert "cpu_pct" in components


def test_without_text_there_is_no_entity_for_it() -> None:
    """With `privacy = keywords` nothing subscribes to `transcript`."""
    (config,) = announcements(DEVICE, replace(FACTS, publishes_text=False)).values()
    assert b"transcript" not in config


def test_keywords_are_triggers() -> None:
    """An automation picks `"heater off" keyword` of the device; each has its own payload."""
    triggers = [value for value in whole()["cmps"].values() if value["p"] == "device_automation"]
    assert triggers[0] == {
        "p": "device_automation",
        "atype": "trigger",
        "type": "keyword",
        "stype": "heater off",
        "t": ROOT + "keyword",
        "val_tpl": "{{ value_json.keyword }}",
        "pl": "heater off",
    }
    assert [value["pl"] for value in triggers] == ["heater off", "lights"]


def test_sizes_stay_moderate() -> None:
    """One message that every broker takes, also if a board could measure everything that there is."""
    assert len(next(iter(announcements(DEVICE, FACTS).values()))) < 21_000


@pytest.mark.parametrize("board", BOARDS)
def test_the_size_is_the_one_that_is_documented(board: str, tmp_path: Path) -> None:
    """15 KB for a PC, which measures least, to 19 KB; whoever sets a broker's limits finds it in three places."""
    unfold(board, tmp_path)
    plain = replace(FACTS, models=("tiny.en-q8_0",), keywords=(), absent=absent_metrics(tmp_path, tmp_path))
    assert 14_500 < len(next(iter(announcements(DEVICE, plain).values()))) < 19_500
    for document in ("mqtt.md", "operators-guide.md", "broker/mosquitto.conf"):
        assert "15 to 19 KB" in (REPOSITORY / "docs" / document).read_text(encoding="utf-8")


def test_component_discovery_says_the_same_in_many_messages() -> None:
    """Each is complete: device, origin, availability and state topic."""
    configs = {topic: json.loads(config) for topic, config in announcements(COMPONENT, FACTS).items()}
    assert len(configs) == len(entities(FACTS))
    for key, value in whole()["cmps"].items():
        config = configs[f"homeassistant/{value['p']}/living-room/{key}/config"]
        assert config["dev"] == whole()["dev"]
        assert config["avty_t"] == ROOT + "status"
        assert config["o"]["name"] == "edgescribe"
        assert "p" not in config
        assert {name: config[name] for name in value if name != "p"} == {n: v for n, v in value.items() if n != "p"}
    assert configs["homeassistant/sensor/living-room/cpu_pct/config"]["stat_t"] == ROOT + "telemetry"


# What was announced before.


def erased(batch: Batch) -> list[str]:
    """Topics that a batch empties."""
    return [topic for topic, payload in batch.items() if not payload]


def test_the_first_announcement_is_all_there_is() -> None:
    """Nothing to withdraw, nothing to wait for."""
    assert plan(DEVICE, FACTS, None) == (announcements(DEVICE, FACTS),)
    assert plan(DEVICE, FACTS, Announced.of(DEVICE, FACTS)) == (announcements(DEVICE, FACTS),)
    assert plan(OFF, FACTS, None) == ()


@pytest.mark.parametrize(("before", "count"), [(DEVICE, 1), (COMPONENT, len(entities(FACTS)))])
def test_switching_off_leaves_nothing_behind(before: DiscoverySettings, count: int) -> None:
    """Every topic that was used is emptied."""
    (batch,) = plan(OFF, FACTS, Announced.of(before, FACTS))
    assert len(erased(batch)) == len(batch) == count


def test_a_component_that_goes_is_named_once_by_its_platform_alone() -> None:
    """Device discovery: `{"p": …}` removes it; the message after that does not mention it."""
    fewer = replace(FACTS, keywords=("lights",), commands=FACTS.commands - {"restart"})
    first, second = plan(DEVICE, fewer, Announced.of(DEVICE, FACTS))
    components = json.loads(next(iter(first.values())))["cmps"]
    assert components["restart"] == {"p": "button"}
    assert {"p": "device_automation"} in components.values()
    assert components["identify"] == whole()["cmps"]["identify"]
    assert second == announcements(DEVICE, fewer)


def test_a_component_that_goes_has_its_topic_emptied() -> None:
    """Component discovery."""
    fewer = replace(FACTS, keywords=())
    (batch,) = plan(COMPONENT, fewer, Announced.of(COMPONENT, FACTS))
    assert len(erased(batch)) == 2
    assert all(topic.startswith("homeassistant/device_automation/living-room/keyword_") for topic in erased(batch))
    assert {topic: config for topic, config in batch.items() if config} == announcements(COMPONENT, fewer)


@pytest.mark.parametrize(("before", "after"), [(DEVICE, COMPONENT), (COMPONENT, DEVICE)])
def test_a_change_of_mode_keeps_histories(before: DiscoverySettings, after: DiscoverySettings) -> None:
    """Home Assistant is told to let go first, then gets the new messages, and the old topics are emptied last."""
    let_go, new, empty = plan(after, FACTS, Announced.of(before, FACTS))
    assert let_go == dict.fromkeys(announcements(before, FACTS), MIGRATE)
    assert new == announcements(after, FACTS)
    assert erased(empty) == list(announcements(before, FACTS))


def test_another_prefix_is_another_place() -> None:
    """What stands at the old one is withdrawn."""
    elsewhere = DiscoverySettings(prefix="ha/discovery")
    (batch,) = plan(elsewhere, FACTS, Announced.of(DEVICE, FACTS))
    assert erased(batch) == ["homeassistant/device/living-room/config"]
    assert list(batch)[-1] == "ha/discovery/device/living-room/config"


@pytest.mark.parametrize("settings", [DEVICE, COMPONENT, OFF])
def test_a_renamed_device_withdraws_all_that_is_retained_under_its_former_id(settings: DiscoverySettings) -> None:
    """Else it would stand there for ever, `offline`. Without discovery nothing but its own topics is withdrawn."""
    former = replace(FACTS, device_id="former")
    batches = plan(settings, FACTS, Announced.of(settings, former))
    gone = [topic for batch in batches for topic in erased(batch)]
    own = {f"edgescribe/v1/former/{name}" for name in ("status", "info", "state", "health")}
    assert set(gone) == own | set(announcements(settings, former))
    assert not set(gone) & set(announcements(settings, FACTS))
