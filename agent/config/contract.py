"""The settings of what this device says and obeys over MQTT: a part of `config.Settings`."""

import re
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator, model_validator

from agent.config.keywords import keyword_rules
from agent.config.section import Fraction, InWords, Section
from agent.config.tunables import COMMANDED

COMMANDS: Final = (
    "listen",
    "mute",
    *(tunable.command for tunable in COMMANDED),
    "restart",
    "identify",
    "calibrate",
    "replay",
    "golden_utterance",
)
"""Every command there is (docs/mqtt.md)."""
DeviceId = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,36}$"), InWords("a name of a-z, 0-9 and -, at most 36")]
TopicLevels = Annotated[
    str,
    Field(pattern=r"^[^+#/\s\x00-\x1f\x7f]+(/[^+#/\s\x00-\x1f\x7f]+)*$"),
    InWords("levels of a topic, without spaces, + or #"),
]


class PublishSettings(Section):
    """What of the speech leaves this device."""

    privacy: Literal["full", "keywords", "off"] = "full"
    """`full` publishes transcripts; `keywords` only that one of the keywords was said, and nothing else of the text;
    `off` does not even transcribe. No command can change it."""
    keywords: tuple[str, ...] = ()
    """Words or phrases (`"heater off"`), or regular expressions (`"/turn (on|off) the \\w+/"`). Case does not matter. A
    name in front (`"lights=/lights? on/"`) is what is published; without one it is the keyword itself.
    docs/mqtt.md ("How a keyword matches") has the rules for all scripts."""
    min_confidence: Fraction = 0.0
    """Transcripts whose tokens were less probable than this, in the geometric mean (`exp(avg_logprob)`), are rejected:
    counted, not published, no keyword. 0 publishes all, and leaves the decision to the subscribers."""

    partials: bool = False
    """Publish on `transcript/partial`, too, what is understood at each pause of 200 ms while somebody still speaks.
    Costs no inference of its own: it is what is decoded ahead anyway. Only with `privacy = "full"`."""

    @field_validator("keywords")
    @classmethod
    def _keywords_can_be_read(cls, keywords: tuple[str, ...]) -> tuple[str, ...]:
        keyword_rules(keywords)
        return keywords

    @model_validator(mode="after")
    def _something_is_left(self) -> "PublishSettings":
        if self.privacy == "keywords" and not self.keywords:
            msg = 'privacy = "keywords" without keywords would never say anything: set publish.keywords'
            raise ValueError(msg)
        return self


class CommandSettings(Section):
    """What may be asked of this device over MQTT. Who may ask is up to the broker's access control list."""

    allow: tuple[str, ...] = COMMANDS
    """Commands that are obeyed; an empty list obeys none."""
    groups: tuple[str, ...] = ()
    """Groups whose commands (`edgescribe/v1/_group/<group>/cmd/…`) count for this device, too: `a-z`, `0-9`, `-`."""

    @field_validator("allow")
    @classmethod
    def _commands_exist(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in allow if name not in COMMANDS]:
            msg = f"there is no command {unknown[0]!r}: there are {', '.join(COMMANDS)}"
            raise ValueError(msg)
        return allow

    @field_validator("groups")
    @classmethod
    def _groups_are_topic_levels(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [name for name in groups if not re.fullmatch(r"[a-z0-9-]{1,36}", name)]:
            msg = f"{wrong[0]!r} cannot name a group: use a-z, 0-9 and -, at most 36"
            raise ValueError(msg)
        return groups


class DiscoverySettings(Section):
    """Home Assistant finds the device by itself."""

    mode: Literal["device", "component", "off"] = "device"
    """`device`: one message (Home Assistant 2024.11, openHAB 5.1, and later). `component`: one message an entity, for
    older ones. `off`: none; what was announced before is withdrawn."""
    prefix: TopicLevels = "homeassistant"
    """Home Assistant's discovery prefix."""
