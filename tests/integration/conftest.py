import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from agent.config import MqttSettings
from agent.outbox.memory import MemoryOutbox
from agent.sinks.mqtt import MqttSink
from agent.sinks.reconnect import Backoff
from agent.worker import Worker
from tests.integration.mosquitto import Mosquitto
from tests.integration.receiver import Receiver


class StartMosquitto(Protocol):
    """Starts a broker with further lines of configuration; without any, everybody may do everything."""

    def __call__(self, *lines: str, start: bool = True) -> Mosquitto:
        """Return the broker, running unless `start` is False."""


@pytest.fixture
def start_mosquitto(tmp_path: Path) -> Iterator[StartMosquitto]:
    """A real mosquitto, killed at the end."""
    brokers: list[Mosquitto] = []

    def start_one(*lines: str, start: bool = True) -> Mosquitto:
        broker = Mosquitto(tmp_path, *(lines or ("allow_anonymous true",)))
        brokers.append(broker)
        if start:
            broker.start()
        return broker

    yield start_one
    for broker in brokers:
        broker.kill()


@pytest.fixture
def broker(start_mosquitto: StartMosquitto) -> Mosquitto:
    """A real mosquitto that lets everybody in."""
    return start_mosquitto()


@pytest.fixture
def receiver(broker: Mosquitto) -> Iterator[Receiver]:
    """Somebody who was subscribed before the agent came, and sees everything."""
    with Receiver(broker.port) as subscriber:
        yield subscriber


OpenSink = Callable[[MqttSettings], MqttSink]


@pytest.fixture
def open_sink() -> Iterator[OpenSink]:
    """A sink of the device `pi-1` that retries within a second; closed at the end. Its thread must not have failed."""
    sinks: list[MqttSink] = []
    failures: list[Worker] = []

    def open_one(settings: MqttSettings) -> MqttSink:
        backoff = Backoff(random.Random(1), ceiling_s=0.3)  # noqa: S311 - jitter, not a secret
        outbox = MemoryOutbox(settings.outbox.max_messages)
        sink = MqttSink(settings, "pi-1", outbox, failures.append, backoff=backoff, will_delay_s=1)
        sinks.append(sink)
        return sink

    yield open_one
    for sink in sinks:
        sink.close(1.0)
    assert [worker.failure for worker in failures] == []


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a file system of its own; skips the test where that is not permitted."""
    mounted: list[Path] = []

    def mount_one(*arguments: str) -> Path:
        folder = tmp_path / f"mount-{len(mounted)}"
        folder.mkdir()
        if os.geteuid() != 0:
            pytest.skip("mounting a file system of the test's own needs root")
        result = subprocess.run(["mount", *arguments, folder], check=False, capture_output=True, text=True)
        if result.returncode:
            pytest.skip(f"not permitted to mount here: {result.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount_one
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)
