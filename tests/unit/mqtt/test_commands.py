import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent.config.settings import COMMANDS
from agent.mqtt.commands import (
    ARGUMENTS,
    REMEMBERED,
    Arguments,
    CommandError,
    CommandValidator,
    ReplayArguments,
)
from agent.mqtt.delivery import Incoming

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
OWN = "edgescribe/v1/pi-1/cmd/"


def keeper(*allowed: str, groups: tuple[str, ...] = ()) -> CommandValidator:
    """Of the device `pi-1`; obeys everything if nothing is said."""
    return CommandValidator("pi-1", allowed or COMMANDS, groups)


def refusal(door: CommandValidator, request: Incoming) -> CommandError:
    """The refusal of a request."""
    with pytest.raises(CommandError) as raised:
        door.validate(request, NOW)
    return raised.value


def incoming(name: str, payload: object = b"", **more: Any) -> Incoming:
    """A command to `pi-1`; a dict goes as JSON."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Incoming(OWN + name, data, more.pop("retained", False), **more)


def test_there_is_a_kind_for_every_command_of_the_settings() -> None:
    """What can be allowed can be obeyed, and the other way round."""
    assert tuple(ARGUMENTS) == COMMANDS


@pytest.mark.parametrize(
    ("name", "payload", "expected"),
    [
        ("listen", b"ON", {"value": True, "purge": False}),
        ("listen", b"OFF", {"value": False, "purge": False}),
        ("listen", b"", {"value": True, "purge": False}),
        ("mute", {"args": {"purge": True}}, {"value": True, "purge": True}),
        ("model", b"base.en-q8_0", {"value": "base.en-q8_0"}),
        ("vad_threshold", b"0.35", {"value": 0.35}),
        ("vad_threshold", {"args": {"value": 0.35}}, {"value": 0.35}),
        ("initial_prompt", b"Glarus, Chur", {"value": "Glarus, Chur"}),
        ("initial_prompt", b"", {"value": ""}),
        ("restart", b"PRESS", {}),
        ("golden_utterance", {"id": "a"}, {}),
        ("replay", {"args": {"from": 3, "to": 9}}, {"first": 3, "last": 9}),
    ],
)
def test_json_and_bare_values_mean_the_same(name: str, payload: object, expected: dict[str, object]) -> None:
    """Programs send JSON, Home Assistant the value alone."""
    admitted = keeper().validate(incoming(name, payload), NOW)
    assert isinstance(admitted, Arguments)
    assert admitted.model_dump() == expected


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("vad_threshold", b"1.5"),
        ("vad_threshold", b"nan"),
        ("vad_threshold", b""),
        ("vad_threshold", {"args": {"value": 0.5, "values": 1}}),
        ("vad_threshold", {"args": {"value": True}}),
        ("vad_threshold", b'{"args": {"value": 1e999}}'),
        ("min_confidence", {"args": {"value": False}}),
        ("listen", b"maybe"),
        ("listen", {"args": {"\ud800": 1}}),
        ("identify", {"args": {"\ud800": 1}}),
        ("replay", {"args": {"from": 1, "to": 2, "\udfff": 1}}),
        ("replay", {"args": {"from": True, "to": 2}}),
        ("replay", {"args": {"from": 1, "to": 10**400}}),
        ("replay", b'{"args": {"from": 1, "to": ' + b"9" * 5_000 + b"}}"),
        ("model", {"args": {"value": "\ud800"}}),
        ("model", {"args": {"value": "tiny\0.en"}}),
        ("language", b"English"),
        ("language", {"args": {"value": "\ud800"}}),
        ("initial_prompt", b"x" * 1_001),
        ("initial_prompt", b"a\0b"),
        ("initial_prompt", {"args": {"value": "a\x1b[2Jb"}}),
        ("initial_prompt", {"args": {"value": "a\ud800"}}),
        ("initial_prompt", b"\xff"),
        ("restart", b"{"),
        ("restart", b"{" * 4_000),
        ("restart", b'{"a":' * 1_600),
        ("restart", b" " * 9_000),
        ("restart", {"args": [1]}),
        ("restart", {"args": {"now": True}}),
        ("restart", {"id": "x" * 65}),
        ("restart", {"id": 7}),
        ("restart", {"id": "\ud800"}),
        ("restart", b'{"exp": 1e999}'),
        ("restart", b'{"exp": NaN}'),
        ("restart", {"exp": "tomorrow"}),
        ("restart", {"exp": "2026-11-23T13:00:00"}),
        ("replay", {"args": {"from": 9, "to": 3}}),
        ("replay", b"3"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, payload: object) -> None:
    """Whatever comes in, the answer is a line of text and never an exception."""
    refused = refusal(keeper(), incoming(name, payload))
    assert refused.code == "invalid"
    assert 0 < len(str(refused)) < 300
    assert "\n" not in str(refused)


A_LANGUAGE = 'must be a language code that Whisper knows, such as "en", or "auto"'
AN_OBJECT = 'args: must be an object, such as {"value": "ON"}'
A_TIME = "exp: must be a time with its zone (RFC 3339), or seconds since 1970"


@pytest.mark.parametrize(
    ("name", "payload", "msg"),
    [
        ("language", b"English", f"value: {A_LANGUAGE}"),
        ("language", b"zz", f"value: {A_LANGUAGE}"),
        ("language", b"", f"value is missing: {A_LANGUAGE}"),
        ("model", b"a\0b", "value: must be a name from `edgescribe models list`"),
        ("identify", {"args": {"\ud800": 1}}, "the name of an argument is not Unicode text: identify takes none"),
        ("vad_threshold", b"7", "value: must be a number, 0 to 1"),
        ("vad_threshold", b"nan", "value: must be a number, 0 to 1"),
        ("vad_threshold", b"much", "value: must be a number, 0 to 1"),
        ("vad_threshold", b"", "value is missing: must be a number, 0 to 1"),
        ("listen", b"maybe", "value: must be true or false"),
        ("initial_prompt", b"x" * 1_001, "value: must be text without control characters, at most 1,000 characters"),
        ("replay", {"args": {"to": 3}}, "from is missing: must be a whole number, 1 to 9007199254740991"),
        ("replay", {"args": {"from": 1, "to": 0}}, "to: must be a whole number, 1 to 9007199254740991"),
        ("replay", {"args": {"from": 9, "to": 3}}, "to is before from"),
        ("mute", {"args": {"purg": True}}, "purg is no argument of mute: it takes value, purge"),
        ("replay", {"args": {"from": 1, "to": 2, "by": 3}}, "by is no argument of replay: it takes from, to"),
        ("restart", {"args": {"now\n": True}}, "now  is no argument of restart: it takes none"),
        ("restart", {"args": [1]}, AN_OBJECT),
        ("restart", {"args": None}, AN_OBJECT),
        ("restart", {"id": 7}, "id: must be text of 1 to 64 characters"),
        ("restart", {"id": ""}, "id: must be text of 1 to 64 characters"),
        ("restart", {"exp": "tomorrow"}, A_TIME),
        ("restart", {"exp": "2026-11-23T13:00:00"}, A_TIME),
        (
            "restart",
            b"{now}",
            "not JSON: expecting property name enclosed in double quotes, at character 2",
        ),
        ("restart", b"\xff", "not UTF-8 text"),
    ],
)
def test_a_refusal_says_in_words_what_is_wanted(name: str, payload: object, msg: str) -> None:
    """Neither a regular expression nor a library's own words: people read it, as they do of settings."""
    refused = refusal(keeper(), incoming(name, payload))
    assert str(refused) == msg


