import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from agent.mqtt.subscriber import Received
from agent.terminal.device import KINDS
from agent.terminal.viewer import DeviceViewer, FleetViewer, Mode
from tests.support.hostile import documents, payloads

DEEP = [b'{"a":' * depth + b"1" + b"}" * depth for depth in (100, 900, 940, 980, 1_020, 10_000)]
FEW = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
TOPICS = st.sampled_from([f"edgescribe/v1/pi-1/{kind}" for kind in (*KINDS, "reply")])
messages = st.builds(
    Received,
    topic=TOPICS | st.text(max_size=20).map("edgescribe/v1/{}".format),
    payload=documents() | payloads("telemetry") | st.sampled_from(DEEP),
    retained=st.booleans(),
    received_s=st.floats(0, 1e6),
)


@pytest.fixture
def console() -> Console:
    """A terminal that does not understand colours, of 100 by 30 characters."""
    return Console(file=io.TextIOWrapper(io.BytesIO(), "utf-8"), width=100, height=30, color_system=None)


def written(console: Console) -> str:
    """All that was written there; it can be encoded."""
    assert isinstance(console.file, io.TextIOWrapper)
    console.file.seek(0)
    return console.file.read()


def test_no_message_ends_the_lines_or_the_screen(console: Console) -> None:
    """Every publisher may write anything. The picture can be encoded, and holds nothing that steers a terminal."""
    lines, screen = (FleetViewer(mode, "hub.local:1883", 5, console) for mode in (Mode.LINES, Mode.SCREEN))

    @FEW
    @given(messages)
    def check(message: Received) -> None:
        lines.take(message)
        screen.take(message)
        screen._shown_s = float("-inf")  # at once, though it has just been drawn
        screen.tick(0)

    check()
    assert "\x1b" not in written(console)


def test_no_line_of_an_agent_ends_its_viewer(console: Console) -> None:
    """It may be another release, or another program: every value may be missing, or of another kind."""
    lines, screen, picture = (DeviceViewer(mode, console) for mode in (Mode.LINES, Mode.SCREEN, Mode.PICTURE))
    values = documents().map(json.loads)
    latency = st.dictionaries(st.sampled_from(["vad_close", "queue", "encode_decode", "total_from_speech_end"]), values)
    part = st.one_of(
        values,
        latency,
        st.fixed_dictionaries({}, optional={"latency_ms": values | latency, "text": values, "ago_s": values}),
        st.fixed_dictionaries({}, optional=dict.fromkeys(["rms_dbfs", "peak_dbfs", "speech_prob", "levels"], values)),
        st.fixed_dictionaries({}, optional=dict.fromkeys(["cpu", "mem", "asr", "mqtt", "up_s"], values)),
    )
    names = ("at", "device", "source", "listening", "sound", "speaking_s", "partial", "under_way", "last", "governor")
    snapshots = st.fixed_dictionaries({}, optional=dict.fromkeys((*names, "health", "telemetry"), part))

    @FEW
    @given(documents() | st.sampled_from(DEEP) | st.binary() | snapshots.map(lambda one: json.dumps(one).encode()))
    def check(line: bytes) -> None:
        for viewer in (lines, screen, picture):
            viewer._shown_s = float("-inf")
            viewer.take(line)

    check()
    assert "\x1b" not in written(console)


def test_every_message_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A strict reader can read it, and it can be encoded."""

    def refuse(name: str) -> None:
        pytest.fail(f"{name} is no JSON")

    @FEW
    @given(messages)
    def check(message: Received) -> None:
        FleetViewer(Mode.JSON, "hub.local:1883", 1).take(message)
        (line,) = capsys.readouterr().out.encode().splitlines()
        read = json.loads(line, parse_constant=refuse)
        assert read["topic"] == message.topic

    check()


def test_json_of_the_device_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """The same object with controls escaped."""
    DeviceViewer(Mode.JSON).take('{"last": {"text": "one\x9b2Jtwo"}}'.encode())
    out = capsys.readouterr().out
    assert "\x9b" not in out
    assert json.loads(out) == {"last": {"text": "one\x9b2Jtwo"}}
