"""Asks the broker whether it will let the service in, before anything is written."""

import queue
import ssl
from dataclasses import dataclass
from typing import Any, Final

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from agent.config.settings import MqttSettings
from agent.mqtt.connection import (
    CLOCK_REMEDY,
    COMMAND_LIMIT_BYTES,
    BoundedClient,
    Cause,
    tls_cause,
    tls_context,
    tls_reason,
)

_CONNECT_S: Final = 5.0
_ANSWER_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the broker said."""

    welcome: bool
    """It lets us in."""
    reason: str
    """Why not; empty if it does."""
    refused: bool = False
    """It is there and does not want us as we are, as opposed to being out of reach."""
    remedy: str = "see --username and --password-file"


def ask(settings: MqttSettings, user: str) -> Answer:
    """Connect as the service will, say goodbye at once, and return what came of it.

    Raises:
        ConfigError: a certificate file cannot be used.
    """
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()

    def on_connect(_client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        answers.put(Answer(not reason.is_failure, str(reason) if reason.is_failure else "", reason.is_failure))

    def on_disconnect(_client: Client, _data: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
        answers.put(Answer(welcome=False, reason="it hung up: does it want TLS, or a certificate?", refused=True))

    client = _client(settings, user)
    client.on_connect, client.on_disconnect = on_connect, on_disconnect
    try:
        client.connect(settings.host, settings.effective_port)
    except ssl.SSLError as error:
        remedy = CLOCK_REMEDY if tls_cause(error) is Cause.DATES else "check mqtt.tls and mqtt.port"
        return Answer(welcome=False, reason=tls_reason(error), refused=True, remedy=remedy)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        return Answer(welcome=False, reason=(why or str(error) or type(error).__name__).lower())
    client.loop_start()
    try:
        return answers.get(timeout=_ANSWER_S)
    except queue.Empty:
        return Answer(welcome=False, reason="it does not answer")
    finally:
        client.disconnect()
        client.loop_stop()


def _client(settings: MqttSettings, user: str) -> Client:
    """With an id of the broker's choice: asking must not push a running service off its connection."""
    # Every broker speaks 3.1.1.
    protocol = MQTTProtocolVersion.MQTTv5 if settings.protocol == "5" else MQTTProtocolVersion.MQTTv311
    client = BoundedClient(COMMAND_LIMIT_BYTES, protocol=protocol, reconnect_on_failure=False)
    client.connect_timeout = _CONNECT_S
    if name := settings.username_for(user):
        client.username_pw_set(name, settings.plain_password)
    if settings.tls.enabled:
        client.tls_set_context(tls_context(settings.tls))
    return client
