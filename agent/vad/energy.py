"""Voice activity by level: a detector of its own, and the gate that leaves Silero out in a quiet room."""

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from agent.audio.frames import FULL_SCALE, SILENCE_DBFS, Pcm16
from agent.vad import VoiceActivityDetector

HISTORY_FRAMES = 125
"""4 s: long enough to contain pauses between words, short enough to follow a fan that was switched on."""
QUIETEST_PART = 10
"""The floor is the level of the quietest tenth of the frames."""
UPDATE_FRAMES = 8
MEANS_OF = 4


def level_dbfs(pcm: Pcm16) -> float:
    """Return the level of a frame, shape (n,), in dB relative to full scale, without an offset of the microphone."""
    samples = pcm.astype(np.float32)
    mean = float(samples.sum()) / len(samples)
    return _dbfs(float(np.dot(samples, samples)) / len(samples) - mean * mean)


def voice_band_dbfs(pcm: Pcm16) -> float:
    """Return the level of a frame, shape (512,), in the band of voices: a few hundred Hz to 2 kHz.

    Compare it only with other levels of this band. Means of four samples remove the hiss above, their differences
    remove rumble and mains hum below. Steady noise gets steadier, and voices stand out by several dB.
    """
    samples = pcm.astype(np.float32)
    means: NDArray[np.float32] = samples[::4] + samples[1::4] + samples[2::4] + samples[3::4]
    changes = means[1:] - means[:-1]
    return _dbfs(float(np.dot(changes, changes)) / (MEANS_OF**2 * len(changes)))


def _dbfs(mean_square: float) -> float:
    return max(SILENCE_DBFS, 10.0 * math.log10(mean_square / FULL_SCALE**2)) if mean_square > 0.0 else SILENCE_DBFS


class NoiseFloor:
    """Follows the level of the room: the quietest tenth of the last 4 s. Takes one level a frame."""

    def __init__(self) -> None:
        self.dbfs: float | None = None
        """The floor; None in the first quarter of a second. Any thread may read."""
        self._levels: deque[float] = deque(maxlen=HISTORY_FRAMES)
        self._until_update = UPDATE_FRAMES

    def hear(self, level_dbfs: float) -> None:
        """Take the level of the next frame."""
        self._levels.append(level_dbfs)
        self._until_update -= 1
        if not self._until_update:
            self._until_update = UPDATE_FRAMES
            self.dbfs = sorted(self._levels)[len(self._levels) // QUIETEST_PART]


EVEN_ODDS_DB = 9.0
"""This far above the floor a frame is as likely speech as not."""
SLOPE_DB = 2.0
"""Another 2 dB change the odds by a factor of e."""
LOWEST_ENERGY_FLOOR_DBFS = -70.0


class EnergyDetector:
    """Compares each frame's level in the voice band with the noise floor of that band."""

    def __init__(self) -> None:
        self._floor = NoiseFloor()
        self._voice_band_floor = NoiseFloor()

    @property
    def noise_floor_dbfs(self) -> float | None:
        """Level of the room without speech; any thread may read."""
        return self._floor.dbfs

    def probability(self, pcm: Pcm16) -> float:
        """Return the probability in [0, 1] that `pcm`, shape (512,), holds speech; 0 until the floor is known."""
        level = voice_band_dbfs(pcm)
        self._floor.hear(level_dbfs(pcm))
        self._voice_band_floor.hear(level)
        floor = self._voice_band_floor.dbfs
        if floor is None:
            return 0.0
        above_db = level - max(floor, LOWEST_ENERGY_FLOOR_DBFS)
        return 1.0 / (1.0 + math.exp((EVEN_ODDS_DB - above_db) / SLOPE_DB))

    def reset(self) -> None:
        """Keep the noise floor, the only state: the room has not changed."""


MARGIN_DB = 4.5
"""A frame this far above the floor opens the gate. The levels of steady noise scatter by about 1 dB."""
LOWEST_GATE_FLOOR_DBFS = -80.0
"""Below this there is only silence; one bit more or less is no event."""
QUIET_FRAMES = 31
"""1 s without a loud frame and without a hint of speech closes the gate."""
STEADY_FRAMES = 94
"""3 s without a loud frame always close it: no speech is that steady, but a hum may fool the detector."""
LIKE_SPEECH = 0.15
REPLAYED_FRAMES = 32
"""1 s of sound before an onset, which the detector then gets first: it answers almost as if it had always listened."""


class EnergyGate:
    """Opens at once when a frame is louder than the room, and closes after some quiet.

    Takes the level of each frame in the voice band, and the probability from the detector behind the gate. A steady
    noise that begins opens the gate, until the floor has risen to it.
    """

    def __init__(self) -> None:
        self.open = True
        """Whether the detector gets the frame. True at first, because the room is not known yet."""
        self._floor = NoiseFloor()
        self._since_loud = 0
        self._since_speech = 0

    def hear(self, level_dbfs: float) -> bool:
        """Take the level of the next frame; return whether the gate is open for it."""
        self._floor.hear(level_dbfs)
        floor_dbfs = self._floor.dbfs
        if floor_dbfs is None or level_dbfs > max(floor_dbfs, LOWEST_GATE_FLOOR_DBFS) + MARGIN_DB:
            self.open = True
            self._since_loud = 0
        else:
            self._since_loud += 1
        return self.open

    def judge(self, probability: float) -> None:
        """Take the probability of that frame; after some quiet, close the gate for the next one."""
        self._since_speech = 0 if probability >= LIKE_SPEECH else self._since_speech + 1
        quiet = min(self._since_loud, self._since_speech) >= QUIET_FRAMES
        if quiet or self._since_loud >= STEADY_FRAMES:
            self.open = False


class GatedDetector:
    """A detector behind an `EnergyGate`. When the gate opens, the detector first gets the second before the onset."""

    def __init__(self, detector: VoiceActivityDetector) -> None:
        self._detector = detector
        self._gate = EnergyGate()
        self._floor = NoiseFloor()
        self._missed: deque[Pcm16] = deque(maxlen=REPLAYED_FRAMES)

    @property
    def noise_floor_dbfs(self) -> float | None:
        """Level of the room without speech; any thread may read."""
        return self._floor.dbfs

    def probability(self, pcm: Pcm16) -> float:
        """Return the probability in [0, 1] that `pcm`, shape (512,), holds speech; 0 while the gate is closed."""
        self._floor.hear(level_dbfs(pcm))
        if not self._gate.hear(voice_band_dbfs(pcm)):
            self._missed.append(pcm)
            return 0.0
        # The detector still has its state from the closing of the gate. With the last second on top, that comes closer
        # to an uninterrupted detector than a fresh state does (docs/decisions/0003-voice-activity.md).
        for missed in self._missed:
            self._detector.probability(missed)
        self._missed.clear()
        probability = self._detector.probability(pcm)
        self._gate.judge(probability)
        return probability

    def reset(self) -> None:
        """Forget the past sound, but not the noise floor: the room has not changed."""
        self._missed.clear()
        self._detector.reset()
