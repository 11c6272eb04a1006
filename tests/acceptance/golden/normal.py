"""What differs from run to run, replaced by names in angle brackets."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.support.receiver import Message

HOST_FACTS: Final = frozenset({"hardware", "os", "kernel", "arch", "python", "time_synced"})
"""Left out: they say where the test ran."""
MEASURED: Final = frozenset(
    {"rtf", "vad_close", "queue", "encode_decode", "total_from_speech_end", "rms_dbfs", "snr_db"}
)
PORTS: Final = frozenset({"mqtt.port"})
"""Settings whose value the test draws."""
NAMED: Final = {"ts": "<time>", "start": "<time>", "agent": "<version>", "sw": "<version>"}
EXPIRY_STEPS_S: Final = (10, 600)
"""The broker counts whole seconds down. The recorded expiry is a multiple of the largest step below it, rounded up."""

_ULID: Final = re.compile(r"\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b")
_PATTERNS: Final = (
    (re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b"), "<boot id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"), "<time>"),
    (re.compile(r"^\d\d:\d\d:\d\d(?= [A-Z]+ )"), "<time>"),
    (re.compile(r"\b(127\.0\.0\.1|localhost):\d+"), r"\1:<port>"),
    (re.compile(r"\bmqtt\.port=\d+"), "mqtt.port=<port>"),
    (re.compile(r"\brtf \d+\.\d+"), "rtf <number>"),
    (re.compile(r"\b\d+ ms after the last word"), "<number> ms after the last word"),
    (re.compile(r"\b(process|pid) \d+"), r"\1 <number>"),
    (re.compile(r"\(choose from [^)]*\)"), "(choose from …)"),
    (re.compile(r"\bedgescribe \d+\.\d+\.\d+\S*"), "edgescribe <version>"),
)


class Normaliser:
    """Replaces paths, ids, times, versions, ports, host facts and measured numbers. An id keeps its number in a run."""

    def __init__(self, paths: Mapping[Path, str]) -> None:
        self._paths = [(str(path), name) for path, name in paths.items()]
        self._ids: dict[str, str] = {}

    def text(self, text: str) -> str:
        """One line."""
        for path, name in self._paths:
            text = text.replace(path, name)
        for pattern, name in _PATTERNS:
            text = pattern.sub(name, text)
        return _ULID.sub(lambda found: self._ids.setdefault(found[0], f"<id {len(self._ids) + 1}>"), text)

    def lines(self, text: str) -> list[str]:
        """Each line."""
        return [self.text(line) for line in text.splitlines()]

    def value(self, value: Any, key: str = "") -> Any:
        """A JSON document, or a part of it that lies at `key`."""
        if key in MEASURED or key in PORTS:
            return "<number>"
        if isinstance(value, str) and key in NAMED:
            return NAMED[key]
        if isinstance(value, dict):
            return {name: self.value(inner, name) for name, inner in value.items() if name not in HOST_FACTS}
        if isinstance(value, list):
            return [self.value(inner) for inner in value]
        return self.text(value) if isinstance(value, str) else value

    def payload(self, payload: str) -> Any:
        """A payload: JSON, or text."""
        try:
            return self.value(json.loads(payload))
        except json.JSONDecodeError:
            return self.text(payload)

    def message(self, message: Message) -> dict[str, Any]:
        """A message with all that the broker was told about it."""
        properties = message.properties
        delivery = [f"qos {message.qos}", *(["retained"] if message.retained else [])]
        delivery += [f"{name} {value}" for name, value in properties.get("UserProperty", [])]
        delivery += [properties["ContentType"]] if "ContentType" in properties else []
        if (expiry_s := properties.get("MessageExpiryInterval")) is not None:
            step_s = max(step_s for step_s in EXPIRY_STEPS_S if step_s <= max(expiry_s, EXPIRY_STEPS_S[0]))
            delivery.append(f"expires after {-(-expiry_s // step_s) * step_s} s")
        return {"topic": message.topic, "delivery": ", ".join(delivery), "payload": self.payload(message.payload)}
