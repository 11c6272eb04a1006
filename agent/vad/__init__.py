"""Voice activity detection: how likely is each 32 ms frame to be speech?"""

from typing import Protocol

from agent.audio.frames import Pcm16


class VoiceActivityDetector(Protocol):
    """Called from the listen thread only, once a frame, in order."""

    def probability(self, pcm: Pcm16) -> float:
        """Probability in [0, 1] that `pcm`, shape (512,), holds speech."""

    def reset(self) -> None:
        """Forget what was heard: the next frame does not continue the last one."""

    @property
    def noise_floor_dbfs(self) -> float | None:
        """Level of the room without speech; None where this detector does not know it. May be read by any thread."""
