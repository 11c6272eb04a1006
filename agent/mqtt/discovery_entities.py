"""What Home Assistant is to show of a device, in the abbreviated words of its MQTT discovery.

https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery and the pages of the platforms. Abbreviations keep the
one message for a whole device below 20 KB, whatever the board can measure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from agent.config.tunables import COMMANDED, LONGEST_STATE
from agent.messages import Health, Info, Keyword, State, TranscriptMessage, Vad, topic_for
from agent.messages.telemetry import TelemetryMessage
from agent.mqtt.commands import command_topic
from agent.telemetry.metrics import METRICS, Metric

EXPIRES_AFTER_INTERVALS: Final = 3
SPEAKING_OFF_S: Final = 30
"""Three times the interval at which `ON` is repeated while somebody speaks."""
COMMAND_EXPIRY_S: Final = 60
"""A switch that was flipped while the device was away does nothing an hour later."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What there is to know about a device for announcing it."""

    device_id: str
    name: str
    agent: str
    """Version of edgescribe."""
    hardware: str | None
    models: tuple[str, ...]
    """Models that can be chosen, the one in use included."""
    languages: tuple[str, ...]
    """Languages that the model in use knows, `auto` included."""
    commands: frozenset[str]
    """Commands that are obeyed."""
    telemetry_interval_s: float
    publishes_text: bool
    keywords: tuple[str, ...] = ()
    """Names of the keywords that are told of."""
    absent: frozenset[str] = frozenset()
    """Metrics that this machine cannot measure, such as `cpu.temp_c`."""


@dataclass(frozen=True, slots=True)
class Entity:
    """One component of the device."""

    key: str
    """Identifies it within the device, for ever."""
    platform: str
    """Home Assistant's word for its kind, such as `sensor`."""
    config: Mapping[str, object]
    """Everything else, without what the device has in common."""


def entities(facts: DeviceFacts) -> tuple[Entity, ...]:
    """Everything that the device offers, in the order in which people look for it."""
    return (
        *_speech(facts),
        *_condition(facts),
        *_controls(facts),
        *(_metric(metric, facts) for metric in METRICS if metric.name and metric.path not in facts.absent),
        *(_keyword(name, facts) for name in facts.keywords),
    )


def _speech(facts: DeviceFacts) -> Iterator[Entity]:
    transcript = topic_for(facts.device_id, TranscriptMessage)
    if facts.publishes_text:
        yield Entity(
            "transcript",
            "event",
            {"name": "Transcript", "stat_t": transcript, "evt_typ": ["transcript"], "ic": "mdi:microphone-message"},
        )
        shortened = f"{{{{ value_json.text[:{LONGEST_STATE}] }}}}"
        yield Entity(
            "last_transcript",
            "sensor",
            {"name": "Last transcript", "stat_t": transcript, "val_tpl": shortened, "en": False, "ic": "mdi:text"},
        )
    # Off by a timer rather than unavailable: in a quiet room nothing is said for hours, and that is no fault.
    yield Entity(
        "speaking",
        "binary_sensor",
        {"name": "Speaking", "stat_t": topic_for(facts.device_id, Vad), "dev_cla": "sound", "off_dly": SPEAKING_OFF_S},
    )


def _condition(facts: DeviceFacts) -> Iterator[Entity]:
    health = topic_for(facts.device_id, Health)
    common = {"stat_t": health, "dev_cla": "problem", "ent_cat": "diagnostic"}
    codes = {"json_attr_t": health, "json_attr_tpl": "{{ {'codes': value_json.codes} | tojson }}"}
    yield Entity(
        "problem", "binary_sensor", {"name": "Problem", "val_tpl": "{{ value_json.problem }}", **common, **codes}
    )
    under = "{{ 'ON' if 'undervoltage' in value_json.codes else 'OFF' }}"
    yield Entity("undervoltage", "binary_sensor", {"name": "Under-voltage", "val_tpl": under, **common})
    slowed = "{{ 'ON' if 'throttled' in value_json.codes else 'OFF' }}"
    yield Entity("throttled", "binary_sensor", {"name": "Throttled", "val_tpl": slowed, **common})
    # Which version is the newest is the fleet's knowledge, not this device's: it says what runs.
    version = "{{ {'installed_version': value_json.agent, 'latest_version': value_json.agent} | tojson }}"
    yield Entity(
        "agent",
        "update",
        {
            "name": "Agent",
            "stat_t": topic_for(facts.device_id, Info),
            "val_tpl": version,
            "dev_cla": "firmware",
            "ent_cat": "diagnostic",
        },
    )


def _controls(facts: DeviceFacts) -> Iterator[Entity]:
    on_off = {"pl_on": "ON", "pl_off": "OFF", "ic": "mdi:microphone"}
    listening = "{{ 'ON' if value_json.listening else 'OFF' }}"
    config: dict[str, object] = {"name": "Listening", "val_tpl": listening, **on_off}
    offered = [("listen", "switch", config)]
    for tunable in COMMANDED:
        config = dict(tunable.control)
        if tunable.platform == "select":
            config["ops"] = list(facts.models if tunable.command == "model" else facts.languages)
        offered.append((tunable.command, tunable.platform, config))
    for command, platform, config in offered:
        if command in facts.commands:
            cut = f"[:{LONGEST_STATE}]" if platform == "text" else ""
            state = {"stat_t": topic_for(facts.device_id, State), "val_tpl": f"{{{{ value_json.{command}{cut} }}}}"}
            yield Entity(command, platform, {**state, **config, **_obeys(command, facts)})
    for command, name, category in (("restart", "Restart", "config"), ("identify", "Identify", "diagnostic")):
        if command in facts.commands:
            config = {"name": name, "dev_cla": command, "ent_cat": category}
            yield Entity(command, "button", {**config, **_obeys(command, facts)})


def _obeys(command: str, facts: DeviceFacts) -> dict[str, object]:
    return {"cmd_t": command_topic(facts.device_id, command), "msg_exp_int": COMMAND_EXPIRY_S}


def _metric(metric: Metric, facts: DeviceFacts) -> Entity:
    optional = {
        "unit_of_meas": metric.unit,
        "dev_cla": metric.device_class,
        "stat_cla": metric.state_class,
        "en": None if metric.enabled else False,
    }
    config = {
        "name": metric.name,
        "stat_t": topic_for(facts.device_id, TelemetryMessage),
        "val_tpl": _number(metric.path),
        "ent_cat": "diagnostic",
        "exp_aft": round(EXPIRES_AFTER_INTERVALS * facts.telemetry_interval_s),
        **{key: value for key, value in optional.items() if value is not None},
    }
    return Entity(metric.path.replace(".", "_"), "sensor", config)


def _number(path: str) -> str:
    """A template for what may be left out of the message: it is unknown then, without a complaint in the log."""
    part, _, field = path.partition(".")
    if not field:
        return f"{{{{ value_json.{part} }}}}"
    always_there = TelemetryMessage.model_fields[part].is_required()
    holder = f"value_json.{part}" if always_there else f"(value_json.{part}|default({{}}))"
    return f"{{{{ {holder}.{field}|default(none) }}}}"


def _keyword(name: str, facts: DeviceFacts) -> Entity:
    """A trigger for automations; it has no state."""
    config = {
        "atype": "trigger",
        "type": "keyword",
        "stype": name,
        "t": topic_for(facts.device_id, Keyword),
        "val_tpl": "{{ value_json.keyword }}",
        "pl": name,
    }
    return Entity(f"keyword_{sha256(name.encode()).hexdigest()[:8]}", "device_automation", config)
