"""What `edgescribe demo` shows: the messages of one device, as a subscriber receives them."""

import csv
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from agent.messages.presentation import clock, colours, confidence_pct, score
from agent.mqtt.subscriber import Subscriber
from agent.terminal.device import Fleet, Payload
from agent.terminal.render import event_words

CLIPS: Final = Path(__file__).parents[1] / "clips"
RECORDING: Final = CLIPS / "demo.flac"
POLL_S: Final = 0.25
LAST_MESSAGES_S: Final = 10.0
"""The agent is gone, but its last messages may still be on their way; `offline` is the end of them."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of the bundled recording."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Heard:
    """A transcript as it came in."""

    start: datetime
    text: str
    latency_ms: float
    """From the last word to the subscriber."""
    pause_ms: float
    """The part of it that ends an utterance."""
    rtf: float


def bundled_recording() -> tuple[Sentence, ...]:
    """Return what is said in `demo.flac`, and when."""
    with (CLIPS / "demo.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return tuple(Sentence(float(row["start_s"]), float(row["end_s"]), row["text"]) for row in rows)


class Demonstration:
    """Prints messages as they arrive and keeps what the summary needs; colours only in a terminal.

    `script` is what is going to be said, where that is known.
    """

    def __init__(
        self,
        script: tuple[Sentence, ...] | None,
        console: Console | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._script = script or ()
        self._clock_s = clock_s
        self._console = console or Console(highlight=False, soft_wrap=True, color_system=colours())
        self._fleet = Fleet(last=1)
        self._started_s: float | None = None
        self._stopped_s: float | None = None
        self._messages = 0
        self._online = False
        self.transcripts: list[Heard] = []

    def opening(self, model: str, broker: str, topic: str) -> None:
        """Say what is about to happen."""
        what = (
            f"a recording of {self._script[-1].end_s:.0f} s, at the speed of speech" if self._script else "your voice"
        )
        self._console.print(f"[bold]edgescribe[/] transcribes {what}, with Whisper {model} on this machine.")
        self._console.print(f"Broker: {broker}. A separate client is subscribed to {topic} and receives:\n")

    def follow(self, subscriber: Subscriber, agent: "subprocess.Popen[bytes]") -> None:
        """Print what arrives until the agent has ended; Ctrl-C ends it."""
        try:
            while agent.poll() is None:
                self._show_next(subscriber)
        except KeyboardInterrupt:
            self._stopped_s = self._clock_s()
            agent.terminate()
            while agent.poll() is None:
                self._show_next(subscriber)
        deadline_s = time.monotonic() + LAST_MESSAGES_S
        while time.monotonic() < deadline_s and (self._show_next(subscriber) or self._online):
            pass

    def _show_next(self, subscriber: Subscriber) -> bool:
        """Print a message if it is worth a line; return False if none came in time."""
        if (received := subscriber.get(POLL_S)) is None:
            return False
        self._messages += bool(received.payload)
        if not (event := self._fleet.receive(received)):
            return True
        if event.kind == "status":
            self._started_s = self._started_s or received.received_s
            self._online = event.text == "online"
        elif event.kind == "transcript":
            event = replace(event, note=self._keep(Payload(received.payload)) or event.note)
        since_s = received.received_s - (self._started_s or received.received_s)
        self._console.print(Text.assemble((f"{clock(since_s):>7}  ", "dim"), event_words(event)))
        return True

    def _keep(self, message: Payload) -> str:
        """Keep a transcript for the summary; return its evidence. One without figures is not kept."""
        latency_ms, pause_ms, rtf = (
            message.number(path) for path in ("latency_ms.total_from_speech_end", "latency_ms.vad_close", "rtf")
        )
        with suppress(ValueError, OverflowError):
            start = datetime.fromisoformat(message.text("start")).astimezone(UTC)
            if latency_ms is not None and pause_ms is not None and rtf is not None:
                self.transcripts.append(Heard(start, message.text("text"), latency_ms, pause_ms, rtf))
                confidence = confidence_pct(message.number("avg_logprob"))
                return f"{latency_ms / 1000:.2f} s after the last word, confidence {confidence}"
        return ""

    def closing(self) -> None:
        """Sum up."""
        if not self.transcripts:
            self._console.print("\n[red]No transcript arrived.[/] `edgescribe doctor` says what may be missing.")
            return
        latency_s = statistics.median(heard.latency_ms for heard in self.transcripts) / 1000
        pause_s = statistics.median(heard.pause_ms for heard in self.transcripts) / 1000
        rtf = statistics.median(heard.rtf for heard in self.transcripts)
        count = "1 transcript" if len(self.transcripts) == 1 else f"{len(self.transcripts)} transcripts"
        self._console.print(
            f"\n[bold]{count}[/] in {self._messages} messages. From the last word to the subscriber: median "
            f"{latency_s:.2f} s, of which {pause_s:.2f} s is the pause that ends an utterance. Inference took "
            f"{100 * rtf:.0f} % of the time that was spoken."
        )
        if played := self._played():
            result = score(" ".join(sentence.text for sentence in played), self._heard_until(played[-1].end_s))
            self._console.print(f"Of {result.expected} words that were said, {result.right} came through right.")
        self._console.print("\nNext: `edgescribe devices` finds your microphone; README.md has the rest.")

    def _played(self) -> tuple[Sentence, ...]:
        """Return the sentences that were said to their end."""
        if self._stopped_s is None:
            return self._script
        played_s = self._stopped_s - (self._started_s or self._stopped_s)
        return tuple(sentence for sentence in self._script if sentence.end_s <= played_s)

    def _heard_until(self, end_s: float) -> str:
        """Return the words that began before this moment of the recording, whose first words began the first ones."""
        begun_s, first = self._script[0].start_s, self.transcripts[0].start
        return " ".join(
            heard.text for heard in self.transcripts if begun_s + (heard.start - first).total_seconds() < end_s
        )
