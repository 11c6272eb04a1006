"""Announces the device to Home Assistant by MQTT discovery.

    device      homeassistant/device/<id>/config                    one message with all components
    component   homeassistant/<platform>/<id>/<key>/config          one message a component

docs/decisions/0006-discovery.md gives the reasons for the default, `device`. The words are those of
https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery and the pages of the platforms. Abbreviations keep the
message for a whole device below 20 KB on every board. `discovery.json` in the state folder lists the announcements on
the broker, so that a later run can withdraw them.
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
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, TypeAdapter

from agent.config.settings import DiscoverySettings
from agent.config.state_file import read_json, write_json
from agent.config.tunables import COMMANDED, LONGEST_STATE
from agent.config.types import DeviceId, TopicLevels
from agent.messages import Health, Info, Keyword, State, Status, TranscriptMessage, Vad, topic_for
from agent.messages.telemetry import METRICS, TelemetryMessage
from agent.mqtt.client import MqttClient
from agent.mqtt.commands import command_topic
from agent.mqtt.delivery import Outgoing

log = logging.getLogger(__name__)

FILE: Final = "discovery.json"
STEP_S: Final = 5.0
"""Time for Home Assistant to process one batch before the next one."""
WELCOME_S: Final = (1.0, 10.0)
"""Each device of a fleet answers Home Assistant's birth after a random time between these."""
MIGRATE: Final = b'{"migrate_discovery":true}'
"""Makes Home Assistant keep an entity's history during a change of the mode."""
EXPIRES_AFTER_INTERVALS: Final = 3
SPEAKING_OFF_S: Final = 30
"""Three times the interval at which `ON` is repeated during speech."""
COMMAND_EXPIRY_S: Final = 60
"""A command to a device that is away has no effect an hour later."""

_WORDS: Final = re.compile(r"[^a-z0-9]+")
_Word = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]
Batch = Mapping[str, bytes]
"""Retained messages that may be sent together, by topic. The next batch waits until Home Assistant has processed it.

An empty payload makes the broker forget the topic, and Home Assistant the entity.
"""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """The facts that the announcement of a device depends on."""

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
    """Allowed commands."""
    telemetry_interval_s: float
    publishes_text: bool
    keywords: tuple[str, ...] = ()
    """Names of the published keywords."""
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
    """Everything else, without the configuration that all components share."""


def entities(facts: DeviceFacts) -> tuple[Entity, ...]:
    """Return everything that the device offers, in the order in which people look for it."""
    controls = (control for control in _controls(facts) if control.key in facts.commands)
    return (*_reports(facts), *controls, *_sensors(facts), *_triggers(facts))


def _entity(facts: DeviceFacts, key: str, platform: str, **config: object) -> Entity:
    # Home Assistant would suggest the same entity id from both names. This one stays when a device is renamed.
    # `object_id`, the former name of the option, ends with 2026.4.
    suggestion = _WORDS.sub("_", f"{facts.device_id} {config['name']}".lower()).strip("_")
    ids = {"uniq_id": f"edgescribe_{facts.device_id}_{key}", "def_ent_id": f"{platform}.{suggestion}"}
    return Entity(key, platform, {**ids, **config})


def _reports(facts: DeviceFacts) -> Iterator[Entity]:
    entity = partial(_entity, facts)
    transcript, vad, health, info = (
        topic_for(facts.device_id, kind) for kind in (TranscriptMessage, Vad, Health, Info)
    )
    if facts.publishes_text:
        event = {"name": "Transcript", "stat_t": transcript, "evt_typ": ["transcript"], "ic": "mdi:microphone-message"}
        yield entity("transcript", "event", **event)
        shortened = f"{{{{ value_json.text[:{LONGEST_STATE}] }}}}"
        last = {"name": "Last transcript", "stat_t": transcript, "val_tpl": shortened, "en": False, "ic": "mdi:text"}
        yield entity("last_transcript", "sensor", **last)
    # Off by a timer, not unavailable: hours without speech in a quiet room are no fault.
    yield entity("speaking", "binary_sensor", name="Speaking", stat_t=vad, dev_cla="sound", off_dly=SPEAKING_OFF_S)
    problem = {"stat_t": health, "dev_cla": "problem", "ent_cat": "diagnostic"}
    codes = {"json_attr_t": health, "json_attr_tpl": "{{ {'codes': value_json.codes} | tojson }}"}
    yield entity("problem", "binary_sensor", name="Problem", val_tpl="{{ value_json.problem }}", **problem, **codes)
    for code, name in (("undervoltage", "Under-voltage"), ("throttled", "Throttled")):
        is_on = f"{{{{ 'ON' if '{code}' in value_json.codes else 'OFF' }}}}"
        yield entity(code, "binary_sensor", name=name, val_tpl=is_on, **problem)
    # The device knows its own version only. The fleet knows which one is the newest.
    version = "{{ {'installed_version': value_json.agent, 'latest_version': value_json.agent} | tojson }}"
    yield entity(
        "agent", "update", name="Agent", stat_t=info, val_tpl=version, dev_cla="firmware", ent_cat="diagnostic"
    )


