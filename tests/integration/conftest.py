import random
from collections.abc import Callable, Iterator

import pytest

from agent.config.settings import MqttSettings
from agent.mqtt.client import MqttClient
from agent.mqtt.reconnect import Backoff
from agent.worker import Worker
from tests.support.outboxes import memory_outbox

OpenSink = Callable[[MqttSettings], MqttClient]


@pytest.fixture
def open_sink() -> Iterator[OpenSink]:
    """A sink of the device `pi-1` that retries within a second; closed at the end. Its thread must not have failed."""
    sinks: list[MqttClient] = []
    failures: list[Worker] = []

    def open_one(settings: MqttSettings) -> MqttClient:
        backoff = Backoff(random.Random(1), ceiling_s=0.3)  # noqa: S311 - jitter, not a secret
        outbox = memory_outbox(settings.outbox.max_messages)
        sink = MqttClient(settings, "pi-1", outbox, failures.append, backoff=backoff, will_delay_s=1)
        sinks.append(sink)
        return sink

    yield open_one
    for sink in sinks:
        sink.close(1.0)
    assert [worker.failure for worker in failures] == []
