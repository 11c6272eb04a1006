import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from agent.terminal.fleet import Fleet
from agent.terminal.fleet_view import Header, Moment, line, screen
from tests.messages import transcript
from tests.unit.terminal.test_fleet import received, telemetry

NOW = Moment(1_000.0, datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC))
HEADER = Header("broker.lan:8883", None)


def drawn(fleet: Fleet, lines: int = 24, width: int = 110, header: Header = HEADER) -> list[str]:
    """The picture as lines of text."""
    console = Console(file=io.StringIO(), width=width, height=lines, color_system=None)
    with console.capture() as capture:
        console.print(screen(fleet, header, NOW, lines))
    return capture.get().splitlines()


def fleet_of(count: int) -> Fleet:
    """Devices that are fine and have spoken."""
    fleet = Fleet(last=15)
    for number in range(count):
        name = f"pi-{number:04}"
        fleet.receive(received("status", "online", 990.0, name))
        fleet.receive(received("telemetry", telemetry(outbox_n=0), 995.0, name))
        fleet.receive(received("transcript", transcript(number, f"words {number}").payload(), 998.0, name))
    return fleet


def test_a_row_tells_how_the_device_is_doing() -> None:
    """State, figures, and when it last spoke; blank where nothing is known."""
    row = next(text for text in drawn(fleet_of(1)) if text.startswith("pi-0000"))
    assert row.split() == ["pi-0000", "ok", "12", "51", "0.20", "0", "2s"]


def test_the_title_counts_and_tells_trouble() -> None:
    """How many of what, and why there is no connection."""
    fleet = fleet_of(3)
    fleet.receive(received("status", "offline", 999.0, "pi-0001"))
    fleet.receive(received("info", "{", 999.0))
    title = drawn(fleet, header=Header("broker.lan:8883", "Connection lost", overrun=7))[0]
    assert "broker.lan:8883" in title
    assert (
        "no connection (Connection lost), retrying" in drawn(fleet, width=200, header=Header("b", "Connection lost"))[0]
    )
    wide = drawn(fleet, width=300, header=Header("b", None, overrun=7))[0]
    assert "1 offline" in wide
    assert "2 ok" in wide
    assert "1 malformed" in wide
    assert "7 not shown" in wide


@pytest.mark.parametrize("lines", [8, 12, 24, 60])
@pytest.mark.parametrize("devices", [0, 1, 12, 500])
@pytest.mark.parametrize("width", [40, 120])
def test_the_picture_fits_the_terminal(devices: int, lines: int, width: int) -> None:
    """Never more lines or columns than there are, and what is left out is counted."""
    fleet = fleet_of(devices)
    for number in range(20):
        fleet.receive(
            received("transcript", transcript(9_000 + number, "many words " * 50).payload(), 999.0, "pi-0000")
        )
    picture = drawn(fleet, lines, width)
    assert len(picture) <= lines
    assert max(len(text) for text in picture) <= width
    shown = sum(text.startswith("pi-") and " ok" in text for text in picture)
    if shown < devices and width > 100:
        assert any(f"… and {devices - shown} more" in text for text in picture)


def test_what_was_said_last_stands_at_the_bottom() -> None:
    """With the time by the wall clock, who, and the evidence."""
    assert drawn(fleet_of(3))[-1] == "11:59:58  pi-0002  transcript  words 2  [0.75 s, en]"


def test_markup_in_speech_is_only_text() -> None:
    """`[red]` in a transcript is what somebody said."""
    fleet = Fleet(last=3)
    event = fleet.receive(received("transcript", transcript(1, "[red]stop[/] [link=x]").payload(), 999.0))
    assert event
    assert line(event, NOW).plain == "11:59:59  pi-1  transcript  [red]stop[/] [link=x]  [0.75 s, en]"
