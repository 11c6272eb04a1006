"""What the whole agent costs while nobody speaks: its share of one core, and its memory."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16
from agent.bench.agent_process import AgentRun, Look, run_agent
from agent.bench.clips import NO_SPEECH, Clip, load_pcm
from agent.bench.latency import quiet_room
from agent.bench.records import Failure, IdleMeasurement, Journal, Record
from agent.bench.systems import System
from agent.errors import AgentError

LOADING_S = 20.0
"""Counted apart: by then a small board has loaded a small model."""


@dataclass(frozen=True, slots=True)
class IdleStep:
    """One system with nothing to do, once."""

    system: System
    repeat: int

    @property
    def key(self) -> tuple[str, int]:
        """Identity within a run."""
        return (self.system.name, self.repeat)


@dataclass(frozen=True, slots=True)
class IdleSummary:
    """A whole agent at rest, over all runs."""

    name: str
    runs: int
    core_share: float
    """CPU seconds a second, median over runs, children included, loading excluded."""
    core_share_max: float
    loading_cpu_s: float
    """CPU seconds of the first 20 seconds, median."""
    peak_pss_bytes: int
    transcripts: int
    """Published in all runs together; nobody spoke."""


def plan_idle(systems: Sequence[System], repeats: int) -> list[IdleStep]:
    """Every system in turn, then again."""
    return [IdleStep(system, repeat) for repeat in range(repeats) for system in systems]


def idle_done(records: Iterable[Record]) -> set[tuple[str, int]]:
    """Keys of the steps that need not be taken again."""
    return {(record.system, record.repeat) for record in records if isinstance(record, IdleMeasurement)}


def quiet_sound(clips: Sequence[Clip], duration_s: float) -> Pcm16:
    """`duration_s` seconds of the clips without speech, over and over; of a quiet room if there are none."""
    samples = round(duration_s * SAMPLE_RATE_HZ)
    sounds = [load_pcm(clip) for clip in clips if clip.language == NO_SPEECH]
    if not sounds:
        return quiet_room(samples)
    together = np.concatenate(sounds)
    return np.resize(together, samples)


def rest(looks: Sequence[Look], loading_s: float = LOADING_S) -> tuple[Look, Look]:
    """Where loading ends, and the end.

    Raises:
        ValueError: nothing was seen, or it ended before `loading_s`.
    """
    later = [look for look in looks if look.age_s >= loading_s]
    if len(later) < 2:  # noqa: PLR2004 - a span has two ends
        msg = f"nothing was seen after {loading_s:.0f} s"
        raise ValueError(msg)
    return later[0], later[-1]


class IdleRunner:
    """Takes steps, and writes down what came of them. `sound`, shape (n,), is what the agent hears."""

    def __init__(self, model_paths: Mapping[str, Path], journal: Journal, sound: Pcm16) -> None:
        self._model_paths = model_paths
        self._journal = journal
        self._sound = sound

    def run(self, steps: Sequence[IdleStep]) -> Iterator[IdleStep]:
        """Take `steps`, handing out each one when it is over."""
        for step in steps:
            try:
                played = run_agent(step.system, self._model_paths[step.system.name], self._sound, "en")
                self._journal.write(_measurement(step, played))
            except (AgentError, ValueError) as error:
                self._journal.write(Failure(step.system.name, str(error), repeat=step.repeat))
            yield step


def _measurement(step: IdleStep, played: AgentRun) -> IdleMeasurement:
    begin, end = rest(played.looks)
    return IdleMeasurement(
        system=step.system.name,
        repeat=step.repeat,
        wall_s=end.age_s - begin.age_s,
        cpu_s=end.cpu_s - begin.cpu_s,
        loading_cpu_s=begin.cpu_s,
        peak_pss_bytes=played.peak_pss_bytes,
        transcripts=len(played.arrivals),
    )


def idle_summaries(records: Iterable[Record]) -> tuple[IdleSummary, ...]:
    """What was measured at rest, by system."""
    measured: dict[str, list[IdleMeasurement]] = defaultdict(list)
    for record in records:
        if isinstance(record, IdleMeasurement):
            measured[record.system].append(record)
    return tuple(_summary(name, group) for name, group in measured.items())


def _summary(name: str, group: Sequence[IdleMeasurement]) -> IdleSummary:
    shares = [one.cpu_s / one.wall_s for one in group]
    return IdleSummary(
        name=name,
        runs=len(group),
        core_share=statistics.median(shares),
        core_share_max=max(shares),
        loading_cpu_s=statistics.median(one.loading_cpu_s for one in group),
        peak_pss_bytes=max(one.peak_pss_bytes for one in group),
        transcripts=sum(one.transcripts for one in group),
    )
