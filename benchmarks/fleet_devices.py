"""Simulated devices, many to a process: the shipped sink, outbox and payloads without microphone and engine."""

import contextlib
import heapq
import logging
import random
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Final

from fleet_figures import BURST, STAMP
from ulid import ULID

from agent.config.settings import MqttSettings, OutboxSettings
from agent.messages import (
    Health,
    Info,
    Latency,
    State,
    TranscriptMessage,
    Vad,
)
from agent.messages.telemetry import Asr, Audio, Cpu, Disk, Mem, TelemetryMessage
from agent.mqtt.client import MqttClient
from agent.mqtt.outbox import create_outbox
from agent.mqtt.reporting import TelemetrySchedule
from agent.worker import Worker

_TICK_S: Final = 0.01
_FAREWELL_S: Final = 10.0
_READY_S: Final = 60.0
_STACK_BYTES: Final = 512 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """What all devices have in common."""

    port: int
    outbox: str
    """`memory`, `balanced` or `strict`."""
    telemetry_s: float
    speech_s: float
    """Mean time between two utterances of a device."""
    folder: str


class Shard:
    """A process with some of the devices, seen from outside."""

    def __init__(self, context: SpawnContext, plan: Plan, names: list[str]) -> None:
        self.failures: list[str] = []
        self._pipe, inner = context.Pipe()
        self._process = context.Process(target=_run, args=(inner, plan, names), daemon=True)
        self._process.start()

    def await_ready(self) -> None:
        """Wait until it has loaded everything."""
        if not self._pipe.poll(_READY_S) or self._pipe.recv() != "ready":
            msg = "a process of devices did not start"
            raise SystemExit(msg)

    def tell(self, order: str) -> None:
        """`start`, `burst <n>`, `count` or `finish`."""
        self._pipe.send(order)

    def count(self) -> dict[str, int]:
        """How many transcripts each device has made so far."""
        self.tell("count")
        counts: dict[str, int] = self._pipe.recv()
        return counts

    def finish(self) -> dict[str, int]:
        """Let all devices deliver what waits and say goodbye; how many transcripts each has made."""
        self.tell("finish")
        counts: dict[str, int] = self._pipe.recv()
        self.failures = self._pipe.recv()
        self._process.join(_READY_S)
        return counts

    def kill(self) -> None:
        """End it at once; idempotent."""
        self._process.kill()
        self._process.join()


class Device:
    """One device: publishes its description, then telemetry and utterances."""

    def __init__(self, name: str, plan: Plan, failures: list[str]) -> None:
        self.name = name
        self.made = 0
        """Transcripts so far."""
        self._chance = random.Random(name)  # noqa: S311 - jitter, not a secret
        self._speech_s = plan.speech_s
        now_s = time.monotonic()
        self._started_s = now_s
        self._telemetry = TelemetrySchedule(plan.telemetry_s, name, now_s, self._chance)
        self.speaks_s = now_s + self._chance.expovariate(1 / plan.speech_s)

        def fail(worker: Worker) -> None:
            failures.append(f"{name}: {worker.name}: {worker.failure!r}")

        folder = Path(plan.folder) / name
        folder.mkdir()
        self._outbox = create_outbox(OutboxSettings.model_validate({"mode": plan.outbox}), folder, fail)
        self._sink = MqttClient(MqttSettings(host="127.0.0.1", port=plan.port), name, self._outbox, fail)
        self._sink.send(_info(name))
        self._sink.send(State(listening=True, engine="scripted", model="scripted", language="en", vad_threshold=0.5))
        self._sink.send(Health(problem="OFF"))

    def due(self, now_s: float) -> None:
        """Send all messages that are due."""
        if self._telemetry.due(now_s):
            self._sink.send(self._telemetry_message(now_s))
        if now_s >= self.speaks_s:
            self.speaks_s = now_s + self._chance.expovariate(1 / self._speech_s)
            self._sink.send(Vad(state="ON"))
            self._sink.send(Vad(state="OFF"))
            self.speak(STAMP)

    @property
    def next_s(self) -> float:
        """When something is due."""
        return min(self.speaks_s, self._telemetry.next_s)

    def speak(self, prefix: str) -> None:
        """Send a transcript that tells when it was sent."""
        self.made = self._outbox.next_seq()
        self._sink.send(_transcript(self.made, f"{prefix}{time.monotonic():.6f}"))

    def close(self) -> None:
        """Deliver what waits, and say goodbye."""
        self._sink.close(_FAREWELL_S)

    def _telemetry_message(self, now_s: float) -> TelemetryMessage:
        return TelemetryMessage(
            ts=datetime.now(UTC),
            up_s=int(now_s - self._started_s),
            cpu=Cpu(pct=11.5, load1=0.42, temp_c=51.1, freq_mhz=1800),
            mem=Mem(avail_mb=412, pct=55.3, rss_mb=153.2),
            disk=Disk(pct=31.4),
            audio=Audio(xruns=0, gaps_s=0.0, noise_floor_dbfs=-58.2),
            asr=Asr(utt=self.made, rtf_p95=0.18, lat_ms_p95=912, dropped_s=0.0, speech_pct=3.1, rejected=0),
            mqtt=self._sink.stats,
        )


def _info(name: str) -> Info:
    return Info(
        id=name, name=name, agent="simulated", boot_id=name, engine="scripted", model="scripted", source="simulated"
    )


def _transcript(seq: int, text: str) -> TranscriptMessage:
    now = datetime.now(UTC)
    return TranscriptMessage(
        id=str(ULID()),
        seq=seq,
        boot_id="simulated",
        ts=now,
        start=now,
        time_synced=True,
        duration_s=2.1,
        text=text,
        lang="en",
        avg_logprob=-0.21,
        no_speech_prob=0.01,
        compression_ratio=0.7,
        verdict="confident",
        model="scripted",
        engine="scripted",
        audio_ctx=384,
        rtf=0.1,
        latency_ms=Latency(vad_close=608, queue=0, encode_decode=223, total_from_speech_end=655),
        rms_dbfs=-24.1,
    )


def _run(pipe: Connection, plan: Plan, names: list[str]) -> None:
    """Run the process: obey orders, and let each device send its messages in time."""
    threading.stack_size(_STACK_BYTES)
    logging.disable(logging.WARNING)  # each device says that its broker is gone
    failures: list[str] = []
    devices: list[Device] = []
    due: list[tuple[float, int]] = []
    pipe.send("ready")
    with contextlib.suppress(EOFError):
        while True:
            wait_s = max(0.0, min(1.0, due[0][0] - time.monotonic())) if due else 1.0
            if pipe.poll(max(_TICK_S, wait_s)):
                match pipe.recv().split():
                    case ["start"]:
                        devices = [Device(name, plan, failures) for name in names]
                        due = [(device.next_s, index) for index, device in enumerate(devices)]
                        heapq.heapify(due)
                    case ["burst", number]:
                        for device in devices * int(number):
                            device.speak(BURST)
                    case ["count"]:
                        pipe.send({device.name: device.made for device in devices})
                    case _:
                        break
            _send_due(devices, due)
    for device in devices:
        device.close()
    pipe.send({device.name: device.made for device in devices})
    pipe.send(failures)


def _send_due(devices: list[Device], due: list[tuple[float, int]]) -> None:
    while due and due[0][0] <= (now_s := time.monotonic()):
        _, index = heapq.heappop(due)
        devices[index].due(now_s)
        heapq.heappush(due, (devices[index].next_s, index))
