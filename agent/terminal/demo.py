"""The output of `edgescribe demo`: the messages of one device, as a subscriber receives them."""

import statistics
import subprocess
import time
from dataclasses import replace
from typing import Final

from rich.console import Console
from rich.text import Text

from agent.messages.presentation import clock, colours, confidence_pct, score
from agent.mqtt.subscriber import Subscriber
from agent.terminal.device import Fleet, Payload
from agent.terminal.render import event_words

POLL_S: Final = 0.25
LAST_MESSAGES_S: Final = 10.0
"""After the agent has ended, its last messages may take this long. `offline` is the last of them."""
_FIGURES: Final = ("latency_ms.total_from_speech_end", "latency_ms.vad_close", "rtf")


class Demonstration:
    """Prints messages as they arrive and keeps the figures for the summary; colours only in a terminal.

    `script` is the text of the recording, and `duration_s` its length; None and 0 for a microphone.
    """

    def __init__(self, script: str | None, duration_s: float = 0.0, console: Console | None = None) -> None:
        self._script, self._duration_s = script, duration_s
        self._console = console or Console(highlight=False, soft_wrap=True, color_system=colours())
        self._fleet = Fleet(last=1)
        self._started_s: float | None = None
        self._messages = 0
        self._online = False
        self.texts: list[str] = []
        """The words of each transcript."""
        self._figures: list[list[float]] = []
        """Of each transcript: latency from the last word, its part that ends an utterance (ms), real-time factor."""

    def opening(self, model: str, broker: str, topic: str) -> None:
        """Say what the user is going to see."""
        source = f"a recording of {self._duration_s:.0f} s, at the speed of speech" if self._script else "your voice"
        self._console.print(f"[bold]edgescribe[/] transcribes {source}, with Whisper {model} on this machine.")
        self._console.print(f"Broker: {broker}. A separate client is subscribed to {topic} and receives:\n")

    def follow(self, subscriber: Subscriber, agent: "subprocess.Popen[bytes]") -> None:
        """Print messages until the agent has ended; Ctrl-C ends it."""
        try:
            while agent.poll() is None:
                self._show_next(subscriber)
        except KeyboardInterrupt:
            self._script = None  # the agent did not hear all of it
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
        """Keep a transcript for the summary and return its evidence; empty if it has not all figures."""
        figures = [figure for path in _FIGURES if (figure := message.number(path)) is not None]
        if len(figures) < len(_FIGURES):
            return ""
        self.texts.append(message.text("text"))
        self._figures.append(figures)
        confidence = confidence_pct(message.number("avg_logprob"))
        return f"{figures[0] / 1000:.2f} s after the last word, confidence {confidence}"

    def closing(self) -> None:
        """Sum up. The words are counted only if the whole recording was played."""
        if not self.texts:
            self._console.print("\n[red]No transcript arrived.[/] `edgescribe doctor` looks for the cause.")
            return
        latency_ms, pause_ms, rtf = map(statistics.median, zip(*self._figures, strict=True))
        count = "1 transcript" if len(self.texts) == 1 else f"{len(self.texts)} transcripts"
        self._console.print(
            f"\n[bold]{count}[/] in {self._messages} messages. From the last word to the subscriber: median "
            f"{latency_ms / 1000:.2f} s, of which {pause_ms / 1000:.2f} s is the pause that ends an utterance. "
            f"Inference took {100 * rtf:.0f} % of the time that was spoken."
        )
        if self._script:
            result = score(self._script, " ".join(self.texts))
            self._console.print(f"Of {result.expected} words that were said, {result.right} came through right.")
        self._console.print("\nNext: `edgescribe devices` finds your microphone; README.md has the rest.")
