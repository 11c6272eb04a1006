"""Latency of whole systems, block by block: the same clips to each of them before the next clips come."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16
from agent.bench.adapters.ours import segment
from agent.bench.agent_process import run_agent
from agent.bench.clips import NO_SPEECH, Clip, load_pcm
from agent.bench.latency import delays, string_together
from agent.bench.process import SystemProcess
from agent.bench.records import Failure, Journal, LatencyBlock, LatencyMeasurement, Record
from agent.bench.runner import start_process
from agent.bench.systems import Adapter, System
from agent.bench.wire_format import Answer, PeerError
from agent.errors import AgentError, ConfigError, SourceError

CLIPS_A_BLOCK = 12


@dataclass(frozen=True, slots=True)
class BlockStep:
    """One system on one block of clips, once."""

    system: System
    block: int
    clips: tuple[Clip, ...]
    repeat: int

    @property
    def key(self) -> tuple[str, int, int]:
        """Identity within a run."""
        return (self.system.name, self.block, self.repeat)


def can_be_timed(system: System) -> bool:
    """Whether it is a whole system, with an end at which somebody waits: ours, and Wyoming's server."""
    return system.adapter.ours or system.adapter is Adapter.WYOMING_FASTER_WHISPER


def plan_blocks(systems: Sequence[System], clips: Sequence[Clip], repeats: int) -> list[BlockStep]:
    """All steps; who begins changes from block to block. Clips without speech are left out: nothing is awaited."""
    spoken = [clip for clip in clips if clip.language != NO_SPEECH and all(system.takes(clip) for system in systems)]
    blocks = [tuple(spoken[start : start + CLIPS_A_BLOCK]) for start in range(0, len(spoken), CLIPS_A_BLOCK)]
    return [
        BlockStep(systems[(index + number + repeat) % len(systems)], number, block, repeat)
        for repeat in range(repeats)
        for number, block in enumerate(blocks)
        for index in range(len(systems))
    ]


def blocks_done(records: Iterable[Record]) -> set[tuple[str, int, int]]:
    """Keys of the steps that need not be taken again."""
    return {(record.system, record.block, record.repeat) for record in records if isinstance(record, LatencyBlock)}


def refuse_other_clips(records: Iterable[Record], steps: Iterable[BlockStep]) -> None:
    """A block is known by its number, which says nothing of the clips in it.

    Raises:
        ConfigError: an earlier run had other clips in one of the blocks.
    """
    clips = {step.block: {clip.key for clip in step.clips} for step in steps}
    for record in records:
        # Not in it are clips that cannot be read; earlier versions did not say which it had.
        if isinstance(record, LatencyBlock) and not set(record.clips) <= clips.get(record.block, set()):
            raise ConfigError(
                "--resume: what was measured so far are other clips: go on with the same ones "
                "(folders, --limit, --quick, --language, --skip, systems), or name another --out"
            )


def read_sounds(clips: Iterable[Clip], system: System, repeat: int, journal: Journal) -> dict[Clip, Pcm16]:
    """Read the clips; note in the journal which of them cannot be read."""
    sounds: dict[Clip, Pcm16] = {}
    for clip in clips:
        try:
            sounds[clip] = load_pcm(clip)
        except SourceError as error:
            journal.write(Failure(system.name, str(error), clip.set_name, clip.id, repeat))
    return sounds


class LatencyRunner:
    """Takes steps, and writes down what came of them. The arguments are those of `Runner`."""

    def __init__(self, model_paths: Mapping[str, Path], journal: Journal, peer_python: Path | None) -> None:
        self._model_paths = model_paths
        self._journal = journal
        self._peer_python = peer_python

    def run(self, steps: Sequence[BlockStep]) -> Iterator[BlockStep]:
        """Take `steps`, handing out each one when it is over."""
        for step in steps:
            if sounds := read_sounds(step.clips, step.system, step.repeat, self._journal):
                self._take(replace(step, clips=tuple(sounds)), list(sounds.values()))
            yield step

    def _take(self, step: BlockStep, sounds: Sequence[Pcm16]) -> None:
        # The first clip is played twice, and the first time is not counted: it warms up.
        sounds = [sounds[0], *sounds]
        try:
            self._play_to_agent(step, sounds) if step.system.adapter.ours else self._feed_peer(step, sounds)
        except AgentError as error:
            self._journal.write(Failure(step.system.name, str(error), repeat=step.repeat, block=step.block))

    def _play_to_agent(self, step: BlockStep, sounds: Sequence[Pcm16]) -> None:
        playlist = string_together(sounds)
        language = step.clips[0].language
        played = run_agent(step.system, self._model_paths[step.system.name], playlist.pcm, language)
        for delay in delays(playlist, list(segment(playlist.pcm, step.system.options)), played.arrivals):
            if delay.clip:
                self._write(step, delay.clip - 1, delay.text, delay.after_hangover_s, delay.from_speech_end_s)
        self._journal.write(
            LatencyBlock(
                system=step.system.name,
                block=step.block,
                repeat=step.repeat,
                audio_s=len(playlist.pcm) / SAMPLE_RATE_HZ,
                cpu_s=played.cpu_s,
                peak_pss_bytes=played.peak_pss_bytes,
                peak_rss_bytes=played.peak_rss_bytes,
                clips=tuple(clip.key for clip in step.clips),
            )
        )

    def _feed_peer(self, step: BlockStep, sounds: Sequence[Pcm16]) -> None:
        process = start_process(step.system, self._model_paths[step.system.name], self._peer_python)
        try:
            answers = [process.transcribe(pcm, step.clips[0].language) for pcm in sounds][1:]
        finally:
            process.close()
        for index, answer in enumerate(answers):
            self._write(step, index, answer.text, _after_sound_s(process, answer))
        self._journal.write(
            LatencyBlock(
                system=step.system.name,
                block=step.block,
                repeat=step.repeat,
                audio_s=sum(map(len, sounds[1:])) / SAMPLE_RATE_HZ,
                cpu_s=sum(answer.cpu_s for answer in answers),
                peak_pss_bytes=max(answer.pss_bytes for answer in answers),
                peak_rss_bytes=max(answer.peak_rss_bytes for answer in answers),
                clips=tuple(clip.key for clip in step.clips),
            )
        )

    def _write(
        self, step: BlockStep, clip: int, text: str, after_hangover_s: float, from_speech_end_s: float | None = None
    ) -> None:
        self._journal.write(
            LatencyMeasurement(
                system=step.system.name,
                set_name=step.clips[clip].set_name,
                clip_id=step.clips[clip].id,
                repeat=step.repeat,
                text=text,
                after_hangover_s=after_hangover_s,
                from_speech_end_s=from_speech_end_s,
            )
        )


def _after_sound_s(process: SystemProcess, answer: Answer) -> float:
    if answer.after_sound_s is None:
        raise PeerError(f"{process.system.name} does not take sound bit by bit")
    return answer.after_sound_s
