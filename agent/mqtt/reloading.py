"""SIGHUP: the settings are read anew, and what can be applied is, while sound goes on being captured."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from agent import log as logs
from agent.asr import Engine
from agent.asr.transcriber import Transcriber
from agent.config.reload import Reload, plan_reload
from agent.config.settings import Settings
from agent.errors import AgentError
from agent.systemd import Notifier

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reloadable:
    """What a reload reaches."""

    changing: AbstractContextManager[object]
    """Held from reading what is in force until the new settings are: commands change it as well."""
    current: Callable[[], Settings]
    """What is in force."""
    wanted: Callable[[], Settings]
    """Reads the settings anew; raises ConfigError."""
    load_engine: Callable[[Settings], Engine]
    """Raises ModelError or EngineError."""
    transcriber: Transcriber
    in_force: Callable[[Reload], None]
    """Told when the engine has been exchanged, to see to the rest: thresholds, intervals, what subscribers are told."""


class Reloader:
    """Compares, applies, and says what it could not. `run` is the work of the thread `reload`, one at a time.

    Whatever is wrong with the new settings leaves the old ones in force.
    """

    def __init__(self, notifier: Notifier, parts: Reloadable) -> None:
        self._notifier = notifier
        self._parts = parts

    def run(self) -> None:
        """Reload once. systemd is told when it begins and when it is over."""
        self._notifier.reloading()
        status = "reloaded"
        try:
            with self._parts.changing:
                reload = self._reload()
            log.info(f"reloaded: {reload}")
        except AgentError as error:
            status = "not reloaded: the settings are wrong, see the log"
            log.error(f"not reloaded, what was in force stays so: {error}")  # noqa: TRY400 - a sentence, no traceback
        finally:
            self._notifier.ready(status)

    def _reload(self) -> Reload:
        reload = plan_reload(self._parts.current(), self._parts.wanted())
        if reload.engine:
            self._parts.transcriber.exchange(self._parts.load_engine(reload.settings))
        logs.set_level(reload.settings.log.level)
        self._parts.in_force(reload)
        return reload
