import threading
import time
from pathlib import Path

from agent.config.commanded import Applied
from agent.config.settings import ModelsSettings, ScriptedSettings, Settings
from agent.messages import Message, State
from agent.mqtt.delivery import Incoming
from agent.mqtt.publisher import Publisher
from agent.mqtt.remote import Remote
from agent.telemetry.counters import Counters
from tests.support.controlled import Switch, controlled
from tests.support.receiver import eventually

LIMIT_S = 30.0


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


def remote_of(folder: Path, publisher: Publisher, switch: Switch) -> Remote:
    """The device `pi-1`, of which only publisher and microphone are there."""
    settings = Settings(engine=ScriptedSettings(), state_dir=folder, models=ModelsSettings(dir=folder))
    return controlled(settings, Applied(folder), source=switch, publisher=publisher)


def test_no_command_is_executed_before_the_first_state_is_sent(tmp_path: Path) -> None:
    """Else the first `state`, made before the command and sent after it, would stay with the broker."""
    publisher, sink, switch = Publisher(Counters(), "boot-1"), Hesitant(), Switch()
    sink.go.set()
    remote = remote_of(tmp_path, publisher, switch)
    remote.open(None)
    remote.inbox.on_message(Incoming("edgescribe/v1/pi-1/cmd/listen", b"OFF", retained=False))
    time.sleep(0.05)
    assert switch.listening
    publisher.open([sink], remote.state())
    remote.start()
    assert eventually(lambda: sink.said == [True, False])
    remote.close()


def test_what_is_told_last_is_what_came_last(tmp_path: Path) -> None:
    """`state` stays with the broker: who was slow to tell of a change does not undo the telling of the next."""
    publisher, sink, switch = Publisher(Counters(), "boot-1"), Hesitant(), Switch()
    publisher.open([sink])
    remote = remote_of(tmp_path, publisher, switch)
    slow = threading.Thread(target=remote.publish_state)
    slow.start()
    assert sink.began.wait(LIMIT_S)
    switch.listening = False
    quick = threading.Thread(target=remote.publish_state)
    quick.start()
    quick.join(0.2)
    sink.go.set()
    for thread in (slow, quick):
        thread.join(LIMIT_S)
    assert sink.said == [True, False]
