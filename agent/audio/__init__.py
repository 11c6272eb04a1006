"""Sources of sound: a microphone (`alsa`) or a recording (`wav`)."""

from typing import Protocol

from agent.audio.frames import AudioFrame


class Source(Protocol):
    """Delivers sound in frames of 512 samples at 16 kHz, mono.

    One thread calls `read`. Any thread may call `close`, more than once; then a `read` in progress returns within a
    second, and delivers only sound that was captured before.
    """

    live: bool
    """True if sound that is not read in time is lost (a microphone, or a file paced like one)."""

    def read(self, ready: int = 1) -> AudioFrame | None:
        """Wait for the next frame; None at the end (or after `close`). The last frame of a file is zero-padded.

        A live source may wait until `ready` frames are there: waking a thread costs more than handling a frame.

        Raises:
            DeviceUnavailable: the device is absent or was lost.
            SourceError: its sound is not usable.
        """

    def close(self) -> None:
        """Release the device or file; idempotent."""
