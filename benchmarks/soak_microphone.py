"""A microphone for the real libasound, on machines without sound: ALSA's `file` plug-in reading a FIFO."""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

_CHUNK_SAMPLES: Final = 320
"""20 ms, what one write holds and what the agent reads at a time."""
_RATE_HZ: Final = 16_000
_LATE_S: Final = 0.25
_CONFIGURATION: Final = """\
</usr/share/alsa/alsa.conf>
pcm.soak {{
    type file
    slave.pcm {{ type null }}
    file /dev/null
    infile {fifo}
    format raw
}}
"""


class Microphone:
    """A device called `soak`, in an ALSA configuration of its own."""

    settings = ("source.device=soak",)

    def __init__(self, folder: Path) -> None:
        fifo = folder / "microphone.fifo"
        os.mkfifo(fifo)
        configuration = folder / "asound.conf"
        configuration.write_text(_CONFIGURATION.format(fifo=fifo), encoding="utf-8")
        self.environment = {"ALSA_CONFIG_PATH": str(configuration)}
        # For reading as well, so that neither side waits for the other to open it; a microphone does not wait.
        self._fifo = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)

    def play_in_background(
        self, pcm: "np.ndarray[Any, np.dtype[np.int16]]", repetitions: int, then: Callable[[], None]
    ) -> None:
        """Play `pcm`, int16 at 16 kHz, so many times in real time, and call `then`."""
        threading.Thread(target=self._play, args=(pcm, repetitions, then), name="microphone", daemon=True).start()

    def _play(self, pcm: "np.ndarray[Any, np.dtype[np.int16]]", repetitions: int, then: Callable[[], None]) -> None:
        time.sleep(2.0)  # the agent is about to open it
        start_s, played = time.monotonic(), 0
        for _ in range(repetitions):
            for first in range(0, len(pcm) - _CHUNK_SAMPLES, _CHUNK_SAMPLES):
                played += _CHUNK_SAMPLES
                early_s = start_s + played / _RATE_HZ - time.monotonic()
                if early_s < -_LATE_S:  # this machine was too busy for us; no microphone makes up for lost time
                    start_s -= early_s
                time.sleep(max(0.0, early_s))
                with contextlib.suppress(BlockingIOError):
                    os.write(self._fifo, pcm[first : first + _CHUNK_SAMPLES].tobytes())
        time.sleep(2.0)
        then()
