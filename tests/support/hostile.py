"""Commands that only an attacker or a broken client sends, as a hypothesis strategy."""

import json
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.support.contract_reader import argument_names, command_names

MAX_PAYLOAD_BYTES: Final = 8_192

DEVICE: Final = "pi-1"
GROUP: Final = "ground"
OWN: Final = f"edgescribe/v1/{DEVICE}/cmd/"
_ROOTS: Final = (OWN, OWN, OWN, f"edgescribe/v1/_group/{GROUP}/cmd/", "edgescribe/v1/pi-2/cmd/")
_WORDS: Final = (
    *(
        "\ud800",
        "\udfff",
        "\ud83d",
        "\0",
        "\x1b[2J",
        "\u202e",
        "\ufeff",
        "\n",
        "reboot",
        "a/b",
        "../x",
        "~root",
        "agent",
    ),
    *("/etc/passwd", "tiny.en-q8_0", "x" * 64, "x" * 65, "x" * 1_000, "x" * 1_001, "é" * 999, "nan", "1_0", "٣"),
)
_BYTES: Final = (
    *(b"", b"PRESS", b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0", b"\xed\xa0\x80", b"{", b"{}{}", b"[" * MAX_PAYLOAD_BYTES),
    *(b'{"a":' * 1_600, b'{"args":' * 300 + b"{}" + b"}" * 300, b'{"args":{"value":' + b"[" * 400 + b"]" * 400 + b"}}"),
    *(b'{"exp":1e999}', b'{"exp":NaN,"id":Infinity}', b'{"exp":' + b"9" * 5_000 + b"}", b'{"args":{"value":1e999}}'),
    *(b'{"args":{"from":1,"to":' + b"9" * 4_300 + b"}}", b'{"args":{"value":"ON","value":"OFF"}}'),
    b'{"args":{"value":1},"args":{"value":"\\ud800"},"args":[]}',
)
_RESPONSE_TOPICS: Final = (
    *("answers/1", "edgescribe/v1/_reply/me", OWN + "mute", "edgescribe/v1/pi-1/transcript", "a/#", "a/+/b", "a\0b"),
    *("homeassistant/status", "homeassistant/device/pi-1/config", "$SYS/x", "", "/" * 250, "x" * 65_535, "\ud800"),
)

_words = st.text(st.characters(exclude_categories=()), max_size=12) | st.sampled_from(_WORDS)
_numbers = (
    st.integers(-2, 2)
    | st.integers()
    | st.floats()
    | st.sampled_from([2**53, 10**400, -(10**4_299), -0.0, 5e-324, 9e18, 4e9])
)
_json = st.recursive(
    st.none() | st.booleans() | _numbers | _words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_words, inner, max_size=4),
    max_leaves=8,
)
_times = _json | st.sampled_from(["tomorrow", "2999-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", 4e9])
_arguments = st.dictionaries(st.sampled_from(argument_names()) | _words, _json, max_size=4)
_envelopes = st.fixed_dictionaries(
    {}, optional={"id": _json, "exp": _times, "args": _arguments | _json, "value": _json, "trace": _json}
)
_switches = st.fixed_dictionaries(
    {"value": st.sampled_from([True, False, "ON", "OFF"])}, optional={"purge": st.booleans()}
)
_fractions = st.fixed_dictionaries({"value": st.floats(-0.1, 1.1)})
_obeyed: Final[dict[str, st.SearchStrategy[Any]]] = {
    "listen": _switches,
    "mute": _switches,
    "model": st.fixed_dictionaries({"value": st.sampled_from(["tiny-q8_0", "tiny.en-q8_0", "base.en-q8_0", "agent"])}),
    "language": st.fixed_dictionaries({"value": st.sampled_from(["en", "de", "auto"])}),
    "initial_prompt": st.fixed_dictionaries({"value": _words}),
    "vad_threshold": _fractions,
    "min_confidence": _fractions,
    "replay": st.fixed_dictionaries({"from": st.integers(0, 9), "to": st.integers(0, 2**54)}),
}
"""Arguments that a device obeys, or nearly."""


@dataclass(frozen=True, slots=True)
class HostileCommand:
    """One message to a topic of commands."""

    topic: str
    payload: bytes
    retained: bool
    response_topic: str | None
    correlation: bytes | None


def documents() -> st.SearchStrategy[bytes]:
    """JSON of every shape that Python's reader takes, half surrogate pairs and NaN among it."""
    return _json.map(lambda value: json.dumps(value).encode())


@st.composite
def payloads(draw: st.DrawFn, name: str) -> bytes:
    """What a command may hold: sound requests, broken ones of every kind, and bytes."""
    kind = draw(st.integers(0, 7))
    if kind <= 1:
        request = draw(st.fixed_dictionaries({"args": _obeyed.get(name, st.just({}))}, optional={"id": _words}))
        return json.dumps(request).encode()
    if kind == 2:
        return draw(st.binary(max_size=40) | _words.map(lambda words: words.encode(errors="replace")))
    if kind == 3:
        return draw(st.sampled_from(_BYTES))
    document = json.dumps(draw(_envelopes if kind <= 5 else st.fixed_dictionaries({"args": _arguments}))).encode()
    if kind == 4:
        return document[: draw(st.integers(0, 200))]
    if kind == 5:
        return document.ljust(MAX_PAYLOAD_BYTES + draw(st.integers(-2, 2)))
    return document


@st.composite
def commands(draw: st.DrawFn) -> HostileCommand:
    """Draw a message as it comes in from a broker, or as no broker should let it through."""
    name = draw(st.sampled_from(command_names())) if draw(st.integers(0, 9)) else draw(_words)
    return HostileCommand(
        topic=draw(st.sampled_from(_ROOTS)) + name,
        payload=draw(payloads(name)),
        retained=draw(st.integers(0, 19)) == 0,
        response_topic=draw(st.none() | st.sampled_from(_RESPONSE_TOPICS) | _words),
        correlation=draw(st.none() | st.binary(max_size=16) | st.sampled_from([bytes(4_096), bytes(65_535)])),
    )


def drawn(number: int, chance: int) -> list[HostileCommand]:
    """So many commands, the same for the same `chance`; for tests that take a side effect of each."""
    found: list[HostileCommand] = []

    @seed(chance)
    @settings(max_examples=number, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(commands())
    def keep(incoming: HostileCommand) -> None:
        found.append(incoming)

    keep()
    return found
