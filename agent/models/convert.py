"""From a folder with weights to a ggml file of the wanted type."""

from pathlib import Path

from agent.errors import ModelError
from agent.models.ct2 import read_ctranslate2
from agent.models.ggml import TensorType, write_ggml
from agent.models.hf import read_hugging_face
from agent.models.quantise import quantise
from agent.models.whisper import WhisperWeights


def read_weights(folder: Path) -> WhisperWeights:
    """Read a CTranslate2 or a Hugging Face folder, whichever it is.

    Raises:
        ModelError: it is neither, or damaged.
    """
    if (folder / "model.bin").is_file():
        return read_ctranslate2(folder)
    if (folder / "model.safetensors").is_file():
        return read_hugging_face(folder)
    raise ModelError(f"{folder}: holds neither model.bin (CTranslate2) nor model.safetensors (Hugging Face)")


def convert(folder: Path, target: Path, kind: TensorType = TensorType.F16) -> None:
    """Write the model in `folder` to `target` as a ggml file whose matrices are of `kind`.

    Raises:
        ModelError: the model cannot be read, or `target` cannot be written.
    """
    weights = read_weights(folder)
    if kind is TensorType.F16:
        write_ggml(weights, target)
        return
    intermediate = target.with_name(f".{target.name}.f16")
    try:
        write_ggml(weights, intermediate)
        quantise(intermediate, target, kind)
    finally:
        intermediate.unlink(missing_ok=True)
