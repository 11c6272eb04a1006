"""Run the whole agent in a process of its own, with a broker and a subscriber: latency of the words, and cost at rest.

    clip ── pause ── clip ── pause ── …   one recording, played as fast as a microphone would deliver it
       speech ends ┤├ hang-over ┤├ the rest of the decoding ┤ arrives at the subscriber
                    └───────────── from_speech_end_s ───────┘
                                 └──── after_hangover_s ────┘

The message says when its utterance began. The same recording, put through the same segmenter again, gives the same
utterances: so the place of the utterance in the recording is known.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import soundfile

from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16, Utterance, samples
from agent.bench import usage
from agent.bench.child import Adapter, PeerError, System, tied
from agent.bench.clips import NO_SPEECH, Clip, load_pcm
from agent.bench.ours import engine_settings, listening_settings, segment
from agent.bench.process import OURS_ENVIRONMENT, ProcessPool
from agent.bench.records import Delay, IdleMeasurement, LatencyBlock, Record
from agent.bench.steps import Step, read_sounds
from agent.mqtt.embedded_broker import EmbeddedBroker, embedded_broker
from agent.mqtt.subscriber import Subscriber

PAUSE_MS = 1_800
"""Between clips: longer than any hang-over in use, so that the engine is at rest before the next clip."""
LOADING_S = 20.0
"""Not counted as rest: a small board needs as long to load a small model."""
_NOISE_LEVEL = 8.0
"""Standard deviation of the noise in the pauses, in units of 16 bits: a quiet room at -72 dBFS."""
_DURATION_TOLERANCE_S = 0.002
_LOOK_EVERY_S = 0.25
_GRACE_S = 120.0
"""For loading, and for the utterances that are not published yet when the recording ends."""
_DEVICE_ID = "bench"
_FOREIGN = ("EDGESCRIBE_", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_")


@dataclass(frozen=True, slots=True)
class Arrival:
    """The message about one utterance at the subscriber."""

    started_s: float
    """Wall clock at the start of the utterance, from the message."""
    duration_s: float
    """Length of the utterance, from the message."""
    text: str
    received_s: float
    """Wall clock when the message arrived."""


@dataclass(frozen=True, slots=True)
class Look:
    """The cost of the agent and its children until one moment."""

    age_s: float
    """Since the process was started."""
    cpu_s: float
    pss_bytes: int


@dataclass(frozen=True, slots=True)
class AgentRun:
    """The results of one recording."""

    arrivals: tuple[Arrival, ...]
    looks: tuple[Look, ...]
    """About four a second; at least one."""

    @property
    def peak_pss_bytes(self) -> int:
        """The highest of all looks."""
        return max(look.pss_bytes for look in self.looks)


@dataclass(frozen=True, slots=True)
class Playlist:
    """Clips in one recording."""

    pcm: Pcm16
    """Shape (n,), int16, 16 kHz."""
    starts: tuple[int, ...]
    """Position of the first sample of each clip."""


def can_be_timed(system: System) -> bool:
    """Return whether it is a whole system, from sound to words: our engines, and Wyoming's server."""
    return system.adapter.ours or system.adapter is Adapter.WYOMING_FASTER_WHISPER


