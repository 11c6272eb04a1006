import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from agent.mqtt.subscriber import Received
from agent.terminal.reading import READERS
from agent.terminal.shows import Json, Lines, Screen
from tests.support.hostile import documents, payloads

DEEP = [b'{"a":' * depth + b"1" + b"}" * depth for depth in (100, 900, 940, 980, 1_020, 10_000)]
FEW = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
TOPICS = st.sampled_from([f"edgescribe/v1/pi-1/{kind}" for kind in (*READERS, "reply")])
messages = st.builds(
    Received,
    topic=TOPICS | st.text(max_size=20).map("edgescribe/v1/{}".format),
    payload=documents() | payloads("telemetry") | st.sampled_from(DEEP),
    retained=st.booleans(),
    received_s=st.floats(0, 1e6),
)


def test_no_message_ends_the_lines_or_the_screen() -> None:
    """Every publisher may write anything. The picture can be encoded, and holds nothing that steers a terminal."""
    console = Console(file=io.TextIOWrapper(io.BytesIO(), "utf-8"), width=100, height=30, color_system=None)
    lines, screen = Lines(console), Screen("hub.local:1883", 5, console)

    @FEW
    @given(messages)
    def check(message: Received) -> None:
        lines.take(message)
        screen.take(message)
        screen._drawn_s = float("-inf")  # at once, though it has just been drawn
        screen.tick(0)

    check()
    written = console.file
    assert isinstance(written, io.TextIOWrapper)
    written.seek(0)
    assert "\x1b" not in written.read()


def test_every_message_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A strict reader can read it, and it can be encoded."""

    def refuse(name: str) -> None:
        pytest.fail(f"{name} is no JSON")

    @FEW
    @given(messages)
    def check(message: Received) -> None:
        Json().take(message)
        (line,) = capsys.readouterr().out.encode().splitlines()
        read = json.loads(line, parse_constant=refuse)
        assert read["topic"] == message.topic

    check()
