"""A reader of the shipped contract, as the author of a subscriber would write one."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

DOCS = Path(__file__).parents[2] / "docs"
ASYNCAPI = "asyncapi.json"


@cache
def contract() -> Any:
    """The AsyncAPI document."""
    return json.loads((DOCS / ASYNCAPI).read_text(encoding="utf-8"))


def resolve(reference: str) -> Any:
    """What a `$ref` of the AsyncAPI document points to: inside it, or a file beside it."""
    file, _, pointer = reference.partition("#")
    node = json.loads((DOCS / file).read_text(encoding="utf-8")) if file else contract()
    for level in pointer.split("/")[1:]:
        node = node[level]
    return node


def references(node: Any) -> Iterator[str]:
    """Every `$ref` below a node."""
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for item in node:
            yield from references(item)


def command_names() -> list[str]:
    """The commands that a device knows."""
    names: list[str] = contract()["components"]["parameters"]["command"]["enum"]
    return names


def argument_names() -> list[str]:
    """The arguments that commands take."""
    schema = json.loads((DOCS / "schemas" / "command-1.json").read_text(encoding="utf-8"))
    return sorted(schema["properties"]["args"]["properties"])


@dataclass(frozen=True, slots=True)
class Promise:
    """What the contract promises about one topic."""

    operation: str
    content_type: str
    schema: Any
    schema_name: str
    qos: int
    retained: bool
    expiry_s: int | None

    def complaints(self, payload: str) -> list[str]:
        """Why a payload is not what was promised, undocumented fields included; empty if it is."""
        value = payload if self.content_type == "text/plain" else json.loads(payload)
        validator = Draft202012Validator(closed(self.schema), format_checker=Draft202012Validator.FORMAT_CHECKER)
        return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def closed(node: Any) -> Any:
    """A schema without room for unknown fields. Subscribers must leave room; we must not need it."""
    if isinstance(node, dict):
        inner = {key: closed(value) for key, value in node.items()}
        return inner | {"additionalProperties": False} if "properties" in inner else inner
    return [closed(item) for item in node] if isinstance(node, list) else node


def promise(topic: str, action: str = "send") -> Promise | None:
    """What is promised for a topic that a device sends to (`send`) or listens to (`receive`); None if nothing is."""
    for name, operation in contract()["operations"].items():
        channel = resolve(operation["channel"]["$ref"])
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(channel["address"]))
        if operation["action"] == action and re.fullmatch(pattern, topic):
            (message,) = (resolve(resolve(entry["$ref"])["$ref"]) for entry in operation["messages"])
            delivery = operation["bindings"]["mqtt"]
            return Promise(
                operation=name,
                content_type=message["contentType"],
                schema=resolve(message["payload"]["schema"]["$ref"]),
                schema_name=message["name"],
                qos=delivery["qos"],
                retained=delivery["retain"],
                expiry_s=delivery.get("messageExpiryInterval"),
            )
    return None
