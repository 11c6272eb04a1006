"""Real weights: pulled, converted, quantised, and understood by whisper.cpp."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pywhispercpp.model import Model

from agent.audio.frames import to_float
from agent.models.catalogue import load_catalogue
from agent.models.convert import convert
from agent.models.files import digest_of
from agent.models.ggml import TensorType, quantise
from tests.support.clips import clip

pytestmark = pytest.mark.weights

Pulled = Callable[[str], Path]
OFFICIAL_BYTES = {"f16": 147_951_465, "q5_1": 59_707_625, "q8_0": 81_768_585}
"""whisper.cpp's own ggml-base.bin, ggml-base-q5_1.bin and ggml-base-q8_0.bin."""


def heard(model: Path) -> str:
    """What whisper.cpp makes of a sentence."""
    engine = Model(str(model), n_threads=1, redirect_whispercpp_logs_to=None, print_progress=False)
    segments = engine.transcribe(to_float(clip("en_vm-msgforwarded")))
    return " ".join(segment.text.strip() for segment in segments).lower()


def test_tiny_in_int4_is_pulled_and_understands(pulled: Pulled) -> None:
    """There is no such file to download: it was made here, from verified weights, and transcribes."""
    assert "successfully forwarded" in heard(pulled("tiny.en-q4_0"))


def test_the_conversion_is_the_one_that_was_recorded(pulled: Pulled) -> None:
    """The same input gives the same bytes on every machine: the digest in the manifest."""
    (source,) = load_catalogue().find("tiny.en-q4_0").sources
    assert digest_of(pulled("tiny.en-q4_0")) == source.files[0].sha256


def test_base_comes_out_at_the_official_sizes(pulled: Pulled, tmp_path: Path) -> None:
    """Header, filters, vocabulary and every tensor have the official lengths, and whisper.cpp reads them all."""
    f16 = tmp_path / "f16.bin"
    convert(pulled("base-ct2"), f16)
    sizes = {"f16": f16.stat().st_size}
    for name in ("q5_1", "q8_0"):
        quantise(f16, tmp_path / f"{name}.bin", TensorType[name.upper()])
        sizes[name] = (tmp_path / f"{name}.bin").stat().st_size
    assert sizes == OFFICIAL_BYTES
    assert "successfully forwarded" in heard(tmp_path / "q5_1.bin")
