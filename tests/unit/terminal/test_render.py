import io
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from agent.messages.telemetry import Asr, Audio, Cpu, Disk, Mem, Mqtt, Pwr, TelemetryMessage
from agent.terminal.device import Device, Fleet, local_device
from agent.terminal.render import Moment, device_line, event_line, picture, screen
from tests.messages import NOON, latency, transcript
from tests.unit.terminal.test_device import received, telemetry

TELEMETRY = TelemetryMessage(
    ts=NOON,
    up_s=11_520,
    cpu=Cpu(pct=12.4, temp_c=51.1, freq_mhz=1_800),
    mem=Mem(pct=55.3, rss_mb=153.2),
    disk=Disk(),
    pwr=Pwr(uv_now=False, uv_events=2),
    audio=Audio(xruns=0, gaps_s=0.0),
    asr=Asr(
        utt=3,
        rtf_p50=0.1,
        rtf_p95=0.18,
        lat_ms_p50=655,
        lat_ms_p95=912,
        dropped_s=0.0,
        speech_pct=3.0,
        rejected=0,
        discarded=5,
    ),
    mqtt=Mqtt(outbox_n=0, dropped=0, reconnects=0, puback_ms_p95=6),
)
SNAPSHOT: dict[str, Any] = {
    "at": NOON.isoformat(),
    "device": "kitchen",
    "agent": "0.1.0",
    "source": "microphone plughw:CARD=Device",
    "engine": "whisper_cpp",
    "model": "tiny.en-q8_0",
    "language": "en",
    "listening": True,
    "shows_text": True,
    "sound": {"rms_dbfs": -32.0, "peak_dbfs": -21.0, "noise_floor_dbfs": -58.0, "speech_prob": 0.92},
    "speaking_s": 1.4,
    "last": {
        "ago_s": 12.0,
        "text": "Turn off the heater.",
        "verdict": "confident",
        "duration_s": 1.9,
        "rtf": 0.08,
        "latency_ms": latency(752).model_dump(),
    },
    "health": [],
    "telemetry": TELEMETRY.model_dump(mode="json", exclude_none=True),
}


def device(**changes: Any) -> Device:
    """The device as a viewer knows it from one line."""
    return local_device(json.dumps(SNAPSHOT | changes).encode(), 0.0)


def shown(width: int = 100, **changes: Any) -> str:
    """The picture of a glance, as plain text."""
    console = Console(file=io.StringIO(), width=width)
    console.print(picture(device(**changes)))
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue()


def row(head: str, picture_text: str) -> str:
    """The row of that name."""
    (found,) = re.findall(rf"^{head} +(.*?) *$", picture_text, re.MULTILINE)
    return str(found)


def test_everything_that_matters_is_in_the_picture() -> None:
    """Who, level, speech, words, where the time went, the machine, the broker."""
    text = shown()
    assert re.search(r"^edgescribe kitchen  \d\d:00:00  0\.1\.0, up 3 h 12 min  fine", text)
    assert "microphone plughw:CARD=Device → whisper_cpp tiny.en-q8_0 → en" in text
    assert row("level", text).endswith("-32 dBFS  peak -21  room -58")
    assert row("speech", text).endswith("92 %  ● speaking for 1.4 s")
    assert row("heard", text) == "Turn off the heater.  confident, 12 s ago"
    assert row("latency", text).endswith("█ 752 ms after the last word")
    assert re.search(r"^ +pause 600  queue 30  engine 121   p50 655, p95 912 ms", text, re.MULTILINE)
    assert row("pace", text) == "real-time factor 0.10, p95 0.18"
    assert row("so far", text) == "3 utterances, 0 rejected, 5 too short, 3 % speech"
    assert row("machine", text) == "CPU 12 %  51.1 °C  1800 MHz  memory 55 %  (ours 153 MiB)  under-voltage 2×"
    assert row("broker", text) == "0 waiting   acknowledged in 6 ms (p95)"


@pytest.mark.parametrize(("rms_dbfs", "full"), [(-96.0, 0), (-75.0, 0), (-37.5, 20), (0.0, 39)])
def test_the_meter_is_as_long_as_it_is_loud(rms_dbfs: float, full: int) -> None:
    """From -75 dBFS to full scale; louder than loud does not burst it."""
    bar = row("level", shown(sound={"rms_dbfs": rms_dbfs}))
    assert bar.count("█") == full
    assert len(bar.split(" ")[0]) == 40