def test_there_are_words_for_every_argument() -> None:
    """Of each command, whatever it is given; so none speaks in the words of a library."""
    for name, kind in ARGUMENTS.items():
        for argument in kind.model_fields:
            key = kind.model_fields[argument].alias or argument
            others = {"from": 1, "to": 2} if kind is ReplayArguments else {}
            refused = refusal(keeper(), incoming(name, {"args": {**others, key: [[]]}}))
            assert str(refused).startswith(f"{key}: must be ")


@pytest.mark.parametrize(
    ("name", "payload", "stray"),
    [
        ("listen", {"value": "OFF"}, "value"),
        ("mute", {"value": "OFF"}, "value"),
        ("mute", {"purge": True}, "purge"),
        ("mute", {"args": {"value": "ON"}, "purge": True}, "purge"),
        ("restart", {"from": 1}, "from"),
        ("listen", {"state": "OFF"}, "state"),
        ("listen", {"arg": {"value": "OFF"}}, "arg"),
        ("listen", {"x\n" * 500: "OFF"}, "x"),
    ],
)
def test_an_argument_outside_args_is_refused(name: str, payload: object, stray: str) -> None:
    """What would be passed over would open the microphone of who wants it closed."""
    refused = refusal(keeper(), incoming(name, payload))
    assert refused.code == "invalid"
    assert str(refused).startswith(stray)
    assert str(refused).endswith("put it under args")
    assert "\n" not in str(refused)
    assert len(str(refused)) < 200


