"""A microphone for the real libasound, on machines without sound: ALSA's `file` plug-in reading a FIFO."""

import fcntl
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from tests.support.clips import SAMPLE_RATE_HZ

CHUNKS_PER_S: Final = 50
"""What one write holds, and what `AlsaPcm` reads at a time: the plug-in fills a read that comes back short with stale
samples, so that both sides have to move the same amounts."""

LATE_S: Final = 0.25

MICROPHONE: Final = """\
pcm.virtual_microphone {{
    type file
    slave.pcm {{ type null }}
    file /dev/null
    infile {fifo}
    format raw
    hint {{ show on description "A microphone for tests" }}
}}
"""
CONFIGURATION: Final = f"""\
</usr/share/alsa/alsa.conf>
{MICROPHONE}
pcm.array {{{{ type plug slave {{{{ pcm virtual_microphone rate 48000 channels 4 format S16_LE }}}} }}}}
pcm.floating {{{{ type lfloat slave {{{{ pcm virtual_microphone format S16_LE }}}} }}}}
"""

Sound = NDArray[Any]
"""Samples of any format: shape (n,), or (n, channels)."""


class VirtualMicrophone:
    """A device called `virtual_microphone` in an ALSA configuration of its own.

    It delivers nothing until `play` is called, and nothing afterwards: like a card that hangs. After `unplug` reads do
    not fail, but return stale samples as fast as they are called: so the plug-in does at the end of a FIFO.

    The same one is also `array`, which knows but one way, 48 kHz and four channels; and `floating`, which delivers
    nothing but floating point.
    """

    device = "virtual_microphone"

    def __init__(self, folder: Path) -> None:
        self._path = folder / "microphone.fifo"
        os.mkfifo(self._path)
        self.configuration = folder / "asound.conf"
        self.configuration.write_text(CONFIGURATION.format(fifo=self._path), encoding="utf-8")
        self._fifo: int | None = None
        self._changing = threading.Lock()
        self.plug()

    @property
    def environment(self) -> dict[str, str]:
        """What makes libasound see it."""
        return {"ALSA_CONFIG_PATH": str(self.configuration)}

    def play(self, pcm: Sound, rate_hz: int = SAMPLE_RATE_HZ) -> None:
        """Let the device hear `pcm`, in real time; returns when it is over."""
        start_s, chunk = time.monotonic(), rate_hz // CHUNKS_PER_S
        for first in range(0, len(pcm) - len(pcm) % chunk, chunk):
            early_s = start_s + (first + chunk) / rate_hz - time.monotonic()
            if early_s < -LATE_S:  # this machine was too busy for us; no microphone makes up for lost time
                start_s -= early_s
            time.sleep(max(0.0, early_s))
            self._write(pcm[first : first + chunk].tobytes())

    def plug(self) -> None:
        """Be there (again)."""
        self.unplug()
        # For reading as well, so that neither side waits for the other in open(); never blocking, as no microphone
        # waits for somebody to listen.
        self._fifo = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)

    def hold(self, size_bytes: int) -> None:
        """Keep at most so much for who is late."""
        assert self._fifo is not None
        fcntl.fcntl(self._fifo, fcntl.F_SETPIPE_SZ, size_bytes)

    def unplug(self) -> None:
        """End the FIFO; idempotent."""
        with self._changing:
            if self._fifo is not None:
                os.close(self._fifo)
                self._fifo = None

    def _write(self, data: bytes) -> None:
        with self._changing, suppress(BlockingIOError):  # nobody listens, and the FIFO is full
            if self._fifo is not None:
                os.write(self._fifo, data)


class Speaker:
    """Somebody who says the same into a microphone over and over, until told otherwise."""

    def __init__(self, microphone: VirtualMicrophone, pcm: Sound) -> None:
        self.pcm = pcm
        """May be replaced at any time; what is being said is said to its end."""
        self._microphone = microphone
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._speak, name="speaker")
        self._thread.start()

    def _speak(self) -> None:
        while not self._over.is_set():
            self._microphone.play(self.pcm)

    def stop(self) -> None:
        """Fall silent; idempotent."""
        self._over.set()
        self._thread.join()
