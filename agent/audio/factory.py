"""From settings to a source."""

from agent.audio import Source
from agent.audio.reconnecting import MicrophoneEvents, ReconnectingSource
from agent.config.settings import AlsaSettings, SourceSettings, WavSettings


def create_source(settings: SourceSettings, events: MicrophoneEvents | None = None) -> Source:
    """Open the source that `settings` describe.

    Args:
        settings: A kind of source; what it needs is imported only now, as a recording needs no libasound.
        events: Who wants to know when a microphone goes, comes back, or loses sound.

    Raises:
        ConfigError: the kind needs a package that is not installed.
        DeviceUnavailable: there is no such microphone, and nobody wants to wait for it.
        SourceError: the file does not exist or is not audio.
    """
    match settings:
        case WavSettings():
            from agent.audio.wav import WavSource  # noqa: PLC0415 - see above

            return WavSource(settings)
        case AlsaSettings():
            return _microphone(settings, events or MicrophoneEvents())


def is_live(settings: SourceSettings) -> bool:
    """Whether the source loses sound that is not fetched in time, as far as that can be told before it is open."""
    return isinstance(settings, AlsaSettings) or settings.pace == "realtime"


def _microphone(settings: AlsaSettings, events: MicrophoneEvents) -> Source:
    from agent.audio.alsa import AlsaSource, Hanging  # noqa: PLC0415 - see above

    hanging = Hanging()

    def open_again() -> Source:
        return AlsaSource(settings, events.overrun, hanging)

    return ReconnectingSource(open_again, wait_at_start=settings.when_missing == "wait", events=events)
