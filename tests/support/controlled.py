"""A device that commands control, without its stages."""

from typing import Any, cast

from agent.config.commanded import Applied
from agent.config.settings import Settings
from agent.messages.identity import describe
from agent.mqtt.command_handlers import ControlledDevice, DeviceIdentity
from agent.mqtt.commands import KINDS, Command, Later, Outcome


class Switch:
    """A microphone that can be opened and closed."""

    listening = True

    def on(self) -> None:
        """Open it."""
        self.listening = True

    def off(self) -> None:
        """Close it."""
        self.listening = False


def command(name: str, **arguments: object) -> Command:
    """A command by its name."""
    return KINDS[name].model_validate(arguments)


def controlled(settings: Settings, applied: Applied, **stages: Any) -> ControlledDevice:
    """One whose stages are as the test gives them; what it does not give does nothing."""

    def ignore(*_arguments: object) -> Any:
        return None

    parts = {
        "source": Switch(),
        "transcriber": None,
        "forget": lambda: 0,
        "load_engine": ignore,
        "apply": ignore,
        "tell": ignore,
        "calibrate": lambda: Later(lambda tell: tell(Outcome("measured"))),
        "restart": ignore,
    } | stages
    identity = DeviceIdentity("pi-1", describe(), "a recording")
    return ControlledDevice(identity, settings, applied, **cast("Any", parts))
