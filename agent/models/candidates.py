"""What is worth timing on this machine. Pure functions over what is there."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from agent.models import ModelFormat
from agent.models.calibration_records import Candidate, Engine, Skipped
from agent.models.catalogue import Catalogue, Model
from agent.models.memory import memory_need_mb

_ORDER = ("tiny", "base", "small", "medium", "large")
LIKELIEST = ("q8_0", "q4_0", "q5_1", "q5_0", "q4_1", "f16")
"""Quantisations, the fastest on most CPUs first: should time run out, those are measured that probably win."""
_ROOM = 1.3
"""Times the memory that we expect a model to take: only what is far beyond the budget is not even loaded."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A model with the engine that takes it; the number of threads is still open."""

    engine: Engine
    model: Model

    def with_threads(self, threads: int) -> Candidate:
        """The candidate with so many threads."""
        return Candidate(self.engine, self.model.name, threads)

    def skipped(self, why: str) -> Skipped:
        """The record of one that got no figures."""
        return Skipped(self.engine, self.model.name, why)


@dataclass(frozen=True, slots=True)
class Shortlist:
    """What is to be measured, and what is not."""

    contenders: tuple[Contender, ...]
    """The cheapest first."""
    skipped: tuple[Skipped, ...]


def engine_for(model: Model) -> Engine:
    """The engine that takes a model of this format."""
    return "whisper_cpp" if model.format is ModelFormat.GGML else "faster_whisper"


def contenders(models: Sequence[Model], engines: Collection[str], language: str, memory_mb: int) -> Shortlist:
    """Which of `models` to measure, and why not the others."""
    chosen: list[Contender] = []
    skipped: list[Skipped] = []
    in_language = for_language(models, language)
    for model in sorted(models, key=_cost):
        contender = Contender(engine_for(model), model)
        why = _objection(contender, engines, memory_mb)
        if model not in in_language:
            why = f'it knows English only, and engine.language is "{language}"'
        if why:
            skipped.append(contender.skipped(why))
        else:
            chosen.append(contender)
    return Shortlist(tuple(chosen), tuple(skipped))


def for_language(models: Sequence[Model], language: str) -> list[Model]:
    """The models that do for `engine.language`.

    `auto` means whatever is spoken, which takes a multilingual model; only where none is here do English-only ones
    count, as they do for the default of the settings.
    """
    if language == "en":
        return list(models)
    multilingual = [model for model in models if model.languages == "multilingual"]
    return multilingual or (list(models) if language == "auto" else [])


def thread_numbers(cores: int, setting: int = 0) -> list[int]:
    """Numbers of threads to try, the largest first: what the setting says, or up to all `cores` but one.

    Powers of two and the largest: between them the differences are smaller than the noise.
    """
    if setting:
        return [setting]
    most = max(1, cores - 1)
    return sorted({most} | {number for number in (1, 2, 4, 8) if number < most}, reverse=True)


def worth_pulling(catalogue: Catalogue, engines: Collection[str], language: str, memory_mb: int) -> list[list[str]]:
    """Names of models that would be candidates: tiny and base, in the quantisation each engine is fastest with.

    Of each list one is enough, the first if it can be had: for English that is the English-only model, but a device
    that cannot reach the hub may get only the multilingual one. What would not fit into memory is left out.
    """
    suffixes = [".en", ""] if language == "en" else [""]
    wanted = [
        [catalogue.find(f"{size}{suffix}-{form}") for suffix in suffixes]
        for size in ("tiny", "base")
        for form in ("q8_0", "ct2")
    ]
    return [
        [model.name for model in alternatives]
        for alternatives in wanted
        if not _objection(Contender(engine_for(alternatives[0]), alternatives[0]), engines, memory_mb)
    ]


def _objection(contender: Contender, engines: Collection[str], memory_mb: int) -> str:
    if contender.engine not in engines:
        return f"{contender.engine} is not installed"
    need_mb = expected_mb(contender.model)
    if need_mb > _ROOM * memory_mb:
        return f"it would take about {need_mb} MB, and the engine may have {memory_mb}"
    return ""


def expected_mb(model: Model) -> int:
    """About what an engine process takes with this model, before it is measured."""
    is_ct2 = model.format is ModelFormat.CTRANSLATE2
    return memory_need_mb(model.size, model.size_bytes, ctranslate2=is_ct2)


def size_rank(size: str) -> int:
    """0 for tiny, 1 for base, and so on; the highest for what nobody knows."""
    return next((rank for rank, name in enumerate(_ORDER) if size.startswith(name)), len(_ORDER))


def _cost(model: Model) -> tuple[int, int, str]:
    """For sorting: small before large; CTranslate2 just behind the likeliest quantisation."""
    form = 0.5 if model.format is ModelFormat.CTRANSLATE2 else LIKELIEST.index(model.quantisation)
    return size_rank(model.size), int(2 * form), model.name


def smaller_in_vain(contender: Contender, too_slow: Collection[Contender]) -> Iterator[Contender]:
    """Those of `too_slow` on the same engine that are smaller: what is larger than them is slower still."""
    rank = size_rank(contender.model.size)
    return (one for one in too_slow if one.engine == contender.engine and size_rank(one.model.size) < rank)
