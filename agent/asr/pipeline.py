"""The stages from sound to words, wired to each other.

microphone ──frames──▶ [listen] ──utterances──▶ [transcribe] ──▶ recipient
(thread `alsa`)         vad, segmenter           engine
"""

import time
from collections.abc import Callable
from typing import Final

from agent.asr import Engine
from agent.asr.loading import ENGINE_NICE, create_segmenter
from agent.asr.transcriber import Recipient, Transcriber
from agent.audio.conditioner import create_conditioner
from agent.audio.frames import Utterance
from agent.audio.microphone import open_source
from agent.audio.monitor import AudioMonitor
from agent.channel import Overflow
from agent.config.settings import Settings
from agent.segmenter import Listener, SegmenterEvent
from agent.vad import create_detector
from agent.worker import Worker

UTTERANCES_CAPACITY: Final = 16
"""Utterances that may wait for the engine: at most 16 times 20 s of speech, 10 MB."""


class Pipeline:
    """The source, the listener and the transcriber, with the threads of the latter two.

    Args:
        settings: Of the source, the detector and the segmenter.
        engine: Loaded already; closed at the end.
        listening: False leaves the microphone closed at first.
        recipient: Receives the outcome of each utterance.
        on_event: Called from the thread `listen` with every event of the segmenter.
        on_overrun: Called when the sound card has lost sound.
        keep: Stores an utterance for which the queue has no room; returns False if it cannot.
        on_failure: Receives a thread that failed.

    Raises:
        ConfigError: an optional package is not installed.
        SourceError: the source cannot be opened, and the settings forbid to wait for it.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        *,
        listening: bool,
        recipient: Recipient,
        on_event: Callable[[SegmenterEvent], None],
        on_overrun: Callable[[], None],
        keep: Callable[[Utterance], bool],
        on_failure: Callable[[Worker], None],
    ) -> None:
        self.monitor = AudioMonitor()
        self.source = open_source(settings.source, listening=listening, on_overrun=on_overrun)
        overflow = Overflow.DROP_OLDEST if self.source.live else Overflow.WAIT
        self.transcriber = Transcriber(engine, recipient, UTTERANCES_CAPACITY, overflow, keep)
        self.segmenter = create_segmenter(settings)
        self.listener = Listener(
            self.source,
            create_detector(settings.vad),
            self.segmenter,
            [self.transcriber.heard, on_event] if settings.publish.privacy != "off" else [on_event],
            on_end=self.transcriber.close,
            monitor=self.monitor,
            conditioner=create_conditioner(settings.sound),
        )
        self._workers = (
            Worker("transcribe", self.transcriber.run, on_failure, nice=ENGINE_NICE),
            Worker("listen", self.listener.run, on_failure),
        )

    def start(self) -> None:
        """Start the stages, the last one first."""
        for worker in self._workers:
            worker.start()

    @property
    def alive(self) -> bool:
        """Whether a stage still runs."""
        return any(worker.alive for worker in self._workers)

    def close(self, timeout_s: float) -> list[str]:
        """Close the source, and transcribe the waiting utterances for at most `timeout_s`.

        Return the names of the threads that have not ended.
        """
        self.source.close()
        until_s = time.monotonic() + timeout_s
        left = [one.name for one in reversed(self._workers) if not one.join(max(0.0, until_s - time.monotonic()))]
        self.transcriber.abandon()
        return left
