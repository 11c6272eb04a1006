"""What the parts of the agent are called, in what people read."""

from agent.config.settings import AlsaSettings, AutoSettings, ScriptedSettings, Settings
from agent.telemetry.tcp import spelt


def source_name(settings: Settings) -> str:
    """Where the sound comes from."""
    source = settings.source
    return f"microphone {source.device}" if isinstance(source, AlsaSettings) else str(source.path)


def engine_name(settings: Settings) -> str:
    """The engine, with its model where it has one."""
    engine = settings.engine
    return engine.kind if isinstance(engine, ScriptedSettings | AutoSettings) else f"{engine.kind} {engine.model}"


def broker_name(settings: Settings) -> str:
    """Where the broker is."""
    return spelt(settings.mqtt.host, settings.mqtt.effective_port)