def take_latency(step: Step, pool: ProcessPool) -> Iterator[Record]:
    """Time one system on one block of clips. It hears the first clip twice: the first time is to warm up."""
    sounds: dict[Clip, Pcm16] = {}
    yield from read_sounds(step, sounds)
    if not sounds:
        return
    system, language, clips = step.system, step.clips[0].language, tuple(clip.key for clip in sounds)
    heard = [next(iter(sounds.values())), *sounds.values()]
    if system.adapter.ours:
        playlist = string_together(heard)
        played = run_agent(system, playlist.pcm, language)
        utterances = segment(playlist.pcm, system.options)
        delays = tuple(one for one in delays_of(playlist, ["", *clips], utterances, played.arrivals) if one.clip)
        audio_s, cpu_s, pss_bytes = len(playlist.pcm) / SAMPLE_RATE_HZ, played.looks[-1].cpu_s, played.peak_pss_bytes
    else:
        answers = [pool.transcribe(system, pcm, language) for pcm in heard][1:]
        pool.close()  # the next block gets a process of its own, as it does with our engines
        delays = tuple(Delay(clip, one.text, one.after_sound_s) for clip, one in zip(clips, answers, strict=True))
        audio_s = sum(map(len, sounds.values())) / SAMPLE_RATE_HZ
        cpu_s, pss_bytes = sum(one.cpu_s for one in answers), max(one.pss_bytes for one in answers)
    yield LatencyBlock(system.name, step.name, step.repeat, audio_s, cpu_s, pss_bytes, clips, delays)


def take_idle(step: Step, sound: Pcm16) -> Iterator[Record]:
    """Measure one whole agent while it hears `sound`, shape (n,), without speech.

    Raises:
        PeerError: the agent ended while it loaded, or ended badly.
    """
    played = run_agent(step.system, sound, "en")
    begin, end = rest(played.looks)
    yield IdleMeasurement(
        system=step.system.name,
        step=step.name,
        repeat=step.repeat,
        wall_s=end.age_s - begin.age_s,
        cpu_s=end.cpu_s - begin.cpu_s,
        loading_cpu_s=begin.cpu_s,
        peak_pss_bytes=played.peak_pss_bytes,
        transcripts=len(played.arrivals),
    )


def rest(looks: Sequence[Look]) -> tuple[Look, Look]:
    """Return the first look after loading, and the last look.

    Raises:
        PeerError: the agent ended before.
    """
    later = [look for look in looks if look.age_s >= LOADING_S]
    if len(later) < 2:  # noqa: PLR2004 - a span has two ends
        raise PeerError(f"the agent ended within the {LOADING_S:.0f} s in which it loads")
    return later[0], later[-1]


def quiet_sound(clips: Sequence[Clip], duration_s: float) -> Pcm16:
    """Return the clips without speech, repeated for `duration_s` seconds; a quiet room if there are none."""
    length = round(duration_s * SAMPLE_RATE_HZ)
    sounds = [load_pcm(clip) for clip in clips if clip.language == NO_SPEECH]
    return np.resize(np.concatenate(sounds), length) if sounds else quiet_room(length)


def quiet_room(length: int, seed: int = 0) -> Pcm16:
    """Return `length` samples of faint noise, always the same for the same `seed`."""
    noise: Pcm16 = np.random.default_rng(seed).normal(0.0, _NOISE_LEVEL, length).astype(np.int16)
    return noise


def string_together(clips: Sequence[Pcm16]) -> Playlist:
    """Return all clips, in order, with a pause before each and behind the last."""
    parts = [quiet_room(samples(PAUSE_MS))]
    starts = []
    for seed, clip in enumerate(clips, start=1):
        starts.append(sum(map(len, parts)))
        parts += [clip, quiet_room(samples(PAUSE_MS), seed)]
    return Playlist(np.concatenate(parts), tuple(starts))


def delays_of(
    playlist: Playlist, names: Sequence[str], utterances: Iterable[Utterance], arrivals: Iterable[Arrival]
) -> Iterator[Delay]:
    """Yield how late each arrival was; `names` are the names of the clips in the playlist.

    Arrivals come in the order of the utterances. Some utterances never arrive, because the agent rejects them. An
    arrival belongs to the next utterance of its length; without such an utterance it is left out.
    """
    waiting = list(utterances)
    for arrival in arrivals:
        lengths = [abs(utterance.duration_s - arrival.duration_s) < _DURATION_TOLERANCE_S for utterance in waiting]
        if True not in lengths:
            continue
        utterance = waiting[lengths.index(True)]
        del waiting[: lengths.index(True) + 1]
        age_s = arrival.received_s - arrival.started_s
        yield Delay(
            clip=names[max(0, sum(start <= utterance.speech_end for start in playlist.starts) - 1)],
            text=arrival.text,
            after_hangover_s=age_s - (utterance.closed_at - utterance.position) / SAMPLE_RATE_HZ,
            from_speech_end_s=age_s - (utterance.speech_end - utterance.position) / SAMPLE_RATE_HZ,
        )