def test_a_muted_device_says_so() -> None:
    """And shows no level of a microphone that is closed."""
    assert row("level", shown(listening=False, sound={})) == "muted: the microphone is closed"
    assert row("level", shown(sound={})) == "no sound comes in"


def test_words_that_are_private_are_not_missed_either() -> None:
    """Why there are none is said."""
    assert row("heard", shown(shows_text=False, last=None)) == "publish.privacy keeps the words in"


def test_words_so_far_stand_in_front_of_the_last_ones() -> None:
    """While somebody speaks, or the engine is at it; afterwards they are nobody's."""
    assert row("heard", shown(partial="turn off")) == "turn off …"
    assert row("heard", shown(partial="turn off", speaking_s=None)).startswith("Turn off the heater.")


def test_the_engine_says_what_it_is_at_and_what_waits() -> None:
    """Idle, busy, behind."""
    assert row("engine", shown()) == "idle"
    behind = {"asr": {"waiting": 3, "dropped_s": 12.5}}
    busy = shown(under_way={"duration_s": 1.9, "since_s": 0.12}, telemetry=behind)
    assert row("engine", busy) == "transcribing 1.9 s of sound, for 0.1 s, 3 waiting, dropped 12.5 s"


def test_a_step_of_the_governor_is_told_with_its_reason() -> None:
    """Where there is a ladder; who stands on top of it is told how far it goes."""
    assert "governor" not in shown()
    at_rest = {"level": 0, "levels": 5, "eager": True}
    assert row("governor", shown(governor=at_rest)) == "as configured, with 5 steps below"
    down = {"level": 2, "levels": 5, "reason": "hot", "eager": False}
    assert row("governor", shown(governor=down)) == "2 of 5 steps down: hot, without speculative decoding"


def test_trouble_stands_on_top() -> None:
    """In place of `fine`."""
    assert "undervoltage hot" in shown(health=("undervoltage", "hot")).splitlines()[0]
    assert "fine" not in shown(health=("hot",)).splitlines()[0]


def test_nothing_that_was_heard_steers_the_terminal() -> None:
    """Controls in a text are blanks."""
    evil = SNAPSHOT["last"] | {"text": "one\x1b[2Jtwo\x9b3mthree\r\n"}
    for text in (shown(last=evil), device_line(device(last=evil))):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)


def test_a_line_has_the_same_in_short() -> None:
    """For a pipe: what is known, and nothing else."""
    said = device_line(device())
    heard = "level -32 dBFS  speech 92 %  speaking for 1.4 s"
    assert said.endswith(f':00:00  {heard}  cpu 12 %  51 °C  "Turn off the heater." 12 s ago')
    assert device_line(device(sound={}, last=None, speaking_s=None)).count("  ") == 2


def test_a_narrow_terminal_is_enough() -> None:
    """80 columns: the rows that move do not wrap."""
    rows = shown(width=80).splitlines()
    assert sum(text.startswith("level") for text in rows) == 1
    assert all(len(text) <= 80 for text in rows)
    assert rows[rows.index(next(text for text in rows if text.startswith("level"))) + 1].startswith("speech")


NOW = Moment(1_000.0, datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC))


def drawn(fleet: Fleet, lines: int = 24, width: int = 110, trouble: str | None = None, overrun: int = 0) -> list[str]:
    """The picture as lines of text."""
    console = Console(file=io.StringIO(), width=width, height=lines, color_system=None)
    with console.capture() as capture:
        console.print(screen(fleet, "broker.lan:8883", NOW, lines, trouble=trouble, overrun=overrun))
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
    assert "broker.lan:8883" in drawn(fleet, trouble="Connection lost", overrun=7)[0]
    assert "no connection (Connection lost), retrying" in drawn(fleet, width=200, trouble="Connection lost")[0]
    wide = drawn(fleet, width=300, overrun=7)[0]
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
    assert event_line(event, NOW).plain == "11:59:59  pi-1  transcript  [red]stop[/] [link=x]  [0.75 s, en]"
