"""Whisper's log-mel spectrogram in numpy, without torch, and as short as the utterance.

Formula and constants: `log_mel_spectrogram` in openai/whisper, `whisper/audio.py`; the filter bank is librosa's (Slaney
scale and norm, `librosa.filters.mel`), which that file loads ready-made.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from agent.audio.frames import PcmFloat
from agent.models.whisper import mel_filters

FFT_SAMPLES = 400
HOP_SAMPLES = 160
"""10 ms: 100 frames a second."""

_DYNAMIC_RANGE_LOG10 = 8.0
_FLOOR_POWER = 1e-10

MelSpectrogram = NDArray[np.float32]


def log_mel(samples: PcmFloat, frames: int, bands: int = 80) -> MelSpectrogram:
    """Return the log-mel spectrogram of `samples`, shape (n,), float32 in [-1, 1), as shape (bands, frames).

    Longer sound than `frames` x 10 ms is cut off. Shorter sound is followed by digital silence, as in Whisper's
    training. Only the frames with sound are computed; the others are the floor.
    """
    heard = _power_spectrum(samples[: frames * HOP_SAMPLES], frames)
    mel = np.full((bands, frames), _FLOOR_POWER, dtype=np.float32)
    np.maximum(mel_filters(bands) @ heard.T, np.float32(_FLOOR_POWER), out=mel[:, : len(heard)])
    log = np.log10(mel, out=mel)
    np.maximum(log, log.max() - np.float32(_DYNAMIC_RANGE_LOG10), out=log)
    log += np.float32(4.0)
    log *= np.float32(0.25)
    return log


def _power_spectrum(samples: PcmFloat, frames: int) -> NDArray[np.float32]:
    """Squared magnitudes of the windows that touch `samples`, shape (at most `frames`, 201)."""
    half = FFT_SAMPLES // 2
    touched = min(frames, (len(samples) + half) // HOP_SAMPLES + 1)
    padded = np.zeros((touched - 1) * HOP_SAMPLES + FFT_SAMPLES, dtype=np.float32)
    end = min(len(samples), len(padded) - half)
    padded[half : half + end] = samples[:end]
    mirrored = samples[1 : half + 1][::-1]  # torch.stft(center=True) reflects the first samples
    padded[half - len(mirrored) : half] = mirrored
    windows = np.lib.stride_tricks.sliding_window_view(padded, FFT_SAMPLES)[::HOP_SAMPLES]
    spectrum = np.fft.rfft(windows * _hann(), axis=1)
    return (spectrum.real**2 + spectrum.imag**2).astype(np.float32, copy=False)


@lru_cache(maxsize=1)
def _hann() -> NDArray[np.float32]:
    """Periodic Hann window, as torch.hann_window makes it."""
    return np.hanning(FFT_SAMPLES + 1)[:-1].astype(np.float32)
