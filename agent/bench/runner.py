"""The run itself: which steps there are, which of them are left, and what is written down of each."""

import platform
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import psutil
from pydantic import TypeAdapter, ValidationError

from agent import __version__
from agent.audio.frames import Pcm16
from agent.bench.clips import NO_SPEECH, Clip, load_pcm
from agent.bench.process import ProcessPool
from agent.bench.records import (
    Failure,
    Journal,
    LatencyBlock,
    LeftOut,
    Machine,
    Measurement,
    Record,
    StepKey,
    StreamBlock,
    SystemSetup,
    steps_done,
)
from agent.bench.systems import System, engine_settings
from agent.config.settings import EngineSettings
from agent.errors import AgentError, ConfigError, SourceError
from agent.models.calibration import fingerprint

CLIPS_A_BLOCK = 12
"""Of a recording that is played to whole systems."""
_SEED = 20_220_906
_NOT_COMPARED = frozenset({"kind", "model", "language"})
"""The first is in the system's name, the second has a digest, the third is the clip's unless an option says it."""
_SHOWN_DIGITS = 12
_PACKAGES: tuple[str, ...] = (
    "pywhispercpp",
    "ctranslate2",
    "faster-whisper",
    "wyoming-faster-whisper",
    "openai-whisper",
    "numpy",
)
_PACKAGES += ("transformers", "torch")


@dataclass(frozen=True, slots=True)
class Step:
    """One system on some clips, once."""

    system: System
    name: str
    """Key of a clip, or the name of a block of clips."""
    repeat: int
    clips: tuple[Clip, ...] = ()
    room: str = ""
    """Name of the room in which the clips lie, in a stream."""

    @property
    def key(self) -> StepKey:
        """Identity within a run."""
        return (self.system.name, self.name, self.repeat)


Take = Callable[[Step, ProcessPool], Iterable[Record]]
"""Takes a step, and gives what is to be written down of it."""


def plan_clips(systems: Sequence[System], clips: Sequence[Clip], repeats: int, block: int = 1) -> list[Step]:
    """Every clip through every system, in blocks of `block` clips (1: clip by clip).

    Clips are shuffled, always alike, so that a run that was cut short is a fair sample of all sets; within that they
    are ordered by language, because our engines are made anew for another one.
    """
    shuffled = random.Random(_SEED).sample(clips, len(clips))  # noqa: S311 - an order, no secret
    ordered = sorted(shuffled, key=lambda clip: clip.decoded_as)
    return [
        Step(system, clip.key, repeat, (clip,))
        for repeat, _, group, system in _turns(systems, ordered, block, repeats)
        for clip in group
        if system.takes(clip)
    ]


def plan_latency(systems: Sequence[System], clips: Sequence[Clip], repeats: int) -> list[Step]:
    """Blocks of clips that all systems take. Clips without speech are left out: no words are awaited."""
    spoken = [clip for clip in clips if clip.language != NO_SPEECH and all(system.takes(clip) for system in systems)]
    return [
        Step(system, f"block {number}", repeat, group)
        for repeat, number, group, system in _turns(systems, spoken, CLIPS_A_BLOCK, repeats)
    ]


def plan_idle(systems: Sequence[System], repeats: int) -> list[Step]:
    """Every system in turn, then again."""
    return [Step(system, "idle", repeat) for repeat in range(repeats) for system in systems]


def _turns(
    systems: Sequence[System], clips: Sequence[Clip], size: int, repeats: int
) -> Iterator[tuple[int, int, tuple[Clip, ...], System]]:
    """Repeat, number of the block, its clips, system: a block goes through all systems before the next one does.

    The first system changes from block to block, so that neither a slow minute of the machine nor a warm cache favours
    one of them.
    """
    for repeat in range(repeats):
        for number, start in enumerate(range(0, len(clips), size)):
            for index in range(len(systems)):
                yield (
                    repeat,
                    number,
                    tuple(clips[start : start + size]),
                    systems[(index + number + repeat) % len(systems)],
                )


def steps_left(steps: Sequence[Step], earlier: Sequence[Record]) -> list[Step]:
    """The steps that an earlier run has not taken.

    Raises:
        ConfigError: a block of an earlier run had other clips: its name does not say which.
    """
    clips = {step.key: {clip.key for clip in step.clips} for step in steps}
    for one in earlier:
        # A clip that cannot be read is not in the record.
        if isinstance(one, LatencyBlock | StreamBlock) and not set(one.clips) <= clips.get(
            (one.system, one.step, one.repeat), set(one.clips)
        ):
            raise ConfigError(
                "--resume: what was measured so far are other clips: go on with the same ones "
                "(folders, --limit, --quick, --language, --skip, systems), or name another --out"
            )
    done = steps_done(earlier)
    return [step for step in steps if step.key not in done]


