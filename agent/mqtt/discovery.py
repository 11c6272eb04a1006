"""What Home Assistant is told of a device by MQTT discovery: its entities, the messages, and when they are sent.

    device      homeassistant/device/<id>/config                    one message with all components
    component   homeassistant/<platform>/<id>/<key>/config          one message a component

Why `device` is the default stands in docs/decisions/0006-discovery.md. Words are those of
https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery and the pages of the platforms; abbreviations keep the
one message for a whole device below 20 KB, whatever the board can measure. `discovery.json` in the state folder says
what stands on the broker, so that a later run can withdraw it.
"""

import json
import logging
import os
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, TypeAdapter

from agent.config.settings import DiscoverySettings
from agent.config.state_file import read_json, write_json
from agent.config.tunables import COMMANDED, LONGEST_STATE
from agent.config.types import DeviceId, TopicLevels
from agent.messages import Health, Info, Keyword, State, Status, TranscriptMessage, Vad, topic_for
from agent.messages.telemetry import METRICS, Metric, TelemetryMessage
from agent.mqtt.client import MqttClient
from agent.mqtt.commands import command_topic
from agent.mqtt.delivery import Outgoing

log = logging.getLogger(__name__)

FILE: Final = "discovery.json"
STEP_S: Final = 5.0
"""Time for Home Assistant to act on one batch before the next one comes."""
WELCOME_S: Final = (1.0, 10.0)
"""A fleet that answers Home Assistant's birth spreads over this."""
MIGRATE: Final = b'{"migrate_discovery":true}'
"""Makes Home Assistant keep an entity's history while it changes from one kind of discovery to the other."""
EXPIRES_AFTER_INTERVALS: Final = 3
SPEAKING_OFF_S: Final = 30
"""Three times the interval at which `ON` is repeated while somebody speaks."""
COMMAND_EXPIRY_S: Final = 60
"""A switch that was flipped while the device was away does nothing an hour later."""

_WORDS: Final = re.compile(r"[^a-z0-9]+")
_Word = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]
Batch = Mapping[str, bytes]
"""Retained messages that may go together, by topic; the next batch only after Home Assistant had time for this one.

An empty payload makes the broker forget the topic, and Home Assistant what it announced.
"""


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
            options = list(facts.models if tunable.command == "model" else facts.languages)
            config = {"name": config["name"], "ops": options, **config}
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


@dataclass(frozen=True, slots=True)
class Announced:
    """What stands on the broker: enough to withdraw it."""

    mode: Literal["device", "component", "off"]
    prefix: TopicLevels
    device_id: DeviceId
    components: Mapping[_Word, _Word]
    """Platforms by key."""

    @classmethod
    def of(cls, settings: DiscoverySettings, facts: DeviceFacts) -> Self:
        """What these settings and facts announce."""
        found = {entity.key: entity.platform for entity in entities(facts)} if settings.mode != "off" else {}
        return cls(settings.mode, settings.prefix, facts.device_id, found)

    @property
    def topics(self) -> tuple[str, ...]:
        """Every topic that holds a message."""
        match self.mode:
            case "device":
                return (f"{self.prefix}/device/{self.device_id}/config",)
            case "component":
                between = self.components.items()
                return tuple(f"{self.prefix}/{platform}/{self.device_id}/{key}/config" for key, platform in between)
            case "off":
                return ()

    def including(self, other: "Announced") -> "Announced":
        """This and what `other` has beyond it; of use only if both are of the same mode, place and device."""
        return Announced(self.mode, self.prefix, self.device_id, {**other.components, **self.components})

    def is_beside(self, other: "Announced") -> bool:
        """Whether both are about the same device in the same place."""
        return (self.prefix, self.device_id) == (other.prefix, other.device_id)


def plan(settings: DiscoverySettings, facts: DeviceFacts, before: Announced | None) -> tuple[Batch, ...]:
    """What is to be sent, in batches, so that nothing is left of what was announced `before`."""
    now = Announced.of(settings, facts)
    configs = announcements(settings, facts)
    erased = dict.fromkeys(before.topics if before else (), b"")
    batches: tuple[Batch, ...] = (configs,)
    if before is None or (before.mode == "off" and before.device_id == now.device_id):
        pass
    elif not now.is_beside(before):
        former = () if before.device_id == now.device_id else retained_topics(before.device_id)
        batches = ({**dict.fromkeys(former, b""), **erased, **configs},)
    elif now.mode == "off":
        batches = (erased,)
    elif now.mode != before.mode:
        batches = (dict.fromkeys(before.topics, MIGRATE), configs, erased)
    elif gone := {key: kind for key, kind in before.components.items() if now.components.get(key) != kind}:
        # A component of a device goes by being sent without anything but its platform, once.
        batches = (_device_config(now, facts, gone), configs) if now.mode == "device" else ({**erased, **configs},)
    return tuple(batch for batch in batches if batch)


def retained_topics(device_id: str) -> tuple[str, ...]:
    """What the broker retains of a device apart from its announcement."""
    return tuple(topic_for(device_id, kind) for kind in (Status, Info, State, Health))


def announcements(settings: DiscoverySettings, facts: DeviceFacts) -> Batch:
    """The messages that announce the device."""
    now = Announced.of(settings, facts)
    if settings.mode == "device":
        return _device_config(now, facts, {})
    configs = (_json(_component(entity, facts) | _common(facts)) for entity in entities(facts))
    return dict(zip(now.topics, configs, strict=True)) if now.topics else {}