def test_a_request_that_is_refused_may_be_sent_again_with_its_id() -> None:
    """It was not obeyed, so it is no repetition."""
    door = keeper()
    assert refusal(door, incoming("listen", {"id": "a", "value": "OFF"}))
    assert refusal(door, incoming("listen", {"id": "a", "args": {"value": "maybe"}}))
    assert isinstance(door.validate(incoming("listen", {"id": "a", "args": {"value": "OFF"}}), NOW), Arguments)


def test_a_byte_order_mark_is_no_part_of_a_request() -> None:
    """Editors on Windows put one in front."""
    admitted = keeper().validate(incoming("vad_threshold", b'\xef\xbb\xbf{"args": {"value": 0.6}}'), NOW)
    assert isinstance(admitted, Arguments)
    assert admitted.model_dump() == {"value": 0.6}


def test_what_a_later_release_puts_beside_args_is_ignored() -> None:
    """As docs/mqtt.md promises, where it cannot be a forgotten argument: `args` is there, or the command has none."""
    for name, payload in [("mute", {"args": {}, "trace": 7}), ("restart", {"trace": 7})]:
        assert isinstance(keeper().validate(incoming(name, payload), NOW), Arguments)


def test_only_what_is_on_the_list_is_obeyed() -> None:
    """The rest is told apart from what does not exist."""
    for name, code in [("restart", "not_allowed"), ("reboot", "unknown_command"), ("a/b", "unknown_command")]:
        refused = refusal(keeper("listen"), incoming(name))
        assert refused.code == code


@pytest.mark.parametrize(
    ("name", "more", "code"),
    [
        ("restart", {}, "not_allowed"),
        ("reboot", {}, "unknown_command"),
        ("vad_threshold", {"args": {"value": 7}}, "invalid"),
        ("vad_threshold", {"args": [1]}, "invalid"),
        ("vad_threshold", {"args": {"value": json.loads("[" * 300 + "]" * 300)}}, "invalid"),
        ("vad_threshold", {"exp": "tomorrow"}, "invalid"),
        ("vad_threshold", {"exp": 1}, "expired"),
    ],
)
def test_every_refusal_carries_the_id_of_its_request(name: str, more: dict[str, object], code: str) -> None:
    """The sender knows its requests by it, and those that are refused above all."""
    door, request = keeper("vad_threshold"), incoming(name, {"id": "a", **more})
    assert (refusal(door, request).code, door.sender(request).request_id) == (code, "a")


@pytest.mark.parametrize("payload", [b"", b"PRESS", b"{", b"\xff", b'{"id": 7}', b'{"id": ""}', b'["a"]', b"[" * 8_000])
def test_a_refusal_has_no_id_where_the_request_has_none(payload: bytes) -> None:
    """Or none that can be read: the refusal stays what it is."""
    door, request = keeper("listen"), incoming("restart", payload)
    assert (refusal(door, request).code, door.sender(request).request_id) == ("not_allowed", None)


def test_retained_commands_are_ignored() -> None:
    """A broker would repeat them at every connection, for years."""
    assert keeper().validate(incoming("restart", retained=True), NOW) is None


@pytest.mark.parametrize("exp", [NOW.isoformat(), "2026-11-23T11:59:59Z", (NOW - timedelta(seconds=1)).timestamp()])
def test_expired_commands_are_not_obeyed(exp: object) -> None:
    """RFC 3339 or Unix seconds; the sender is told."""
    door, request = keeper(), incoming("restart", {"id": "a", "exp": exp})
    assert (refusal(door, request).code, door.sender(request).request_id) == ("expired", "a")


@pytest.mark.parametrize("exp", ["2026-11-23T12:00:01Z", (NOW + timedelta(seconds=1)).timestamp()])
def test_commands_in_time_are_obeyed(exp: object) -> None:
    """Up to the very end."""
    assert isinstance(keeper().validate(incoming("restart", {"exp": exp}), NOW), Arguments)


