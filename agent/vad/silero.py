"""Silero VAD v6 in plain numpy: onnxruntime and torch cost more memory than a small board can spare.

    64 samples of context + 512 new ones, 64 mirrored behind them
      ─▶ 4 spectra (256 samples, step 128) ─▶ 4 convolutions ─▶ LSTM cell ─▶ probability

The network is that of `tinygrad_model.py` in the package silero-vad 6.2.3 (MIT, `LICENSE.silero`). The weights in
`silero_vad_16k.npz` were laid out by `docs/silero_weights.py`, which names their origin and its digest. The published
network computes its spectra by a convolution whose kernel is a Fourier basis under a periodic Hann window. Here the
Fourier transform does it.

The matrices are too small for several threads: `agent/__main__.py` sets `OPENBLAS_NUM_THREADS=1` before numpy loads.
"""

from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from agent.audio.frames import FRAME_SAMPLES, FULL_SCALE, Pcm16

CONTEXT_SAMPLES = 64
WINDOW_SAMPLES = 256
HOP_SAMPLES = 128
SPECTRA = 4
BINS = WINDOW_SAMPLES // 2 + 1
HIDDEN = 128
STATES = 3
RESTART_FRAMES = 32
"""1 s: a state with a short memory listens for this time, answers for this time, and begins anew."""
WEIGHTS_FILE = "silero_vad_16k.npz"

Array = NDArray[np.float32]


def _load_weights() -> dict[str, Array]:
    with files("agent.vad").joinpath(WEIGHTS_FILE).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: np.ascontiguousarray(arrays[name], np.float32) for name in arrays.files}


def _overlapping(rows: Array, count: int, length: int, step: int) -> Array:
    """View of shape (count, length) whose rows begin `step` values apart in the memory of `rows`."""
    strides = (step * rows.itemsize, rows.itemsize)
    return np.lib.stride_tricks.as_strided(rows, (count, length), strides, writeable=False)


class SileroDetector:
    """Probability of speech for each 32 ms, by Silero's network, with a long and a short memory.

    A state that is never reset knows steady noise best, but goes deaf in changing noise: distant voices no longer reach
    0.5. A state of 1 to 2 s hears them. So one state is never reset, and two begin anew in turn. The probability is the
    higher one of the first and of the older of the two (docs/decisions/0018-two-memories.md).
    """

    noise_floor_dbfs: float | None = None
    """Only the gate in front of it measures the noise floor."""

    def __init__(self) -> None:
        self._weights = _load_weights()
        # s(x) = (1 + tanh(x / 2)) / 2: with the sigmoid gates' weights halved, one tanh serves all four gates.
        # Their order is PyTorch's: input, forget, cell, output.
        scale = np.repeat(np.array([0.5, 0.5, 1.0, 0.5], np.float32), HIDDEN)
        self._lstm = self._weights["lstm"] * scale
        self._lstm_bias = self._weights["lstm_bias"] * scale
        self._window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW_SAMPLES) / WINDOW_SAMPLES)).astype(np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget the past sound: make new buffers, and the overlapping views on them that the convolutions read."""
        self._input = np.zeros(CONTEXT_SAMPLES + FRAME_SAMPLES + CONTEXT_SAMPLES, np.float32)
        self._windows = _overlapping(self._input, SPECTRA, WINDOW_SAMPLES, HOP_SAMPLES)
        # One row of padding on either side, as the convolutions need it (the second: only in front, its step is 2).
        self._spectra = np.zeros((SPECTRA + 2, BINS), np.float32)
        self._spectra_taps = _overlapping(self._spectra, SPECTRA, 3 * BINS, BINS)
        self._features = np.zeros((SPECTRA + 1, HIDDEN), np.float32)
        self._features_taps = _overlapping(self._features, 2, 3 * HIDDEN, 2 * HIDDEN)
        self._lstm_input = np.zeros((STATES, 2 * HIDDEN), np.float32)
        self._cell = np.zeros((STATES, HIDDEN), np.float32)
        self._frames = 0

    def probability(self, pcm: Pcm16) -> float:
        """Return the probability in [0, 1] that `pcm`, shape (512,), holds speech."""
        # Shift the last 64 samples to the front, append `pcm`, mirror the end without repeating the last sample.
        buffer, end = self._input, CONTEXT_SAMPLES + FRAME_SAMPLES
        buffer[:CONTEXT_SAMPLES] = buffer[FRAME_SAMPLES:end]
        np.multiply(pcm, np.float32(1.0 / FULL_SCALE), out=buffer[CONTEXT_SAMPLES:end])
        buffer[end:] = buffer[end - 1 - CONTEXT_SAMPLES : end - 1][::-1]
        self._encode()
        return self._remember_and_judge()

    def _encode(self) -> None:
        """Compute the 128 features of the samples for the LSTM."""
        weights, rows = self._weights, self._features[1:]
        np.abs(np.fft.rfft(self._windows * self._window), out=self._spectra[1:-1], casting="same_kind")
        np.matmul(np.ascontiguousarray(self._spectra_taps), weights["conv1"], out=rows)
        rows += weights["conv1_bias"]
        np.maximum(rows, 0.0, out=rows)
        halved = np.ascontiguousarray(self._features_taps) @ weights["conv2"]
        halved += weights["conv2_bias"]
        single = np.maximum(halved, 0.0).reshape(-1) @ weights["conv3"]
        single += weights["conv3_bias"]
        features = np.maximum(single, 0.0) @ weights["conv4"]
        features += weights["conv4_bias"]
        self._lstm_input[:, :HIDDEN] = np.maximum(features, 0.0)

    def _remember_and_judge(self) -> float:
        """Advance the LSTM cells by one step; return the probability from the two that have listened long enough."""
        younger = 1 + self._frames // RESTART_FRAMES % 2
        if self._frames % RESTART_FRAMES == 0:
            self._lstm_input[younger, HIDDEN:] = 0.0
            self._cell[younger] = 0.0
        self._frames += 1
        gates = self._lstm_input @ self._lstm
        gates += self._lstm_bias
        np.tanh(gates, out=gates)
        candidate = gates[:, 2 * HIDDEN : 3 * HIDDEN].copy()
        gates *= 0.5
        gates += 0.5
        candidate *= gates[:, :HIDDEN]
        self._cell *= gates[:, HIDDEN : 2 * HIDDEN]
        self._cell += candidate
        hidden = self._lstm_input[:, HIDDEN:]
        np.tanh(self._cell, out=hidden)
        hidden *= gates[:, 3 * HIDDEN :]
        logits = np.maximum(hidden, 0.0) @ self._weights["head"]
        logit = float(max(logits[0], logits[STATES - younger]) + self._weights["head_bias"][0])
        return 0.5 + 0.5 * float(np.tanh(0.5 * logit))
