"""Reduces noise and raises the level of sound, if the settings ask for it: WebRTC's audio processing."""

from dataclasses import replace
from typing import Final

import numpy as np

from agent.audio.frames import AudioFrame, Pcm16
from agent.config.settings import SoundSettings
from agent.errors import ConfigError
from agent.install import extras

STEP_SAMPLES: Final = 160
"""WebRTC works on 10 ms at a time."""


class Conditioner:
    """Takes frames of the listen thread and returns as many, with their sound about 16 ms later.

    Positions and times stay the same: 16 ms do not matter for pre-roll and hang-over.

    Raises:
        ConfigError: the package for it is not installed.
    """

    def __init__(self, settings: SoundSettings) -> None:
        try:
            from webrtc_noise_gain import AudioProcessor  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigError(
                "sound.noise_suppression and sound.auto_gain need a package that is not installed: "
                f"{extras.missing('enhance')}"
            ) from error
        self._processor = AudioProcessor(int(settings.auto_gain), settings.noise_suppression)
        self._waiting = np.zeros(0, np.int16)
        # A frame is no whole number of steps. With one step in reserve, no frame is ever too short.
        self._done = np.zeros(STEP_SAMPLES, np.int16)

    def condition(self, frame: AudioFrame) -> AudioFrame:
        """Return the next frame."""
        self._waiting = np.concatenate([self._waiting, frame.pcm])
        whole = len(self._waiting) // STEP_SAMPLES * STEP_SAMPLES
        steps, self._waiting = self._waiting[:whole].reshape(-1, STEP_SAMPLES), self._waiting[whole:]
        self._done = np.concatenate([self._done, *map(self._step, steps)])
        pcm, self._done = self._done[: len(frame.pcm)], self._done[len(frame.pcm) :]
        return replace(frame, pcm=pcm)

    def _step(self, pcm: Pcm16) -> Pcm16:
        return np.frombuffer(self._processor.Process10ms(pcm.tobytes()).audio, np.int16)


def create_conditioner(settings: SoundSettings) -> Conditioner | None:
    """Return a conditioner if the settings ask for one, else None.

    Raises:
        ConfigError: the package for it is not installed.
    """
    return Conditioner(settings) if settings.auto_gain or settings.noise_suppression else None
