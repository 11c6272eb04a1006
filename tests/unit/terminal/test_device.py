import json
from typing import Any

import pytest

from agent.messages import Health, Status
from agent.mqtt.subscriber import Received
from agent.terminal import device as device_module
from agent.terminal.device import Fleet, Standing
from tests.messages import info, transcript


def received(kind: str, payload: object, at_s: float = 0.0, device: str = "pi-1") -> Received:
    """A message as it comes in; a text is sent as it is, the rest as JSON."""
    data = payload if isinstance(payload, str | bytes) else json.dumps(payload)
    data = data if isinstance(data, bytes) else data.encode()
    return Received(f"edgescribe/v1/{device}/{kind}", data, retained=False, received_s=at_s)


def telemetry(**mqtt: object) -> dict[str, Any]:
    """As much of a telemetry message as is read."""
    return {"cpu": {"pct": 12.5, "temp_c": 51}, "asr": {"rtf_p95": 0.2}, "mqtt": mqtt}


@pytest.fixture
def fleet() -> Fleet:
    """A fleet of which nothing is known."""
    return Fleet(last=3)


def test_real_messages_are_understood(fleet: Fleet) -> None:
    """What our own wire models send is what is shown."""
    fleet.receive(received("status", Status(state="online").payload()))
    fleet.receive(received("info", info().payload()))
    fleet.receive(received("health", Health(problem="ON", codes=("mic_absent",)).payload()))
    event = fleet.receive(received("transcript", transcript(1, "turn on the light").payload(), at_s=5.0))
    assert event
    assert (event.device_id, event.text, event.note) == ("pi-1", "turn on the light", "0.75 s, en")
    device = fleet.devices["pi-1"]
    assert (device.online, device.codes, device.said_s) == (True, ("mic_absent",), 5.0)


def test_a_transcript_that_arrives_twice_is_shown_once(fleet: Fleet) -> None:
    """QoS 1 is at least once; the same utterance on the backlog is the same utterance, and another device's is not."""
    payload = transcript(1).payload()
    assert fleet.receive(received("transcript", payload))
    assert fleet.receive(received("transcript", payload)) is None
    assert fleet.receive(received("transcript/backlog", payload)) is None
    assert fleet.receive(received("transcript", payload, device="pi-2"))
    assert len(fleet.transcripts) == 2


def test_only_the_last_transcripts_are_kept(fleet: Fleet) -> None:
    """Memory is bounded, whatever a fleet says in a year."""
    for seq in range(10):
        fleet.receive(received("transcript", transcript(seq, f"number {seq}").payload()))
    assert [event.text for event in fleet.transcripts] == ["number 7", "number 8", "number 9"]


def test_a_device_is_silent_after_three_intervals_without_telemetry(fleet: Fleet) -> None:
    """Online by the broker's word, and yet nothing comes; one that is set to an hour is given the time it takes."""
    fleet.receive(received("status", "online", 0.0))
    assert fleet.devices["pi-1"].standing(190.0) is Standing.OK
    assert fleet.devices["pi-1"].standing(200.0) is Standing.SILENT
    fleet.receive(received("telemetry", telemetry(), 100.0))
    assert fleet.devices["pi-1"].standing(290.0) is Standing.OK
    fleet.receive(received("telemetry", telemetry(), 3_700.0))
    assert fleet.devices["pi-1"].standing(3_700.0 + 7_200.0) is Standing.OK


def test_our_own_absence_makes_nobody_silent(fleet: Fleet) -> None:
    """After a loss of the connection the devices get their time anew."""
    fleet.receive(received("telemetry", telemetry(), 0.0))
    assert fleet.devices["pi-1"].standing(1_000.0) is Standing.SILENT
    fleet.resumed(1_000.0)
    assert fleet.devices["pi-1"].standing(1_100.0) is Standing.OK


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("telemetry", {"asr": {"rtf_p95": 1.3}}),
        ("telemetry", {"mqtt": {"outbox_n": 50}}),
        ("health", {"problem": "ON", "codes": ["falling_behind"]}),
        ("transcript/backlog", {"id": "01JD", "text": "an hour ago"}),
    ],
)
def test_who_does_not_keep_up_is_behind(fleet: Fleet, kind: str, payload: object) -> None:
    """An engine slower than speech, a full outbox, its own word, or old transcripts that arrive now."""
    fleet.receive(received("status", "online"))
    fleet.receive(received(kind, payload, 1.0))
    assert fleet.devices["pi-1"].standing(2.0) is Standing.BEHIND


def test_a_backlog_that_has_drained_is_forgotten(fleet: Fleet) -> None:
    """A minute after the last late transcript the device is as good as the others."""
    fleet.receive(received("transcript/backlog", {"id": "01JD", "text": "an hour ago"}, 1.0))
    assert fleet.devices["pi-1"].standing(90.0) is Standing.OK


