"""Make the JSON Schemas (2020-12) of all messages from the payloads in `agent.messages`.

The schemas describe messages for subscribers. A field may be missing but is never null. Unknown fields are allowed,
because contract 1 may grow. A field is `required` if every message of every release of contract 1 has it. A field that
is added later has a default, so it is not required.
"""

from collections.abc import Mapping
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from agent import messages
from agent.messages import Message, telemetry

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]


def published_kinds() -> tuple[type[Message], ...]:
    """Every kind of message of the contract, in the order of their declaration."""
    declared = [*vars(messages).values(), *vars(telemetry).values()]
    kinds = [kind for kind in declared if isinstance(kind, type) and issubclass(kind, Message)]
    return tuple(kind for kind in kinds if hasattr(kind, "topic"))


def schema_file(schema_name: str) -> str:
    """The file of a schema: `transcript/1` is in `transcript-1.json`."""
    return schema_name.replace("/", "-") + ".json"


def schema_of(kind: type[Message]) -> Schema:
    """The JSON Schema of a kind's payload; for a bare word, the schema of a string."""
    head: Schema = {"$schema": DIALECT, "$id": f"urn:edgescribe:{kind.schema_name}", "title": kind.schema_name}
    body = kind.model_json_schema(schema_generator=_OnTheWire, mode="serialization")
    if kind.content_type == "text/plain":
        body = {"description": body["description"], "type": "string", "enum": body["properties"]["state"]["enum"]}
    opened: Schema = _open({key: value for key, value in body.items() if key != "title"})
    return head | opened


def _open(node: Any) -> Any:
    """The same schema without `additionalProperties: false`, which is our own discipline and no promise to others."""
    if isinstance(node, Mapping):
        return {key: _open(value) for key, value in node.items() if (key, value) != ("additionalProperties", False)}
    return [_open(item) for item in node] if isinstance(node, list) else node


def command_schema(schema_name: str) -> Schema:
    """The JSON Schema of a request, as docs/mqtt.md describes it; which arguments there are depends on the command."""
    argument: Schema = {
        "value": {"description": "The new value.", "type": ["string", "number", "boolean"]},
        "purge": {"description": "`mute`: delete the transcripts that still wait as well.", "type": "boolean"},
        "from": {"description": "`replay`: the first `seq`.", "type": "integer", "minimum": 1},
        "to": {"description": "`replay`: the last `seq`.", "type": "integer", "minimum": 1},
    }
    return {
        "$schema": DIALECT,
        "$id": f"urn:edgescribe:{schema_name}",
        "title": schema_name,
        "description": "A request. An empty payload and the bare value (`OFF`, `0.6`) are understood as well.",
        "type": "object",
        "properties": {
            "id": {
                "description": "The reply carries it; a repeated one is ignored.",
                "type": "string",
                "maxLength": 64,
            },
            "exp": {
                "description": "Not obeyed afterwards: RFC 3339, or seconds since 1970.",
                "anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}],
            },
            "args": {"description": "The arguments of the command.", "type": "object", "properties": argument},
        },
        # Beside `args` they would be passed over, and `{"value": "OFF"}` would open the microphone.
        "propertyNames": {"not": {"enum": list(argument)}},
    }


class _OnTheWire(GenerateJsonSchema):
    """pydantic's schemas, as it makes them for models, changed to what `Message.payload()` really sends."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """None is left out, never sent as null."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Drop the default None, because the field is left out instead, and the default of a constant."""
        made = super().default_schema(schema)
        if made.get("default", ...) is None or "const" in made:
            del made["default"]
        return made

    def field_is_required(
        self,
        field: core_schema.ModelField | core_schema.DataclassField | core_schema.TypedDictField,
        total: bool,  # noqa: FBT001 - the signature is pydantic's
    ) -> bool:
        """Require fields without a default, and fields with only one possible value (`v`, `event_type`)."""
        inner: Any = field["schema"]
        if inner["type"] != "default":
            return super().field_is_required(field, total)
        inner = inner["schema"]
        return inner["type"] == "literal" and len(inner["expected"]) == 1

    def get_title_from_name(self, name: str) -> str:
        """Titles that only repeat the name in capitals are noise."""
        return name

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the signature is pydantic's
        """Never: see above."""
        return False
