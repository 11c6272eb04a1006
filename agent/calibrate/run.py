"""Run a whole calibration: filter the models on the device, measure, choose, write the file."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from os import cpu_count

import psutil

from agent import __version__
from agent.bench.child import Adapter, System
from agent.bench.clips import Clip, demo_clips
from agent.bench.process import SystemProcess
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
        settings: Place of the models, language, and number of threads.
        budget_s: Seconds for measuring.
        tell: Receives the current step, in a few words.
        clips: Default: the bundled ones.

    Raises:
        ModelError: the device has no model that can be measured.
        CalibrationError: the file cannot be written.
        AgentError: no measurement succeeded.
    """
    store = Store(models_dir(settings), load_catalogue())
    language, threads = wanted(settings)
    spoken = "auto" if language == "auto" else "en"  # language of the clips; "auto" measures detection, too

    def start(candidate: Candidate, limit_s: float) -> SystemProcess:
        path = store.resolve(candidate.model, store.catalogue.find(candidate.model).format)
        options = {"threads": str(candidate.threads), "language": spoken}
        system = System(str(candidate), Adapter(candidate.engine), candidate.model, options, str(path))
        return SystemProcess(system, limit_s=limit_s)

    now, others_pct, limits = fingerprint(), others_cpu(), Limits(memory_budget_mb())
    models, skipped = candidates(store, language, limits)
    found = Survey(clips or demo_clips(), start, limits, budget_s, tell=tell).run(
        models, thread_numbers(now.cores, threads)
    )
    if not found.measurements:
        raise AgentError(f"no measurement succeeded: {why_none(found, budget_s)}")
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
        others_cpu_pct=round(others_pct(), 1),
        choice=choose(found.measurements, limits),
    )
    write_calibration(folder_of(settings), calibration)
    return calibration


def wanted(settings: Settings) -> tuple[str, int]:
    """Return language and number of threads from the settings; 0 threads if they set no number."""
    engine = settings.engine
    return (engine.language, engine.threads) if isinstance(engine, EngineCommon) else (engine.language, 0)


def candidates(store: Store, language: str, limits: Limits) -> tuple[list[Model], list[Skipped]]:
    """Return the models to measure, the cheapest first, and the other models that are here.

    Raises:
        ModelError: no model can be measured.
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
        raise ModelError(
            f"no model on this device can be measured ({one.model}: {one.why}): add --pull to fetch others"
        )
    if not models:
        raise ModelError("no model is on this device: run `edgescribe calibrate --pull`, which fetches some to measure")
    return models, skipped


def others_cpu() -> Callable[[], float]:
    """Start to measure other programs. The returned function gives their CPU use in percent of all cores.

    A child process counts as another program until it has ended.
    """
    psutil.cpu_percent()
    began_s, began_cpu_s = time.monotonic(), own_cpu_s(())

    def so_far_pct() -> float:
        own_s, wall_s = own_cpu_s(()) - began_cpu_s, time.monotonic() - began_s
        return max(0.0, psutil.cpu_percent() - 100 * own_s / (wall_s * (cpu_count() or 1)))

    return so_far_pct


def why_none(found: Findings, budget_s: float) -> str:
    """Return why the last attempt failed. If time ran out, suggest more time."""
    one = found.skipped[-1]
    remedy = f" ({round(budget_s, 1):g} s are too short: set a larger --minutes)" if found.out_of_time else ""
    return f"{one.engine} {one.model}: {one.why}{remedy}"
