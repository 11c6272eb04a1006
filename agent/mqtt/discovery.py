"""Announces a device to Home Assistant, and withdraws what was announced before. Pure: facts in, messages out.

    device      homeassistant/device/<id>/config                    one message with all components
    component   homeassistant/<platform>/<id>/<key>/config          one message a component

Why `device` is the default stands in docs/decisions/0006-discovery.md.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field

from agent.config.settings import DiscoverySettings
from agent.config.types import DeviceId, TopicLevels
from agent.messages import Health, Info, State, Status, topic_for
from agent.messages.telemetry import TelemetryMessage
from agent.mqtt.discovery_entities import DeviceFacts, Entity, entities

Mode = Literal["device", "component", "off"]
_Word = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]
_WORDS: Final = re.compile(r"[^a-z0-9]+")
MIGRATE: Final = b'{"migrate_discovery":true}'
"""Makes Home Assistant keep an entity's history while it changes from one kind of discovery to the other."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """A retained message. An empty payload makes the broker forget the topic, and Home Assistant what it announced."""

    topic: str
    payload: bytes


Batch = tuple[Announcement, ...]
"""Messages that may go together; the next batch only after Home Assistant had time for this one."""


@dataclass(frozen=True, slots=True)
class Announced:
    """What stands on the broker: enough to withdraw it."""

    mode: Mode
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
                return tuple(self._topic(platform, key) for key, platform in self.components.items())
            case "off":
                return ()

    def _topic(self, platform: str, key: str) -> str:
        return f"{self.prefix}/{platform}/{self.device_id}/{key}/config"

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
    if before is None or (before.mode == "off" and before.device_id == now.device_id):
        return _batches(configs)
    if not now.is_beside(before):
        former = () if before.device_id == now.device_id else retained_topics(before.device_id)
        return _batches((*_erased((*former, *before.topics)), *configs))
    if now.mode != before.mode:
        if now.mode == "off":
            return _batches(_erased(before.topics))
        moving = tuple(Announcement(topic, MIGRATE) for topic in before.topics)
        return _batches(moving, configs, _erased(before.topics))
    gone = {key: platform for key, platform in before.components.items() if now.components.get(key) != platform}
    if now.mode == "device" and gone:
        # A component goes by being sent without anything but its platform, once.
        return _batches((_device_config(now, facts, gone),), configs)
    erased = _erased(tuple(topic for topic in before.topics if topic not in now.topics))
    return _batches((*erased, *configs))


def retained_topics(device_id: str) -> tuple[str, ...]:
    """What the broker retains of a device apart from its announcement."""
    return tuple(topic_for(device_id, kind) for kind in (Status, Info, State, Health))


def announcements(settings: DiscoverySettings, facts: DeviceFacts) -> Batch:
    """The messages that announce the device."""
    now = Announced.of(settings, facts)
    match settings.mode:
        case "off":
            return ()
        case "device":
            return (_device_config(now, facts, {}),)
        case "component":
            common = _common(facts)
            configs = (_component(entity, facts) | common for entity in entities(facts))
            return tuple(Announcement(topic, _json(config)) for topic, config in zip(now.topics, configs, strict=True))


def _device_config(now: Announced, facts: DeviceFacts, gone: Mapping[str, str]) -> Announcement:
    (topic,) = now.topics
    shared = {"stat_t": topic_for(facts.device_id, TelemetryMessage)}  # for all that have no other
    components = {
        entity.key: {"p": entity.platform}
        | {key: value for key, value in _component(entity, facts).items() if shared.get(key) != value}
        for entity in entities(facts)
    }
    leaving = {key: {"p": platform} for key, platform in gone.items() if key not in components}
    return Announcement(topic, _json({**_common(facts), **shared, "cmps": {**components, **leaving}}))


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


def _erased(topics: tuple[str, ...]) -> Batch:
    return tuple(Announcement(topic, b"") for topic in topics)


def _batches(*batches: Batch) -> tuple[Batch, ...]:
    return tuple(batch for batch in batches if batch)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