def test_a_repeated_id_is_ignored_whatever_it_asks() -> None:
    """QoS 1 delivers at least once. Without an id nothing is known to be a repetition."""
    door = keeper()
    assert isinstance(door.validate(incoming("restart", {"id": "a"}), NOW), Arguments)
    assert door.validate(incoming("restart", {"id": "a"}), NOW) is None
    assert door.validate(incoming("identify", {"id": "a"}), NOW) is None
    for _ in range(2):
        assert isinstance(door.validate(incoming("restart"), NOW), Arguments)


def test_the_memory_for_ids_is_bounded() -> None:
    """The oldest is forgotten; a sender that makes up ids fills no memory."""
    door = keeper()
    for number in range(REMEMBERED + 1):
        door.validate(incoming("restart", {"id": str(number)}), NOW)
    assert isinstance(door.validate(incoming("restart", {"id": "0"}), NOW), Arguments)
    assert door.validate(incoming("restart", {"id": str(REMEMBERED)}), NOW) is None


def test_groups_are_heard_if_we_are_in_them() -> None:
    """A member of two groups subscribes to three kinds of topics, and obeys no other group or device."""
    door = keeper(groups=("ground", "canary"))
    assert door.filters == (
        "edgescribe/v1/pi-1/cmd/+",
        "edgescribe/v1/_group/ground/cmd/+",
        "edgescribe/v1/_group/canary/cmd/+",
    )
    assert isinstance(
        door.validate(Incoming("edgescribe/v1/_group/canary/cmd/identify", b"", retained=False), NOW), Arguments
    )
    for topic in ("edgescribe/v1/_group/attic/cmd/identify", "edgescribe/v1/pi-2/cmd/identify", "homeassistant/status"):
        assert door.validate(Incoming(topic, b"", retained=False), NOW) is None


def test_who_obeys_nothing_subscribes_to_nothing() -> None:
    """An empty allow-list."""
    assert CommandValidator("pi-1", (), ("canary",)).filters == ()


@pytest.mark.parametrize(
    ("topic", "used"),
    [
        ("answers/7", "answers/7"),
        (None, None),
        ("", None),
        ("answers/#", None),
        ("a/+/b", None),
        ("$SYS/x", None),
        ("edgescribe/v1/pi-2/cmd/restart", None),
        ("bridge/edgescribe/v1/pi-2/cmd/restart", None),
        ("edgescribe/v1/_reply/me", "edgescribe/v1/_reply/me"),
        ("edgescribe/v1/pi-1/reply", None),
        ("edgescribe/v1/pi-1/transcript", None),
        ("edgescribe/v1/pi-1/status", None),
        ("edgescribe/v1/pi-2/reply", None),
        ("edgescribe/v1/_group/ground/reply", None),
        ("edgescribe/v2/pi-1/health", None),
        ("edgescribe", None),
        ("edgescribes/me", "edgescribes/me"),
        ("homeassistant/status", None),
        ("homeassistant/device/pi-2/config", None),
        ("ha/discovery/sensor/pi-1/config", None),
        ("ha/answers", "ha/answers"),
        ("Küche/Antworten", "Küche/Antworten"),
        ("answers/\0", None),
        ("answers/\x01", None),
        ("answers/\ud800", None),
        ("answers/\ufffe", None),
        ("a/" * 150, None),
        ("x" * 2_000, None),
        ("x" * 70_000, None),
    ],
)
def test_replies_go_where_they_can_do_no_harm(topic: str | None, used: str | None) -> None:
    """Not to a pattern, which ends the connection, and not where others expect transcripts, commands or entities."""
    door = CommandValidator("pi-1", COMMANDS, (), "ha/discovery")
    sender = door.sender(incoming("identify", response_topic=topic, correlation=b"\x00\xff"))
    assert (sender.topic, sender.correlation) == (used, b"\x00\xff")


def test_a_refusal_knows_its_sender_too() -> None:
    """Who asks for nonsense gets an answer where the answer was wanted."""
    door, request = keeper(), incoming("reboot", response_topic="answers/7")
    assert refusal(door, request).code == "unknown_command"
    assert (door.sender(request).topic, door.sender(request).command) == ("answers/7", "reboot")
