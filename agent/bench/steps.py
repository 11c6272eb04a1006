"""Plan the steps of a run, leave out those that an earlier run has finished, and take the others."""

import platform
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import psutil

from agent import __version__
from agent.audio.frames import Pcm16
from agent.bench.child import System
from agent.bench.clips import NO_SPEECH, Clip, load_pcm
from agent.bench.ours import validated
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
from agent.bench.systems import takes
from agent.errors import AgentError, ConfigError, SourceError
from agent.models.calibration import fingerprint

CLIPS_A_BLOCK = 12
"""Of a recording that is played to whole systems."""
_SEED = 20_220_906
_NOT_COMPARED = {"kind", "model", "language"}
"""The name of the system has the kind, a digest stands for the model, and each clip has its language."""
_SHOWN_DIGITS = 12
_PACKAGES = {
    *("pywhispercpp", "ctranslate2", "faster-whisper", "wyoming-faster-whisper", "openai-whisper"),
    *("numpy", "transformers", "torch"),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One system on some clips, once."""

    system: System
    name: str
    """Key of a clip, or the name of a block of clips."""
    repeat: int
    clips: tuple[Clip, ...] = ()
    room: str = ""
    """Name of the room around the clips, for a stream."""

    @property
    def key(self) -> StepKey:
        """Identity within a run."""
        return (self.system.name, self.name, self.repeat)


Take = Callable[[Step, ProcessPool], Iterable[Record]]
"""Takes a step, and yields its records."""


def plan_clips(systems: Sequence[System], clips: Sequence[Clip], repeats: int, block: int = 1) -> list[Step]:
    """Return the steps for every clip through every system, in blocks of `block` clips (1: clip by clip).

    The clips are shuffled, with a fixed seed, so that an interrupted run is a fair sample of all sets. Then they are
    ordered by language, because our engines load again for another language.
    """
    shuffled = random.Random(_SEED).sample(clips, len(clips))  # noqa: S311 - an order, no secret
    ordered = sorted(shuffled, key=lambda clip: clip.decoded_as)
    return [
        Step(system, clip.key, repeat, (clip,))
        for repeat, _, group, system in _turns(systems, ordered, block, repeats)
        for clip in group
        if takes(system, clip)
    ]


def plan_latency(systems: Sequence[System], clips: Sequence[Clip], repeats: int) -> list[Step]:
    """Return the steps for blocks of clips that all systems take. Clips without speech are left out."""
    spoken = [clip for clip in clips if clip.language != NO_SPEECH and all(takes(system, clip) for system in systems)]
    return [
        Step(system, f"block {number}", repeat, group)
        for repeat, number, group, system in _turns(systems, spoken, CLIPS_A_BLOCK, repeats)
    ]


def plan_idle(systems: Sequence[System], repeats: int) -> list[Step]:
    """Return the steps for every system in turn, `repeats` times."""
    return [Step(system, "idle", repeat) for repeat in range(repeats) for system in systems]


def _turns(
    systems: Sequence[System], clips: Sequence[Clip], size: int, repeats: int
) -> Iterator[tuple[int, int, tuple[Clip, ...], System]]:
    """Yield repeat, number of the block, its clips, system: a block goes through all systems before the next one does.

    The first system changes from block to block. So a slow minute, or a warm cache, does not favour one of them.
    """
    for repeat in range(repeats):
        for number, start in enumerate(range(0, len(clips), size)):
            for index in range(len(systems)):
                system = systems[(index + number + repeat) % len(systems)]
                yield repeat, number, tuple(clips[start : start + size]), system


def steps_left(steps: Sequence[Step], earlier: Sequence[Record]) -> list[Step]:
    """Return the steps that an earlier run has not finished.

    Raises:
        ConfigError: a block of the earlier run had other clips, under the same name.
    """
    clips = {step.key: {clip.key for clip in step.clips} for step in steps}
    for one in earlier:
        if isinstance(one, LatencyBlock | StreamBlock):
            heard = set(one.clips)  # without clips that could not be read
            if not heard <= clips.get((one.system, one.step, one.repeat), heard):
                raise ConfigError(
                    "--resume: the earlier run measured other clips: go on with the same ones "
                    "(folders, --limit, --quick, --language, --skip, systems), or name another --out"
                )
    done = steps_done(earlier)
    return [step for step in steps if step.key not in done]


def run_steps(steps: Iterable[Step], take: Take, journal: Journal, pool: ProcessPool) -> Iterator[Step]:
    """Take `steps`, and yield each one when it is over. A failure is recorded, and the run goes on."""
    try:
        for step in steps:
            name = step.system.name
            if name not in pool.given_up:
                try:
                    for record in take(step, pool):
                        journal.write(record)
                except AgentError as error:
                    if name in pool.given_up:
                        journal.write(Failure(name, f"{error}: left out of the rest"))
                    else:
                        journal.write(Failure(name, str(error), step.name, step.repeat))
            yield step
    finally:
        pool.close()


def take_clip(step: Step, pool: ProcessPool) -> Iterator[Record]:
    """Put one clip through one system."""
    (clip,) = step.clips
    pool.load(step.system)  # before the clip is read: a system that cannot be loaded needs no clip
    yield Measurement(
        **asdict(pool.transcribe(step.system, load_pcm(clip), clip.decoded_as)),
        system=step.system.name,
        set_name=clip.set_name,
        clip_id=clip.id,
        repeat=step.repeat,
        language=clip.language,
        reference=clip.text,
        audio_s=clip.duration_s,
    )


def read_sounds(step: Step, sounds: dict[Clip, Pcm16]) -> Iterator[Failure]:
    """Read the clips of a step into `sounds`; yield a failure for each that cannot be read."""
    for clip in step.clips:
        try:
            sounds[clip] = load_pcm(clip)
        except SourceError as error:
            yield Failure(step.system.name, str(error), clip.key, step.repeat)


def describe(command: str) -> Machine:
    """Return this machine and its libraries; `command` is the command line of the run."""
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
    """Yield the number of clips that a system does not take, for each system with such clips."""
    for system in systems:
        if count := Counter(clip.language for clip in clips if not takes(system, clip)):
            yield LeftOut(system.name, dict(sorted(count.items())))


def setup_of(system: System, model_sha256: str) -> SystemSetup:
    """Return the options of `system`, and for our engines all other settings too."""
    settings: dict[str, str] = {}
    if system.adapter.ours:
        with suppress(ConfigError):  # the child reports the mistake, and the other systems are measured
            settings = {key: str(value) for key, value in validated(system, "en").model_dump(mode="json").items()}
    settings = {key: value for key, value in settings.items() if key not in _NOT_COMPARED}
    return SystemSetup(system.name, settings | dict(system.options), model_sha256)


def new_setups(folder: Path, earlier: Iterable[Record], setups: Sequence[SystemSetup]) -> list[SystemSetup]:
    """Return the setups that an earlier run in `folder` has not recorded. A setting that only one run knows may differ.

    Raises:
        ConfigError: the earlier run measured a system of the same name with other settings, or another model.
    """
    before = {record.system: record for record in earlier if isinstance(record, SystemSetup)}
    for now in setups:
        then = before.get(now.system, now)
        changes = [
            f"{key} {then.settings[key]}, not {now.settings[key]}"
            for key in sorted(then.settings.keys() & now.settings.keys())
            if then.settings[key] != now.settings[key]
        ]
        if then.model_sha256 != now.model_sha256:
            digests = [setup.model_sha256[:_SHOWN_DIGITS] for setup in (then, now)]
            changes.append(f"a model of digest {digests[0]}…, not {digests[1]}…")
        if changes:
            raise ConfigError(
                f"--resume: {folder} has measured {now.system} with {', '.join(changes)}: "
                "go on with the settings of the earlier run, or name another --out"
            )
    return [setup for setup in setups if setup.system not in before]
