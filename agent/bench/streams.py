"""Measure speech in a stream: does a system hear each clip as well as the stock library hears it by itself?

    room noise ── clip ── 2 to 15 s of room noise ── clip ── …   ─▶ detector ─▶ segmenter ─▶ engine ─▶ words and times
                └ the same sound, cut out with 0.3 s on each side ─▶ stock library, same weights ─▶ words

A seed gives the order of the clips and the pauses. The noise under a clip is the same under every seed, so the stock
library decodes the clip once for a room.
"""

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.audio.frames import FULL_SCALE, SAMPLE_RATE_HZ, Pcm16, samples
from agent.bench.child import Adapter, Answer, System
from agent.bench.clips import NO_SPEECH, Clip, grouped, load_pcm
from agent.bench.ours import VAD_OPTION
from agent.bench.process import ProcessPool
from agent.bench.records import Record, StreamBlock, StreamClip, WholeText
from agent.bench.steps import Step, read_sounds
from agent.bench.systems import peers_of, takes
from agent.errors import ConfigError, SourceError

CLIPS_A_STREAM = 100
"""More than ten minutes of sound, and less than 1 GB of memory to mix it."""
STEADY_LEVELS_DBFS = (-58, -46)
NOISE_LEVEL_DBFS = -50
"""Of recorded noise: 25 dB below near speech, about 20 dB below far speech."""
_FIRST_SEED = 7
_PAUSES_S = (2, 4, 8, 15)
_BEFORE, _BEHIND = samples(4000), samples(3000)
_MARGIN, _FADE, _BLEND = samples(300), samples(50), samples(100)

Sound = NDArray[np.float64]
WholeKey = tuple[str, str]
"""The stock library, and the digest of the sound."""


@dataclass(frozen=True, slots=True)
class Room:
    """The sound between and under the clips."""

    name: str
    level_dbfs: float
    recording: Pcm16 | None = None
    """Shape (n,), repeated as often as needed; None for generated pink noise."""

    def sound(self, length: int, seed: int) -> Sound:
        """Return `length` samples in units of 16 bits; always the same for the same `seed`."""
        if self.recording is None:
            spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(length))
            spectrum /= np.sqrt(np.arange(1, len(spectrum) + 1))
            sound: Sound = np.pad(np.fft.irfft(spectrum), (0, length % 2))
        else:
            begin = random.Random(seed).randrange(len(self.recording))  # noqa: S311 - no secret
            sound = np.resize(np.roll(self.recording, -begin), length).astype(np.float64)
        sound *= FULL_SCALE * 10 ** (self.level_dbfs / 20) / max(1e-9, float(np.sqrt(np.mean(sound**2))))
        return sound


@dataclass(frozen=True, slots=True)
class Stream:
    """Clips in a room."""

    pcm: Pcm16
    """Shape (n,), int16, 16 kHz."""
    spans: Mapping[Clip, tuple[int, int]]
    """The first sample of each clip, and the sample behind its last, in the order of the stream."""
    takes: Mapping[Clip, Pcm16]
    """Each clip with 0.3 s of the room on both sides; the same under every seed."""

    def clips_in(self, start: int, end: int) -> list[Clip]:
        """Return the clips that overlap with the samples between two positions."""
        return [clip for clip, span in self.spans.items() if min(end, span[1]) > max(start, span[0])]


def rooms(noise: Iterable[str]) -> list[Room]:
    """Return rooms of steady noise at several levels, and one for each FILE_OR_FOLDER[@DBFS] of `noise`.

    Raises:
        ConfigError: no recording is there, or the level is not a number.
    """
    found = [Room(f"steady {level} dBFS", level) for level in STEADY_LEVELS_DBFS]
    for text in noise:
        place, _, level = text.partition("@")
        path = Path(place)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        files = [file for file in files if file.suffix.lower() in {".wav", ".flac", ".ogg", ".mp3"}]
        try:
            level_dbfs = float(level or NOISE_LEVEL_DBFS)
            sounds = [load_pcm(Clip(path.name, file.name, file, NO_SPEECH, "", 0.0)) for file in files]
        except (ValueError, SourceError) as error:
            raise ConfigError(
                f"--noise {text}: {error}; give a recording or a folder, and a level such as @-50"
            ) from None
        if not any(map(len, sounds)):
            raise ConfigError(f"--noise {text}: no recording (WAV, FLAC, OGG, MP3) is there")
        found.append(Room(f"{path.stem} {level_dbfs:g} dBFS", level_dbfs, np.concatenate(sounds)))
    return found


def lay(sounds: Mapping[Clip, Pcm16], room: Room, seed: int) -> Stream:
    """Put the clips into the room. Their order and the pauses follow from `seed`; the noise under a clip does not."""
    stream = _mix(sounds, room)
    if seed == _FIRST_SEED:
        return stream
    spans, length = _spans(sounds, seed)
    sound = room.sound(length, seed)
    ramp = np.linspace(0, 1, _BLEND)
    for clip, (start, end) in spans.items():
        take, part = stream.takes[clip].astype(np.float64), sound[start - _MARGIN : end + _MARGIN]
        weight = np.ones(len(take))
        weight[:_BLEND], weight[-_BLEND:] = ramp, ramp[::-1]
        part[:] = weight * take + (1 - weight) * part
    return Stream(_pcm(sound), spans, stream.takes)


