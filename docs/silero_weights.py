"""Write `agent/vad/silero_vad_16k.npz` from the network that Silero publishes (MIT; see `agent/vad/LICENSE.silero`).

    pip install onnx onnxruntime
    pip download silero-vad==6.2.3 --no-deps -d /tmp/silero
    unzip -d /tmp/silero /tmp/silero/silero_vad-6.2.3-py3-none-any.whl
    python docs/silero_weights.py /tmp/silero/silero_vad/data/silero_vad_16k_op15.onnx

The origin's SHA-256 is checked. (The package's `silero_vad_16k.safetensors` holds an older network that calls more
noise speech; `silero_vad.onnx` is this same one with an 8 kHz branch.) Only the layout changes: convolutions become
matrices of shape (taps x channels in, channels out), without the taps that never meet anything but padding when the
input is one frame; the LSTM's two matrices become one. The short-time Fourier transform is left out, because its
basis is a plain one, which is checked here; `silero.py` computes it.

It also writes what that ONNX file answers under onnxruntime on the clips of `tests/data/speech`, one array a clip, to
`tests/data/vad/silero_reference.npz`: the tests hold our arithmetic against it.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import soundfile
from numpy.typing import NDArray

ORIGIN_SHA256 = "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49"
ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "agent" / "vad" / "silero_vad_16k.npz"
REFERENCE = ROOT / "tests" / "data" / "vad" / "silero_reference.npz"
CLIPS = ROOT / "tests" / "data" / "speech"
WINDOW, FRAME, CONTEXT = 256, 512, 64

Array = NDArray[np.float32]


def check_stft(basis: Array) -> None:
    """Refuse a basis, shape (258, 256), that is not the Fourier transform under a periodic Hann window."""
    turns = np.outer(np.arange(WINDOW // 2 + 1), np.arange(WINDOW)) / WINDOW
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    expected = hann * np.concatenate([np.cos(2 * np.pi * turns), -np.sin(2 * np.pi * turns)])
    if not np.allclose(basis, expected, atol=1e-6):
        sys.exit("the short-time Fourier transform of this network is not the plain one that silero.py computes")


def taps(kernel: Array, first: int, last: int) -> Array:
    """Matrix (taps x channels in, channels out) of the taps `first` to `last` of a kernel (out, in, 3)."""
    return kernel[:, :, first : last + 1].transpose(2, 1, 0).reshape(-1, kernel.shape[0])


def convert(origin: dict[str, Array]) -> dict[str, Array]:
    """Bring the published tensors into the layout that `silero.py` multiplies with."""
    check_stft(origin["stft.forward_basis_buffer"][:, 0])
    conv = [origin[f"encoder.{layer}.reparam_conv.weight"] for layer in range(4)]
    biases = {f"conv{layer + 1}_bias": origin[f"encoder.{layer}.reparam_conv.bias"] for layer in range(4)}
    return {
        "conv1": taps(conv[0], 0, 2),
        "conv2": taps(conv[1], 0, 2),
        "conv3": taps(conv[2], 1, 2),  # two steps, stride 2: tap 0 is always on the padding
        "conv4": taps(conv[3], 1, 1),  # one step: only the middle tap is not on the padding
        "lstm": np.concatenate([origin["decoder.rnn.weight_ih"].T, origin["decoder.rnn.weight_hh"].T]),
        "lstm_bias": origin["decoder.rnn.bias_ih"] + origin["decoder.rnn.bias_hh"],
        "head": origin["decoder.decoder.2.weight"][0, :, 0],
        "head_bias": origin["decoder.decoder.2.bias"],
        **biases,
    }


def answers(network: onnxruntime.InferenceSession, clip: Path) -> Array:
    """Probabilities, shape (frames,), that the published network gives for a clip of 16 kHz mono."""
    samples, _ = soundfile.read(clip, dtype="float32")
    samples = np.pad(samples, (CONTEXT, -len(samples) % FRAME))
    state, found = np.zeros((2, 1, 128), np.float32), []
    for start in range(0, len(samples) - CONTEXT, FRAME):
        inputs = {"input": samples[None, start : start + CONTEXT + FRAME], "state": state, "sr": np.array(16_000)}
        probability, state = network.run(None, inputs)
        found.append(probability[0, 0])
    return np.array(found, np.float32)


def main() -> None:
    """Convert the file named on the command line."""
    origin = Path(sys.argv[1])
    if hashlib.sha256(origin.read_bytes()).hexdigest() != ORIGIN_SHA256:
        sys.exit(f"{origin} is not silero_vad_16k_op15.onnx of silero-vad 6.2.3: its SHA-256 differs")
    graph = onnx.load(origin).graph
    tensors = {tensor.name.removeprefix("model."): onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    np.savez(WEIGHTS, **{name: np.ascontiguousarray(array) for name, array in convert(tensors).items()})
    print(f"{WEIGHTS}: SHA-256 {hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()}")

    network = onnxruntime.InferenceSession(origin, providers=["CPUExecutionProvider"])
    REFERENCE.parent.mkdir(exist_ok=True)
    np.savez(REFERENCE, **{clip.stem: answers(network, clip) for clip in sorted(CLIPS.glob("*.flac"))})
    print(f"{REFERENCE}: {REFERENCE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