def _controls(facts: DeviceFacts) -> Iterator[Entity]:
    def control(command: str, platform: str, **config: object) -> Entity:
        sends = {"cmd_t": command_topic(facts.device_id, command), "msg_exp_int": COMMAND_EXPIRY_S}
        return _entity(facts, command, platform, **config, **sends)

    state, options = topic_for(facts.device_id, State), {"model": facts.models, "language": facts.languages}
    on_off = {"pl_on": "ON", "pl_off": "OFF", "ic": "mdi:microphone"}
    listening = "{{ 'ON' if value_json.listening else 'OFF' }}"
    yield control("listen", "switch", stat_t=state, val_tpl=listening, name="Listening", **on_off)
    for tunable in COMMANDED:
        cut = f"[:{LONGEST_STATE}]" if tunable.platform == "text" else ""
        value = f"{{{{ value_json.{tunable.command}{cut} }}}}"
        choice = {"ops": list(options[tunable.command])} if tunable.platform == "select" else {}
        config = {"name": tunable.title, **choice, **tunable.control}
        yield control(tunable.command, tunable.platform, stat_t=state, val_tpl=value, **config)
    yield control("restart", "button", name="Restart", dev_cla="restart", ent_cat="config")
    yield control("identify", "button", name="Identify", dev_cla="identify", ent_cat="diagnostic")


def _sensors(facts: DeviceFacts) -> Iterator[Entity]:
    for metric in METRICS:
        if not metric.name or metric.path in facts.absent:
            continue
        config = {
            "name": metric.name,
            "stat_t": topic_for(facts.device_id, TelemetryMessage),
            "val_tpl": _number(metric.path),
            "ent_cat": "diagnostic",
            "exp_aft": round(EXPIRES_AFTER_INTERVALS * facts.telemetry_interval_s),
            "unit_of_meas": metric.unit,
            "dev_cla": metric.device_class,
            "stat_cla": metric.state_class,
            "en": None if metric.enabled else False,
        }
        known = {key: value for key, value in config.items() if value is not None}
        yield _entity(facts, metric.path.replace(".", "_"), "sensor", **known)


def _number(path: str) -> str:
    """Return a template for a field that may be missing: the sensor is unknown then, without a complaint in the log."""
    part, _, field = path.partition(".")
    if not field:
        return f"{{{{ value_json.{part} }}}}"
    always_there = TelemetryMessage.model_fields[part].is_required()
    holder = f"value_json.{part}" if always_there else f"(value_json.{part}|default({{}}))"
    return f"{{{{ {holder}.{field}|default(none) }}}}"


def _triggers(facts: DeviceFacts) -> Iterator[Entity]:
    """Yield a trigger for automations for each keyword. It has no id and no state, so it is no entity."""
    topic = topic_for(facts.device_id, Keyword)
    for name in facts.keywords:
        config = {"atype": "trigger", "type": "keyword", "stype": name, "t": topic}
        config |= {"val_tpl": "{{ value_json.keyword }}", "pl": name}
        yield Entity(f"keyword_{sha256(name.encode()).hexdigest()[:8]}", "device_automation", config)


@dataclass(frozen=True, slots=True)
class Announced:
    """The announcements on the broker: enough to withdraw them."""

    mode: Literal["device", "component", "off"]
    prefix: TopicLevels
    device_id: DeviceId
    components: Mapping[_Word, _Word]
    """Platforms by key."""
    serial: str | None = None
    """Serial number of the board that wrote the file."""

    @classmethod
    def of(cls, settings: DiscoverySettings, facts: DeviceFacts) -> Self:
        """Return the announcements for these settings and facts."""
        found = {entity.key: entity.platform for entity in entities(facts)} if settings.mode != "off" else {}
        return cls(settings.mode, settings.prefix, facts.device_id, found)

    @property
    def topics(self) -> tuple[str, ...]:
        """Every topic that holds a message."""
        if self.mode == "device":
            return (f"{self.prefix}/device/{self.device_id}/config",)
        components = self.components.items()  # none if the mode is `off`
        return tuple(f"{self.prefix}/{platform}/{self.device_id}/{key}/config" for key, platform in components)

    def is_beside(self, other: "Announced") -> bool:
        """Return whether both are about the same device in the same place."""
        return (self.prefix, self.device_id) == (other.prefix, other.device_id)


def plan(settings: DiscoverySettings, facts: DeviceFacts, before: Announced | None) -> tuple[Batch, ...]:
    """Return the batches that announce the device, and withdraw the rest of the announcements from `before`."""
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
        # A message that has only its platform, sent once, removes a component of a device.
        batches = (_device_config(now, facts, gone), configs) if now.mode == "device" else ({**erased, **configs},)
    return tuple(batch for batch in batches if batch)


