"""Audio inside the pipeline: always 16 kHz, mono, signed 16-bit, in frames of 512 samples."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
NS_PER_S = 1_000_000_000
FRAME_SAMPLES = 512
"""One step of Silero's voice activity detector at 16 kHz: 32 ms."""

FULL_SCALE = 32_768.0
PEAK = 32_767
SILENCE_DBFS = -96.0
"""The range of 16 bits; digital silence has this level, never minus infinity."""
_QUIETEST_OF = 10
EDGE_SAMPLES = SAMPLE_RATE_HZ // 2
"""Silence before and after each recording, 0.5 s. Without it, detector and engine miss a word at its edge."""
_SILENT = 32
"""Samples up to this, -60 dB, count as silence at the edges."""

Pcm16 = NDArray[np.int16]
PcmFloat = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class AudioFrame:
    """32 ms of sound from a source."""

    pcm: Pcm16 = field(compare=False)
    """Shape (512,), int16."""
    position: int
    """Index of the first sample since the source was opened. It counts lost samples too, so a jump is a gap. It is
    negative in the silence before a recording."""
    captured_ns: int
    """Monotonic clock when the last sample was captured (for a file read flat out: when it would have been)."""
    resumed: bool = False
    """True if there was no device before it: muted, or absent. A gap before it is then no loss."""
    lead_samples: int = 0
    """Samples at the start that are silence, which `frames_of` has put before a recording."""
    tail_samples: int = 0
    """Samples at the end that are silence, which `frames_of` has put after a recording."""

    @property
    def end(self) -> int:
        """Position just after the last sample."""
        return self.position + len(self.pcm)

    @property
    def is_edge(self) -> bool:
        """Whether it has no sound of the source."""
        return len(self.pcm) in {self.lead_samples, self.tail_samples}


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of sound with speech in it, padded on both sides."""

    id: str
    """ULID; each message about the utterance has it."""
    pcm: Pcm16 = field(compare=False)
    """Shape (n,), int16, 16 kHz. Not compared: numpy compares sample by sample, and the id tells utterances apart."""
    position: int
    """Index of its first sample since the source was opened."""
    started_ns: int
    """Monotonic capture time of its first sample."""
    speech_end: int
    """Position just after the last sample that the voice activity detector called speech."""
    closed_at: int
    """Position at which it ended for certain; `closed_at - speech_end` is the hang-over that the listener waited."""
    truncated: bool = False
    """True if it was cut at the maximum length; the next utterance continues it without a lost sample."""
    speech_s: float | None = None
    """Seconds that the voice activity detector called speech; None without a detector."""
    speech_prob: float | None = None
    """Mean probability, in [0, 1], of the frames that it called speech."""
    dated: bool = True
    """False if `started_ns` is a guess: the utterance was kept over a reboot, and the wall clock was not synchronised
    before and after it."""
    lead_samples: int = 0
    """Silence that an engine must hear before `pcm`: the recording begins with speech."""
    tail_samples: int = 0
    """Silence that an engine must hear after `pcm`: the recording ends with speech."""

    @property
    def duration_s(self) -> float:
        """Length of the sound in seconds."""
        return len(self.pcm) / SAMPLE_RATE_HZ

    @property
    def start_s(self) -> float:
        """Seconds from the opening of the source to the first sample."""
        return self.position / SAMPLE_RATE_HZ

    @property
    def speech_end_s(self) -> float | None:
        """Seconds from the first sample to the end of the last speech; None without a detector."""
        if self.speech_s is None:  # `speech_end` is the end of a recording, which may be silent
            return None
        return (self.speech_end - self.position) / SAMPLE_RATE_HZ

    @property
    def hangover_s(self) -> float:
        """Seconds between the end of speech and the decision that it had ended."""
        return max(0, self.closed_at - self.speech_end) / SAMPLE_RATE_HZ

    def with_edges(self) -> "Utterance":
        """Return the utterance with the silence at its edges in `pcm`, as an engine must hear it."""
        pcm = np.pad(self.pcm, (self.lead_samples, self.tail_samples))
        return replace(self, pcm=pcm, position=self.position - self.lead_samples, lead_samples=0, tail_samples=0)


def frames_of(chunks: Iterable[Pcm16]) -> Iterator[AudioFrame]:
    """Yield a recording in frames, with silence around it. Its clock is 0 at its first sample.

    The recording's own silence at an edge counts: its frames do not change if up to 0.5 s of silence is added. The last
    frame is filled with silence. A recording without samples gives no frame.

    Args:
        chunks: The recording, in pieces of shape (n,).
    """
    pieces = iter(chunks)
    rest = np.zeros(0, np.int16)
    for piece in pieces:
        rest = np.concatenate([rest, piece])
        if len(rest) >= EDGE_SAMPLES:
            break
    if not len(rest):
        return
    lead = EDGE_SAMPLES - _silence_before(rest[:EDGE_SAMPLES])
    position, end, tail = -lead, len(rest), _silence_before(rest[::-1])
    rest = np.pad(rest, (lead, 0))
    for piece in pieces:
        whole = len(rest) // FRAME_SAMPLES * FRAME_SAMPLES
        yield from _cut(rest[:whole], position, end)
        rest, position = np.concatenate([rest[whole:], piece]), position + whole
        end += len(piece)
        silence = _silence_before(piece[::-1])
        tail = silence + tail if silence == len(piece) else silence
    rest = np.pad(rest, (0, max(0, EDGE_SAMPLES - tail)))
    yield from _cut(np.pad(rest, (0, -len(rest) % FRAME_SAMPLES)), position, end)


def _cut(pcm: Pcm16, position: int, recording_end: int) -> Iterator[AudioFrame]:
    """Yield `pcm` in frames; its length is a multiple of a frame, and it begins at `position`."""
    for start in range(0, len(pcm), FRAME_SAMPLES):
        begin, end = position + start, position + start + FRAME_SAMPLES
        yield AudioFrame(
            pcm[start : start + FRAME_SAMPLES],
            begin,
            end * NS_PER_S // SAMPLE_RATE_HZ,
            lead_samples=min(max(0, -begin), FRAME_SAMPLES),
            tail_samples=min(max(0, end - recording_end), FRAME_SAMPLES),
        )


def _silence_before(pcm: Pcm16) -> int:
    """Return the number of silent samples at the start of `pcm`, shape (n,)."""
    sounds = np.flatnonzero((pcm > _SILENT) | (pcm < -_SILENT))
    return int(sounds[0]) if len(sounds) else len(pcm)


def to_float(pcm: Pcm16) -> PcmFloat:
    """Scale int16 samples to float32 in [-1, 1), the input of all engines."""
    return pcm.astype(np.float32) / np.float32(FULL_SCALE)


def rms_dbfs(pcm: Pcm16) -> float:
    """Return the root mean square level in dB of full scale; `SILENCE_DBFS` for digital silence or no samples."""
    if not len(pcm):
        return SILENCE_DBFS
    samples = pcm.astype(np.float32)
    mean_square = float(np.dot(samples, samples)) / len(samples)
    return max(SILENCE_DBFS, 10.0 * float(np.log10(mean_square / FULL_SCALE**2))) if mean_square else SILENCE_DBFS


def snr_db(pcm: Pcm16) -> float | None:
    """Return speech over noise, in dB, estimated from sound with pauses, shape (n,).

    This is the mean power of the louder half of its 32 ms frames, without an offset, over that of the quietest tenth.
    None for less than ten frames, and if the quietest tenth is digital silence: then there was no noise.
    """
    frames = pcm[: len(pcm) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES).astype(np.float64)
    powers = np.sort(frames.var(axis=1))
    noise = float(powers[: len(powers) // _QUIETEST_OF].mean()) if len(powers) >= _QUIETEST_OF else 0.0
    return 10.0 * float(np.log10(powers[len(powers) // 2 :].mean() / noise)) if noise else None


def clipped_samples(pcm: Pcm16) -> int:
    """Return how many of the samples, shape (n,), are at full scale."""
    return int(np.count_nonzero((pcm >= PEAK) | (pcm <= -PEAK)))


def samples(milliseconds: float) -> int:
    """Return the number of samples in `milliseconds` of sound."""
    return round(milliseconds * SAMPLE_RATE_HZ / 1000)


LONGEST_FILLED_GAP = samples(1000)
"""Up to so many lost samples are filled with zeros; a longer gap ends an utterance."""
