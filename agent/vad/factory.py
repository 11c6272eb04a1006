"""From settings to a detector."""

from typing import assert_never

from agent.config.settings import VadSettings
from agent.vad import VoiceActivityDetector


def create_detector(settings: VadSettings) -> VoiceActivityDetector:
    """Build the detector of that kind, behind its gate if there is to be one. Only what is used is imported."""
    match settings.kind:
        case "energy":
            from agent.vad.energy import EnergyDetector  # noqa: PLC0415 - lazy, see the docstring

            return EnergyDetector()
        case "silero":
            from agent.vad.gate import GatedDetector  # noqa: PLC0415 - lazy, see the docstring
            from agent.vad.silero import SileroDetector  # noqa: PLC0415

            return GatedDetector(SileroDetector()) if settings.gate else SileroDetector()
        case _:
            assert_never(settings.kind)
