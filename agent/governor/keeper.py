"""Stands between transcriber and publisher: measures the engine's pace, and keeps what would be dropped."""

import threading
import time

from agent.audio import Utterance
from agent.errors import EngineError
from agent.governor.pace import Pace
from agent.governor.spool import Spool
from agent.transcriber import Recipient, Recognition
from agent.transcript import Transcript


class Keeper:
    """A `transcriber.Recipient` before another one. What finds no room in `spool` is dropped there."""

    def __init__(self, further: Recipient, spool: Spool | None) -> None:
        self._further = further
        self._spool = spool
        self._lock = threading.Lock()
        self._pace = Pace()
        self._drafted: Transcript | None = None

    def pace(self) -> tuple[float, float]:
        """Real-time factor, and share of the last minutes in which the engine worked; any thread may ask."""
        with self._lock:
            return self._pace.rtf, self._pace.load(time.monotonic())

    def another_engine(self) -> None:
        """The next inference is that of another engine."""
        with self._lock:
            self._pace.another_engine()

    def recognised(self, recognition: Recognition) -> None:
        """Note how long it took, unless that was noted of its draft, and pass it on."""
        if recognition.transcript is not self._drafted:
            self._note(recognition.utterance, recognition.transcript)
        self._further.recognised(recognition)

    def drafted(self, utterance: Utterance, transcript: Transcript) -> None:
        """Note how long it took, and pass it on."""
        self._drafted = transcript
        self._note(utterance, transcript)
        self._further.drafted(utterance, transcript)

    def failed(self, utterance: Utterance, error: EngineError) -> None:
        """Pass it on."""
        self._further.failed(utterance, error)

    def dropped(self, utterance: Utterance) -> None:
        """Keep it for later, if there is room."""
        if self._spool is None or not self._spool.put(utterance):
            self._further.dropped(utterance)

    def _note(self, utterance: Utterance, transcript: Transcript) -> None:
        with self._lock:
            self._pace.inferred(time.monotonic(), transcript.inference_s, utterance.duration_s)
