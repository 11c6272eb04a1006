"""One calibration from end to end: what is here, measured, chosen, written down."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from agent import __version__
from agent.bench.clips import Clip, demo_clips
from agent.calibrate.measure import Findings, Survey, Trial
from agent.calibrate.trial import ProcessTrial
from agent.config.layers import models_dir
from agent.config.settings import EngineCommon, Settings
from agent.errors import AgentError, ModelError
from agent.models import ModelFormat
from agent.models.calibration_file import folder_of, write_calibration
from agent.models.calibration_machine import OthersCpu, fingerprint, installed_engines, memory_budget_mb
from agent.models.calibration_records import VERSION, Calibration, Candidate, Limits
from agent.models.candidates import Shortlist, contenders, thread_numbers
from agent.models.catalogue import load_catalogue
from agent.models.pareto import choose, pareto_front
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
    shortlist = contenders(store.installed(), installed_engines(), language, limits.memory_mb)
    _something(shortlist)
    survey = Survey(clips or demo_clips(), _start(store, language), limits, budget_s, tell=tell)
    found = survey.run(shortlist.contenders, thread_numbers(now.cores, threads))
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
        skipped=(*shortlist.skipped, *found.skipped),
        others_cpu_pct=round(others.pct(), 1),
        choice=choose(found.measurements, limits),
    )
    write_calibration(folder_of(settings), calibration)
    return calibration


def wanted(settings: Settings) -> tuple[str, int]:
    """Language and number of threads (0: open) that the settings ask for, whatever the kind of their engine."""
    engine = settings.engine
    return (engine.language, engine.threads) if isinstance(engine, EngineCommon) else (engine.language, 0)


def _something(shortlist: Shortlist) -> None:
    if shortlist.contenders:
        return
    if shortlist.skipped:
        one = shortlist.skipped[0]
        raise ModelError(f"none of the models here can be measured ({one.model}: {one.why}): add --pull")
    raise ModelError("no model is on this device: run `edgescribe calibrate --pull`, which fetches some to measure")


def _why(found: Findings, budget_s: float) -> str:
    """Of the last attempt; where there was no time left, that is the one with the cheapest way out."""
    one = found.skipped[-1]
    remedy = f" (there were {round(budget_s, 1):g} s; give it more with --minutes)" if found.out_of_time else ""
    return f"{one.engine} {one.model}: {one.why}{remedy}"


def _start(store: Store, language: str) -> Callable[[Candidate, float], Trial]:
    def start(candidate: Candidate, limit_s: float) -> Trial:
        form = ModelFormat.GGML if candidate.engine == "whisper_cpp" else ModelFormat.CTRANSLATE2
        path: Path = store.resolve(candidate.model, form)
        # The clips are English. Where the language is open, detecting it is part of the work.
        return ProcessTrial(candidate, path, "auto" if language == "auto" else "en", limit_s)

    return start
