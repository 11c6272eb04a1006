"""Speech in a stream: is each clip heard as well as by itself?

    room noise ── clip ── 2 to 15 s of room noise ── clip ── …   ─▶ detector ─▶ segmenter ─▶ engine ─▶ words and times
                └ the same sound, cut out with 0.3 s on each side ─▶ stock library, same weights ─▶ words

A seed gives the order of the clips and the pauses. Each clip lies on the same stretch of noise under every seed, so the
stock library decodes it once for a room.
"""

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.audio.frames import FULL_SCALE, SAMPLE_RATE_HZ, Pcm16, samples
from agent.bench.child import Answer
from agent.bench.clips import NO_SPEECH, Clip, load_pcm
from agent.bench.process import ProcessPool
from agent.bench.records import Journal, Record, StreamBlock, StreamClip, WholeText
from agent.bench.runner import Step, read_sounds
from agent.bench.systems import VAD_OPTION, Adapter, System, peers_of
from agent.errors import ConfigError, SourceError

CLIPS_A_STREAM = 100
"""More than ten minutes of sound, and less than 1 GB of memory to mix it."""
STEADY_LEVELS_DBFS = (-58, -46)
NOISE_LEVEL_DBFS = -50
"""Of recorded noise: 25 dB below speech that is near, about 20 dB below speech that is far."""
_FIRST_SEED = 7
_PAUSES_S = (2, 4, 8, 15)
_BEFORE, _BEHIND = samples(4000), samples(3000)
_MARGIN, _FADE, _BLEND = samples(300), samples(50), samples(100)

Sound = NDArray[np.float64]
WholeKey = tuple[str, str]
"""The stock library, and the digest of the sound."""


@dataclass(frozen=True, slots=True)
class Room:
    """What there is to hear where clips are not."""

    name: str
    level_dbfs: float
    recording: Pcm16 | None = None
    """Shape (n,), repeated as often as needed; None for generated pink noise."""

    def sound(self, length: int, seed: int) -> Sound:
        """`length` samples in units of 16 bits; always the same for the same `seed`."""
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
    """Where each clip begins and ends, in samples, in the order in which they are played."""
    takes: Mapping[Clip, Pcm16]
    """Each clip with 0.3 s of the room on both sides; the same under every seed."""

    def clips_in(self, start: int, end: int) -> list[Clip]:
        """The clips of which something is heard between two positions."""
        return [clip for clip, span in self.spans.items() if min(end, span[1]) > max(start, span[0])]


def rooms(noise: Iterable[str]) -> list[Room]:
    """Steady noise at several levels, and each FILE_OR_FOLDER[@DBFS] of `noise`.

    Raises:
        ConfigError: no recording there, or a level that is no number.
    """
    return [Room(f"steady {level} dBFS", level) for level in STEADY_LEVELS_DBFS] + [_recorded(text) for text in noise]


def _recorded(text: str) -> Room:
    place, _, level = text.partition("@")
    path = Path(place)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    found = [file for file in files if file.suffix.lower() in {".wav", ".flac", ".ogg", ".mp3"}]
    try:
        level_dbfs = float(level or NOISE_LEVEL_DBFS)
        sounds = [load_pcm(Clip(path.name, file.name, file, NO_SPEECH, "", 0.0)) for file in found]
    except (ValueError, SourceError) as error:
        raise ConfigError(f"--noise {text}: {error}; give a recording or a folder, and a level such as @-50") from None
    if not any(map(len, sounds)):
        raise ConfigError(f"--noise {text}: no recording (WAV, FLAC, OGG, MP3) is there")
    return Room(f"{path.stem} {level_dbfs:g} dBFS", level_dbfs, np.concatenate(sounds))


def lay(sounds: Mapping[Clip, Pcm16], room: Room, seed: int) -> Stream:
    """Put the clips into the room: their order and the pauses follow from `seed`, the noise under a clip does not."""
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
    """Where each clip begins and ends, and the length of it all, in samples."""
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
    """Whether it has a detector in front, and weights that a stock library takes as well."""
    return system.adapter.ours and system.adapter is not Adapter.SCRIPTED


def plan_streams(systems: Sequence[System], clips: Sequence[Clip], rooms: Sequence[Room], repeats: int) -> list[Step]:
    """All steps: streams of one language with clips of all sets, the same for each of our engines; a seed a repeat."""
    by_language: dict[str, list[Clip]] = {}
    for clip in clips:
        if clip.language != NO_SPEECH:
            by_language.setdefault(clip.language, []).append(clip)
    blocks: list[tuple[Clip, ...]] = []
    for group in by_language.values():
        number = -(-len(group) // CLIPS_A_STREAM)
        blocks += [tuple(group[index::number]) for index in range(number)]
    return [
        Step(system, f"{room.name} {index}", repeat, block, room.name)
        for repeat in range(repeats)
        for index, block in enumerate(blocks)
        for room in rooms
        for system in systems
        if can_be_streamed(system) and system.takes(block[0])
    ]


def whole_texts_in(records: Iterable[Record]) -> dict[WholeKey, str]:
    """What the stock libraries have made of clips so far."""
    return {(one.system, one.sound_sha256): one.text for one in records if isinstance(one, WholeText)}


def take_stream(
    step: Step,
    rooms: Iterable[Room],
    paths: Mapping[str, Path],
    journal: Journal,
    pool: ProcessPool,
    whole_texts: dict[WholeKey, str],
) -> Iterator[Record]:
    """Put the step's clips into its room, and that through its system.

    `paths` has each system's model by the system's name; `whole_texts` takes the stock library's texts that are new.
    """
    system, path = step.system, paths[step.system.name]
    sounds = read_sounds(step, journal)
    if not sounds:
        return
    (room,) = (room for room in rooms if room.name == step.room)
    stream = lay(sounds, room, _FIRST_SEED + step.repeat)
    peer = peers_of(system.model, system.adapter.model_format)[0]
    whole: dict[Clip, str] = {}
    for clip, take in stream.takes.items():
        key = (peer.name, hashlib.sha256(take.tobytes()).hexdigest())
        if key not in whole_texts:
            whole_texts[key] = pool.transcribe(peer, path, take, clip.language).text
            journal.write(WholeText(*key, whole_texts[key]))
        whole[clip] = whole_texts[key]
    behind_vad = replace(system, options={**system.options, VAD_OPTION: "true"})
    answer = pool.transcribe(behind_vad, path, stream.pcm, step.clips[0].language)
    yield StreamBlock(
        system=system.name,
        step=step.name,
        repeat=step.repeat,
        room=step.room,
        audio_s=len(stream.pcm) / SAMPLE_RATE_HZ,
        cpu_s=answer.cpu_s,
        strays=sum(not stream.clips_in(start, end) for start, end, _ in answer.pieces),
        clips=tuple(clip.key for clip in stream.spans),
        heard=tuple(heard_of(stream, answer, whole)),
    )


def heard_of(stream: Stream, answer: Answer, whole: Mapping[Clip, str]) -> Iterator[StreamClip]:
    """What the stream gave of each clip: the texts of all utterances that overlap with it."""
    for clip in stream.spans:
        heard = [text for start, end, text in answer.pieces if clip in stream.clips_in(start, end)]
        yield StreamClip(
            set_name=clip.set_name,
            clip_id=clip.id,
            language=clip.language,
            reference=clip.text,
            text=" ".join(heard),
            whole_text=whole[clip],
            pieces=len(heard),
        )