def test_what_is_urgent_comes_first(fleet: Fleet) -> None:
    """Offline before problems before those behind before the muted; by name among equals."""
    fleet.receive(received("status", "online", device="c-fine"))
    fleet.receive(received("status", "online", device="a-fine"))
    fleet.receive(received("state", {"listening": False}, device="muted"))
    fleet.receive(received("health", {"problem": "ON", "codes": ["undervoltage"]}, device="ill"))
    fleet.receive(received("telemetry", telemetry(outbox_n=99), device="behind"))
    fleet.receive(received("status", "offline", device="gone"))
    order = [device.id for device in fleet.by_urgency(1.0)]
    assert order == ["gone", "ill", "behind", "muted", "a-fine", "c-fine"]
    assert fleet.count(1.0) == {
        Standing.OFFLINE: 1,
        Standing.PROBLEM: 1,
        Standing.BEHIND: 1,
        Standing.MUTED: 1,
        Standing.OK: 2,
    }


def test_only_changes_are_worth_a_line(fleet: Fleet) -> None:
    """Retained values that come again at every connection say nothing new."""
    assert fleet.receive(received("status", "online"))
    assert fleet.receive(received("status", "online")) is None
    assert fleet.receive(received("state", {"listening": True})) is None
    assert fleet.receive(received("state", {"listening": True})) is None
    muted = fleet.receive(received("state", {"listening": False}))
    assert muted
    assert muted.text == "muted"
    assert fleet.receive(received("health", {"problem": "OFF", "codes": []})) is None
    ill = fleet.receive(received("health", {"problem": "ON", "codes": ["undervoltage"]}))
    assert ill
    assert ill.grave
    well = fleet.receive(received("health", {"problem": "OFF", "codes": []}))
    assert well
    assert (well.text, well.grave) == ("fine again", False)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("status", "perhaps"),
        ("info", "[1, 2]"),
        ("state", "{"),
        ("telemetry", b"\xff\xfe"),
        ("transcript", "null"),
        ("transcript", "{}"),
        ("telemetry", "[" * 100_000),
    ],
)
def test_what_breaks_the_contract_is_counted_and_changes_nothing(fleet: Fleet, kind: str, payload: object) -> None:
    """Anybody may write to a broker that lets them."""
    assert fleet.receive(received(kind, payload)) is None
    assert fleet.malformed == 1
    assert fleet.devices == {}


@pytest.mark.parametrize("value", ["hot", True, None, [1], float("nan"), float("inf"), 10**400])
def test_a_value_of_another_kind_counts_as_unknown(fleet: Fleet, value: object) -> None:
    """The rest of the message still counts."""
    fleet.receive(received("telemetry", {"cpu": {"pct": value, "temp_c": 50}, "mem": value}))
    assert fleet.devices["pi-1"].figures == {"cpu.temp_c": 50}


@pytest.mark.parametrize(
    "topic", ["edgescribe/v1/_group/a/status", "edgescribe/v2/pi-1/status", "edgescribe/v1/UP/status"]
)
def test_other_topics_are_none_of_our_business(fleet: Fleet, topic: str) -> None:
    """Groups, other versions, and names that no device can have."""
    assert fleet.receive(Received(topic, b"online", retained=False, received_s=0.0)) is None
    assert (fleet.devices, fleet.malformed) == ({}, 0)


@pytest.mark.parametrize(
    "hostile", ["\x1b[2J", "\x9b31m", "\r\n", "\N{RIGHT-TO-LEFT OVERRIDE}", "\N{LINE SEPARATOR}", "\x07"]
)
def test_speech_cannot_steer_the_terminal(fleet: Fleet, hostile: str) -> None:
    """No escapes, no line ends, no change of direction; the words stay."""
    event = fleet.receive(received("transcript", {"id": "01JD", "text": f"light{hostile}on"}))
    assert event
    assert hostile not in event.text
    assert event.text.isprintable()
    assert event.text.startswith("light")


def test_letters_that_need_joiners_keep_them(fleet: Fleet) -> None:
    """Persian and emoji are made of them."""
    word = "\u0645\u06cc\N{ZERO WIDTH NON-JOINER}\u062e\u0648\u0627\u0647\u0645"
    event = fleet.receive(received("transcript", {"id": "01JD", "text": word}))
    assert event
    assert event.text == word


def test_the_number_of_devices_is_bounded(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who invents ids fills no memory; those that are known go on being shown."""
    monkeypatch.setattr(device_module, "MAX_DEVICES", 2)
    for number in range(5):
        fleet.receive(received("status", "online", device=f"pi-{number}"))
    assert fleet.receive(received("status", "offline", device="pi-1"))
    assert (set(fleet.devices), fleet.unshown) == ({"pi-0", "pi-1"}, 3)
