import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from agent.config.settings import COMMANDS
from agent.messages import Message, Reply, Status, TranscriptMessage, topic_for
from agent.mqtt.commands import ARGUMENT_NAMES
from docs.contract_documents import documents, write
from docs.payload_schemas import published_kinds
from tests.messages import info, transcript
from tests.support.contract_reader import ASYNCAPI, DOCS, contract, promise, references, resolve

SCHEMA_FILES = sorted((DOCS / "schemas").glob("*.json"))
SPECIFICATION = Path(__file__).parents[1] / "data" / "asyncapi" / "3.0.0.json.gz"
"""See ATTRIBUTION.md beside it."""


def test_the_documents_are_current() -> None:
    """`python -m docs.contract_documents` would change nothing, and no file is left over from a kind that is gone."""
    made = documents()
    shipped = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in SCHEMA_FILES}
    assert shipped | {ASYNCAPI: (DOCS / ASYNCAPI).read_text(encoding="utf-8")} == made


def test_writing_removes_what_is_stale_and_touches_nothing_else(tmp_path: Path) -> None:
    """A schema that no kind has any more disappears; other documents stay."""
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "gone-1.json").write_text("{}")
    (tmp_path / "mqtt.md").write_text("by hand")
    write(tmp_path)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {*documents(), "mqtt.md"}


@pytest.mark.parametrize("path", SCHEMA_FILES, ids=lambda path: path.stem)
def test_every_schema_is_a_valid_one(path: Path) -> None:
    """JSON Schema 2020-12, with a name that tells the kind and its version."""
    schema = json.loads(path.read_text(encoding="utf-8"))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:edgescribe:{path.stem.replace('-', '/')}"
    Draft202012Validator.check_schema(schema)


def test_the_asyncapi_document_is_a_valid_one() -> None:
    """By the specification's own schema, bindings for MQTT included, and every reference leads somewhere."""
    specification: Any = json.loads(gzip.decompress(SPECIFICATION.read_bytes()))
    errors = [f"{error.json_path}: {error.message}" for error in Draft7Validator(specification).iter_errors(contract())]
    assert errors == []
    found = set(references(contract()))
    assert found
    for reference in found:
        assert resolve(reference)


@pytest.mark.parametrize("kind", published_kinds(), ids=lambda kind: kind.__name__)
def test_every_kind_is_promised_as_it_is_delivered(kind: type[Message]) -> None:
    """Topic, QoS, retention, expiry, content type and schema of each kind, its late topic included."""
    found = promise(topic_for("kitchen", kind))
    assert found
    assert (found.qos, found.retained, found.expiry_s) == (kind.qos, kind.retained, kind.expiry_s)
    assert (found.content_type, found.schema_name) == (kind.content_type, kind.schema_name)
    if kind.late_topic:
        late = promise(topic_for("kitchen", kind, late=True))
        assert late
        assert (late.schema_name, late.retained) == (kind.schema_name, False)
        assert late.expiry_s == 7 * 86_400


def test_every_declared_kind_is_published() -> None:
    """A kind that is added to the contract is found wherever it is declared."""
    assert {Status, TranscriptMessage, Reply} <= set(published_kinds())
    assert len({kind.schema_name for kind in published_kinds()}) == len(published_kinds())


def test_the_schema_of_requests_knows_the_arguments_and_wants_them_under_args() -> None:
    """It names those of the commands, and refuses where the device does what could never be meant otherwise."""
    schema = json.loads((DOCS / "schemas" / "command-1.json").read_text(encoding="utf-8"))
    assert set(schema["properties"]["args"]["properties"]) == ARGUMENT_NAMES
    validator = Draft202012Validator(schema)
    assert validator.is_valid({"id": "a", "args": {"value": "OFF", "purge": True}, "trace": 7})
    for name in ARGUMENT_NAMES:
        assert not validator.is_valid({name: "OFF"})


def test_commands_are_promised_for_a_device_and_a_group() -> None:
    """Each command of the allow-list, by both topics, with a reply."""
    assert contract()["components"]["parameters"]["command"]["enum"] == list(COMMANDS)
    for topic in ("edgescribe/v1/kitchen/cmd/mute", "edgescribe/v1/_group/upstairs/cmd/mute"):
        found = promise(topic, "receive")
        assert found
        assert (found.qos, found.retained) == (1, False)
        assert found.complaints('{"id": "7f3a", "exp": "2026-11-23T12:00:00Z", "args": {"value": "ON"}}') == []
        assert found.complaints('{"id": 7}') == ["$.id: 7 is not of type 'string'"]
        reply = contract()["operations"][found.operation]["reply"]
        assert resolve(reply["channel"]["$ref"])["address"] == topic_for("{deviceId}", Reply)


def test_subscribers_are_told_to_leave_room_for_new_fields() -> None:
    """The shipped schema takes a field of tomorrow; it refuses null, a missing field and a wrong type."""
    found = promise("edgescribe/v1/kitchen/transcript")
    assert found
    validator = Draft202012Validator(found.schema)
    payload = json.loads(transcript(1).payload())
    assert validator.is_valid(payload | {"of_tomorrow": 1})
    assert not validator.is_valid(payload | {"lang_prob": None})
    assert not validator.is_valid({key: value for key, value in payload.items() if key != "seq"})
    assert not validator.is_valid(payload | {"ts": "yesterday"})
    assert not validator.is_valid(payload | {"v": 2})
    assert found.complaints(json.dumps(payload | {"of_tomorrow": 1}))


def test_what_this_release_makes_is_what_it_promises() -> None:
    """Messages with and without what may be left out."""
    for message in (
        transcript(1),
        transcript(2).model_copy(update={"lang_prob": 0.9}),
        info(),
        Status(state="offline"),
    ):
        found = promise(topic_for("pi-1", message))
        assert found
        assert found.complaints(message.payload().decode()) == []


def test_the_examples_in_the_documentation_keep_the_contract() -> None:
    """Each JSON example of docs/mqtt.md that is a whole message is a valid one, of a kind that can be told."""
    text = (DOCS / "mqtt.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^    \{\"v\".*\n(?:^     .*\n)*)", text, flags=re.MULTILINE)
    kinds = {frozenset(kind.model_fields): kind for kind in published_kinds()}
    examples = [json.loads(block) for block in blocks]
    assert len(examples) >= 6
    for example in examples:
        fitting = [kind for fields, kind in kinds.items() if set(example) <= fields and _required(kind) <= set(example)]
        assert len(fitting) == 1, f"cannot tell the kind of {example}"
        found = promise(topic_for("kitchen", fitting[0]))
        assert found
        assert found.complaints(json.dumps(example)) == []


def _required(kind: type[Message]) -> set[str]:
    found = promise(topic_for("kitchen", kind))
    assert found
    return set(found.schema.get("required", ["not JSON"]))
