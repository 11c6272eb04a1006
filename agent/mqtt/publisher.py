"""Makes the messages about words, silence and trouble from the reports of the stages, and sends them to the sinks."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from agent.asr.transcript import Transcript
from agent.audio.frames import Utterance, clipped_samples
from agent.errors import EngineError
from agent.messages import Health, Message, TranscriptFailed, Vad
from agent.messages.identity import time_synced
from agent.messages.privacy import PublishPolicy
from agent.messages.transcript import Moment, keyword_messages, latency, partial_message, transcript_message
from agent.mqtt import Sink
from agent.segmenter import Discarded, Ended, SegmenterEvent, SpeechStarted
from agent.telemetry.counters import Counters

log = logging.getLogger(__name__)

VAD_REPEAT_S = 10.0
"""During speech, `ON` is sent again after this time, for subscribers that came late."""


class Publisher:
    """Turns what the stages report into messages, and counts it. Every method may be called from any thread.

    It sends nothing before `open`, but it remembers problems: a microphone may be missing before there is a broker.
    """

    def __init__(
        self,
        counters: Counters,
        boot_id: str,
        next_seq: Callable[[], int] | None = None,
        policy: PublishPolicy | None = None,
    ) -> None:
        self.policy = policy or PublishPolicy()
        """Which words leave the device. Any thread may replace it at any time."""
        self._sinks: Sequence[Sink] = ()
        self._counters = counters
        self._boot_id = boot_id
        # Without a broker there is no outbox: numbers then begin anew with every start.
        self._next_seq = next_seq or itertools.count(1).__next__
        self._lock = threading.Lock()
        self._problems: dict[str, None] = {}
        self._saying = threading.Lock()
        """Held while health is sent: the broker keeps the last message, which must be the latest one."""
        self._said_codes: tuple[str, ...] | None = None
        self._said_on_s: float | None = None

    def open(self, sinks: Sequence[Sink], *greetings: Message) -> None:
        """Send to `sinks` from now on: first `greetings`, then the problems so far."""
        self._sinks = sinks
        for message in greetings:
            self.send(message)
        self._said_codes = None
        self._say()

    def send(self, message: Message) -> None:
        """Hand `message` to every sink."""
        for sink in self._sinks:
            sink.send(message)

    # What the transcriber reports.

    def recognised(
        self, utterance: Utterance, transcript: Transcript, queue_s: float, wait_s: float, *, late: bool = False
    ) -> None:
        """Publish the words, if there are any. Log one line without them.

        The words of an utterance from the spool go to the backlog, fire no keyword, and count for no latency. Any
        answer shows that the engine works, even one without words.
        """
        self.resolve("engine_failed")
        self.resolve("falling_behind")
        rtf = transcript.inference_s / utterance.duration_s
        seconds = f"{utterance.id}: {utterance.duration_s:.1f} s, rtf {rtf:.3f}"
        policy = self.policy
        if not policy.accepts(transcript):
            self._counters.add("rejected")
            log.info(f"{seconds}, no words")
            return
        now = Moment(datetime.now(UTC), time.monotonic_ns(), time_synced())
        latency_ms = latency(utterance, transcript, queue_s, wait_s, now)
        if policy.publishes_text:
            seq, boot_id = self._next_seq(), self._boot_id
            self.send(
                transcript_message(utterance, transcript, latency_ms, seq=seq, boot_id=boot_id, now=now, late=late)
            )
        if late:
            self._counters.transcribed(rtf=rtf, latency=None)
            log.info(f"{seconds}, late")
            return
        for keyword in keyword_messages(transcript, policy.keywords(transcript), now):
            self.send(keyword)
        self._counters.transcribed(rtf=rtf, latency=latency_ms)
        log.info(f"{seconds}, {latency_ms.total_from_speech_end} ms after the last word, {transcript.verdict}")

    def partial(self, utterance: Utterance, transcript: Transcript) -> None:
        """Publish the words so far, if partial results are enabled."""
        policy = self.policy
        if policy.publishes_partials and policy.accepts(transcript):
            self.send(partial_message(utterance, transcript, datetime.now(UTC)))

    def failed(self, utterance: Utterance, error: EngineError) -> None:
        """Publish that the engine failed on an utterance."""
        log.error(f"{utterance.id}: {utterance.duration_s:.1f} s lost: {error}")
        self._give_up(utterance, "engine", str(error))
        self.problem("engine_failed")

    def dropped(self, utterance: Utterance) -> None:
        """Publish that an utterance was dropped in favour of newer ones."""
        log.warning(f"{utterance.id}: {utterance.duration_s:.1f} s dropped: the engine cannot keep up")
        self._give_up(utterance, "overload", "the engine cannot keep up")
        self.problem("falling_behind")

    def lost(self, utterance: Utterance, why: str) -> None:
        """Publish that an utterance was lost from the spool."""
        log.warning(f"{utterance.id}: {utterance.duration_s:.1f} s lost: {why}")
        self._give_up(utterance, "overload", why)

    def _give_up(self, utterance: Utterance, reason: Literal["engine", "overload"], msg: str) -> None:
        self._counters.add("dropped_s", utterance.duration_s)
        now = datetime.now(UTC)
        age_s = (time.monotonic_ns() - utterance.started_ns) / 1e9
        failure = TranscriptFailed(
            id=utterance.id,
            seq=self._next_seq(),
            boot_id=self._boot_id,
            ts=now,
            start=now - timedelta(seconds=age_s),
            time_synced=time_synced() and utterance.dated,
            duration_s=round(utterance.duration_s, 3),
            reason=reason,
            msg=msg,
        )
        self.send(failure)

    # What the listener reports.

    def heard(self, event: SegmenterEvent) -> None:
        """Publish whether there is speech, and count its outcome."""
        match event:
            case SpeechStarted():
                self._speaking(True)
            case Ended(utterance):
                self._counters.add("speech_s", utterance.duration_s)
                self._counters.add("spoken_samples", len(utterance.pcm))
                self._counters.add("clipped_samples", clipped_samples(utterance.pcm))
                if not utterance.truncated:
                    self._speaking(False)
            case Discarded():
                self._counters.add("discarded")

    def repeat_speaking(self) -> None:
        """Send `ON` again if speech has gone on for `VAD_REPEAT_S`; called about once a second."""
        now_s = time.monotonic()
        with self._lock:
            due = self._said_on_s is not None and now_s - self._said_on_s >= VAD_REPEAT_S
            if due:
                self._said_on_s = now_s
        if due:
            self.send(Vad(state="ON"))

    def _speaking(self, speaking: bool) -> None:  # noqa: FBT001 - it is the event's whole content
        with self._lock:
            changed = speaking is (self._said_on_s is None)
            self._said_on_s = time.monotonic() if speaking else None
        if changed:
            self.send(Vad(state="ON" if speaking else "OFF"))

    # Health, sent on change only.

    def problem(self, code: str) -> None:
        """Add a problem."""
        self.conditions(code, (code,))

    def resolve(self, code: str) -> None:
        """Remove a problem."""
        self.conditions(code, ())

    def conditions(self, prefix: str, codes: Sequence[str]) -> None:
        """Replace the problems of one part of the device, whose codes all begin with `prefix`."""
        with self._lock:
            known = [code for code in self._problems if code.startswith(prefix)]
            if known == list(codes):
                return
            others = [code for code in self._problems if not code.startswith(prefix)]
            self._problems = dict.fromkeys([*others, *codes])
        self._say()

    @property
    def problems(self) -> tuple[str, ...]:
        """The codes of all present problems."""
        with self._lock:
            return tuple(self._problems)

    def _say(self) -> None:
        """Send the present problems, unless another thread has sent them meanwhile."""
        with self._saying:
            codes = self.problems
            if codes != self._said_codes:
                self._said_codes = codes
                self.send(Health(problem="ON" if codes else "OFF", codes=codes))
