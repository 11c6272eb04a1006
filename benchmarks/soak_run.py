"""One run of the whole agent over hours of sound, watched from outside."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import psutil
import soundfile
import soxr
from soak_figures import Figures, Sample, Word, quarters
from soak_microphone import Microphone

SAMPLE_RATE_HZ: Final = 16_000
_READY_S: Final = 180.0
_LOOK_EVERY_S: Final = 1.0
_FAREWELL_S: Final = 60.0
_QUIET_S: Final = 2.0
"""Faint noise before each repetition, so that utterances do not run into each other."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a run."""

    recording: Path
    seconds: float
    """Of sound."""
    settings: tuple[str, ...]
    """`key=value` for the agent."""
    paced: bool
    """In real time, through libasound; otherwise from a file, as fast as it can be transcribed."""


@dataclass(slots=True)
class Run:
    """The observations of a run."""

    options: Options
    heard_s: float
    kills: int = 0
    wall_s: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    telemetry: dict[str, Any] = field(default_factory=dict)

    def figures(self, reference: Sequence[Word] | None) -> Figures:
        """Sum up; `reference` is what a run without kills said, if there was one."""
        first = self.words[0].seq if self.words else 0
        return Figures(
            wall_s=round(self.wall_s, 1),
            heard_s=round(self.heard_s, 1),
            paced=self.options.paced,
            kills=self.kills,
            losses=self.telemetry.get("asr", {}).get("engine_restarts", 0),
            utterances=len(self.words),
            failed=sum(word.text is None for word in self.words),
            numbers_in_order=[word.seq for word in self.words] == list(range(first, first + len(self.words))),
            gaps_s=self.telemetry.get("audio", {}).get("gaps_s", 0.0),
            differing=None if reference is None else _differing(reference, self.words),
            quarters=quarters(self.samples, self.words),
        )


def _differing(reference: Sequence[Word], words: Sequence[Word]) -> int:
    """How many utterances are missing, too many, or other than they should be."""
    pairs = zip(reference, words, strict=False)
    others = sum((one.duration_s, one.text) != (other.duration_s, other.text) for one, other in pairs)
    return others + abs(len(reference) - len(words))


def soak(options: Options, folder: Path, port: int, kills: int = 0) -> Run:
    """Play everything to an agent that publishes to a broker at `port`, and kill its engine so many times."""
    pcm = _once(options.recording)
    repetitions = max(1, round(options.seconds * SAMPLE_RATE_HZ / len(pcm)))
    run = Run(options, heard_s=repetitions * len(pcm) / SAMPLE_RATE_HZ)
    source, variables = [], {}
    microphone = Microphone(folder) if options.paced else None
    if microphone:
        source, variables = microphone.settings, microphone.environment
    else:
        source = ["source.kind=wav", "source.pace=flat_out", f"source.path={_file(folder, pcm, repetitions)}"]
    with _agent(options, folder, port, source, variables) as agent:
        watcher = _Watcher(run, agent, folder / "stdout", kills)
        if microphone:
            microphone.play_in_background(pcm, repetitions, lambda: agent.send_signal(signal.SIGTERM))
        watcher.watch()
    return run


def _once(recording: Path) -> "np.ndarray[Any, np.dtype[np.int16]]":
    """The recording, 16 kHz mono, behind two seconds of a quiet room."""
    sound, rate_hz = soundfile.read(recording, dtype="float32", always_2d=True)
    mono = sound.mean(axis=1)
    if rate_hz != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ)
    quiet = np.random.default_rng(0).normal(scale=8.0, size=round(_QUIET_S * SAMPLE_RATE_HZ))
    return np.concatenate([quiet, np.clip(mono * 32_767.0, -32_768, 32_767)]).astype(np.int16)


def _file(folder: Path, pcm: "np.ndarray[Any, np.dtype[np.int16]]", repetitions: int) -> Path:
    path = folder / "recording.wav"
    with soundfile.SoundFile(path, "w", SAMPLE_RATE_HZ, 1, "PCM_16", format="RF64") as file:
        for _ in range(repetitions):
            file.write(pcm)
    return path


