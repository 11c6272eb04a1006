"""From settings to what makes the messages and carries them away: publisher, outbox and sinks."""

import sys
from collections.abc import Callable

from agent.config.layers import state_dir
from agent.config.settings import Settings
from agent.errors import SinkError
from agent.messages.privacy import PublishPolicy
from agent.mqtt import Sink
from agent.mqtt.client import PROGRESS_S, MqttClient
from agent.mqtt.delivery import Inbox
from agent.mqtt.outbox import Outbox, create_outbox
from agent.mqtt.publisher import Publisher
from agent.mqtt.stdout import StdoutSink
from agent.telemetry.counters import Counters
from agent.worker import Worker


def open_outbox(settings: Settings, on_failure: Callable[[Worker], None]) -> Outbox | None:
    """What keeps messages until the broker has them; None without a broker.

    Where words are not to leave the device, none of before the setting was made is in it, before anybody could take it.
    """
    if not settings.mqtt.enabled:
        return None
    words = PublishPolicy.of(settings.publish).publishes_text
    outbox = create_outbox(settings.mqtt.outbox, state_dir(settings), on_failure, replayable=words)
    if not words:
        outbox.purge()
    return outbox


def create_publisher(settings: Settings, counters: Counters, boot_id: str, outbox: Outbox | None) -> Publisher:
    """What makes messages of what happens; their numbers are the outbox's."""
    publisher = Publisher(counters, boot_id, outbox.next_seq if outbox else None)
    publisher.policy = PublishPolicy.of(settings.publish)
    return publisher


def open_sinks(
    settings: Settings, device_id: str, outbox: Outbox | None, inbox: Inbox, on_failure: Callable[[Worker], None]
) -> tuple[MqttClient | None, list[Sink]]:
    """The link to the broker, if there is an outbox for it, and all sinks, that one included."""
    sinks: list[Sink] = [StdoutSink(device_id, sys.stdout)] if settings.stdout.enabled else []
    mqtt = MqttClient(settings.mqtt, device_id, outbox, on_failure, inbox=inbox) if outbox else None
    return mqtt, [*sinks, mqtt] if mqtt else sinks


def undelivered(lost: int, kept: int, broker: str, *, connected: bool) -> SinkError:
    """The error for messages that the broker does not have at the end: `lost` ones, else `kept` ones."""
    count = lost or kept
    messages = "1 message" if count == 1 else f"{count} messages"
    fate = "" if lost else ", and wait in the state folder for the next start"
    why = f"{broker} took none of them for {PROGRESS_S:.0f} s" if connected else f"is there a broker at {broker}?"
    return SinkError(f"{messages} could not be delivered{fate}: {why}")
