"""The neutral model: shapes, mel filters, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from agent.errors import ModelError
from agent.models.whisper import mel_filters, tensor_shapes
from tests.model_files import HYPER

TINY_EN_PARAMETERS = 37_184_256
"""Trainable ones: openai/whisper's model card says 39 M for tiny, the encoder's fixed positions included or not."""


def test_the_tensors_of_tiny_en_are_as_many_as_openai_says() -> None:
    """Names and shapes add up to the 37.18 million parameters of tiny.en, and the encoder's fixed positions."""
    tiny = replace(
        HYPER,
        n_vocab=51_864,
        n_audio_ctx=1_500,
        n_audio_state=384,
        n_audio_head=6,
        n_audio_layer=4,
        n_text_ctx=448,
        n_text_state=384,
        n_text_head=6,
        n_text_layer=4,
    )
    total = sum(int(np.prod(shape)) for shape in tensor_shapes(tiny).values())
    assert total - 1_500 * 384 == TINY_EN_PARAMETERS


def test_mel_filters_are_slaneys_triangles() -> None:
    """Each filter rises and falls once, covers one unit of area in Hz, and starts where its neighbour peaks."""
    filters = mel_filters(80)
    assert filters.shape == (80, 201)
    assert filters.dtype == np.float32
    assert (filters >= 0).all()
    peaks = filters.argmax(axis=1)
    assert (np.diff(peaks) >= 0).all()
    wide = filters[50:]  # wide enough for the 40 Hz grid to measure their area
    assert np.allclose(wide.sum(axis=1) * 40.0, 1.0, atol=0.05)


def test_mel_filters_have_the_values_of_openais_file() -> None:
    """A few values of `mel_filters.npz`, to the last bit."""
    filters = mel_filters(80)
    assert filters[0, 1] == np.float32(0.02486259490251541)
    assert filters[1, 2] == np.float32(0.022871771827340126)
    assert filters[79, 195] == np.float32(0.0022437951993197203)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_vocab", 0),
        ("n_vocab", 2**31 - 1),
        ("n_audio_layer", -1),
        ("n_audio_state", 33),
        ("n_mels", 10**6),
        ("n_text_ctx", 10**9),
    ],
)
def test_hyper_parameters_out_of_bounds_are_refused(field: str, value: int) -> None:
    """Numbers that no Whisper has do not get as far as an allocation."""
    with pytest.raises(ModelError, match=r"x\.bin"):
        replace(HYPER, **{field: value}).check("x.bin")