def _device_config(now: Announced, facts: DeviceFacts, gone: Mapping[str, str]) -> Batch:
    shared = {"stat_t": topic_for(facts.device_id, TelemetryMessage)}  # for all that have no other
    components = {key: {"p": platform} for key, platform in gone.items()}
    for entity in entities(facts):
        own = {key: value for key, value in _component(entity, facts).items() if shared.get(key) != value}
        components[entity.key] = {"p": entity.platform, **own}
    return dict.fromkeys(now.topics, _json({**_common(facts), **shared, "cmps": components}))


def _common(facts: DeviceFacts) -> dict[str, Any]:
    """What all components share: device, origin, availability."""
    device = {"ids": [f"edgescribe_{facts.device_id}"], "name": facts.name, "mf": "edgescribe", "sw": facts.agent}
    return {
        "dev": device | ({"mdl": facts.hardware} if facts.hardware else {}),
        "o": {"name": "edgescribe", "sw": facts.agent},
        # `online` and `offline` are Home Assistant's own words for it.
        "avty_t": topic_for(facts.device_id, Status),
    }


def _component(entity: Entity, facts: DeviceFacts) -> dict[str, Any]:
    if entity.platform == "device_automation":
        return dict(entity.config)  # no entity: it has neither id nor state
    # As Home Assistant would make it of both names, so that examples hold for every release; but it lasts when a device
    # is renamed. `object_id`, which did this before, ends with 2026.4.
    suggestion = _WORDS.sub("_", f"{facts.device_id} {entity.config['name']}".lower()).strip("_")
    return {
        "uniq_id": f"edgescribe_{facts.device_id}_{entity.key}",
        "def_ent_id": f"{entity.platform}.{suggestion}",
        **entity.config,
    }


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


_DOCUMENT: Final = TypeAdapter(Announced | None)


class Announcer:
    """Also withdraws what the broker retains of the device under a former id.

    `serial` is that of the board. A card that was copied to another board says nothing of what this device announced.
    `announce` and `born` are called from any thread, `tick` and `keep` from the main thread.
    """

    def __init__(
        self,
        settings: DiscoverySettings,
        mqtt: MqttClient,
        folder: Path,
        *,
        serial: str | None = None,
        chance: random.Random | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._mqtt = mqtt
        self._path = folder / FILE
        self._serial = serial
        self._chance = chance or random.Random()  # noqa: S311 - jitter, not a secret
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._batches: deque[Batch] = deque()
        self._unanswered: set[str] = set()
        """Topics of what was sent, until the broker is known to have it."""
        self._unwritten = False
        self._sent_s = 0.0
        self._repeat_at_s: float | None = None
        self._before = self._read()
        self._after: Announced | None = None
        self._facts: DeviceFacts | None = None

    def announce(self, facts: DeviceFacts) -> None:
        """Say what the device offers, if that is not what was said last."""
        with self._lock:
            if facts == self._facts:
                return
            known = self._before if self._batches else self._after or self._before
            self._batches = deque(plan(self._settings, facts, known))
            self._facts, self._after = facts, Announced.of(self._settings, facts)
            self._remember()
            self._send_next()

    def born(self) -> None:
        """Home Assistant has started: tell it everything again, soon."""
        with self._lock:
            self._repeat_at_s = self._clock_s() + self._chance.uniform(*WELCOME_S)

    def tick(self) -> None:
        """Send what is due."""
        with self._lock:
            now_s = self._clock_s()
            if not self._mqtt.connected:
                self._sent_s = now_s  # what was sent last is still on its way
                return
            if self._repeat_at_s is not None and now_s >= self._repeat_at_s:
                self._repeat_at_s = None
                self._mqtt.repeat()
            if not self._mqtt.has_taken(self._unanswered):
                self._sent_s = now_s  # Home Assistant has not heard of it either
                return
            self._unanswered.clear()
            if now_s - self._sent_s >= STEP_S:
                self._send_next()

    def keep(self) -> None:
        """Write the file again if it was deleted, or could not be written; called now and then."""
        with self._lock:
            if self._unwritten or not os.path.exists(self._path):  # noqa: PTH110 - never raises
                self._remember()

    def _send_next(self) -> None:
        self._sent_s = self._clock_s()
        if self._batches:
            for topic, payload in self._batches.popleft().items():
                self._unanswered.add(topic)
                self._mqtt.post(
                    Outgoing(
                        topic,
                        payload,
                        qos=1,
                        retained=True,
                        content_type="application/json",
                        schema="homeassistant",
                        accepted_s=time.monotonic(),
                    )
                )
        elif self._before is not self._after and self._mqtt.has_taken(self._unanswered):
            self._before = self._after
            self._remember()

    def _remember(self) -> None:
        """Write down what may stand on the broker: what is announced, and what is not certain to be withdrawn yet."""
        if (last := self._standing()) is None:
            return
        document = {name: getattr(last, name) for name in Announced.__slots__} | {"serial": self._serial}
        try:
            write_json(self._path, document)
        except OSError as error:
            if not self._unwritten:
                log.warning(f"{self._path}: cannot be written ({error.strerror}): announcements may not be withdrawn")
            self._unwritten = True
        else:
            self._unwritten = False

    def _standing(self) -> Announced | None:
        before, after = self._before, self._after
        if before is None or after is None:
            return before or after
        if before.mode == "off" and before.device_id == after.device_id:
            return after
        if before.mode == after.mode and after.is_beside(before):
            return after.including(before)
        return before  # only this device can withdraw it

    def _read(self) -> Announced | None:
        try:
            document = read_json(self._path)
            found = _DOCUMENT.validate_python(document)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning(f"{self._path}: is damaged ({type(error).__name__}); nothing is withdrawn")
            return None
        serial = document.get("serial") if found else None
        if found and self._serial and serial and serial != self._serial:
            log.warning(f"{self._path}: was written on another board; leaving the topics of {found.device_id} alone")
            return None
        return found
