"""A microphone that a real PulseAudio serves, which can be killed, stopped, and started again."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

import pytest

from tests.support.virtual_microphone import VirtualMicrophone

START_S: Final = 30.0
CONFIGURATION: Final = """\
</usr/share/alsa/alsa.conf>
pcm.pulse_microphone {{
    type pulse
    server "unix:{socket}"
    device "microphone"
}}
"""


class PulseMicrophone(VirtualMicrophone):
    """A device called `pulse_microphone`: ALSA's `pulse` plug-in, PulseAudio, and its pipe-source reading the FIFO.

    Killing the server is for libasound what pulling out a USB microphone is: the next read fails, and to open it again
    does, too, until the server is back. Stopping it makes both hang.
    """

    device = "pulse_microphone"

    def __init__(self, folder: Path) -> None:
        program = shutil.which("pulseaudio")
        if program is None:
            pytest.fail("pulseaudio is missing: apt install pulseaudio libasound2-plugins")
        super().__init__(folder)
        self._program = program
        # A folder of its own: the path of a socket has to be short.
        self._runtime = Path(tempfile.mkdtemp(prefix="edgescribe-pulse-"))
        self._socket = self._runtime / "socket"
        self.configuration.write_text(CONFIGURATION.format(socket=self._socket), encoding="utf-8")
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        self.unplug()
        self._path.unlink(missing_ok=True)  # it makes the FIFO itself
        modules = [
            f"module-native-protocol-unix auth-anonymous=1 socket={self._socket}",
            f"module-pipe-source source_name=microphone file={self._path} format=s16le rate=16000 channels=1",
        ]
        options = ["-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "--disable-shm=yes"]
        self._server = subprocess.Popen(
            [self._program, *options, *(part for module in modules for part in ("-L", module))],
            env={**os.environ, "HOME": str(self._runtime), "XDG_RUNTIME_DIR": str(self._runtime)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline_s = time.monotonic() + START_S
        while not (self._path.exists() and self._socket.exists()):
            if self._server.poll() is not None or time.monotonic() > deadline_s:
                pytest.fail("pulseaudio did not start")
            time.sleep(0.01)
        self.plug()

    def signal(self, number: signal.Signals) -> None:
        """Send the server a signal, such as SIGSTOP."""
        assert self._server is not None
        self._server.send_signal(number)

    def kill(self) -> None:
        """End the server as a crash would; idempotent."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None
            self._socket.unlink(missing_ok=True)

    def remove(self) -> None:
        """Leave nothing behind."""
        self.kill()
        self.unplug()
        shutil.rmtree(self._runtime, ignore_errors=True)
