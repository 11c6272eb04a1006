"""Voice activity detection: how likely is each 32 ms frame to be speech?"""

from typing import Protocol

from agent.audio.frames import Pcm16
from agent.config.settings import VadSettings


class VoiceActivityDetector(Protocol):
    """Called from the listen thread only, once a frame, in order."""

    def probability(self, pcm: Pcm16) -> float:
        """Return the probability in [0, 1] that `pcm`, shape (512,), holds speech."""

    def reset(self) -> None:
        """Forget the past sound: the next frame does not continue the last one."""

    @property
    def noise_floor_dbfs(self) -> float | None:
        """Level of the room without speech; None if this detector does not know it. Any thread may read."""


def create_detector(settings: VadSettings) -> VoiceActivityDetector:
    """Build the detector of `settings`; Silero is behind a gate unless that is switched off."""
    from agent.vad.energy import EnergyDetector, GatedDetector  # noqa: PLC0415 - they import this module
    from agent.vad.silero import SileroDetector  # noqa: PLC0415

    if settings.kind == "energy":
        return EnergyDetector()
    return GatedDetector(SileroDetector()) if settings.gate else SileroDetector()
