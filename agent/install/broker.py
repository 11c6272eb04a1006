"""Asks the broker whether it accepts the service, before any file is written."""

import queue
import ssl
from typing import Any, Final

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from agent.config.settings import MqttSettings
from agent.errors import SinkError
from agent.mqtt.connection import (
    CLOCK_REMEDY,
    COMMAND_LIMIT_BYTES,
    BoundedClient,
    Cause,
    tls_cause,
    tls_context,
    tls_reason,
)
from agent.telemetry.tcp import spelt

_CONNECT_S: Final = 5.0
_ANSWER_S: Final = 10.0


def ask(settings: MqttSettings, user: str) -> str:
    """Connect as the service will, and disconnect at once. Return why the broker is out of reach; empty if it is not.

    Raises:
        SinkError: the broker refuses the service.
        ConfigError: a certificate file cannot be used.
    """
    refuses = f"the broker {spelt(settings.host, settings.effective_port)} refuses us"
    refusals: queue.SimpleQueue[str] = queue.SimpleQueue()

    def on_connect(_client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        refusals.put(str(reason) if reason.is_failure else "")

    def on_disconnect(_client: Client, _data: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
        refusals.put("it hung up: does it want TLS, or a certificate?")

    client = _client(settings, user)
    client.on_connect, client.on_disconnect = on_connect, on_disconnect
    try:
        client.connect(settings.host, settings.effective_port)
    except ssl.SSLError as error:
        remedy = CLOCK_REMEDY if tls_cause(error) is Cause.DATES else "check mqtt.tls and mqtt.port"
        raise SinkError(f"{refuses} ({tls_reason(error)}): {remedy}") from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        return (why or str(error) or type(error).__name__).lower()
    client.loop_start()
    try:
        refusal = refusals.get(timeout=_ANSWER_S)
    except queue.Empty:
        return "it does not answer"
    finally:
        client.disconnect()
        client.loop_stop()
    if refusal:
        raise SinkError(f"{refuses} ({refusal}): see --username and --password-file")
    return ""


def _client(settings: MqttSettings, user: str) -> Client:
    # The broker chooses the client id: with the service's own id, it would disconnect a running service.
    # Every broker speaks 3.1.1.
    protocol = MQTTProtocolVersion.MQTTv5 if settings.protocol == "5" else MQTTProtocolVersion.MQTTv311
    client = BoundedClient(COMMAND_LIMIT_BYTES, protocol=protocol, reconnect_on_failure=False)
    client.connect_timeout = _CONNECT_S
    if name := settings.username_for(user):
        client.username_pw_set(name, settings.plain_password)
    if settings.tls.enabled:
        client.tls_set_context(tls_context(settings.tls))
    return client
