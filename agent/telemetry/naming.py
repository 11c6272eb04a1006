"""Names of the parts of the agent, for people."""

from agent.config.settings import AlsaSettings, AutoSettings, ScriptedSettings, Settings
from agent.telemetry.tcp import spelt


def source_name(settings: Settings) -> str:
    """Return the name of the source of sound."""
    source = settings.source
    return f"microphone {source.device}" if isinstance(source, AlsaSettings) else str(source.path)


def engine_name(settings: Settings) -> str:
    """Return the name of the engine, with its model if it has one."""
    engine = settings.engine
    return engine.kind if isinstance(engine, ScriptedSettings | AutoSettings) else f"{engine.kind} {engine.model}"


def broker_name(settings: Settings) -> str:
    """Return the address of the broker."""
    return spelt(settings.mqtt.host, settings.mqtt.effective_port)
