"""A microphone for the real libasound, on machines without sound: ALSA's `file` plug-in reading a FIFO."""

import os
import time
from pathlib import Path
from typing import Final

from agent.audio import SAMPLE_RATE_HZ, Pcm16

CHUNK_SAMPLES: Final = 320
"""What one write holds, and what `AlsaPcm` reads at a time: the plug-in fills a read that comes back short with stale
samples, so that both sides have to move the same amounts."""

CONFIGURATION: Final = """\
</usr/share/alsa/alsa.conf>
pcm.virtual_microphone {{
    type file
    slave.pcm {{ type null }}
    file /dev/null
    infile {fifo}
    format raw
    hint {{ show on description "A microphone for tests" }}
}}
"""


class VirtualMicrophone:
    """A device called `virtual_microphone` in an ALSA configuration of its own.

    It delivers nothing until `play` is called, and nothing afterwards: like a card that hangs. After `unplug` reads do
    not fail, but return stale samples as fast as they are called: so the plug-in does at the end of a FIFO.
    """

    device = "virtual_microphone"

    def __init__(self, folder: Path) -> None:
        fifo = folder / "microphone.fifo"
        os.mkfifo(fifo)
        self.configuration = folder / "asound.conf"
        self.configuration.write_text(CONFIGURATION.format(fifo=fifo), encoding="utf-8")
        # For reading as well, so that neither side waits for the other in open(); never blocking, as no microphone
        # waits for somebody to listen.
        self._fifo: int | None = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)

    @property
    def environment(self) -> dict[str, str]:
        """What makes libasound see it."""
        return {"ALSA_CONFIG_PATH": str(self.configuration)}

    def play(self, pcm: Pcm16) -> None:
        """Let the device hear `pcm` (16 kHz), in real time; returns when it is over."""
        start_s = time.monotonic()
        for first in range(0, len(pcm) - len(pcm) % CHUNK_SAMPLES, CHUNK_SAMPLES):
            due_s = start_s + (first + CHUNK_SAMPLES) / SAMPLE_RATE_HZ
            time.sleep(max(0.0, due_s - time.monotonic()))
            self._write(pcm[first : first + CHUNK_SAMPLES].tobytes())

    def unplug(self) -> None:
        """End the FIFO; idempotent."""
        if self._fifo is not None:
            os.close(self._fifo)
            self._fifo = None

    def _write(self, data: bytes) -> None:
        if self._fifo is None:
            return
        try:
            os.write(self._fifo, data)
        except BlockingIOError:
            return  # nobody listens, and the FIFO is full
