"""The run itself: every clip through every system before the next clip, in turning order."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.bench.clips import NO_SPEECH, Clip, load_pcm
from agent.bench.process import SystemProcess
from agent.bench.records import Failure, Journal, Measurement, Record, SystemStart
from agent.bench.systems import System
from agent.bench.usage import file_bytes
from agent.bench.wire_format import Answer, PeerError, PeerMissing
from agent.errors import SourceError

_MOST_DEATHS = 3
"""A system whose process died this often is left out of the rest."""
_SEED = 20_220_906


@dataclass(frozen=True, slots=True)
class Step:
    """One system on one clip, once."""

    system: System
    clip: Clip
    repeat: int

    @property
    def key(self) -> tuple[str, str, int]:
        """Identity within a run."""
        return (self.system.name, self.clip.key, self.repeat)


def plan(systems: Sequence[System], clips: Sequence[Clip], repeats: int, block: int = 1) -> list[Step]:
    """All steps in their order.

    Blocks of `block` clips go through one system after the other (1: clip by clip), and who begins changes from block
    to block, so that neither a slow minute of the machine nor a warm cache favours anybody. Clips are shuffled, always
    alike, so that a run that was cut short is a fair sample of all sets; within that they are ordered by language,
    because our engines are made anew for another one.
    """
    shuffled = random.Random(_SEED).sample(clips, len(clips))  # noqa: S311 - an order, no secret
    ordered = sorted(shuffled, key=lambda clip: "en" if clip.language == NO_SPEECH else clip.language)
    steps: list[Step] = []
    turn = 0
    for repeat in range(repeats):
        for start in range(0, len(ordered), block):
            rotated = [systems[(index + turn) % len(systems)] for index in range(len(systems))]
            turn += 1
            steps += [
                Step(system, clip, repeat)
                for system in rotated
                for clip in ordered[start : start + block]
                if system.takes(clip)
            ]
    return steps


def done(records: Iterable[Record]) -> set[tuple[str, str, int]]:
    """Keys of the steps that need not be taken again."""
    return {(record.system, record.clip_key, record.repeat) for record in records if isinstance(record, Measurement)}


class Runner:
    """Takes steps, and writes down what came of them.

    Args:
        model_paths: Where each system's model lies, by the system's name.
        journal: Takes the results.
        resident: How many systems may be in memory at once; the one that was used longest ago goes first.
        peer_python: Interpreter for peers that ours does not have; None if there is no other.
    """

    def __init__(
        self,
        model_paths: Mapping[str, Path],
        journal: Journal,
        resident: int,
        peer_python: Path | None,
    ) -> None:
        self._model_paths = model_paths
        self._journal = journal
        self._resident = resident
        self._peer_python = peer_python
        self._running: dict[str, SystemProcess] = {}
        self._deaths: dict[str, int] = {}
        self._given_up: set[str] = set()

    def run(self, steps: Sequence[Step]) -> Iterator[Step]:
        """Take `steps`, handing out each one when it is over."""
        try:
            for step in steps:
                if step.system.name not in self._given_up:
                    self._take(step)
                yield step
        finally:
            for process in self._running.values():
                process.close()

    def _take(self, step: Step) -> None:
        process = self._process(step.system)
        if process is None:
            return
        clip = step.clip
        try:
            answer = process.transcribe(load_pcm(clip), "en" if clip.language == NO_SPEECH else clip.language)
        except (PeerError, SourceError) as error:
            self._journal.write(Failure(step.system.name, str(error), clip.set_name, clip.id, step.repeat))
            if not process.alive:
                self._bury(step.system)
            return
        self._journal.write(measurement(step, answer))

    def _process(self, system: System) -> SystemProcess | None:
        """The system's process, started if need be; None if it cannot be loaded."""
        if process := self._running.pop(system.name, None):
            self._running[system.name] = process  # last in the row: used most recently
            return process
        while len(self._running) >= self._resident:
            self._running.pop(next(iter(self._running))).close()
        path = self._model_paths[system.name]
        try:
            process = start_process(system, path, self._peer_python)
        except PeerError as error:
            self._given_up.add(system.name)
            self._journal.write(Failure(system.name, str(error)))
            return None
        self._running[system.name] = process
        self._journal.write(SystemStart(system.name, process.loaded.load_s, file_bytes(path)))
        return process

    def _bury(self, system: System) -> None:
        self._running.pop(system.name).close()
        self._deaths[system.name] = self._deaths.get(system.name, 0) + 1
        if self._deaths[system.name] >= _MOST_DEATHS:
            self._given_up.add(system.name)
            self._journal.write(Failure(system.name, f"its process died {_MOST_DEATHS} times: left out of the rest"))


def start_process(system: System, path: Path, peer_python: Path | None) -> SystemProcess:
    """Start `system` under our interpreter, or a peer under `peer_python` if ours does not have it.

    Raises:
        PeerError: it cannot be loaded by either.
    """
    try:
        return SystemProcess(system, path)
    except PeerMissing:
        if peer_python is None or system.adapter.ours:
            raise
        return SystemProcess(system, path, peer_python)


def measurement(step: Step, answer: Answer) -> Measurement:
    """What is written down of an answer."""
    clip = step.clip
    return Measurement(
        system=step.system.name,
        set_name=clip.set_name,
        clip_id=clip.id,
        repeat=step.repeat,
        language=clip.language,
        reference=clip.text,
        audio_s=clip.duration_s,
        text=answer.text,
        wall_s=answer.wall_s,
        cpu_s=answer.cpu_s,
        peak_rss_bytes=answer.peak_rss_bytes,
        pss_bytes=answer.pss_bytes,
        rejected=answer.rejected,
        doubtful=answer.doubtful,
        retries=answer.retries,
        audio_ctx=answer.audio_ctx,
    )