def run_agent(system: System, pcm: Pcm16, language: str) -> AgentRun:
    """Play `pcm`, shape (n,), to an agent with the engine of `system`, as fast as a microphone would.

    The options of the system go before `language` (ISO 639-1).

    Raises:
        PeerError: the agent ended badly, or did not end.
        SinkError: no broker can be started.
    """
    with tempfile.TemporaryDirectory(prefix="edgescribe-bench-") as name, embedded_broker() as broker:
        folder = Path(name)
        # An empty configuration replaces the settings and the broker of this device.
        (folder / "config.toml").touch()
        soundfile.write(folder / "recording.wav", pcm, SAMPLE_RATE_HZ, subtype="PCM_16")
        command = [sys.executable, "-m", "agent", "run", "--config", str(folder / "config.toml")]
        for key, value in _overrides(system, language, folder, broker).items():
            command += ["--set", f"{key}={value}"]
        with Subscriber(broker.settings, f"edgescribe/v1/{_DEVICE_ID}/transcript") as subscriber:
            looks = _watch(command, len(pcm) / SAMPLE_RATE_HZ + _GRACE_S, folder / "complaints")
            time.sleep(_LOOK_EVERY_S)
        clock_offset_s = time.time() - time.monotonic()
        arrivals = []
        for message in subscriber:
            said = json.loads(message.payload)
            started_s = datetime.fromisoformat(said["start"]).timestamp()
            arrivals.append(Arrival(started_s, said["duration_s"], said["text"], message.received_s + clock_offset_s))
    return AgentRun(tuple(arrivals), tuple(looks))


def _overrides(system: System, language: str, folder: Path, broker: EmbeddedBroker) -> dict[str, object]:
    engine = engine_settings(system, language)
    if "model" in engine:
        engine["model"] = system.path
    vad, segmenter = listening_settings(system.options)
    return {
        **{f"engine.{key}": value for key, value in engine.items()},
        **{f"vad.{key}": value for key, value in vad.model_dump().items()},
        **{f"segmenter.{key}": value for key, value in segmenter.model_dump(exclude_none=True).items()},
        "device.id": _DEVICE_ID,
        "source.kind": "wav",
        "source.pace": "realtime",
        "source.path": folder / "recording.wav",
        "mqtt.host": broker.host,
        "mqtt.port": broker.port,
        "log.level": "warning",
        "state_dir": folder,
    }


def _watch(command: Sequence[str], limit_s: float, complaints: Path) -> list[Look]:
    """Run the agent to its end, and look at its cost four times a second. Also after an error, no process stays."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)} | OURS_ENVIRONMENT
    with complaints.open("wb") as stderr:
        process = subprocess.Popen(
            tied(command), stdout=subprocess.DEVNULL, stderr=stderr, env=environment, start_new_session=True
        )
    started_s = time.monotonic()
    looks: list[Look] = []
    try:
        while process.poll() is None:
            if time.monotonic() - started_s > limit_s:
                raise PeerError(f"the agent did not end within {limit_s:.0f} s")
            family = [process.pid, *usage.descendants(process.pid)]
            # The seconds of a child that has ended are missing in the sum.
            cpu_s = max([sum(map(usage.cpu_s, family)), *(look.cpu_s for look in looks[-1:])])
            looks.append(Look(time.monotonic() - started_s, cpu_s, usage.pss_bytes(family)))
            time.sleep(_LOOK_EVERY_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        lines = complaints.read_text(encoding="utf-8", errors="replace").splitlines() or ["it printed no message"]
        raise PeerError(f"the agent ended with status {process.returncode}: {lines[-1]}")
    return looks
