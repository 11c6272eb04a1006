"""Writes the contract for machines: `docs/schemas/*.json` (JSON Schema 2020-12), `docs/asyncapi.json` (AsyncAPI 3.0).

python -m docs.contract_documents [FOLDER]

AsyncAPI is written from the application's side: the device *sends* its messages and *receives* commands. The document
is JSON, which every YAML reader understands as well.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from agent.config.settings import COMMANDS, OutboxSettings
from agent.messages import CONTRACT, Message, Reply, Status, topic_for
from agent.mqtt.client import WILL_DELAY_S
from agent.mqtt.connection import SESSION_EXPIRY_S
from docs.payload_schemas import Schema, command_schema, published_kinds, schema_file, schema_of

ASYNCAPI: Final = "asyncapi.json"
SCHEMAS: Final = "schemas"
_BINDING: Final = {"bindingVersion": "0.2.0"}
_SCHEMA_FORMAT: Final = "application/schema+json;version=draft-2020-12"
_COMMAND: Final = "command/1"
_ID: Final = "{deviceId}"

_DESCRIPTION: Final = """\
The messages and commands of an edgescribe device over MQTT. docs/mqtt.md has the same for people, with the rules of \
delivery. Contract 1 only adds topics and fields: ignore those that you do not know. Transcripts arrive at \
least once: deduplicate on `id`, order on (`boot_id`, `seq`)."""


def documents() -> dict[str, str]:
    """Every document by its path below `docs/`."""
    schemas = {kind.schema_name: schema_of(kind) for kind in published_kinds()} | {_COMMAND: command_schema(_COMMAND)}
    found = {f"{SCHEMAS}/{schema_file(name)}": _text(schema) for name, schema in schemas.items()}
    return found | {ASYNCAPI: _text(asyncapi())}


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def asyncapi() -> Schema:
    """The AsyncAPI document; its payloads are references to the files of `schemas/`."""
    kinds = published_kinds()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "edgescribe",
            "version": f"{CONTRACT}.0.0",
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"plain": _server("mqtt", 1883), "tls": _server("secure-mqtt", 8883)},
        "channels": {name: channel for kind in kinds for name, channel in _channels(kind).items()}
        | _command_channels(),
        "operations": {name: operation for kind in kinds for name, operation in _sendings(kind).items()}
        | _command_operations(),
        "components": {
            "parameters": {
                "deviceId": {"description": "Id of the device: `a-z`, `0-9`, `-`, at most 36 (`device.id`)."},
                "group": {"description": "A group of devices: `a-z`, `0-9`, `-`, at most 36 (`commands.groups`)."},
                "command": {"description": "The command.", "enum": list(COMMANDS)},
            },
            "messages": {_key(kind.schema_name): _message(kind) for kind in kinds} | {"command": _command_message()},
        },
    }


def _server(protocol: str, port: int) -> Schema:
    return {
        "host": f"localhost:{port}",
        "protocol": protocol,
        "protocolVersion": "5",
        "description": "Any broker for MQTT 5, or for 3.1.1 without properties (`mqtt.host`, `mqtt.port`).",
        "bindings": {
            "mqtt": {
                "clientId": _ID,
                "cleanSession": False,
                "keepAlive": 30,
                "sessionExpiryInterval": SESSION_EXPIRY_S,
                "lastWill": {
                    "topic": topic_for(_ID, Status),
                    "qos": Status.qos,
                    "message": "offline",
                    "retain": Status.retained,
                },
                "x-willDelayInterval": WILL_DELAY_S,
                **_BINDING,
            }
        },
    }


def _key(schema_name: str) -> str:
    return schema_name.partition("/")[0]


def _channel_names(kind: type[Message]) -> dict[str, bool]:
    """The channels of a kind, and whether each is the one for late messages."""
    name = _key(kind.schema_name)
    return {name: False} | ({f"{name}Backlog": True} if kind.late_topic else {})


def _channels(kind: type[Message]) -> dict[str, Schema]:
    key = _key(kind.schema_name)
    return {
        name: {
            "address": topic_for(_ID, kind, late=late),
            "description": _late_description(kind) if late else _summary(kind),
            "parameters": {"deviceId": {"$ref": "#/components/parameters/deviceId"}},
            "messages": {key: {"$ref": f"#/components/messages/{key}"}},
        }
        for name, late in _channel_names(kind).items()
    }


def _summary(kind: type[Message]) -> str:
    return " ".join((kind.__doc__ or "").split())


def _late_description(kind: type[Message]) -> str:
    return f"{_summary(kind)} Those that leave the device late, marked `replayed`: for archives, not for automations."


def _sendings(kind: type[Message]) -> dict[str, Schema]:
    key = _key(kind.schema_name)
    return {
        f"send{name[0].upper()}{name[1:]}": {
            "action": "send",
            "channel": {"$ref": f"#/channels/{name}"},
            "summary": _summary(kind),
            "messages": [{"$ref": f"#/channels/{name}/messages/{key}"}],
            "bindings": {"mqtt": _delivery(kind, late=late)},
        }
        for name, late in _channel_names(kind).items()
    }


def _delivery(kind: type[Message], *, late: bool) -> Schema:
    expiry_s = OutboxSettings().max_age_s if late else kind.expiry_s
    expiry = {} if expiry_s is None else {"messageExpiryInterval": expiry_s}
    return {"qos": kind.qos, "retain": kind.retained, **expiry, **_BINDING}


def _message(kind: type[Message]) -> Schema:
    return {
        "name": kind.schema_name,
        "contentType": kind.content_type,
        "headers": _user_property(kind.schema_name),
        "payload": _payload(kind.schema_name),
        "bindings": {"mqtt": {"payloadFormatIndicator": 1, "contentType": kind.content_type, **_BINDING}},
    }


def _user_property(schema_name: str) -> Schema:
    """The MQTT 5 user property that names the schema."""
    return {"type": "object", "properties": {"schema": {"type": "string", "const": schema_name}}}


def _payload(schema_name: str) -> Schema:
    return {"schemaFormat": _SCHEMA_FORMAT, "schema": {"$ref": f"{SCHEMAS}/{schema_file(schema_name)}"}}


def _command_channels() -> dict[str, Schema]:
    """Where commands come in: for one device, and for a group."""
    base, parameters = f"edgescribe/v{CONTRACT}", {"command": {"$ref": "#/components/parameters/command"}}
    messages = {"command": {"$ref": "#/components/messages/command"}}
    return {
        "command": {
            "address": f"{base}/{_ID}/cmd/{{command}}",
            "description": "Something that the device is to do. Retained, expired and repeated commands are ignored.",
            "parameters": {"deviceId": {"$ref": "#/components/parameters/deviceId"}, **parameters},
            "messages": messages,
        },
        "groupCommand": {
            "address": f"{base}/_group/{{group}}/cmd/{{command}}",
            "description": "The same for every device of a group; each of them answers.",
            "parameters": {"group": {"$ref": "#/components/parameters/group"}, **parameters},
            "messages": messages,
        },
    }


def _command_operations() -> dict[str, Schema]:
    reply = _key(Reply.schema_name)
    return {
        f"receive{name[0].upper()}{name[1:]}": {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{name}"},
            "messages": [{"$ref": f"#/channels/{name}/messages/command"}],
            "bindings": {"mqtt": {"qos": 1, "retain": False, **_BINDING}},
            "reply": {
                "channel": {"$ref": f"#/channels/{reply}"},
                "messages": [{"$ref": f"#/channels/{reply}/messages/{reply}"}],
            },
        }
        for name in _command_channels()
    }


def _command_message() -> Schema:
    return {
        "name": _COMMAND,
        "description": "With MQTT 5, the reply goes to the Response Topic, with the Correlation Data.",
        "contentType": "application/json",
        "payload": _payload(_COMMAND),
    }


def write(folder: Path) -> None:
    """Write all documents into `folder`, and remove schemas that no kind of message has any more."""
    wanted = {folder / path: text for path, text in documents().items()}
    (folder / SCHEMAS).mkdir(parents=True, exist_ok=True)
    for stale in set((folder / SCHEMAS).glob("*.json")) - wanted.keys():
        stale.unlink()
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
