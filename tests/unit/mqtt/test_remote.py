import threading
from pathlib import Path
from typing import Any, cast

import pytest

from agent.config.commanded import Applied
from agent.config.settings import ModelsSettings, ScriptedSettings, Settings
from agent.governor.steering import Governed
from agent.messages import Message, State
from agent.messages.identity import describe
from agent.mqtt.command_handlers import DeviceIdentity
from agent.mqtt.publisher import Publisher
from agent.mqtt.remote import Remote
from agent.telemetry.counters import Counters

LIMIT_S = 30.0


class Switch:
    """A microphone that can be closed."""

    listening = True


class Hesitant:
    """A sink that keeps what `state` says, the first time only when it is let go."""

    def __init__(self) -> None:
        self.began, self.go = threading.Event(), threading.Event()
        self.said: list[bool] = []

    def send(self, message: Message) -> None:
        """Keep it."""
        if isinstance(message, State):
            if not self.began.is_set():
                self.began.set()
                assert self.go.wait(LIMIT_S)
            self.said.append(message.listening)

    def close(self, timeout_s: float) -> int:
        """Nothing waits."""
        return int(timeout_s * 0)


def test_what_is_told_last_is_what_came_last(tmp_path: Path) -> None:
    """`state` stays with the broker: who was slow to tell of a change does not undo the telling of the next."""
    settings = Settings(engine=ScriptedSettings(), state_dir=tmp_path, models=ModelsSettings(dir=tmp_path))
    publisher, sink, switch = Publisher(Counters(), "boot-1"), Hesitant(), Switch()
    publisher.open([sink])
    nothing = cast("Any", None)
    remote = Remote(
        DeviceIdentity("pi-1", describe(), "a recording"),
        settings=settings,
        applied=Applied(tmp_path),
        source=cast("Any", switch),
        transcriber=nothing,
        keeper=nothing,
        publisher=publisher,
        load_engine=nothing,
        governed=Governed(),
        apply=nothing,
        restart=lambda: None,
        options=(),
        on_failure=lambda worker: pytest.fail(worker.name),
    )
    slow = threading.Thread(target=remote.applied)
    slow.start()
    assert sink.began.wait(LIMIT_S)
    switch.listening = False
    quick = threading.Thread(target=remote.applied)
    quick.start()
    quick.join(0.2)
    sink.go.set()
    for thread in (slow, quick):
        thread.join(LIMIT_S)
    assert sink.said == [True, False]
