"""Makes the ladder: the ways to transcribe on this device, the best one first.

Each profile costs less than the one above. The first one is that of the settings. The next ones leave out speculative
decoding (which costs up to a third more), let a full window follow the utterance, then use smaller models, down to the
floor.
"""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.config.layers import models_dir
from agent.config.settings import EngineSettings, ScriptedSettings, Settings
from agent.models.calibration import CalibrationError, Measurement, folder_of, read_calibration
from agent.models.catalogue import Model, load_catalogue
from agent.models.choice import LIKELIEST, engine_for, for_language, size_rank
from agent.models.languages import knows
from agent.models.selection import WhisperSettings, engine_like, format_for, usable
from agent.models.store import Store

log = logging.getLogger(__name__)

CHEAPER: Final = 0.85
"""A measured model joins the ladder if it takes at most this share of the CPU time of the one above."""
SLIMMER: Final = 0.8
"""A model with fewer bits joins the ladder if it takes at most this share of the memory."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One way to transcribe."""

    engine: EngineSettings
    """Kind, model, window and threads."""
    speculative: bool = False
    """Whether decoding begins inside the pause that may end an utterance."""
    cost: float | None = None
    """CPU seconds for a second of speech; None if not measured."""

    @property
    def model(self) -> str:
        """Catalogue name; the kind for an engine without models."""
        return self.engine.kind if isinstance(self.engine, ScriptedSettings) else self.engine.model


def create_ladder(settings: Settings, top: EngineSettings) -> tuple[Profile, ...]:
    """Return the profiles from `top` down; `top` is the engine of the settings and commands.

    Raises:
        ModelError: `governor.models` or `governor.floor` names an unknown model.
    """
    if isinstance(top, ScriptedSettings):
        return build_ladder(top, ())
    store, floor = Store(models_dir(settings), load_catalogue()), settings.governor.floor
    if floor and floor != top.model:
        store.catalogue.find(floor)
    smaller = _named(settings.governor.models, top, store)
    if not smaller:
        with contextlib.suppress(CalibrationError):
            measured = read_calibration(folder_of(settings)).measurements
            smaller = measured_profiles(usable(measured, top.language, store), top)
    if not smaller and top.model in store.catalogue:
        models = for_language(store.installed(format_for(top)), top.language)
        smaller = catalogued_profiles(models, store.catalogue.find(top.model), top)
    ladder = build_ladder(top, smaller, floor)
    if floor and floor not in {profile.model for profile in ladder}:
        log.warning(f"governor.floor: ignoring {floor}: it is not among the models that may take over")
    return ladder


def build_ladder(top: EngineSettings, smaller: Sequence[Profile], floor: str = "") -> tuple[Profile, ...]:
    """Return the profiles from `top` down, through `smaller` in their order, to the model `floor` if it is there."""
    model = Profile(top).model
    cost = next((profile.cost for profile in smaller if profile.model == model), None)
    ladder = [Profile(top, speculative=True, cost=cost), Profile(top, cost=cost)]
    if not isinstance(top, ScriptedSettings) and top.context == "full":
        ladder.append(Profile(_frugal(top), cost=cost))
    for profile in smaller:
        if ladder[-1].model == floor:
            break
        if profile.model != model:
            ladder.append(profile)
    return tuple(ladder)


def take_over(top: WhisperSettings, engine: str, model: str, cost: float | None = None) -> Profile:
    """Return the profile in which `model`, run by the kind `engine`, takes over from `top`, with its other settings."""
    kept = _frugal(top)
    if engine == kept.kind:
        return Profile(kept.model_copy(update={"model": model}), cost=cost)
    return Profile(engine_like(kept, engine, model), cost=cost)


def _frugal(top: WhisperSettings) -> WhisperSettings:
    return top.model_copy(update={"context": "follow"}) if top.context == "full" else top


def _named(names: Sequence[str], top: WhisperSettings, store: Store) -> tuple[Profile, ...]:
    models = [store.catalogue.find(name) for name in names]
    if foreign := [model.name for model in models if not knows(model.name, top.language)]:
        log.warning(f'governor.models: {", ".join(foreign)} cannot take over: engine.language is "{top.language}"')
    if missing := [model.name for model in models if model.name not in foreign and not store.has(model.name)]:
        log.warning(
            f"governor.models: {', '.join(missing)} not on this device: run `edgescribe models pull {missing[0]}`"
        )
    usable_here = [model for model in models if model.name not in {*foreign, *missing}]
    return tuple(take_over(top, engine_for(model), model.name) for model in usable_here)


def measured_profiles(measurements: Sequence[Measurement], top: WhisperSettings) -> tuple[Profile, ...]:
    """Return the models that a calibration found to be cheaper than `top`, each clearly cheaper than the one before.

    The result leaves out a model that another one beats in everything: the next step down would be a step up. It
    begins with the model of `top`. It is empty if that was not measured: there is no comparison.
    """
    cheapest: dict[str, Measurement] = {}
    for one in sorted(measurements, key=lambda one: -one.cpu_per_speech):
        cheapest[one.candidate.model] = one  # measured with several numbers of threads: the cheapest counts
    if top.model not in cheapest:
        return ()
    found = [cheapest[top.model]]
    for one in sorted(cheapest.values(), key=lambda one: -one.cpu_per_speech):
        beaten = any(_beats(other, one) for other in cheapest.values())
        if not beaten and one.cpu_per_speech <= CHEAPER * found[-1].cpu_per_speech:
            found.append(one)
    return tuple(take_over(top, one.candidate.engine, one.candidate.model, one.cpu_per_speech) for one in found)


def _beats(other: Measurement, one: Measurement) -> bool:
    """Whether `other` is cheaper, with a Whisper of at least the same size, and at most as many wrong words."""
    return (
        other.cpu_per_speech < one.cpu_per_speech
        and size_rank(other.size) >= size_rank(one.size)
        and other.errors <= one.errors
    )


def catalogued_profiles(models: Sequence[Model], model: Model, top: WhisperSettings) -> tuple[Profile, ...]:
    """Return one model of each size below `model`, and last the one that takes least memory. Used without measurements.

    `models` are on the device, the engine can load them, and they know the language. Of each size, the result has the
    quantisation that is the fastest on most processors. Fewer bits save memory, but on many processors no time.
    """
    smaller = sorted(
        (one for one in models if size_rank(one.size) < size_rank(model.size)),
        key=lambda one: (-size_rank(one.size), LIKELIEST.index(one.quantisation)),
    )
    found = list({one.size: one for one in reversed(smaller)}.values())[::-1]  # the first of each size
    last = found[-1] if found else model
    slimmest = min((one for one in models if one.size == last.size), key=lambda one: one.size_bytes, default=last)
    if slimmest.size_bytes <= SLIMMER * last.size_bytes:
        found.append(slimmest)
    return tuple(take_over(top, top.kind, one.name) for one in found)