def _mix(sounds: Mapping[Clip, Pcm16], room: Room) -> Stream:
    spans, length = _spans(sounds, _FIRST_SEED)
    sound = room.sound(length, _FIRST_SEED)
    for clip, (start, end) in spans.items():
        speech = sounds[clip].astype(np.float64)
        fade = min(_FADE, len(speech) // 4)
        speech[:fade] *= np.linspace(0, 1, fade)
        speech[len(speech) - fade :] *= np.linspace(1, 0, fade)
        sound[start:end] += speech
    pcm = _pcm(sound)
    return Stream(pcm, spans, {clip: pcm[start - _MARGIN : end + _MARGIN] for clip, (start, end) in spans.items()})


def _spans(sounds: Mapping[Clip, Pcm16], seed: int) -> tuple[dict[Clip, tuple[int, int]], int]:
    """Return the span of each clip, and the length of the stream, in samples."""
    generator, clips, position = random.Random(seed), list(sounds), _BEFORE  # noqa: S311 - no secret
    generator.shuffle(clips)
    spans = {}
    for clip in clips:
        spans[clip] = (position, position + len(sounds[clip]))
        position += len(sounds[clip]) + SAMPLE_RATE_HZ * generator.choice(_PAUSES_S)
    return spans, position + _BEHIND


def _pcm(sound: Sound) -> Pcm16:
    return np.clip(sound, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def can_be_streamed(system: System) -> bool:
    """Return whether it has a detector in front, and weights that a stock library takes as well."""
    return system.adapter.ours and system.adapter is not Adapter.SCRIPTED


def plan_streams(systems: Sequence[System], clips: Sequence[Clip], rooms: Sequence[Room], repeats: int) -> list[Step]:
    """Return the steps: streams of one language with clips of all sets, the same for our engines; a seed a repeat."""
    spoken = [clip for clip in clips if clip.language != NO_SPEECH]
    blocks: list[tuple[Clip, ...]] = []
    for group in grouped(spoken, lambda clip: clip.language).values():
        number = -(-len(group) // CLIPS_A_STREAM)
        blocks += [tuple(group[index::number]) for index in range(number)]
    return [
        Step(system, f"{room.name} {index}", repeat, block, room.name)
        for repeat in range(repeats)
        for index, block in enumerate(blocks)
        for room in rooms
        for system in systems
        if can_be_streamed(system) and takes(system, block[0])
    ]


def whole_texts_in(records: Iterable[Record]) -> dict[WholeKey, str]:
    """Return the texts of the stock libraries so far."""
    return {(one.system, one.sound_sha256): one.text for one in records if isinstance(one, WholeText)}


def take_stream(
    step: Step, pool: ProcessPool, rooms: Iterable[Room], whole_texts: dict[WholeKey, str]
) -> Iterator[Record]:
    """Put the clips of a step into its room, and the stream through its system.

    New texts of the stock library are added to `whole_texts`.

    Raises:
        PeerError: the system or the stock library failed.
    """
    sounds: dict[Clip, Pcm16] = {}
    yield from read_sounds(step, sounds)
    if not sounds:
        return
    system = step.system
    (room,) = (room for room in rooms if room.name == step.room)
    stream = lay(sounds, room, _FIRST_SEED + step.repeat)
    peer = replace(peers_of(system.model, system.adapter.model_format)[0], path=system.path)
    whole: dict[Clip, str] = {}
    for clip, take in stream.takes.items():
        key = (peer.name, hashlib.sha256(take.tobytes()).hexdigest())
        if key not in whole_texts:
            whole_texts[key] = pool.transcribe(peer, take, clip.language).text
            yield WholeText(*key, whole_texts[key])
        whole[clip] = whole_texts[key]
    behind_vad = replace(system, options={**system.options, VAD_OPTION: "true"})
    answer = pool.transcribe(behind_vad, stream.pcm, step.clips[0].language)
    yield StreamBlock(
        system=system.name,
        step=step.name,
        repeat=step.repeat,
        room=room.name,
        audio_s=len(stream.pcm) / SAMPLE_RATE_HZ,
        cpu_s=answer.cpu_s,
        strays=sum(not stream.clips_in(start, end) for start, end, _ in answer.pieces),
        clips=tuple(clip.key for clip in stream.spans),
        heard=tuple(heard_of(stream, answer, whole)),
    )


def heard_of(stream: Stream, answer: Answer, whole: Mapping[Clip, str]) -> Iterator[StreamClip]:
    """Yield the result of each clip: the texts of all utterances that overlap with it."""
    for clip in stream.spans:
        heard = [text for start, end, text in answer.pieces if clip in stream.clips_in(start, end)]
        text = " ".join(heard)
        yield StreamClip(clip.set_name, clip.id, clip.language, clip.text, text, whole[clip], len(heard))
