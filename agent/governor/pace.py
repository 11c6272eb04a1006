"""How fast the engine is, and how busy: from what it says of its inferences. Pure."""

from collections import deque
from typing import Final

WINDOW_S: Final = 120.0
"""What of the past counts for how busy the engine is."""
SMOOTHING: Final = 0.3
"""Share of the newest utterance in the real-time factor."""


class Pace:
    """Fed with every inference, drafts included."""

    def __init__(self) -> None:
        self.rtf = 0.0
        """Inference time for a second of speech, smoothed over a few utterances; 0 while none was transcribed."""
        self._began_s: float | None = None
        self._inferences: deque[tuple[float, float]] = deque()

    def inferred(self, now_s: float, inference_s: float, speech_s: float) -> None:
        """An inference of `inference_s` has ended at `now_s`; it was of `speech_s` seconds."""
        self._began_s = now_s if self._began_s is None else self._began_s
        self._inferences.append((now_s, inference_s))
        if speech_s > 0:
            rtf = inference_s / speech_s
            self.rtf += SMOOTHING * (rtf - self.rtf) if self.rtf else rtf

    def load(self, now_s: float) -> float:
        """Share of the last two minutes in which the engine worked, 0–1."""
        while self._inferences and self._inferences[0][0] < now_s - WINDOW_S:
            self._inferences.popleft()
        return min(1.0, sum(inference_s for _at_s, inference_s in self._inferences) / WINDOW_S)

    def another_engine(self) -> None:
        """What was measured of the last engine says nothing about the next."""
        self.rtf = 0.0
