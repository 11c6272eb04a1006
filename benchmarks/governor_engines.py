"""Compute how fast a simulated device transcribes on each level of its ladder, from a calibration or a table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.config.settings import FasterWhisperSettings, WhisperCppSettings
from agent.governor.ladder import Profile, build_ladder, measured_profiles
from agent.models.calibration import NAME, Candidate, Engine, Measurement, read_calibration

TOP: Final = "base-q8_0"
SLOWER: Final = 4.7
"""A Raspberry Pi 4 with four threads, against one thread of the machine of the table: CTranslate2 with tiny and a full
window takes 3.9 s for 11 s of speech on a Pi 400 (https://github.com/ggml-org/whisper.cpp/issues/599), and 0.83 CPU
seconds there."""
_CPU_PER_SPEECH: Final[tuple[tuple[Engine, str, float, float], ...]] = (
    ("whisper_cpp", "base-q8_0", 0.151, 0.76),
    ("faster_whisper", "base-ct2", 0.078, 0.80),
    ("whisper_cpp", "tiny.en-q8_0", 0.070, 0.36),
    ("faster_whisper", "tiny.en-ct2", 0.039, 0.45),
)
"""CPU seconds of one thread for a second of speech, and for loading and the first answer: seven utterances of 1.5 to
13 s, the models by turns, on a busy x86-64 machine with two cores."""


@dataclass(frozen=True, slots=True)
class Ways:
    """The ladder, and the time of each level at full clock."""

    levels: tuple[Profile, ...]
    rtf: tuple[float, ...]
    """Inference time for a second of speech."""
    load_s: tuple[float, ...]
    """Time to load its model."""


def measurements_from(path: Path) -> tuple[Measurement, ...]:
    """Return the measurements that `edgescribe calibrate` wrote to `path`.

    Raises:
        CalibrationError: it cannot be read.
        ValueError: the file has another name than that.
    """
    if path.name != NAME:
        msg = f"the file is called {NAME}"
        raise ValueError(msg)
    return read_calibration(path.parent).measurements


def usual_measurements() -> tuple[Measurement, ...]:
    """Return the table of this module as measurements."""
    return tuple(
        Measurement(Candidate(engine, model, 1), model.partition("-")[0], False, 0, 0, 0.0, 0.0, cpu, 0, load_s, 0)
        for engine, model, cpu, load_s in _CPU_PER_SPEECH
    )


def ways(measurements: tuple[Measurement, ...], model: str, slower: float, floor: str = "") -> Ways:
    """Return the product's ladder below `model`; all its times are `slower` times as long as measured.

    Raises:
        ValueError: `model` was not measured.
    """
    top = next((one.candidate for one in measurements if one.candidate.model == model), None)
    if top is None:
        msg = f"{model} was not measured; there is {', '.join(sorted({one.candidate.model for one in measurements}))}"
        raise ValueError(msg)
    kind = WhisperCppSettings if top.engine == "whisper_cpp" else FasterWhisperSettings
    settings = kind(model=model, language="en")
    levels = build_ladder(settings, measured_profiles(measurements, settings), floor)
    best = {level.model: _cheapest(measurements, level.model) for level in levels}
    return Ways(
        levels,
        tuple(slower * best[level.model].cpu_per_speech / best[level.model].candidate.threads for level in levels),
        tuple(slower * best[level.model].load_s for level in levels),
    )


def _cheapest(measurements: tuple[Measurement, ...], model: str) -> Measurement:
    """Return the measurement that the ladder uses for a model."""
    return min((one for one in measurements if one.candidate.model == model), key=lambda one: one.cpu_per_speech)
