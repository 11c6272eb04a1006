"""What `edgescribe demo` shows: the messages of one device, as a subscriber receives them."""

import csv
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from agent.messages.presentation import clock, colours, confidence_pct, score
from agent.mqtt.subscriber import Received, Subscriber

CLIPS = Path(__file__).parents[1] / "clips"
RECORDING = CLIPS / "demo.flac"
POLL_S = 0.25
LAST_MESSAGES_S = 10.0
"""The agent is gone, but what it sent last may still be on its way; `offline` is the end of it."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of the bundled recording."""

    start_s: float
    end_s: float
    text: str


def bundled_recording() -> tuple[Sentence, ...]:
    """What is said in `demo.flac`, and when."""
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
        self._script = script
        self._clock_s = clock_s
        self._stopped_s: float | None = None
        self._console = console or Console(highlight=False, soft_wrap=True, color_system=colours())
        self._started_s: float | None = None
        self.transcripts: list[dict[str, Any]] = []
        self._telemetry: dict[str, Any] | None = None
        self._messages = 0
        self._online = False

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
        received = subscriber.get(POLL_S)
        if received is None or not received.payload:
            return received is not None
        self._messages += 1
        self._show(received)
        return True

    def _show(self, received: Received) -> None:
        kind = received.topic.split("/", 3)[3]
        payload = received.payload.decode()
        match kind:
            case "status":
                self._started_s = self._started_s or received.received_s
                self._online = payload == "online"
                self._line(received, kind, payload, "green" if payload == "online" else "yellow")
            case "transcript":
                self._transcript(received, json.loads(payload))
            case "telemetry":
                self._telemetry = json.loads(payload)
                self._line(received, kind, _telemetry_line(self._telemetry), "dim")
            case "health" if '"ON"' in payload:
                self._line(received, kind, ", ".join(json.loads(payload)["codes"]), "red")
            case _:
                pass  # info, state and vad: true, but nothing to look at

    def _transcript(self, received: Received, message: dict[str, Any]) -> None:
        self.transcripts.append(message)
        latency_ms = message["latency_ms"]["total_from_speech_end"]
        confidence = confidence_pct(message.get("avg_logprob"))
        self._console.print(
            Text.assemble(
                (f"{self._clock(received):>7}  ", "dim"),
                ("transcript  ", "cyan"),
                (message["text"], "bold"),
                (f"  [{latency_ms / 1000:.2f} s after the last word, confidence {confidence}]", "dim"),
            )
        )

    def _line(self, received: Received, kind: str, text: str, style: str) -> None:
        self._console.print(
            Text.assemble((f"{self._clock(received):>7}  ", "dim"), (f"{kind:<10}  ", "cyan"), (text, style))
        )

    def _clock(self, received: Received) -> str:
        return clock(received.received_s - (self._started_s or received.received_s))

    def closing(self) -> None:
        """Sum up."""
        if not self.transcripts:
            self._console.print("\n[red]No transcript arrived.[/] `edgescribe doctor` says what may be missing.")
            return
        latencies_ms = [message["latency_ms"]["total_from_speech_end"] for message in self.transcripts]
        pause_ms = statistics.median(message["latency_ms"]["vad_close"] for message in self.transcripts)
        rtf = statistics.median(message["rtf"] for message in self.transcripts)
        count = "1 transcript" if len(self.transcripts) == 1 else f"{len(self.transcripts)} transcripts"
        self._console.print(
            f"\n[bold]{count}[/] in {self._messages} messages. From the last word to the "
            f"subscriber: median {statistics.median(latencies_ms) / 1000:.2f} s, of which {pause_ms / 1000:.2f} s is "
            f"the pause that ends an utterance. Inference took {100 * rtf:.0f} % of the time that was spoken."
        )
        if played := self._played():
            said = " ".join(sentence.text for sentence in played)
            result = score(said, " ".join(self._heard_until(played[-1].end_s)))
            self._console.print(f"Of {result.expected} words that were said, {result.right} came through right.")
        self._console.print("\nNext: `edgescribe devices` finds your microphone; README.md has the rest.")

    def _played(self) -> tuple[Sentence, ...]:
        """What was said of the script; of one that was stopped no sentence that was not said to its end."""
        script = self._script or ()
        if self._stopped_s is None:
            return script
        played_s = self._stopped_s - (self._started_s or self._stopped_s)
        return tuple(sentence for sentence in script if sentence.end_s <= played_s)

    def _heard_until(self, end_s: float) -> Iterator[str]:
        """The texts of what began before this moment of the recording, in which its first words begin the first one."""
        script, first = self._script or (), _began(self.transcripts[0])
        for message in self.transcripts:
            if script[0].start_s + (_began(message) - first).total_seconds() < end_s:
                yield message["text"]


def _began(message: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(message["start"])


def _telemetry_line(telemetry: dict[str, Any]) -> str:
    cpu, mem, asr = telemetry["cpu"], telemetry["mem"], telemetry["asr"]
    parts = [
        f"cpu {cpu['pct']:.0f} %" if "pct" in cpu else "",
        f"{cpu['temp_c']:.0f} °C" if "temp_c" in cpu else "",
        f"memory {mem['rss_mb']:.0f} MB" if "rss_mb" in mem else "",
        f"real-time factor p95 {asr['rtf_p95']:.2f}" if "rtf_p95" in asr else "",
        f"speech {asr['speech_pct']:.0f} %",
        f"dropped {asr['dropped_s']:.1f} s",
    ]
    return ", ".join(part for part in parts if part)
