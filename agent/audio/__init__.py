"""Where sound comes from: a microphone (`alsa`) or a recording (`wav`)."""

from typing import Protocol

from agent.audio.frames import AudioFrame


class Source(Protocol):
    """Delivers sound in frames of 512 samples at 16 kHz, mono.

    `read` is called from one thread only. `close` may be called from any thread, more than once; then a `read` under
    way returns within a second, and only sound that was captured before is still delivered.
    """

    live: bool
    """True where sound that is not fetched in time is lost (a microphone, or a file paced like one)."""

    def read(self, ready: int = 1) -> AudioFrame | None:
        """Wait for the next frame; None at the end (or after `close`). The last frame of a file is zero-padded.

        A live source may wait until `ready` frames are there: waking a thread costs more than handling a frame.

        Raises:
            DeviceUnavailable: the device is absent or was lost.
            SourceError: what it delivers is not usable.
        """

    def close(self) -> None:
        """Release the device or file; idempotent."""
