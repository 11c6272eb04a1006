from pathlib import Path

import numpy as np
import pytest
import soundfile

from agent.asr.pipeline import Pipeline
from agent.asr.scripted import Scripted
from agent.config.settings import ScriptedSettings, Settings, TelemetrySettings, WavSettings
from agent.messages import Message
from agent.messages.telemetry import TelemetryMessage
from agent.mqtt.health import HealthMonitor
from agent.mqtt.publisher import Publisher
from agent.systemd import Notifier
from agent.telemetry.counters import Counters
from agent.worker import Worker


class Notes:
    """A sink that keeps every message."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def send(self, message: Message) -> None:
        """Keep it."""
        self.messages.append(message)

    def close(self, timeout_s: float) -> int:
        """Nothing waits."""
        return int(timeout_s * 0)


def never(worker: Worker) -> None:
    """No thread must fail."""
    pytest.fail(worker.name)


def test_a_new_interval_of_telemetry_counts_from_the_next_tick(tmp_path: Path) -> None:
    """A reload changes the settings in force; the monitor looks at them itself."""
    recording, notes, publisher = tmp_path / "a.wav", Notes(), Publisher(Counters(), "boot-1")
    soundfile.write(recording, np.zeros(16_000, np.int16), 16_000)
    settings = Settings(
        source=WavSettings(path=recording),
        engine=ScriptedSettings(),
        telemetry=TelemetrySettings(interval_s=3_600.0),
        state_dir=tmp_path,
    )
    in_force = [settings]
    publisher.open([notes])
    pipeline = Pipeline(
        settings,
        Scripted(ScriptedSettings()),
        listening=True,
        recipient=publisher,
        on_event=publisher.heard,
        on_overrun=lambda: None,
        keep=lambda _utterance: False,
        on_failure=never,
    )
    health = HealthMonitor(
        "pi-1",
        lambda: in_force[-1],
        Notifier(),
        pipeline=pipeline,
        publisher=publisher,
        counters=Counters(),
        on_failure=never,
    )
    health.tick()
    assert not any(isinstance(message, TelemetryMessage) for message in notes.messages)
    at_once = settings.telemetry.model_copy(update={"interval_s": 0.0})
    in_force.append(settings.model_copy(update={"telemetry": at_once}))
    health.tick()
    assert any(isinstance(message, TelemetryMessage) for message in notes.messages)
    assert health.activity == f"listening to {recording}"
    assert pipeline.close(1.0) == health.close() == []
