"""wyoming-faster-whisper over its socket, as Home Assistant talks to it."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Mapping

from wyoming_faster_whisper import __version__ as _installed  # noqa: F401 - says early whether it is there

from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16
from agent.bench.adapters import Setup
from agent.bench.lifeline import tied
from agent.bench.wire_format import Heard, PeerError

_START_LIMIT_S = 180.0
_ANSWER_LIMIT_S = 1_800.0
_CHUNK_SAMPLES = 1_024
_FORMAT = {"rate": SAMPLE_RATE_HZ, "width": 2, "channels": 1}


class WyomingClient:
    """One conversation at a time, a connection each, as Home Assistant does it."""

    def __init__(self, port: int) -> None:
        self._port = port

    def connect(self, language: str | None) -> None:
        """Open a connection and announce sound."""
        self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=_ANSWER_LIMIT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rwb")
        self._send("transcribe", {"language": language} if language else {})
        self._send("audio-start", _FORMAT)

    def feed(self, pcm: Pcm16) -> None:
        """Send some sound."""
        self._send("audio-chunk", _FORMAT, pcm.astype("<i2").tobytes())

    def finish(self) -> str:
        """Say that the sound is over; wait for the words."""
        self._send("audio-stop", {})
        while line := self._stream.readline():
            event = json.loads(line)
            data = event.get("data") or {}
            if length := event.get("data_length"):
                data |= json.loads(self._stream.read(length))
            self._stream.read(event.get("payload_length") or 0)
            if event["type"] == "transcript":
                self._socket.close()
                return str(data.get("text", "")).strip()
        raise PeerError("wyoming-faster-whisper closed the connection without a transcript")

    def _send(self, kind: str, data: Mapping[str, object], payload: bytes = b"") -> None:
        header: dict[str, object] = {"type": kind, "data": data}
        if payload:
            header["payload_length"] = len(payload)
        self._stream.write(json.dumps(header).encode() + b"\n" + payload)
        self._stream.flush()


class _WyomingFasterWhisper:
    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._language: str | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._server = subprocess.Popen(tied(self._command(port)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.client = WyomingClient(port)
        self._await(port)

    def prepare(self, language: str) -> None:
        self._language = self._setup.language(language)

    def transcribe(self, pcm: Pcm16) -> Heard:
        self.client.connect(self._language)
        for start in range(0, len(pcm), _CHUNK_SAMPLES):
            self.client.feed(pcm[start : start + _CHUNK_SAMPLES])
        stopped_s = time.perf_counter()
        text = self.client.finish()
        return Heard(text, after_sound_s=time.perf_counter() - stopped_s)

    def close(self) -> None:
        self._server.terminate()
        self._server.wait()

    def _command(self, port: int) -> list[str]:
        command = [sys.executable, "-m", "wyoming_faster_whisper", "--uri", f"tcp://127.0.0.1:{port}"]
        command += ["--model", str(self._setup.model_path), "--data-dir", str(self._setup.model_path.parent)]
        command += ["--cpu-threads", str(self._setup.number("threads", 1)), "--local-files-only"]
        command += ["--compute-type", self._setup.options.get("compute_type", "int8")]
        command += ["--beam-size", str(self._setup.number("beam", 0))]  # 0: it chooses, 1 on ARM and 5 elsewhere
        return command + (["--vad-filter"] if self._setup.flag("vad_filter") else [])

    def _await(self, port: int) -> None:
        deadline = time.monotonic() + _START_LIMIT_S
        while time.monotonic() < deadline and self._server.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise PeerError(f"wyoming-faster-whisper did not start with {self._setup.model_path}")


create = _WyomingFasterWhisper
