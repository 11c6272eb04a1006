"""The agent's side of `edgescribe top`: a sink that remembers the last messages, and sends snapshots to viewers."""

import json
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from agent import __version__
from agent.asr.transcriber import Transcriber
from agent.audio.frames import FULL_SCALE, SILENCE_DBFS, AudioFrame, Pcm16, rms_dbfs
from agent.config.layers import state_dir
from agent.config.settings import Settings
from agent.messages import Message, PartialTranscript, State, TranscriptMessage, Vad
from agent.messages.telemetry import TelemetryMessage
from agent.mqtt.publisher import Publisher
from agent.segmenter import Listener
from agent.telemetry.naming import source_name
from agent.terminal.local_socket import SnapshotServer, own_path
from agent.worker import Worker

log = logging.getLogger(__name__)

TELEMETRY_EVERY_S: Final = 1.0
_LAST: Final = {"text", "verdict", "duration_s", "rtf", "latency_ms"}
"""Fields of the last transcript in a snapshot."""
_METER_FRAMES: Final = 64
"""Two seconds of sound, much more than between two snapshots."""


@dataclass(frozen=True, slots=True)
class Recent:
    """The last published messages. Instants are monotonic seconds.

    With `publish.privacy` other than `full` no text is published, so none is remembered. Muting forgets all text.
    """

    state: State | None = None
    speaking_since_s: float | None = None
    partial: str | None = None
    """Words so far of the present utterance."""
    transcript: TranscriptMessage | None = None
    said_s: float = 0.0
    """When the transcript was published."""

    def after(self, message: Message, now_s: float) -> "Recent":
        """Return the memory after one more message."""
        match message:
            case State():
                return replace(self if message.listening else Recent(), state=message)
            case Vad(state="OFF"):
                return replace(self, speaking_since_s=None)
            case Vad() if self.speaking_since_s is None:  # ON is repeated while speech lasts
                return replace(self, speaking_since_s=now_s, partial=None)
            case PartialTranscript():
                return replace(self, partial=message.text)
            case TranscriptMessage():
                return replace(self, transcript=message, said_s=now_s, partial=None)
            case _:
                return self


class LevelMeter:
    """`hear` is called from the listen thread, for every frame while there are viewers; `take` from any other."""

    def __init__(self) -> None:
        self._heard: deque[tuple[Pcm16, float]] = deque(maxlen=_METER_FRAMES)

    def hear(self, frame: AudioFrame, speech_prob: float) -> None:
        """Take in a frame, and the detector's probability of speech."""
        self._heard.append((frame.pcm, speech_prob))

    def take(self) -> dict[str, float]:
        """Return `rms_dbfs`, `peak_dbfs` and `speech_prob` since the last call; empty if there was no sound.

        `speech_prob` is the highest of the frames, in [0, 1].
        """
        heard = [self._heard.popleft() for _ in range(len(self._heard))]
        if not heard:
            return {}
        pcm = np.concatenate([samples for samples, _ in heard])
        peak = int(np.abs(pcm.astype(np.int32)).max())
        return {
            "rms_dbfs": round(rms_dbfs(pcm), 1),
            "peak_dbfs": round(20.0 * math.log10(peak / FULL_SCALE), 1) if peak else SILENCE_DBFS,
            "speech_prob": round(max(speech_prob for _, speech_prob in heard), 3),
        }


class TopSink:
    """Receives every published message, as other sinks do, and keeps the last of them for viewers.

    That costs one reference a message. It measures levels and looks at the machine only while there are viewers.
    Without a socket (the folder cannot be written, or another agent listens there) it logs that once, and is idle.
    """

    def __init__(
        self,
        settings: Settings,
        device_id: str,
        *,
        listener: Listener,
        transcriber: Transcriber,
        publisher: Publisher,
        survey: Callable[[], TelemetryMessage],
        on_failure: Callable[[Worker], None],
    ) -> None:
        self._settings, self._device_id = settings, device_id
        self._listener, self._transcriber, self._publisher = listener, transcriber, publisher
        self._survey = survey
        self._telemetry: dict[str, Any] | None = None
        self._surveyed_s = 0.0
        self._lock = threading.Lock()
        self._recent = Recent()
        self._meter = LevelMeter()
        self._server: SnapshotServer | None = None
        path = own_path(state_dir(settings), os.environ)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._server = SnapshotServer(path, self._line, self._watched, on_failure)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            log.warning(f"top: no socket at {path} ({reason}): `edgescribe top` cannot connect")

    def send(self, message: Message) -> None:
        """Remember the last of each kind; any thread may call it."""
        with self._lock:
            self._recent = self._recent.after(message, time.monotonic())

    def close(self, timeout_s: float) -> int:  # noqa: ARG002 - no message waits for a viewer
        """Disconnect the viewers; return the number of lost messages, which is 0."""
        if self._server and not self._server.close():
            log.warning("top: its thread did not end")
        return 0

    # Called from the thread `top`.

    def _watched(self, watched: bool) -> None:  # noqa: FBT001 - the callback's whole content
        self._listener.observer = self._meter.hear if watched else None
        self._meter.take()

    def _line(self) -> bytes:
        """Return this moment as a line of JSON, without unknown values."""
        now_s, recent = time.monotonic(), self._recent
        state, said, under_way = recent.state, recent.transcript, self._transcriber.under_way
        if self._telemetry is None or now_s - self._surveyed_s >= TELEMETRY_EVERY_S:
            self._telemetry, self._surveyed_s = self._survey().model_dump(mode="json", exclude_none=True), now_s
        sound = self._meter.take()
        if (floor_dbfs := self._listener.noise_floor_dbfs) is not None:
            sound["noise_floor_dbfs"] = round(floor_dbfs, 1)
        moment = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "device": self._device_id,
            "agent": __version__,
            "source": source_name(self._settings),
            "engine": state.engine if state else self._settings.engine.kind,
            "model": state.model if state else self._settings.engine.kind,
            "language": state.language if state else "",
            "listening": state.listening if state else True,
            "shows_text": self._publisher.policy.publishes_text,
            "sound": sound,
            "speaking_s": None if recent.speaking_since_s is None else round(now_s - recent.speaking_since_s, 1),
            "partial": recent.partial,
            "under_way": under_way
            and {"duration_s": under_way.duration_s, "since_s": round(now_s - under_way.since_s, 2)},
            "last": said and {"ago_s": round(now_s - recent.said_s, 1), **said.model_dump(include=_LAST)},
            "governor": state.governor.model_dump(exclude_none=True) if state and state.governor else None,
            "health": self._publisher.problems,
            "telemetry": self._telemetry,
        }
        known = {name: value for name, value in moment.items() if value is not None}
        return json.dumps(known, ensure_ascii=False).encode() + b"\n"
