"""The bundled speech of `tests/data/speech` as samples and frames."""

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
from numpy.typing import NDArray

SAMPLE_RATE_HZ: Final = 16_000
FRAME_SAMPLES: Final = 512

Pcm16 = NDArray[np.int16]

SPEECH = Path(__file__).parents[1] / "data" / "speech"


def clip_names() -> list[str]:
    """Names of all clips, without their suffix."""
    return sorted(path.stem for path in SPEECH.glob("*.flac"))


@cache
def clip(name: str) -> Pcm16:
    """Samples of a clip, shape (n,), 16 kHz; not to be written to."""
    pcm, rate = soundfile.read(SPEECH / f"{name}.flac", dtype="int16")
    assert rate == SAMPLE_RATE_HZ
    samples: Pcm16 = pcm
    samples.flags.writeable = False
    return samples


def silence(seconds: float, level: float = 8.0, seed: int = 0) -> Pcm16:
    """Faint white noise (standard deviation `level`), as a quiet room has it."""
    noise = np.random.default_rng(seed).normal(scale=level, size=round(seconds * SAMPLE_RATE_HZ))
    return np.clip(noise, -32768, 32767).astype(np.int16)


def frames_of(pcm: Pcm16) -> list[Pcm16]:
    """Cut into frames of 512 samples; the last one is zero-padded."""
    padded = np.pad(pcm, (0, -len(pcm) % FRAME_SAMPLES))
    return list(padded.reshape(-1, FRAME_SAMPLES))
