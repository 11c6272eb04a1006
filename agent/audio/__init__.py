"""Where sound comes from: a microphone (`alsa`) or a recording (`wav`)."""

from typing import Protocol

from agent.audio.frames import AudioFrame


class Source(Protocol):
    """Delivers sound in frames of 512 samples at 16 kHz, mono.

    `read` is called from one thread only, the capture thread, which does nothing else. `close` may be called from any
    thread, more than once; a `read` under way returns within a second, and no frame is delivered after that.
    """

    live: bool
    """True where sound that is not fetched in time is lost (a microphone, or a file paced like one)."""

    def read(self) -> AudioFrame | None:
        """Wait for the next frame; None at the end (or after `close`). The last frame of a file is zero-padded.

        Raises:
            DeviceUnavailable: the device is absent or was lost.
            SourceError: what it delivers is not usable.
        """

    def close(self) -> None:
        """Release the device or file; idempotent."""
