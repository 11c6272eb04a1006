import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from agent.errors import DeviceEndless, DeviceStalled, DeviceUnavailable
from agent.messages import Message
from agent.mqtt.outbox_store import Condition
from docs.payload_schemas import published_kinds

DOCUMENT = (Path(__file__).parents[2] / "docs" / "mqtt.md").read_text(encoding="utf-8")


def field_names(model: type[BaseModel]) -> set[str]:
    """Names of all fields of `model` and of its parts."""
    names = set()
    for name, field in model.model_fields.items():
        names.add(name)
        for kind in [field.annotation, *getattr(field.annotation, "__args__", ())]:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                names |= field_names(kind)
    return names


@pytest.mark.parametrize("kind", published_kinds(), ids=lambda kind: kind.__name__)
def test_every_topic_is_documented_with_its_delivery(kind: type[Message]) -> None:
    """The row of the table says the QoS and whether the broker retains it."""
    row = re.search(rf"^\| `{re.escape(kind.topic)}` \| (\d) \| (\S+) \|", DOCUMENT, re.MULTILINE)
    assert row, f"docs/mqtt.md has no row for {kind.topic}"
    assert int(row[1]) == kind.qos
    assert (row[2] == "yes") == kind.retained


@pytest.mark.parametrize("kind", published_kinds(), ids=lambda kind: kind.__name__)
def test_every_field_is_documented(kind: type[Message]) -> None:
    """Whoever adds a field tells the subscribers."""
    names = field_names(kind) - {"v"}
    if kind.content_type == "text/plain":
        names = set()
    missing = {name for name in names if f"`{name}`" not in DOCUMENT and f'"{name}"' not in DOCUMENT}
    assert missing == set()


@pytest.mark.parametrize("code", [*Condition, DeviceUnavailable.code, DeviceStalled.code, DeviceEndless.code])
def test_every_code_that_health_has_for_a_device_is_explained(code: str) -> None:
    """Whoever sees it in a dashboard looks it up there."""
    assert f"`{code}`" in DOCUMENT
