"""Leaves an expensive detector out while the room is quiet."""

from collections import deque

from agent.audio.frames import Pcm16
from agent.vad import VoiceActivityDetector
from agent.vad.level import NoiseFloor, level_dbfs, voice_band_dbfs

MARGIN_DB = 4.5
"""A frame this far above the floor opens the gate. The levels of steady noise scatter by about 1 dB."""
LOWEST_FLOOR_DBFS = -80.0
"""Below this there is nothing to hear, and a least significant bit more or less is no event."""
QUIET_FRAMES = 31
"""1 s without a loud frame and without anything like speech closes the gate."""
STEADY_FRAMES = 94
"""3 s without a loud frame close it whatever the detector says: no speech is that steady, but a hum may fool it."""
LIKE_SPEECH = 0.15
REPLAYED_FRAMES = 32
"""1 s: what the detector is played before an onset, in order to judge it much as if it had always listened."""


class EnergyGate:
    """Opens at once when a frame is louder than the room, and closes after some quiet.

    Pure: fed the level of each frame (in the voice band) and what the detector behind the gate said of it.

    A noise that begins and stays opens it, until the floor has risen to it; then the gate closes again.
    """

    def __init__(self) -> None:
        self.open = True
        """Whether the detector is to hear the frame. True at first, for the room is not known yet."""
        self._floor = NoiseFloor()
        self._since_loud = 0
        self._since_speech = 0

    def hear(self, level_dbfs: float) -> bool:
        """Take in the level of the next frame; return whether the gate is open for it."""
        self._floor.hear(level_dbfs)
        floor_dbfs = self._floor.dbfs
        if floor_dbfs is None or level_dbfs > max(floor_dbfs, LOWEST_FLOOR_DBFS) + MARGIN_DB:
            self.open = True
            self._since_loud = 0
        else:
            self._since_loud += 1
        return self.open

    def judge(self, probability: float) -> None:
        """Take in what the detector said of that frame; closes the gate for the next one where there was quiet."""
        self._since_speech = 0 if probability >= LIKE_SPEECH else self._since_speech + 1
        quiet = min(self._since_loud, self._since_speech) >= QUIET_FRAMES
        if quiet or self._since_loud >= STEADY_FRAMES:
            self.open = False


class GatedDetector:
    """A detector behind an `EnergyGate`. On opening it is played the second before, so that it is warm at the onset."""

    def __init__(self, detector: VoiceActivityDetector) -> None:
        self._detector = detector
        self._gate = EnergyGate()
        self._floor = NoiseFloor()
        self._missed: deque[Pcm16] = deque(maxlen=REPLAYED_FRAMES)

    @property
    def noise_floor_dbfs(self) -> float | None:
        """Level of the room without speech; any thread may ask."""
        return self._floor.dbfs

    def probability(self, pcm: Pcm16) -> float:
        """Probability in [0, 1] that `pcm`, shape (512,), holds speech; 0 while the gate is closed."""
        self._floor.hear(level_dbfs(pcm))
        if not self._gate.hear(voice_band_dbfs(pcm)):
            self._missed.append(pcm)
            return 0.0
        self._catch_up()
        probability = self._detector.probability(pcm)
        self._gate.judge(probability)
        return probability

    def reset(self) -> None:
        """Forget what was heard, but not the noise floor: the room has not changed."""
        self._missed.clear()
        self._detector.reset()

    def _catch_up(self) -> None:
        """Play the detector what it missed, or the end of it.

        It keeps the state that it had when the gate closed: that comes closer to what an uninterrupted detector would
        answer than a fresh one does (docs/decisions/0003-voice-activity.md).
        """
        for pcm in self._missed:
            self._detector.probability(pcm)
        self._missed.clear()