@contextlib.contextmanager
def _agent(
    options: Options, folder: Path, port: int, source: Sequence[str], variables: dict[str, str]
) -> Iterator[psutil.Popen]:
    """Start `edgescribe run` without the settings and the environment of this machine."""
    config = folder / "config.toml"
    config.touch()
    settings = [
        "device.id=soak",
        "mqtt.host=127.0.0.1",
        f"mqtt.port={port}",
        f"state_dir={folder}/state",
        "stdout.enabled=true",
        "telemetry.interval_s=5",
        "engine.kind=scripted",
        *source,
        *options.settings,
    ]
    command = [sys.executable, "-m", "agent", "run", "--config", str(config)]
    foreign = ("EDGESCRIBE_", "NOTIFY_SOCKET", "WATCHDOG_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    usual = {"OMP_WAIT_POLICY": "PASSIVE", "MALLOC_ARENA_MAX": "2"}  # as in the unit
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = psutil.Popen(
            [*command, *(part for setting in settings for part in ("--set", setting))],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**clean, **usual, **variables},
        )
    try:
        yield process
        process.wait(_FAREWELL_S)
    finally:
        if process.is_running():
            process.kill()
            process.wait()


class _Watcher:
    """Look at the agent once a second, read its output, and kill its engine on schedule."""

    def __init__(self, run: Run, agent: psutil.Popen, stdout: Path, kills: int) -> None:
        self._run = run
        self._agent = agent
        self._stdout = stdout
        self._kills = kills
        self._chance = random.Random(7)  # noqa: S311 - no secret
        self._over = threading.Event()

    def watch(self) -> None:
        """Until the agent has ended."""
        with self._stdout.open("rb") as lines:
            self._await_ready()
            began_s = time.monotonic()
            killer = threading.Thread(target=self._kill_often, name="killer")
            killer.start()
            while self._agent.poll() is None:
                self._read(lines.read(), time.monotonic() - began_s)
                self._look(time.monotonic() - began_s)
                time.sleep(_LOOK_EVERY_S)
            self._over.set()
            killer.join()
            self._run.wall_s = time.monotonic() - began_s
            self._read(lines.read(), self._run.wall_s)
        if self._agent.returncode:
            sys.exit(f"the agent ended with {self._agent.returncode}: {self._complaint()}")

    _rest = b""

    def _await_ready(self) -> None:
        deadline_s = time.monotonic() + _READY_S
        while "listening to" not in self._complaint():
            if self._agent.poll() is not None or time.monotonic() > deadline_s:
                sys.exit(f"the agent did not start: {self._complaint()}")
            time.sleep(0.05)

    def _complaint(self) -> str:
        return (self._stdout.parent / "stderr").read_text(encoding="utf-8")[-2_000:]

    def _read(self, data: bytes, at_s: float) -> None:
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            message = json.loads(line)
            topic, payload = message["topic"], message["payload"]
            if topic.endswith("/telemetry"):
                self._run.telemetry = payload
            elif topic.endswith(("/transcript", "/transcript/failed")):
                self._run.words.append(_word(payload, at_s))

    def _look(self, at_s: float) -> None:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            engines = self._agent.children()
            self._run.samples.append(
                Sample(
                    at_s=at_s,
                    agent_rss_bytes=self._agent.memory_info().rss,
                    engine_rss_bytes=sum(engine.memory_info().rss for engine in engines),
                    descriptors=self._agent.num_fds(),
                    threads=self._agent.num_threads(),
                    outbox=self._run.telemetry.get("mqtt", {}).get("outbox_n", 0),
                )
            )

    def _kill_often(self) -> None:
        """Kill the engine at random moments, each process after it has answered: two in a row give an utterance up."""
        numbers = [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGBUS]
        known: set[int] = set()
        with self._stdout.open("rb") as lines:
            while self._run.kills < self._kills and not self._over.is_set():
                time.sleep(0.005)
                with contextlib.suppress(psutil.NoSuchProcess):
                    fresh = [engine for engine in self._agent.children() if engine.pid not in known]
                    if not fresh:
                        continue
                    lines.read()
                    self._await_transcript(lines)
                    time.sleep(self._chance.uniform(0.0, 0.2))
                    for engine in fresh:
                        known.add(engine.pid)
                        engine.send_signal(self._chance.choice(numbers))
                        self._run.kills += 1

    def _await_transcript(self, lines: BinaryIO) -> None:
        while b'/transcript"' not in lines.read() and not self._over.is_set():
            time.sleep(0.005)


def _word(payload: dict[str, Any], at_s: float) -> Word:
    latency = payload.get("latency_ms", {})
    return Word(
        at_s=at_s,
        seq=payload["seq"],
        duration_s=payload["duration_s"],
        text=payload.get("text"),
        rtf=payload.get("rtf", 0.0),
        queue_ms=latency.get("queue", 0),
        total_ms=latency.get("total_from_speech_end", 0),
    )
