import io
import json
import subprocess
import sys
from collections.abc import Iterable
from typing import Any, cast

import pytest
import soundfile
from rich.console import Console

from agent.bench.clips import demo_clips
from agent.mqtt.subscriber import Received, Subscriber
from agent.terminal.demo import Demonstration
from tests.messages import transcript

SCRIPT = "Turn on the light. Turn it off."
OFFLINE = ("status", b"offline")
TELEMETRY = {"cpu": {"pct": 12.4, "temp_c": 48.6}, "mem": {}, "asr": {"speech_pct": 40.0, "dropped_s": 0.0}}


class Script:
    """A subscriber that receives what it is given, and then nothing any more."""

    topic = "edgescribe/v1/demo/#"

    def __init__(self, messages: Iterable[tuple[str, bytes]]) -> None:
        self._messages = [
            Received(f"edgescribe/v1/demo/{kind}", payload, retained=False, received_s=100.0 + 1.5 * number)
            for number, (kind, payload) in enumerate(messages)
        ]

    def get(self, timeout_s: float | None = None) -> Received | None:
        """The next one."""
        del timeout_s
        return self._messages.pop(0) if self._messages else None


class Interrupted(Script):
    """Somebody presses Ctrl-C after two messages; what the agent had heard still comes."""

    _calls = 0

    def get(self, timeout_s: float | None = None) -> Received | None:
        """The next one, or the interruption."""
        self._calls += 1
        if self._calls == 3:
            raise KeyboardInterrupt
        return super().get(timeout_s)


def ended() -> "subprocess.Popen[bytes]":
    """An agent that has done its work."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process


def shown(*messages: tuple[str, bytes], script: str | None = SCRIPT) -> str:
    """What is printed for these messages, in a pipe."""
    output = io.StringIO()
    show = Demonstration(script, 4.0, Console(file=output, soft_wrap=True, highlight=False))
    show.opening("tiny.en-q8_0", "mosquitto at 127.0.0.1:1883", "edgescribe/v1/demo/#")
    show.follow(cast("Subscriber", Script(messages)), ended())
    show.closing()
    return output.getvalue()


def words(seq: int, text: str, **more: Any) -> tuple[str, bytes]:
    """A transcript as it comes over the wire."""
    return "transcript", transcript(seq, text).model_copy(update=more).payload()


def test_a_transcript_is_shown_with_its_latency_and_confidence() -> None:
    """Time since `online`, words, how long after the last word, how sure."""
    output = shown(("status", b"online"), words(1, "Turn on the light.", avg_logprob=-0.1), OFFLINE)
    assert " 0:00.0  status  online\n" in output
    line = "0:01.5  transcript  Turn on the light.  [0.75 s after the last word, confidence 90 %]\n"
    assert line in output


def test_the_summary_counts_what_came_through() -> None:
    """Six of seven words, in whole messages, with the latency and the real-time factor."""
    output = shown(("status", b"online"), words(1, "Turn on the light."), words(2, "Turn it of."), OFFLINE)
    assert "2 transcripts in 4 messages" in output
    assert "median 0.75 s, of which 0.60 s is the pause" in output
    assert "Inference took 10 % of the time" in output
    assert "Of 7 words that were said, 6 came through right." in output


def test_a_demonstration_that_is_cut_short_counts_no_words() -> None:
    """Ctrl-C ends it: the agent did not hear all sentences, so the missing ones are no errors."""
    subscriber = Interrupted([("status", b"online"), words(1, "Turn on the light."), words(2, "Turn"), OFFLINE])
    output = io.StringIO()
    show = Demonstration(SCRIPT, 4.0, Console(file=output, soft_wrap=True))
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as agent:
        show.follow(cast("Subscriber", subscriber), agent)
    show.closing()
    assert "2 transcripts" in output.getvalue()
    assert "were said" not in output.getvalue()


def test_a_microphone_has_no_script_to_compare_with() -> None:
    """Nobody knows what was said, so nothing is claimed."""
    output = shown(words(1, "hello"), script=None)
    assert "your voice" in output
    assert "1 transcript in 1 messages" in output
    assert "were said" not in output


def test_what_the_agent_sent_last_is_waited_for() -> None:
    """The broker is slow: the agent has ended, and its last words come a moment later."""

    class Slow(Script):
        """Has nothing twice before each message."""

        _calls = 0

        def get(self, timeout_s: float | None = None) -> Received | None:
            """The next one, in the end."""
            self._calls += 1
            return super().get(timeout_s) if self._calls == 1 or self._calls % 3 == 0 else None

    output = io.StringIO()
    show = Demonstration(SCRIPT, 4.0, Console(file=output, soft_wrap=True))
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"]) as agent:
        messages = [("status", b"online"), words(1, "Turn on the light."), OFFLINE]
        show.follow(cast("Subscriber", Slow(messages)), agent)
    assert show.texts == ["Turn on the light."]


def test_silence_is_answered_with_advice() -> None:
    """Without a single transcript there is no summary, but a hint."""
    output = shown(("status", b"online"), OFFLINE)
    assert "No transcript arrived. `edgescribe doctor`" in output
    assert "median" not in output


def test_telemetry_shows_what_is_known() -> None:
    """What the machine cannot tell is left out, not shown as zero."""
    output = shown(("telemetry", json.dumps(TELEMETRY).encode()))
    assert "telemetry  cpu 12 %, 49 °C\n" in output


def test_trouble_is_shown_and_its_absence_is_not() -> None:
    """A health message is a line only if something is wrong."""
    wrong = b'{"v":1,"problem":"ON","codes":["mic_absent","falling_behind"]}'
    output = shown(("health", b'{"v":1,"problem":"OFF","codes":[]}'), ("health", wrong))
    assert output.count("health") == 1
    assert "health  mic_absent, falling_behind\n" in output


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"id": "x", "text": 7}',
        b'{"id": "x", "text": "one", "start": "yesterday"}',
        b'{"id": "x", "start": "0001-01-01T00:00:00+14:00"}',
        b'{"id": "x", "text": "\\u001b[2J", "latency_ms": {"total_from_speech_end": "1"}}',
    ],
)
@pytest.mark.parametrize("kind", ["transcript", "telemetry", "health", "status", "x/y", ""])
def test_no_message_ends_the_demonstration(kind: str, payload: bytes) -> None:
    """Every program on this machine may write to its broker; what does not keep the contract counts for nothing."""
    output = shown(("status", b"online"), (kind, payload), words(1, "Turn on the light."), OFFLINE)
    assert "Turn on the light." in output
    assert "1 transcript in" in output
    assert "\x1b" not in output


def test_nothing_is_coloured_where_nobody_looks() -> None:
    """In a pipe there are no escape sequences, and a text in brackets is not taken for a colour."""
    output = shown(words(1, "say [bold]hello[/]"))
    assert "\x1b" not in output
    assert "say [bold]hello[/]" in output


def test_the_bundled_recording_is_what_its_table_says() -> None:
    """Sentences in order, none beyond the end of the sound, with pauses that end an utterance."""
    clips = demo_clips()
    assert len(clips) >= 5
    starts_s = [clip.start_s or 0.0 for clip in clips]
    ends_s = [start_s + clip.duration_s for start_s, clip in zip(starts_s, clips, strict=True)]
    assert ends_s[-1] <= soundfile.info(clips[0].path).duration
    assert all(clip.text and clip.duration_s > 0 for clip in clips)
    assert min(start_s - end_s for end_s, start_s in zip(ends_s, starts_s[1:], strict=False)) > 1.0
