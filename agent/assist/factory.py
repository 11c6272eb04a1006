"""From settings to a server, if there is to be one."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from agent import extras
from agent.config import Settings
from agent.config.languages import AUTO
from agent.errors import ConfigError
from agent.models.languages import languages_of
from agent.stages import create_segmenter
from agent.transcriber import Transcriber
from agent.vad.factory import create_detector
from agent.wire import State
from agent.worker import Worker

if TYPE_CHECKING:
    from agent.assist.server import AssistServer


def open_assist(
    settings: Settings, transcriber: Transcriber, state: Callable[[], State], on_failure: Callable[[Worker], None]
) -> "AssistServer | None":
    """Serve Assist from now on, None if that is not wanted. `state` tells which model and language are in force.

    Raises:
        ConfigError: the extra is not installed, or the address cannot be listened on.
    """
    if not settings.assist.enabled:
        return None
    try:
        from agent.assist.conversation import Conversation, Offer  # noqa: PLC0415 - an extra
        from agent.assist.hearing import Hearing  # noqa: PLC0415
        from agent.assist.server import AssistServer  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"assist.enabled needs the package wyoming ({error}): {extras.missing('assist')}") from error

    def offer() -> Offer:
        now = state()
        codes = (now.language,) if now.language != AUTO else languages_of(now.model)
        return Offer(now.model, tuple(code for code in codes if code != AUTO))

    hearing = Hearing(lambda: create_detector(settings.vad), lambda: create_segmenter(settings), transcriber.probe)
    return AssistServer(settings.assist, lambda: Conversation(offer, hearing), on_failure)
