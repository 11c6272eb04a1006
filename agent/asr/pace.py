"""How fast and how busy the engine is, and how much of its time speculative decoding may waste."""

import threading
from collections import deque
from typing import Final

WINDOW_S: Final = 120.0
"""The load is that of this last part of the time."""
SMOOTHING: Final = 0.3
"""Weight of the newest utterance in the real-time factor."""
GRACE_S: Final = 1.0
"""Allowed waste before there is useful work to compare it with."""
MAX_WASTE: Final = 0.3
"""Allowed waste, as a share of the useful work."""


class EnginePace:
    """Real-time factor and load, from every inference. The transcribe thread writes, any thread may read."""

    def __init__(self) -> None:
        self.rtf = 0.0
        """Inference time for a second of speech, smoothed over several utterances; 0 before the first."""
        self._lock = threading.Lock()
        self._inferences: deque[tuple[float, float]] = deque()

    def inferred(self, now_s: float, inference_s: float, speech_s: float) -> None:
        """Count an inference of `inference_s` seconds that ended at `now_s`, for `speech_s` seconds of speech."""
        with self._lock:
            self._inferences.append((now_s, inference_s))
        if speech_s > 0:
            rtf = inference_s / speech_s
            self.rtf += SMOOTHING * (rtf - self.rtf) if self.rtf else rtf

    def load(self, now_s: float) -> float:
        """Return the share, 0 to 1, of the last two minutes in which the engine worked."""
        with self._lock:
            while self._inferences and self._inferences[0][0] < now_s - WINDOW_S:
                self._inferences.popleft()
            return min(1.0, sum(inference_s for _at_s, inference_s in self._inferences) / WINDOW_S)


class SpeculationBudget:
    """Keeps the waste of speculative decoding within a share of the useful work. Belongs to the transcribe thread.

    To decode an utterance inside the pause hides the inference. If speech resumes, the work is wasted.
    """

    def __init__(self) -> None:
        self._useful_s = 0.0
        self._wasted_s = 0.0

    def spent(self, inference_s: float, *, useful: bool) -> None:
        """Count `inference_s` seconds of inference."""
        if useful:
            self._useful_s += inference_s
        else:
            self._wasted_s += inference_s

    @property
    def allows(self) -> bool:
        """True while the waste is within its share, plus one second."""
        return self._wasted_s <= GRACE_S + MAX_WASTE * self._useful_s
