"""The ways to transcribe on this device, the best one first: what the governor steps up and down on. Pure.

Each rung costs less than the one above. The first is what the settings say; then the drafts go (they cost up to a third
more), then a full window follows the utterance, then smaller models take over, down to the floor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.config.settings import EngineSettings, FasterWhisperSettings, ScriptedSettings, Settings, WhisperCppSettings
from agent.models.calibration_records import Measurement
from agent.models.candidates import LIKELIEST, size_rank
from agent.models.catalogue import Model

CHEAPER: Final = 0.85
"""A model that was measured belongs on the ladder if it takes at most so much of the CPU time of the one above."""
SLIMMER: Final = 0.8
"""One with fewer bits is worth a step if it takes at most so much of the room."""


@dataclass(frozen=True, slots=True)
class Level:
    """One way to transcribe."""

    engine: EngineSettings
    """Kind, model, window and threads."""
    eager: bool = True
    """Whether utterances are decoded ahead, inside the pause that may end them."""
    cost: float | None = None
    """CPU seconds for a second of speech, where that was measured."""

    @property
    def model(self) -> str:
        """Catalogue name; the kind for an engine without models."""
        return self.engine.kind if isinstance(self.engine, ScriptedSettings) else self.engine.model


@dataclass(frozen=True, slots=True)
class Rung:
    """A model that may take over, with the engine that runs it."""

    engine: str
    """`whisper_cpp` or `faster_whisper`."""
    model: str
    cost: float | None = None
    """CPU seconds for a second of speech, where that was measured."""


def build_ladder(top: EngineSettings, rungs: Sequence[Rung], floor: str = "") -> tuple[Level, ...]:
    """Levels from `top` down, through `rungs` in their order, to `floor` (a model) if that is among them."""
    cost = next(
        (rung.cost for rung in rungs if not isinstance(top, ScriptedSettings) and rung.model == top.model), None
    )
    levels = [Level(top, eager=True, cost=cost), Level(top, eager=False, cost=cost)]
    if isinstance(top, ScriptedSettings):
        return tuple(levels)
    thrifty = top
    if top.context == "full":
        thrifty = top.model_copy(update={"context": "follow"})
        levels.append(Level(thrifty, eager=False, cost=cost))
    for rung in rungs:
        if levels[-1].model == floor:
            break
        if rung.model != top.model:
            levels.append(Level(_with_model(thrifty, rung), eager=False, cost=rung.cost))
    return tuple(levels)


def _with_model(engine: WhisperCppSettings | FasterWhisperSettings, rung: Rung) -> EngineSettings:
    if rung.engine == engine.kind:
        return engine.model_copy(update={"model": rung.model})
    common = engine.model_dump(include={"isolation", "budget_s", "language", "initial_prompt", "threads", "context"})
    kind = WhisperCppSettings if rung.engine == "whisper_cpp" else FasterWhisperSettings
    return kind(**common, model=rung.model)


def measured_rungs(measurements: Sequence[Measurement], model: str) -> tuple[Rung, ...]:
    """What a calibration found to be cheaper than `model`, the dearest first, each clearly cheaper than the last.

    What another one beats in everything is no rung: whoever stepped down to it would step up by going on. `model`
    itself leads, if it was measured; if it was not, there is nothing to compare with, and so nothing.
    """
    cheapest: dict[str, Measurement] = {}
    for one in measurements:  # of one model with several numbers of threads, the one that takes least
        known = cheapest.get(one.candidate.model)
        if known is None or one.cpu_per_speech < known.cpu_per_speech:
            cheapest[one.candidate.model] = one
    if model not in cheapest:
        return ()
    found = [cheapest[model]]
    for one in sorted(cheapest.values(), key=lambda one: -one.cpu_per_speech):
        beaten = any(_beats(other, one) for other in cheapest.values())
        if not beaten and one.cpu_per_speech <= CHEAPER * found[-1].cpu_per_speech:
            found.append(one)
    return tuple(Rung(one.candidate.engine, one.candidate.model, one.cpu_per_speech) for one in found)


def _beats(other: Measurement, one: Measurement) -> bool:
    """Cheaper, and neither a smaller Whisper nor one that got more words wrong."""
    return (
        other.cpu_per_speech < one.cpu_per_speech
        and size_rank(other.size) >= size_rank(one.size)
        and other.errors <= one.errors
    )


def catalogued_rungs(models: Sequence[Model], model: Model, engine: str) -> tuple[Rung, ...]:
    """Where nothing was measured: one model of each smaller size of Whisper, and below them what takes least memory.

    `models` are those on the device that the engine can load and that know the language. Of a size the quantisation is
    taken that is the fastest on most processors; fewer bits save memory, and on many no time.
    """
    smaller = sorted((one for one in models if size_rank(one.size) < size_rank(model.size)), key=_preference)
    by_size = {one.size: one for one in reversed(smaller)}  # so that the first of each size stays
    found = sorted(by_size.values(), key=lambda one: -size_rank(one.size))
    last = found[-1] if found else model
    slimmest = min((one for one in models if one.size == last.size), key=lambda one: one.size_bytes, default=last)
    if slimmest.size_bytes <= SLIMMER * last.size_bytes:
        found.append(slimmest)
    return tuple(Rung(engine, one.name) for one in found)


def _preference(model: Model) -> int:
    return LIKELIEST.index(model.quantisation)


def on_level(settings: Settings, level: Level) -> Settings:
    """`settings` with the engine of `level`."""
    return settings.model_copy(update={"engine": level.engine})
