"""Checks the sound of a microphone: gaps, dead silence, clipping, an offset. Pure: fed frames.

Levels follow the sound at once, conditions with some inertia, so that `health` does not flutter.
"""

from collections import deque
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from agent.audio.frames import FRAME_SAMPLES, FULL_SCALE, PEAK, SAMPLE_RATE_HZ, AudioFrame, clipped_samples

FRAMES_PER_BLOCK: Final = SAMPLE_RATE_HZ // FRAME_SAMPLES
"""31 frames, about a second: the unit of all sums."""
BLOCKS: Final = 60
"""The length of "the last minute"."""
CLIPPED_SAMPLES: Final = 2
"""At full scale in one frame. A well driven converter has a single one now and then."""
SILENT_AFTER_BLOCKS: Final = 5
SOUND_AFTER_BLOCKS: Final = 2
CLIPPING_FRAMES: Final = (8, FRAMES_PER_BLOCK)
"""In the last minute: clipping ends below the first limit, and begins at the second, a second's worth of it."""
OFFSET_PCT: Final = (4.0, 5.0)
"""An offset ends below the first limit, and begins at the second. Cheap converters are off by one or two."""
OFFSET_BLOCKS: Final = 4
GAPS: Final = 3
LOST_S: Final = 1.0
"""In the last minute, either of the two is a condition."""


@dataclass(frozen=True, slots=True)
class Condition:
    """The state of the sound."""

    gaps: int = 0
    """How often sound was lost since the start, without absences and mutes."""
    lost_s: float = 0.0
    """How much sound was lost."""
    silences: int = 0
    """How often the microphone has become dead silent since the start."""
    clip_pct: float | None = None
    """Share of the frames of the last minute that hit full scale, 0–100; None before the first second."""
    offset_pct: float | None = None
    """Mean of the samples of the last minute, in percent of full scale; None before the first second."""
    codes: tuple[str, ...] = ()
    """The faults, by the codes of `health`."""


@dataclass(slots=True)
class _Block:
    """About a second."""

    frames: int = 0
    flat: int = 0
    """Frames with equal samples only: no working microphone is that quiet."""
    clipped: int = 0
    sum: int = 0
    gaps: int = 0
    lost_samples: int = 0


class AudioMonitor:
    """Takes each frame of the listen thread; any thread may read `condition`."""

    def __init__(self) -> None:
        self.condition = Condition()
        self._block = _Block()
        self._blocks: deque[_Block] = deque(maxlen=BLOCKS)
        self._expected: int | None = None
        self._flat_blocks = self._live_blocks = 0
        self._gaps = self._lost_samples = self._silences = 0
        self._codes: set[str] = set()

    def hear(self, frame: AudioFrame) -> None:
        """Take the next frame."""
        block, pcm = self._block, frame.pcm
        if frame.resumed:  # there was no device for a while, so earlier faults may be over
            self._blocks.clear()
            self._codes.clear()
            self._flat_blocks = self._live_blocks = 0
            self.condition = replace(self.condition, codes=())
        elif self._expected is not None and frame.position != self._expected:
            block.gaps += 1
            block.lost_samples += max(0, frame.position - self._expected)
        self._expected = frame.end
        low, high = int(pcm.min()), int(pcm.max())
        block.flat += low == high
        if high >= PEAK or low <= -PEAK:
            block.clipped += clipped_samples(pcm) >= CLIPPED_SAMPLES
        block.sum += int(pcm.sum(dtype=np.int64))
        block.frames += 1
        if block.frames == FRAMES_PER_BLOCK:
            self._close_block(block)

    def _close_block(self, block: _Block) -> None:
        self._block = _Block()
        self._blocks.append(block)
        self._gaps += block.gaps
        self._lost_samples += block.lost_samples
        frames = sum(each.frames for each in self._blocks)
        clipped = sum(each.clipped for each in self._blocks)
        offset_pct = 100.0 * sum(each.sum for each in self._blocks) / (frames * FRAME_SAMPLES) / FULL_SCALE
        self._judge_silence(dead=block.flat == block.frames)
        self._judge("audio_clipping", clipped, CLIPPING_FRAMES)
        if len(self._blocks) >= OFFSET_BLOCKS:
            self._judge("audio_offset", abs(offset_pct), OFFSET_PCT)
        gaps = sum(each.gaps for each in self._blocks)
        lost_s = sum(each.lost_samples for each in self._blocks) / SAMPLE_RATE_HZ
        self._judge("audio_gaps", max(gaps / GAPS, lost_s / LOST_S), (0.01, 1.0))
        self.condition = Condition(
            gaps=self._gaps,
            lost_s=self._lost_samples / SAMPLE_RATE_HZ,
            silences=self._silences,
            clip_pct=100.0 * clipped / frames,
            offset_pct=offset_pct,
            codes=tuple(sorted(self._codes)),
        )

    def _judge_silence(self, *, dead: bool) -> None:
        self._flat_blocks, self._live_blocks = (self._flat_blocks + 1, 0) if dead else (0, self._live_blocks + 1)
        if self._flat_blocks == SILENT_AFTER_BLOCKS and "audio_silent" not in self._codes:
            self._silences += 1
            self._codes.add("audio_silent")
        elif self._live_blocks >= SOUND_AFTER_BLOCKS:
            self._codes.discard("audio_silent")

    def _judge(self, code: str, value: float, limits: tuple[float, float]) -> None:
        """Set the fault `code` from the second limit on, and clear it below the first."""
        if value >= limits[1]:
            self._codes.add(code)
        elif value < limits[0]:
            self._codes.discard(code)