def retained_topics(device_id: str) -> tuple[str, ...]:
    """Return the retained topics of a device, without its announcement."""
    return tuple(topic_for(device_id, kind) for kind in (Status, Info, State, Health))


def announcements(settings: DiscoverySettings, facts: DeviceFacts) -> Batch:
    """Return the messages that announce the device."""
    now = Announced.of(settings, facts)
    if settings.mode == "device":
        return _device_config(now, facts, {})
    configs = (_json({**entity.config, **_common(facts)}) for entity in entities(facts))
    return dict(zip(now.topics, configs, strict=True)) if now.topics else {}


def _device_config(now: Announced, facts: DeviceFacts, gone: Mapping[str, str]) -> Batch:
    shared = {"stat_t": topic_for(facts.device_id, TelemetryMessage)}  # for all components that name no other
    components: dict[str, dict[str, object]] = {key: {"p": platform} for key, platform in gone.items()}
    for entity in entities(facts):
        own = {key: value for key, value in entity.config.items() if shared.get(key) != value}
        components[entity.key] = {"p": entity.platform, **own}
    return dict.fromkeys(now.topics, _json({**_common(facts), **shared, "cmps": components}))


def _common(facts: DeviceFacts) -> dict[str, Any]:
    """Return the configuration that all components share: device, origin, availability."""
    device = {"ids": [f"edgescribe_{facts.device_id}"], "name": facts.name, "mf": "edgescribe", "sw": facts.agent}
    return {
        "dev": device | ({"mdl": facts.hardware} if facts.hardware else {}),
        "o": {"name": "edgescribe", "sw": facts.agent},
        # Home Assistant expects the words `online` and `offline` of this topic.
        "avty_t": topic_for(facts.device_id, Status),
    }


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


_DOCUMENT: Final = TypeAdapter(Announced | None)


class Announcer:
    """Sends the announcements, and withdraws retained messages under a former id of the device.

    `serial` identifies the board: a card that was copied to another board does not list the announcements of that one.
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
        """Topics of the sent messages, until the broker has acknowledged all of them."""
        self._unwritten = False
        self._sent_s = 0.0
        self._repeat_at_s: float | None = None
        self._before = self._read()
        self._after: Announced | None = None
        self._facts: DeviceFacts | None = None

    def announce(self, facts: DeviceFacts) -> None:
        """Announce the device, if `facts` have changed."""
        with self._lock:
            if facts == self._facts:
                return
            known = self._before if self._batches else self._after or self._before
            self._batches = deque(plan(self._settings, facts, known))
            self._facts, self._after = facts, Announced.of(self._settings, facts)
            self._remember()
            self._send_next()

    def born(self) -> None:
        """Repeat all announcements soon, because Home Assistant has started."""
        with self._lock:
            self._repeat_at_s = self._clock_s() + self._chance.uniform(*WELCOME_S)

    def tick(self) -> None:
        """Send the batch, or the repetition, that is due."""
        with self._lock:
            now_s = self._clock_s()
            if not self._mqtt.connected:
                self._sent_s = now_s  # the last batch is still on its way
                return
            if self._repeat_at_s is not None and now_s >= self._repeat_at_s:
                self._repeat_at_s = None
                self._mqtt.repeat()
            if not self._mqtt.has_taken(self._unanswered):
                self._sent_s = now_s  # Home Assistant has not received it either
                return
            self._unanswered.clear()
            if now_s - self._sent_s >= STEP_S:
                self._send_next()

    def keep(self) -> None:
        """Write the file again if it was deleted, or could not be written; called every few seconds."""
        with self._lock:
            if self._unwritten or not os.path.exists(self._path):  # noqa: PTH110 - never raises
                self._remember()

    def _send_next(self) -> None:
        self._sent_s = self._clock_s()
        if self._batches:
            kind = partial(Outgoing, qos=1, retained=True, content_type="application/json", schema="homeassistant")
            for topic, payload in self._batches.popleft().items():
                self._unanswered.add(topic)
                self._mqtt.post(kind(topic, payload, accepted_s=time.monotonic()))
        elif self._before is not self._after and self._mqtt.has_taken(self._unanswered):
            self._before = self._after
            self._remember()

    def _remember(self) -> None:
        """Write the list of the announcements that the broker may hold, those not surely withdrawn included."""
        if (last := self._standing()) is None:
            return
        try:
            write_json(self._path, asdict(replace(last, serial=self._serial)))
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
            return replace(after, components={**before.components, **after.components})
        return before  # only this device can withdraw it

    def _read(self) -> Announced | None:
        try:
            found = _DOCUMENT.validate_python(read_json(self._path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning(f"{self._path}: is damaged ({type(error).__name__}): old announcements may stay on the broker")
            return None
        if found and self._serial and found.serial and found.serial != self._serial:
            log.warning(f"{self._path}: was written on another board; leaving the topics of {found.device_id} alone")
            return None
        return found
