"""One calibration from end to end: filter the models that are here, measure, choose, write down."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from os import cpu_count

import psutil

from agent import __version__
from agent.bench.clips import Clip, demo_clips
from agent.bench.process import SystemProcess
from agent.bench.systems import Adapter, System
from agent.bench.usage import own_cpu_s
from agent.calibrate.candidates import cost, memory_budget_mb, objection, thread_numbers
from agent.calibrate.measure import Findings, Survey
from agent.config.layers import models_dir
from agent.config.settings import EngineCommon, Settings
from agent.errors import AgentError, ModelError
from agent.models.calibration import (
    VERSION,
    Calibration,
    Candidate,
    Limits,
    Skipped,
    fingerprint,
    folder_of,
    installed_engines,
    write_calibration,
)
from agent.models.catalogue import Model, load_catalogue
from agent.models.choice import choose, engine_for, for_language, pareto_front
from agent.models.store import Store

Tell = Callable[[str], None]


def calibrate(settings: Settings, budget_s: float, tell: Tell, clips: Sequence[Clip] | None = None) -> Calibration:
    """Measure the models on this device within `budget_s` seconds, choose, and write the file.

    Args:
        settings: Where the models are, and which language and how many threads are wanted.
        budget_s: Seconds of measuring.
        tell: Is told what is being done.
        clips: Default: the bundled ones.

    Raises:
        ModelError: no model is here that could be measured.
        CalibrationError: the file cannot be written.
        AgentError: nothing could be measured.
    """
    store = Store(models_dir(settings), load_catalogue())
    language, threads = wanted(settings)
    now, others, limits = fingerprint(), OthersCpu(), Limits(memory_budget_mb())
    models, skipped = candidates(store, language, limits)
    survey = Survey(clips or demo_clips(), _start(store, language), limits, budget_s, tell=tell)
    found = survey.run(models, thread_numbers(now.cores, threads))
    if not found.measurements:
        raise AgentError(f"nothing could be measured: {_why(found, budget_s)}")
    calibration = Calibration(
        v=VERSION,
        measured_at=datetime.now(UTC).replace(microsecond=0),
        agent=__version__,
        fingerprint=now,
        language=language,
        limits=limits,
        measurements=found.measurements,
        front=tuple(one.candidate for one in pareto_front(found.measurements)),
        skipped=(*skipped, *found.skipped),
        others_cpu_pct=round(others.pct(), 1),
        choice=choose(found.measurements, limits),
    )
    write_calibration(folder_of(settings), calibration)
    return calibration


def wanted(settings: Settings) -> tuple[str, int]:
    """Language and number of threads (0: open) that the settings ask for, whatever the kind of their engine."""
    engine = settings.engine
    return (engine.language, engine.threads) if isinstance(engine, EngineCommon) else (engine.language, 0)


def candidates(store: Store, language: str, limits: Limits) -> tuple[list[Model], list[Skipped]]:
    """Return the models that are to be measured, the cheapest first, and those that are not.

    Raises:
        ModelError: none is to be measured.
    """
    models, skipped, installed = list[Model](), list[Skipped](), store.installed()
    for model in sorted(installed, key=cost):
        why = objection(model, installed_engines(), limits.memory_mb)
        if model not in for_language(installed, language):
            why = f'it knows English only, and engine.language is "{language}"'
        if why:
            skipped.append(Skipped(engine_for(model), model.name, why))
        else:
            models.append(model)
    if not models and skipped:
        one = skipped[0]
        raise ModelError(f"none of the models here can be measured ({one.model}: {one.why}): add --pull")
    if not models:
        raise ModelError("no model is on this device: run `edgescribe calibrate --pull`, which fetches some to measure")
    return models, skipped


class OthersCpu:
    """How much of the machine other programs take from now on."""

    def __init__(self) -> None:
        psutil.cpu_percent()
        self._began_s, self._own_s = time.monotonic(), own_cpu_s(())

    def pct(self) -> float:
        """Return the percentage of all cores so far. Only child processes that have ended count as our own."""
        own_s, wall_s = own_cpu_s(()) - self._own_s, time.monotonic() - self._began_s
        return max(0.0, psutil.cpu_percent() - 100 * own_s / (wall_s * (cpu_count() or 1)))


def _why(found: Findings, budget_s: float) -> str:
    """Of the last attempt; where there was no time left, that is the one with the cheapest way out."""
    one = found.skipped[-1]
    remedy = f" (there were {round(budget_s, 1):g} s; give it more with --minutes)" if found.out_of_time else ""
    return f"{one.engine} {one.model}: {one.why}{remedy}"


def _start(store: Store, language: str) -> Callable[[Candidate, float], SystemProcess]:
    # The clips are English. If the language is open, detecting it is part of the work.
    language = "auto" if language == "auto" else "en"

    def start(candidate: Candidate, limit_s: float) -> SystemProcess:
        options = {"threads": str(candidate.threads), "language": language}
        system = System(str(candidate), Adapter(candidate.engine), candidate.model, options)
        path = store.resolve(candidate.model, store.catalogue.find(candidate.model).format)
        return SystemProcess(system, path, limit_s=limit_s)

    return start