def run_steps(steps: Iterable[Step], take: Take, journal: Journal, pool: ProcessPool) -> Iterator[Step]:
    """Take `steps`, and hand out each one when it is over. A failure is written down, and the run goes on."""
    try:
        for step in steps:
            name = step.system.name
            if name not in pool.given_up:
                try:
                    for record in take(step, pool):
                        journal.write(record)
                except AgentError as error:
                    lost = name in pool.given_up
                    reason = f"{error}: left out of the rest" if lost else str(error)
                    journal.write(Failure(name, reason, "" if lost else step.name, 0 if lost else step.repeat))
            yield step
    finally:
        pool.close()


def take_clip(step: Step, paths: Mapping[str, Path], pool: ProcessPool) -> Iterator[Record]:
    """One clip through one system; `paths` has each system's model by the system's name."""
    (clip,), path = step.clips, paths[step.system.name]
    pool.load(step.system, path)
    answer = pool.transcribe(step.system, path, load_pcm(clip), clip.decoded_as)
    yield Measurement(
        **asdict(answer),
        system=step.system.name,
        set_name=clip.set_name,
        clip_id=clip.id,
        repeat=step.repeat,
        language=clip.language,
        reference=clip.text,
        audio_s=clip.duration_s,
    )


def read_sounds(step: Step, journal: Journal) -> dict[Clip, Pcm16]:
    """Read the clips of a step; note in the journal which of them cannot be read."""
    sounds: dict[Clip, Pcm16] = {}
    for clip in step.clips:
        try:
            sounds[clip] = load_pcm(clip)
        except SourceError as error:
            journal.write(Failure(step.system.name, str(error), clip.key, step.repeat))
    return sounds


def describe(command: str) -> Machine:
    """This machine and its libraries; `command` is what was typed."""
    machine = fingerprint()
    return Machine(
        cpu=machine.board or machine.cpu,
        cores=machine.cores,
        memory_bytes=psutil.virtual_memory().total,
        kernel=platform.release(),
        python=platform.python_version(),
        agent=__version__,
        packages={one.name: one.version for one in metadata.distributions() if one.name in _PACKAGES},
        command=command,
    )


def left_out(systems: Iterable[System], clips: Sequence[Clip]) -> Iterator[LeftOut]:
    """What each of `systems` does not take of `clips`; those that take everything are not in it."""
    for system in systems:
        if count := Counter(clip.language for clip in clips if not system.takes(clip)):
            yield LeftOut(system.name, dict(sorted(count.items())))


def setup_of(system: System, model_sha256: str) -> SystemSetup:
    """What `system` is measured with: its options, and of our engines every other setting, too."""
    defaults: dict[str, object] = {}
    if system.adapter.ours:
        try:
            chosen = engine_settings(system.adapter, system.model, system.options, "en")
            defaults = TypeAdapter(EngineSettings).validate_python(chosen).model_dump(mode="json")
        except ValidationError:
            pass  # its process says what is wrong, and the others are measured all the same
    settings = {key: str(value) for key, value in defaults.items() if key not in _NOT_COMPARED}
    return SystemSetup(system.name, settings | dict(system.options), model_sha256)


def new_setups(folder: Path, earlier: Iterable[Record], setups: Iterable[SystemSetup]) -> list[SystemSetup]:
    """Those that an earlier run in `folder` has not written down. A setting that only one of them knows is no change.

    Raises:
        ConfigError: a system of the same name was measured with something else.
    """
    before = {record.system: record for record in earlier if isinstance(record, SystemSetup)}
    for now in setups:
        if now.system in before and (changes := list(_changes(before[now.system], now))):
            raise ConfigError(
                f"--resume: {folder} has measured {now.system} with {', '.join(changes)}: "
                "go on with what it was begun with, or name another --out"
            )
    return [setup for setup in setups if setup.system not in before]


def _changes(before: SystemSetup, now: SystemSetup) -> Iterator[str]:
    for key in sorted(before.settings.keys() & now.settings.keys()):
        if before.settings[key] != now.settings[key]:
            yield f"{key} {before.settings[key]}, not {now.settings[key]}"
    if before.model_sha256 != now.model_sha256:
        digests = [setup.model_sha256[:_SHOWN_DIGITS] for setup in (before, now)]
        yield f"a model of digest {digests[0]}…, not {digests[1]}…"
