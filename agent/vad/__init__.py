"""Voice activity detection: how likely is each 32 ms frame to be speech?"""

from typing import Protocol

from agent.audio.frames import Pcm16
from agent.config.settings import VadSettings


class VoiceActivityDetector(Protocol):
    """Called from the listen thread only, once a frame, in order."""

    def probability(self, pcm: Pcm16) -> float:
        """Probability in [0, 1] that `pcm`, shape (512,), holds speech."""

    def reset(self) -> None:
        """Forget what was heard: the next frame does not continue the last one."""

    @property
    def noise_floor_dbfs(self) -> float | None:
        """Level of the room without speech; None where this detector does not know it. May be read by any thread."""


def create_detector(settings: VadSettings) -> VoiceActivityDetector:
    """Build the detector that `settings` describe; Silero stands behind its gate unless that is switched off."""
    from agent.vad.energy import EnergyDetector, GatedDetector  # noqa: PLC0415 - they import this module
    from agent.vad.silero import SileroDetector  # noqa: PLC0415

    if settings.kind == "energy":
        return EnergyDetector()
    return GatedDetector(SileroDetector()) if settings.gate else SileroDetector()
